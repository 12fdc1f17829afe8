"""Options that several commands share, and how a command prints a line."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

Device = Annotated[
    str | None, typer.Option(help='"cpu", "cuda", ...; a GPU where there is one by default.')
]
Split = Annotated[str, typer.Option(help="Split of the store.")]
Stage = Annotated[
    Literal["teacher", "student"] | None,
    typer.Option(help="Which model of the run; the student, or else the teacher, by default."),
]


def say(line: str = "") -> None:
    """Print a line as it is."""
    typer.echo(line)
