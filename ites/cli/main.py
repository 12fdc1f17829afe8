"""The command `ites`: each command is a thin function over a module of the same name."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text
from typer.core import TyperGroup

from ites import __version__
from ites.cli import errors

FIRST = ("demo", "prepare", "train")


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
prepare = typer.Typer(
    help="Make a pose store from motion capture, a data set or your own keypoints.",
    no_args_is_help=True,
)
app.add_typer(prepare, name="prepare")

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


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder to write.")] = Path("demo"),
    seed: Annotated[int, typer.Option(help="Of the data and the training.")] = 0,
    device: Device = None,
) -> None:
    """See the whole method work on synthetic motion, in minutes, without a download.

    Example: ites demo --out demo
    """
    from ites.workflows.demo import demo as run

    run(out, seed=seed, device=device, say=say)


SHOWN = 20
"""Subjects named of a split."""


def _summary(out: Path, summary: dict[str, Any]) -> None:
    say(f"{out}: {summary['title']}")
    incomplete = 0
    for split, found in summary["splits"].items():
        subjects, incomplete = found["subjects"], incomplete + found["incomplete"]
        lacking = f" ({found['incomplete']:,} lack a joint)" if found["incomplete"] else ""
        shown = " ".join([*subjects[:SHOWN], *(["..."] if len(subjects) > SHOWN else [])])
        say(
            f"  {split}: poses {found['poses']:,}{lacking}, sequences {found['sequences']:,}, "
            f"subjects {len(subjects)} ({shown})"
        )
    truth = "with 3D, for evaluation" if summary["positions"] else "2D alone: enough to train"
    confidence = ", confidences" if summary["confidence"] else ""
    cameras = f"cameras {summary['cameras']}"
    say(f"  skeleton {summary['skeleton']}, {cameras}{confidence}, {truth}")
    if summary["acknowledgement"]:
        say(f"  {summary['acknowledgement']}")
    missing = " --missing interpolate" if incomplete else ""
    say(f"next: ites train both --data {out} --out runs/{out.stem}{missing}")


@prepare.command()
def cmu(
    source: Annotated[
        Path, typer.Argument(help="HDF5 file of CMU motion, or a folder of .asf/.amc or .bvh.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Store to write.")] = Path("cmu.h5"),
    train_rate: Annotated[float, typer.Option(help="Frames a second for training.")] = 12.5,
    test_rate: Annotated[float, typer.Option(help="Frames a second for testing.")] = 5.0,
    radius: Annotated[
        float, typer.Option(help="Metres from the clip's middle beyond which frames are dropped.")
    ] = 1.5,
    fps: Annotated[float, typer.Option(help="Frames a second of .amc files.")] = 120.0,
) -> None:
    """CMU motion capture, seen by Human3.6M's cameras.

    Example: ites prepare cmu cmu_h36m17.h5 --out cmu.h5
    """
    from ites.data.datasets.cmu import prepare_cmu

    _summary(
        out,
        prepare_cmu(
            source, out, train_rate=train_rate, test_rate=test_rate, radius=radius, fps=fps
        ),
    )


@prepare.command()
def synthetic(
    out: Annotated[Path, typer.Option("--out", "-o", help="Store to write.")] = Path(
        "synthetic.h5"
    ),
    poses: Annotated[int, typer.Option(help="Poses, each camera's view counted.")] = 1_560_000,
    seed: Annotated[int, typer.Option(help="Of everything that is drawn.")] = 0,
    subjects: Annotated[int, typer.Option(help="People of the training split.")] = 20,
    test_subjects: Annotated[int, typer.Option(help="People of the test split.")] = 5,
    fps: Annotated[float, typer.Option(help="Frames a second.")] = 50.0,
    seconds: Annotated[float, typer.Option(help="Longest sequence.")] = 12.0,
    rig: Annotated[
        Literal["human36m", "ring"], typer.Option(help="Human3.6M's cameras, or an ideal ring.")
    ] = "human36m",
    cameras: Annotated[int, typer.Option(help="Cameras of the ring.")] = 4,
    elevation: Annotated[float, typer.Option(help="Degrees at which the ring looks down.")] = 10.0,
    noise_px: Annotated[float, typer.Option(help="Keypoint noise, pixels.")] = 0.0,
    drop: Annotated[float, typer.Option(help="Chance that a joint is missing.")] = 0.0,
) -> None:
    """Synthetic human motion of any length.

    Example: ites prepare synthetic --poses 200000 --out synthetic.h5
    """
    from ites.data.synthetic.synthetic import prepare_synthetic

    _summary(
        out,
        prepare_synthetic(
            out,
            poses=poses,
            seed=seed,
            subjects=subjects,
            test_subjects=test_subjects,
            fps=fps,
            seconds=seconds,
            rig=rig,
            cameras=cameras,
            elevation=elevation,
            noise_px=noise_px,
            drop=drop,
        ),
    )


@prepare.command()
def h36m(
    source: Annotated[
        Path,
        typer.Argument(help="Folder of CDF or HDF5 files, h36m.zip, or a VideoPose3D .npz."),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Store to write.")] = Path("h36m.h5"),
    keypoints: Annotated[
        Path | None, typer.Option(help="VideoPose3D's .npz of 2D ground truth or detections.")
    ] = None,
    every: Annotated[int, typer.Option(help="Take every n-th frame of 50 a second.")] = 1,
) -> None:
    """Human3.6M, from any of its three usual sources.

    Example: ites prepare h36m data_3d_h36m.npz --out h36m.h5
    """
    from ites.data.datasets.h36m import prepare_h36m

    _summary(out, prepare_h36m(source, out, keypoints=keypoints, every=every))


@prepare.command()
def keypoints(
    sources: Annotated[
        list[Path], typer.Argument(help=".npz, .npy or .json files, one clip each; or folders.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Store to write.")] = Path(
        "keypoints.h5"
    ),
    layout: Annotated[
        str | None, typer.Option(help="Joint order: human36m, coco17 or mpi3dhp17.")
    ] = None,
    split: Split = "train",
    fps: Annotated[float | None, typer.Option(help="Frames a second.")] = None,
    focal_length: Annotated[float | None, typer.Option(help="Pixels.")] = None,
    field_of_view: Annotated[
        float | None, typer.Option(help="Horizontal, degrees; 55 by default.")
    ] = None,
    image_size: Annotated[
        tuple[int, int] | None, typer.Option(help="Width and height, pixels.")
    ] = None,
    min_confidence: Annotated[
        float, typer.Option(help="A joint less sure than this counts as missing.")
    ] = 0.0,
) -> None:
    """Your own keypoints, by any detector, without 3D.

    Example: ites prepare keypoints clips/ --layout coco17 --out mine.h5
    """
    from ites.data.datasets.keypoints import prepare_keypoints

    given: dict[str, Any] = {} if field_of_view is None else {"field_of_view": field_of_view}
    summary = prepare_keypoints(
        sources,
        out,
        layout=layout,
        split=split,
        fps=fps,
        focal_length=focal_length,
        image_size=image_size,
        min_confidence=min_confidence,
        **given,
    )
    _summary(out, summary)


@app.command()
def evaluate(
    run: Annotated[Path, typer.Argument(help="Run folder or checkpoint.")],
    data: Annotated[Path, typer.Option(help="Pose store with 3D.")],
    stage: Stage = None,
    split: Split = "test",
    scale: Annotated[
        Literal["checkpoint", "split"],
        typer.Option(help="Scale of the input: the training's, or the split's own (the paper's)."),
    ] = "checkpoint",
    unit: Annotated[float, typer.Option(help="Metres a network unit, for MPJPE.")] = 1.0,
    missing: Annotated[
        Literal["error", "drop", "interpolate"] | None,
        typer.Option(help="Poses that lack a joint; as in the training."),
    ] = None,
    device: Device = None,
) -> None:
    """Compare a run's poses with the truth, by the field's protocols and the paper's.

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
    if Ranks.here().main:
        evaluation.show()


@app.command()
def lift(
    run: Annotated[Path, typer.Argument(help="Run folder or checkpoint.")],
    keypoints: Annotated[Path, typer.Argument(help="Pose store, .npz or .npy of keypoints.")],
    out: Annotated[Path, typer.Option("--out", "-o", help=".npz or .h5 to write.")],
    stage: Stage = None,
    split: Annotated[
        str | None, typer.Option(help="Of a store; test where there is one by default.")
    ] = None,
    layout: Annotated[
        str | None, typer.Option(help="Joint order of an array: human36m, coco17, mpi3dhp17.")
    ] = None,
    focal_length: Annotated[float | None, typer.Option(help="Pixels.")] = None,
    field_of_view: Annotated[float | None, typer.Option(help="Horizontal, degrees.")] = None,
    image_size: Annotated[
        tuple[int, int] | None, typer.Option(help="Width and height, pixels.")
    ] = None,
    fps: Annotated[float | None, typer.Option(help="Frames a second.")] = None,
    scale: Annotated[
        Literal["auto", "checkpoint", "clip"],
        typer.Option(help="Scale of the input: the training's, or each clip's own."),
    ] = "auto",
    body_size: Annotated[
        float | None, typer.Option(help="Metres from pelvis to head that a clip is given.")
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(help="Poses at a time; what suits the device by default.")
    ] = None,
    temporal: Annotated[
        bool,
        typer.Option(
            "--temporal", help="Take each clip as a whole: bones keep their lengths in it."
        ),
    ] = False,
    trust: Annotated[
        bool, typer.Option(help="Tell how far to trust each pose, where the run can tell.")
    ] = True,
    device: Device = None,
    precision: Annotated[
        Literal["float32", "tf32", "bf16"], typer.Option(help="Of matrix products.")
    ] = "float32",
    resume: Annotated[
        bool, typer.Option("--resume", help="Do what an interrupted lifting left undone.")
    ] = False,
) -> None:
    """Lift 2D keypoints to 3D.

    Example: ites lift runs/cmu clip.npz --layout coco17 -o clip3d.npz
    """
    from ites.inference.lift import lift as run_lift

    given: dict[str, Any] = {"body_size": body_size, "batch_size": batch_size}
    summary = run_lift(
        run,
        keypoints,
        out,
        stage=stage,
        split=split,
        layout=layout,
        focal_length=focal_length,
        field_of_view=field_of_view,
        image_size=image_size,
        fps=fps,
        scale=scale,
        temporal=temporal,
        trust=trust,
        device=device or "auto",
        precision=precision,
        resume=resume,
        **{name: value for name, value in given.items() if value is not None},
    )
    if not summary:  # another rank tells
        return
    for note in summary["notes"]:
        say(note)
    clips = "1 clip" if summary["clips"] == 1 else f"{summary['clips']:,} clips"
    say(
        f"{summary['out']}: {summary['poses']:,} poses in {clips} lifted by the "
        f"{summary['model']} on {summary['device']}, {summary['poses_per_second']:,.0f} poses/s"
    )
    say(f"next: ites view {summary['out']}")


@app.command()
def view(
    path: Annotated[Path, typer.Argument(help="What ites lift wrote, or a pose store.")],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="HTML file.")] = None,
    gif: Annotated[Path | None, typer.Option(help="Film of the first clip.")] = None,
    mp4: Annotated[Path | None, typer.Option(help="Film of the first clip.")] = None,
    png: Annotated[Path | None, typer.Option(help="Strip of its frames.")] = None,
    clip: Annotated[str | None, typer.Option(help="Clips whose names hold this.")] = None,
    max_clips: Annotated[int | None, typer.Option(help="Most clips on the page.")] = None,
    max_frames: Annotated[int | None, typer.Option(help="Most frames of a clip.")] = None,
) -> None:
    """Make a page that plays the poses, 2D beside 3D, in any browser, offline.

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
        **{name: value for name, value in given.items() if value is not None},
    )
    for line in [*summary["notes"], *summary["files"]]:
        say(line)


@app.command()
def report(
    run: Annotated[Path, typer.Argument(help="Run folder.")],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="HTML file.")] = None,
) -> None:
    """Make one page of a run: settings, losses, evaluation, versions.

    Example: ites report runs/cmu
    """
    from ites.show.report import write_report

    out = out or run / "report.html"
    write_report(run, out)
    say(str(out))


@app.command()
def convert(
    source: Annotated[Path, typer.Argument(help="Checkpoint of the released program, or an npz.")],
    scale: Annotated[
        float, typer.Option(help="Scale of the input on the split it was trained on.")
    ],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="safetensors file to write.")
    ] = None,
) -> None:
    """Read a checkpoint of the released program.

    Example: ites convert teacher.pth --scale 0.86 -o teacher.safetensors
    """
    from ites.released.convert import convert as run_convert

    out = out or source.with_suffix(".safetensors")
    model = run_convert(source, out, scale)
    sizes = ", ".join(f"{name} {value:g}" for name, value in model.sizes().items())
    say(f"{out}: {model.kind}, {sizes}")


@app.command()
def conformance(
    files: Annotated[list[Path], typer.Argument(help="Golden npz files.")],
    dtype: Annotated[Literal["float32", "float64"], typer.Option(help="Precision.")] = "float32",
    backend: Annotated[
        str | None, typer.Option(help="reference, cpp, cuda or triton; the fastest by default.")
    ] = None,
) -> None:
    """Hold this program to numbers of the released one.

    Example: ites conformance golden/*.npz --dtype float64 --backend cpp
    """
    import torch

    from ites.released.conformance import check_file

    passed = failed = 0
    for file in files:
        table = Table(
            title=f"{file.name}, {dtype}, backend {backend or 'default'}", title_justify="left"
        )
        for heading in ("group", "tensors", "worst", "largest error", "bound", ""):
            right = heading in ("tensors", "largest error", "bound")
            table.add_column(heading, justify="right" if right else "left")
        for check in check_file(file, getattr(torch, dtype), backend):
            passed, failed = passed + check.passed, failed + (not check.passed)
            table.add_row(
                check.group,
                str(check.tensors),
                check.worst,
                f"{check.error:.1e}",
                f"{check.bound:.0e}",
                "passed" if check.passed else Text("FAILED", "bold red"),
            )
        Console(width=None if sys.stdout.isatty() else 110).print(table)
    say(f"{passed} passed, {failed} failed")
    if failed:
        raise typer.Exit(1)


@app.command()
def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Say what is installed, built and usable here, and what would make it faster.

    Example: ites doctor
    """
    from ites.cli.doctor import describe, examine

    findings = examine()
    say(json.dumps(findings, indent=1) if as_json else describe(findings))


def main(args: list[str] | None = None) -> None:
    """Run the command line and leave the process; see `ites.cli.errors.run`."""
    from ites.cli.train import app as train

    app.add_typer(train, name="train")
    errors.run(app, args)
