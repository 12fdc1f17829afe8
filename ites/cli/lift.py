"""`ites lift`: 3D poses from keypoints."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any, Literal

import typer

from ites.cli.export import Floor, Preset, Travel, Up
from ites.cli.options import (
    Device,
    FlipY,
    FocalLength,
    Fps,
    ImageSize,
    Layout,
    MinConfidence,
    Person,
    Rotate,
    Stage,
    SwapSides,
    say,
)
from ites.errors import ItesError

OPTIONS = {
    "focal-length-assumed": "--focal-length or --field-of-view, --image-size",
    "fps-assumed": "--fps",
    "size": "--scale",
    "other-size": "--scale clip",
    "body-size": "--height, --bone or --body-size",
    "no-image-size": "--image-size",
    "swapped-kept": "--temporal exchanges them",
    "temporal": "--no-temporal lifts frame by frame",
    "temporal-some": "--fps, or --no-temporal for all",
    "trust": "--no-trust",
}
"""By the code of a note, the option that changes what it states."""


def lift(
    keypoints: Annotated[
        list[Path],
        typer.Argument(
            metavar="KEYPOINTS",
            help="Pose store, or keypoints by any detector.",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            "--out", "-o", help=".npz or .h5 to write; or .bvh, .trc, .c3d, .glb, .csv or .json."
        ),
    ],
    run: Annotated[
        Path | None,
        typer.Option(help="Run folder or checkpoint; by default the general model."),
    ] = None,
    stage: Stage = None,
    split: Annotated[
        str | None, typer.Option(help="Split of a store; by default test, if there is one.")
    ] = None,
    layout: Layout = None,
    person: Person = None,
    min_confidence: MinConfidence = None,
    flip_y: FlipY = False,
    rotate: Rotate = 0,
    swap_sides: SwapSides = False,
    focal_length: FocalLength = None,
    field_of_view: Annotated[
        float | None, typer.Option(help="Horizontal field of view, degrees.")
    ] = None,
    image_size: ImageSize = None,
    principal_point: Annotated[
        tuple[float, float] | None,
        typer.Option(help="Principal point, pixels; by default the image's centre."),
    ] = None,
    roll: Annotated[
        float | None,
        typer.Option(
            help="Roll of the camera, degrees, clockwise; undone for the lifting. By default 0, or "
            "what a model of recipe general finds."
        ),
    ] = None,
    fps: Fps = None,
    scale: Annotated[
        Literal["auto", "checkpoint", "clip"],
        typer.Option(help="Scale of the input: the training's or each clip's own."),
    ] = "auto",
    body_size: Annotated[
        float | None,
        typer.Option(help="Assumed pelvis-to-head distance, metres; sets the output's scale."),
    ] = None,
    height: Annotated[
        float | None,
        typer.Option(help="Standing height of the people, metres; sets the output's scale."),
    ] = None,
    bone: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=METRES",
            help="Length of the bone that ends at a joint, such as knee=0.45 or left_knee=0.45; "
            "may be repeated.",
        ),
    ] = None,
    up: Up = None,
    travel: Travel = None,
    floor: Floor = False,
    batch_size: Annotated[
        int | None, typer.Option(help="Poses per batch; chosen for the device by default.")
    ] = None,
    temporal: Annotated[
        bool | None,
        typer.Option(
            "--temporal/--no-temporal",
            help="Lift each clip as a whole: bones keep their lengths over it. "
            "The default, if the frame rate is known.",
            show_default=False,
        ),
    ] = None,
    smooth: Annotated[
        Literal["savitzky-golay", "one-euro"] | None,
        typer.Option(help="Filter each joint's trajectory in time."),
    ] = None,
    trust: Annotated[
        bool, typer.Option(help="Rate each pose's reliability, if the run supports it.")
    ] = True,
    preset: Preset = None,
    device: Device = None,
    precision: Annotated[
        Literal["float32", "tf32", "bf16"], typer.Option(help="Precision of matrix products.")
    ] = "float32",
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue an interrupted lifting.")
    ] = False,
) -> None:
    """Lift 2D keypoints to 3D.

    Example: ites lift clip.json -o clip3d.npz

    `ites lift RUN KEYPOINTS` means the same as `ites lift KEYPOINTS --run RUN`.
    """
    from ites.cli.hints import print_findings
    from ites.data.corrections import Corrections
    from ites.inference.lift import lift as run_lift

    run, source = _which(run, keypoints)
    given: dict[str, Any] = {"body_size": body_size, "batch_size": batch_size}
    exports = out.suffix.lower() not in (".npz", ".h5")
    if exports:
        _check_export(out, resume)
    elif preset is not None or travel is not None:
        option = "--preset" if preset is not None else "--travel"
        raise ItesError(
            f"{out}: .npz and .h5 keep poses and the root's path apart, in metres; leave "
            f"{option} out"
        )
    stack = ExitStack()
    lifted = Path(stack.enter_context(TemporaryDirectory())) / "lifted.npz" if exports else out
    with stack:
        summary = run_lift(
            source,
            lifted,
            run=run,
            stage=stage,
            split=split,
            layout=layout,
            person=person,
            min_confidence=min_confidence,
            corrections=Corrections(flip_y=flip_y, rotate=rotate, swap_sides=swap_sides),
            focal_length=focal_length,
            field_of_view=field_of_view,
            image_size=image_size,
            principal_point=principal_point,
            roll=roll,
            fps=fps,
            scale=scale,
            height=height,
            bone=_bones(bone or []),
            up=up or "camera",
            floor=floor and not exports,
            temporal=temporal,
            smooth=smooth,
            trust=trust,
            device=device or "auto",
            precision=precision,
            resume=resume,
            **{name: value for name, value in given.items() if value is not None},
        )
        if exports:
            from ites.export import export

            written = export(lifted, out, preset=preset, travel=travel, floor=floor)
    if not summary:  # another rank prints it
        return
    for code, note in zip(summary["codes"], summary["notes"], strict=True):
        say(f"{note} ({OPTIONS[code]})" if code in OPTIONS else note)
    print_findings(summary.get("findings", []))
    clips = "1 clip" if summary["clips"] == 1 else f"{summary['clips']:,} clips"
    for line in written["notes"] if exports else []:
        say(line)
    files = ", ".join(written["files"]) if exports else summary["out"]
    say(
        f"{files}: {summary['poses']:,} poses in {clips} lifted by the "
        f"{summary['model']} on {summary['device']}, {summary['poses_per_second']:,.0f} poses/s"
    )
    if not exports:
        say(f"next: ites view {summary['out']}")


def _which(run: Path | None, files: list[Path]) -> tuple[Path | None, Path]:
    """The run and the keypoints of `ites lift [RUN] KEYPOINTS [--run RUN]`.

    Raises:
        ItesError: there are too many files.
    """
    if len(files) > (2 if run is None else 1):
        listed = ", ".join(map(str, files))
        raise ItesError(f"lift: expected one file or folder of keypoints, got {listed}")
    return (files[0] if len(files) == 2 else run), files[-1]


def _bones(given: list[str]) -> dict[str, float]:
    """The lengths of bones, metres, by the names in texts NAME=METRES.

    Raises:
        ItesError: a text has another form.
    """
    lengths = {}
    for text in given:
        name, sign, metres = text.partition("=")
        try:
            lengths[name.strip()] = float(metres)
        except ValueError:
            sign = ""
        if not sign:
            raise ItesError(f"--bone: expected NAME=METRES, such as knee=0.45, got {text[:60]!r}")
    return lengths


def _check_export(out: Path, resume: bool) -> None:
    """Refuse, before the work, a format that the poses could not be exported to.

    Raises:
        ItesError: the ending is unknown, or the lifting is one that an export cannot continue.
    """
    from ites.export.write import ENDINGS

    if out.suffix.lower() not in ENDINGS:
        raise ItesError(f"{out}: the output's name must end in {', '.join(ENDINGS)}")
    if resume or int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ItesError(
            f"{out}: --resume and several processes write .npz or .h5; then use ites export"
        )
