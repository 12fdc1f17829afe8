"""The command `ites`: its groups of commands, and how it reports a mistake."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import typer
from typer.core import TyperGroup

from ites import __version__
from ites.cli import doctor, errors, export, inspect, lift, prepare, results, train, workflows
from ites.cli.options import say

FIRST = ("demo", "fit", "prepare", "train")


class _InOrder(TyperGroup):
    """Lists the commands in the order in which they are used."""

    def list_commands(self, ctx: typer.Context) -> list[str]:  # type: ignore[override]
        others = [name for name in super().list_commands(ctx) if name not in FIRST]
        return [*FIRST, *others]


app = typer.Typer(
    name="ites",
    cls=_InOrder,
    help="3D human pose from 2D keypoints alone: prepare, train, evaluate, lift, view.\n\n"
    "Start with: ites demo",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
prepare_app = typer.Typer(
    help="Make a pose store from motion capture, a data set or your own keypoints.",
    no_args_is_help=True,
)

app.command()(workflows.demo)
app.add_typer(prepare_app, name="prepare")
app.add_typer(train.app, name="train")
PREPARE: tuple[Callable[..., None], ...] = (
    prepare.cmu,
    prepare.synthetic,
    prepare.field,
    prepare.h36m,
    prepare.keypoints,
)
COMMANDS: tuple[Callable[..., None], ...] = (
    workflows.fit,
    inspect.inspect,
    results.evaluate,
    lift.lift,
    results.view,
    export.export,
    results.report,
    results.convert,
    results.conformance,
    doctor.doctor,
)
for command in PREPARE:
    prepare_app.command()(command)
prepare_app.command("3dhp")(prepare.mpi_inf_3dhp)
for command in COMMANDS:
    app.command()(command)


def _version(wanted: bool) -> None:
    if wanted:
        say(f"ites {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_version, is_eager=True, help="Print the version and stop."
        ),
    ] = False,
) -> None:
    pass


def main(args: list[str] | None = None) -> None:
    """Run the command line and leave the process; see `ites.cli.errors.run`."""
    errors.run(app, args)
