"""Commands that judge, show and compare what a run gave."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ites.cli.options import Device, Split, Stage, say


def evaluate(
    run: Annotated[Path, typer.Argument(help="Run folder or checkpoint.")],
    data: Annotated[Path, typer.Option(help="Pose store with 3D.")],
    stage: Stage = None,
    split: Split = "test",
    scale: Annotated[
        Literal["checkpoint", "split"],
        typer.Option(help="Scale of the input: the training's, or the split's own (the paper's)."),
    ] = "checkpoint",
    unit: Annotated[float, typer.Option(help="Metres per network unit, for MPJPE.")] = 1.0,
    missing: Annotated[
        Literal["error", "drop", "interpolate"] | None,
        typer.Option(help="How to treat a pose that lacks a joint; as in training by default."),
    ] = None,
    device: Device = None,
) -> None:
    """Evaluate a run against 3D truth, by the usual protocols and the paper's.

    Example: ites evaluate runs/cmu --data cmu.h5
    """
    from ites.evaluation.evaluate import NoTruthError
    from ites.evaluation.evaluate import evaluate as run_evaluation
    from ites.system.ranks import Ranks

    try:
        evaluation = run_evaluation(
            run,
            data,
            stage=stage,
            split=split,
            scale=scale,
            unit=unit,
            missing=missing,
            device=device or "auto",
        )
    except NoTruthError as error:
        say(f"{error}")
        return
    if Ranks.here().is_main:
        evaluation.show()


def view(
    path: Annotated[Path, typer.Argument(help="What ites lift wrote, or a pose store.")],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="HTML file.")] = None,
    gif: Annotated[Path | None, typer.Option(help="Film of the first clip.")] = None,
    mp4: Annotated[Path | None, typer.Option(help="Film of the first clip.")] = None,
    png: Annotated[Path | None, typer.Option(help="Strip of its frames.")] = None,
    clip: Annotated[str | None, typer.Option(help="Only clips whose names contain this.")] = None,
    split: Annotated[
        str | None,
        typer.Option(help="Split of a pose store; by default test if present, else all."),
    ] = None,
    before: Annotated[
        Path | None, typer.Option(help="Another lift of the same clips, to show beside this one.")
    ] = None,
    max_clips: Annotated[
        int | None, typer.Option(help="Maximum number of clips on the page.")
    ] = None,
    max_frames: Annotated[
        int | None, typer.Option(help="Maximum number of frames per clip.")
    ] = None,
) -> None:
    """Make an offline page that plays the poses, 2D beside 3D, in any browser.

    Example: ites view clip3d.npz --png clip.png
    """
    from ites.show.view import view as run_view

    given = {"max_clips": max_clips, "max_frames": max_frames}
    summary = run_view(
        path,
        out,
        gif=gif,
        mp4=mp4,
        png=png,
        clip=clip,
        split=split,
        before=before,
        **{name: value for name, value in given.items() if value is not None},
    )
    for line in [*summary["notes"], *summary["files"]]:
        say(line)


def report(
    run: Annotated[Path, typer.Argument(help="Run folder.")],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="HTML file.")] = None,
) -> None:
    """Make one page that reports on a run: settings, losses, evaluation, versions.

    Example: ites report runs/cmu
    """
    from ites.show.report import write_report

    out = out or run / "report.html"
    write_report(run, out)
    say(str(out))


def convert(
    source: Annotated[Path, typer.Argument(help="Checkpoint of the released program, or an npz.")],
    scale: Annotated[
        float, typer.Option(help="Scale of the input on the split it was trained on.")
    ],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="safetensors file to write.")
    ] = None,
) -> None:
    """Convert a checkpoint of the released program.

    Example: ites convert teacher.pth --scale 0.86 -o teacher.safetensors
    """
    from ites.released.convert import convert as run_convert

    out = out or source.with_suffix(".safetensors")
    model = run_convert(source, out, scale)
    sizes = ", ".join(f"{name} {value:g}" for name, value in model.sizes().items())
    say(f"{out}: {model.kind}, {sizes}")


def conformance(
    files: Annotated[list[Path], typer.Argument(help="Golden npz files.")],
    dtype: Annotated[Literal["float32", "float64"], typer.Option(help="Precision.")] = "float32",
    backend: Annotated[
        str | None, typer.Option(help="reference, cpp, cuda or triton; the fastest by default.")
    ] = None,
) -> None:
    """Compare with reference outputs of the released program.

    Example: ites conformance golden/*.npz --dtype float64 --backend cpp
    """
    import torch

    from ites.released.conformance import check_file

    passed = tied = failed = 0
    for file in files:
        table = Table(
            title=f"{file.name}, {dtype}, backend {backend or 'default'}", title_justify="left"
        )
        for heading in ("group", "tensors", "worst", "largest error", "bound", ""):
            right = heading in ("tensors", "largest error", "bound")
            table.add_column(heading, justify="right" if right else "left")
        for check in check_file(file, getattr(torch, dtype), backend):
            passed, tied = passed + check.passed, tied + check.tied
            failed += not check.passed and not check.tied
            outcome = f"tie {check.tie:.0e}" if check.tied else Text("FAILED", "bold red")
            table.add_row(
                check.group,
                str(check.tensors),
                check.worst,
                f"{check.error:.1e}",
                f"{check.bound:.0e}",
                "passed" if check.passed else outcome,
            )
        Console(width=None if sys.stdout.isatty() else 110).print(table)
    if tied:
        say(
            f"{tied} tied: max pooling chose between two joints whose features differ by less than "
            "float32 rounds; float64 passes there"
        )
    say(f"{passed} passed, {failed} failed")
    if failed:
        raise typer.Exit(1)
