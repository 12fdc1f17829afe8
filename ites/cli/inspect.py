"""`ites inspect`: what files of keypoints hold, and what looks wrong with them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from ites.cli.hints import finding_line
from ites.cli.options import (
    FlipY,
    Fps,
    ImageSize,
    Layout,
    MinConfidence,
    Person,
    Rotate,
    SwapSides,
    say,
)

if TYPE_CHECKING:
    import numpy as np

    from ites.data.clips import Clip
    from ites.data.findings import Finding
    from ites.data.readers.recording import Recording, Source

SHOWN = 20
"""Clips that the table lists."""


def inspect(
    files: Annotated[list[Path], typer.Argument(help="Files or folders of keypoints.")],
    run: Annotated[
        Path | None,
        typer.Option(
            help="Run folder whose prior judges the poses; by default the general model's."
        ),
    ] = None,
    layout: Layout = None,
    image_size: ImageSize = None,
    fps: Fps = None,
    person: Person = None,
    min_confidence: MinConfidence = None,
    flip_y: FlipY = False,
    rotate: Rotate = 0,
    swap_sides: SwapSides = False,
) -> None:
    """Show what keypoint files hold and what looks wrong, with the option that corrects it.

    Example: ites inspect clip.json --layout coco17
    """
    from ites.data.checks import check
    from ites.data.corrections import Corrections
    from ites.data.findings import ImplausibleError, summarise
    from ites.data.readers import ReadOptions, read
    from ites.inference.likely import density_of
    from ites.pose.skeleton import HUMAN36M

    options = ReadOptions(layout, image_size, fps, person, min_confidence)
    corrections = Corrections(flip_y=flip_y, rotate=rotate, swap_sides=swap_sides)
    prior = density_of(run, HUMAN36M)
    console = Console(width=None if sys.stdout.isatty() else 110, highlight=False)
    for number, file in enumerate(files):
        if number:
            say()
        try:
            recording = read(file, options)
        except ImplausibleError as error:  # read, and found to be no pixels or no confidence
            say(f"{file}: keypoints")
            _print_findings([error.finding])
            continue
        clips = [corrections(clip, recording.skeleton) for clip in recording.clips]
        findings = check(
            clips,
            recording.skeleton,
            prior=prior,
            raw=[source.array() for source in recording.source],
            layout=recording.layout,
        )
        _head(file, recording, clips)
        for note in [*recording.notes, *corrections.lines()]:
            say(f"  {note}")
        console.print(_clips_table(clips, recording.source))
        console.print(_joints_table(recording, clips))
        _print_findings(summarise(findings))


def _head(file: Path, recording: Recording, clips: list[Clip]) -> None:
    people = {clip.name for clip in clips}
    sizes = {clip.image_size for clip in clips}
    size = sizes.pop() if len(sizes) == 1 else None
    image = "several image sizes" if sizes else "image size unknown (--image-size)"
    if size is not None:
        image = f"image {size[0]} x {size[1]} px"
    rates = {clip.fps for clip in clips if clip.fps > 0}
    rate = "frames per second unknown (--fps)"
    if rates:
        rate = ", ".join(f"{fps:g}" for fps in sorted(rates)[:5]) + " frames per second"
    frames = sum(map(len, clips))
    say(f"{file}: {recording.format}, joints in the order {recording.layout}")
    say(
        f"  {len(people):,} clip{'s' * (len(people) != 1)} of one person each, "
        f"{frames:,} frames, {rate}, {image}"
    )


def _clips_table(clips: list[Clip], sources: list[Source]) -> Table:
    import numpy as np

    more = f" (the first {SHOWN} of {len(clips):,})" if len(clips) > SHOWN else ""
    table = Table(title=f"clips{more}", title_justify="left")
    table.add_column("clip")
    for heading in ("frames", "numbers", "without anybody", "longest gap", "joints seen"):
        table.add_column(heading, justify="right")
    for clip, source in list(zip(clips, sources, strict=True))[:SHOWN]:
        seen = source.confidence > 0
        empty = np.asarray(~seen.any(1))
        first, last = source.frames[0], source.frames[-1]
        table.add_row(
            clip.name,
            f"{len(clip):,}",
            f"{first}-{last}",
            f"{int(empty.sum()):,}",
            f"{_longest(empty):,}",
            f"{seen.mean():.0%}",
        )
    return table


def _longest(gone: np.ndarray) -> int:
    """The length of the longest run of true values."""
    import numpy as np

    edges = np.flatnonzero(np.diff(np.concatenate([[0], gone.astype(np.int8), [0]])))
    return int(max(np.diff(edges)[::2], default=0))


def _joints_table(recording: Recording, clips: list[Clip]) -> Table:
    """Each joint of the skeleton, what it is made of, and how often it is seen."""
    import numpy as np

    from ites.pose.layouts import recipes

    names = recording.source[0].joints
    made = [[{joint: 1.0}] for joint in names]
    if tuple(names) != recording.skeleton.joints:
        made = recipes(names)
    detected = np.concatenate([source.confidence > 0 for source in recording.source])
    there = np.asarray(detected.any(0))
    usable = {name for name, seen in zip(names, there, strict=True) if seen}
    seen = np.concatenate(
        [
            np.ones(clip.keypoints.shape[:2], bool)
            if clip.confidence is None
            else clip.confidence > 0
            for clip in clips
        ]
    )
    sure = [clip.confidence for clip in clips if clip.confidence is not None]
    confidence = np.concatenate(sure) if len(sure) == len(clips) else None
    table = Table(title="joints", title_justify="left")
    table.add_column(recording.skeleton.name)
    table.add_column("from")
    table.add_column("seen", justify="right")
    table.add_column("median confidence", justify="right")
    for joint, (name, choices) in enumerate(zip(recording.skeleton.joints, made, strict=True)):
        chosen = next((recipe for recipe in choices if usable >= set(recipe)), None)
        own = seen[:, joint]
        median = "-"
        if confidence is not None and own.any():
            median = f"{np.median(confidence[own, joint]):.2f}"
        table.add_row(name, _sum(chosen), f"{own.mean():.0%}", median)
    return table


def _sum(recipe: dict[str, float] | None) -> str:
    if recipe is None:
        return "unknown"
    if len(recipe) == 1 and next(iter(recipe.values())) == 1:
        return next(iter(recipe))
    if len(set(recipe.values())) == 1:
        return f"mean of {', '.join(recipe)}"
    return " + ".join(f"{weight:g} {name}" for name, weight in recipe.items()).replace("+ -", "- ")


def _print_findings(findings: list[Finding]) -> None:
    if not findings:
        say("nothing looks wrong")
    for finding in findings:
        say(finding_line(finding.plain()))
