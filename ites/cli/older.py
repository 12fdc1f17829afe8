"""Earlier spellings of `ites train`, such as `ites train both`; they print today's."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Sequence

import typer

from ites.cli.options import say
from ites.errors import ItesError
from ites.runs.settings import FORMER_NAMES, STAGES

TODAY = (
    "data", "out", "recipe", "steps", "seed", "device", "precision", "missing", "config", "resume",
)  # fmt: skip
"""Options that are spelled as before."""


def add_older_spellings(app: typer.Typer) -> None:
    """Add the hidden commands `both`, `prior`, `teacher` and `student` to `ites train`."""
    for name in ("both", *STAGES):
        only = "" if name == "both" else f" --only {name}"
        app.command(
            name,
            hidden=True,
            help=f"Older spelling of `ites train{only}`.\n\n"
            f"Example: ites train {name} --data cmu.h5 --out runs/cmu",
            context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
        )(_older(name))


def _older(name: str) -> Callable[..., None]:
    """The command of an older spelling: `both`, or the name of a stage."""

    def command(ctx: typer.Context) -> None:
        arguments = _translated(name, ctx.args)
        if os.environ.get("RANK", "0") == "0":
            say(f"ites train {name} is now: ites train {shlex.join(arguments)}")
        group = ctx.find_root().command if ctx.parent is None else ctx.parent.command
        with group.make_context("train", arguments, parent=ctx.parent) as today:
            group.invoke(today)

    return command


def _translated(name: str, arguments: Sequence[str]) -> list[str]:
    """The arguments of an older spelling in today's.

    Options such as `--teacher-atoms 30` become `--set teacher.atoms=30`.
    """
    translated = [] if name == "both" else ["--only", name]
    left = list(arguments)
    while left:
        option, equals, value = left.pop(0).partition("=")
        if not option.startswith("--"):
            raise ItesError(f"train: expected an option such as --data, got '{option}'")
        if not equals:
            if not left:
                raise ItesError(f"train: {option}: expected a value, got none")
            value = left.pop(0)
        setting = option[2:].replace("-", "_")
        if setting in TODAY:
            translated += [option, value]
            continue
        stage, _, rest = setting.partition("_")
        if name != "both":
            stage, rest = name, setting
        elif stage not in STAGES or FORMER_NAMES.get(rest, rest) not in STAGES[stage].names():
            stage, rest = "", setting
        translated += ["--set", f"{stage}.{rest}={value}" if stage else f"{rest}={value}"]
    return translated
