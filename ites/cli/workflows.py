"""`ites demo` and `ites fit`: several steps at once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ites.cli.options import (
    Device,
    FieldOfView,
    FlipY,
    FocalLength,
    Fps,
    ImageSize,
    Layout,
    MinConfidence,
    Person,
    Rotate,
    SkeletonName,
    SwapSides,
    say,
)


def demo(
    out: Annotated[Path, typer.Option(help="Folder to write.")] = Path("demo"),
    seed: Annotated[int, typer.Option(help="Seed of the data and the training.")] = 0,
    device: Device = None,
) -> None:
    """Run the whole method on synthetic motion, in minutes, without a download.

    Example: ites demo --out demo
    """
    from ites.workflows.demo import DATA
    from ites.workflows.demo import demo as run

    run(out, seed=seed, device=device, say=say)
    say(f"next: ites evaluate {out} --data {out / DATA}")
    say("next, your own keypoints: ites prepare keypoints FILES --layout coco17 --out mine.h5")


def fit(
    files: Annotated[
        list[Path] | None,
        typer.Argument(help="Files or folders of keypoints by any detector.", show_default=False),
    ] = None,
    out: Annotated[Path, typer.Option("--out", "-o", metavar="RUN", help="Run folder.")] = Path(
        "run"
    ),
    layout: Layout = None,
    skeleton: SkeletonName = "human36m",
    fps: Fps = None,
    focal_length: FocalLength = None,
    field_of_view: FieldOfView = None,
    image_size: ImageSize = None,
    person: Person = None,
    min_confidence: MinConfidence = None,
    flip_y: FlipY = False,
    rotate: Rotate = 0,
    swap_sides: SwapSides = False,
    start: Annotated[
        str,
        typer.Option(
            metavar="RUN|auto|none",
            help="Run whose weights the training starts from; auto: the packaged model, if there "
            "is one; none: from scratch.",
        ),
    ] = "auto",
    seed: Annotated[
        int, typer.Option(min=0, help="Seed of the split, weights, order and rotations.")
    ] = 0,
    steps: Annotated[
        int | None,
        typer.Option(min=1, help="Steps of each stage; by default by the amount of data."),
    ] = None,
    device: Device = None,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Continue the fit in RUN; files need not be named."),
    ] = False,
) -> None:
    """Train a model on your own keypoints, and measure it without 3D.

    Needs 2,000 frames or more of people who move and are seen from several sides.
    The same command continues an interrupted fit.

    Example: ites fit clips/*.json -o runs/mine
    """
    from ites.cli.hints import print_findings
    from ites.data.corrections import Corrections
    from ites.pose.skeleton import load_skeleton
    from ites.workflows.fit import fit as run

    given: dict[str, Any] = {} if steps is None else {"steps": steps}
    result = run(
        files or [],
        out,
        layout=layout,
        skeleton=load_skeleton(skeleton),
        fps=fps,
        focal_length=focal_length,
        field_of_view=field_of_view,
        image_size=image_size,
        person=person,
        min_confidence=min_confidence,
        corrections=Corrections(flip_y=flip_y, rotate=rotate, swap_sides=swap_sides),
        start=None if start == "none" else start,
        seed=seed,
        device=device,
        resume=resume,
        on_findings=print_findings,
        **given,
    )
    if not result.interrupted:
        say(f"next: ites lift KEYPOINTS -o poses.bvh --run {result.run}")
