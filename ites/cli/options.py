"""Options that several commands share, and how a command prints a line."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

Device = Annotated[
    str | None, typer.Option(help='"cpu", "cuda", ...; a GPU where there is one by default.')
]
Layout = Annotated[
    str | None,
    typer.Option(
        help="Joint order: human36m, coco17, coco18, body25, body25b, halpe26, halpe136, "
        "wholebody133, mediapipe33, mpii16, mpi3dhp17 or mpi3dhp28; told by the format by default."
    ),
]
MinConfidence = Annotated[
    float | None,
    typer.Option(help="Joints below count as missing; the detector's default otherwise."),
]
FlipY = Annotated[bool, typer.Option("--flip-y", help="The keypoints' y points up: turn it about.")]
Rotate = Annotated[
    int,
    typer.Option(help="Turn the image clockwise by 90, 180 or 270 degrees, as a sideways video's."),
]
SwapSides = Annotated[
    bool, typer.Option("--swap-sides", help="Exchange left and right throughout.")
]
Person = Annotated[
    str | None,
    typer.Option(help="Track id or number of the only person to read; everybody by default."),
]
Split = Annotated[str, typer.Option(help="Split of the store.")]
Stage = Annotated[
    Literal["teacher", "student"] | None,
    typer.Option(help="Which model of the run; the student, or else the teacher, by default."),
]


def say(line: str = "") -> None:
    """Print a line as it is."""
    typer.echo(line)
