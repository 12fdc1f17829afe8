"""A pose store of the user's own 2D keypoints, for training or fine-tuning without 3D.

The input is any format that `ites.data.readers` reads, with one clip per person and video.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ites.data.checks import Density, check
from ites.data.clips import Clip, seen_joints
from ites.data.corrections import Corrections
from ites.data.findings import Finding, refuse, summarise
from ites.data.readers import read
from ites.data.readers.options import ReadOptions, check_options
from ites.data.store import PoseStore, PoseStoreWriter
from ites.errors import ItesError
from ites.pose.camera import FIELD_OF_VIEW, Camera, focal_length_of
from ites.pose.skeleton import HUMAN36M, Skeleton
from ites.system.files import keep_source


def prepare_keypoints(
    sources: Sequence[Path],
    out: Path,
    *,
    layout: str | None = None,
    skeleton: Skeleton = HUMAN36M,
    split: str = "train",
    fps: float | None = None,
    focal_length: float | None = None,
    field_of_view: float | None = None,
    image_size: tuple[int, int] | None = None,
    min_confidence: float | None = None,
    person: str | int | None = None,
    corrections: Corrections | None = None,
    title: str = "",
    prior: Density | None = None,
) -> dict[str, Any]:
    """Write a pose store of 2D keypoints.

    Args:
        sources: files or folders that `ites.data.readers.read` accepts.
        out: the store to write.
        layout: the joint order, one of `ites.pose.layouts.LAYOUTS`; None: as `read` derives it.
        skeleton: of the store; if it is not Human3.6M's, the files must contain its joints.
        split: the split of the clips.
        fps: frames per second; None takes the file's, if it has one.
        focal_length: pixels; None takes the file's, or else `field_of_view`.
        field_of_view: horizontal, degrees: `focal_length = width / (2 tan(field_of_view / 2))`;
            overrides the file's focal length. Without either 55 is assumed, and the store marks
            its camera as assumed.
        image_size: (width, height), pixels; None takes the file's, or else the keypoints' extent.
        min_confidence: a joint with less confidence than this counts as missing; None: the
            detector's default.
        person: the track id or number of the only person to read; None: everybody.
        corrections: what to do to the keypoints after reading them; None: nothing.
        title: one line that says what the data are.
        prior: the density of poses, which checks the keypoints beside geometry; see
            `ites.inference.likely.density_of`.

    Returns:
        `PoseStore.summary` of what was written, `notes`: what was assumed, derived or left out, a
        line each, and `findings`: what is implausible, by `ites.data.findings.Finding.plain`.

    Raises:
        ItesError: there is no file, or one cannot be read, holds no pose or none that can be right.
    """
    if field_of_view is not None and not 0 < field_of_view < 180:
        raise ItesError(f"prepare_keypoints: field_of_view must be in 0..180, got {field_of_view}")
    if focal_length is not None and field_of_view is not None:
        raise ItesError("prepare_keypoints: give a focal length or a field of view, not both")
    check_options("prepare_keypoints", image_size, fps, min_confidence, focal_length)
    for path in sources:
        keep_source(path, out)
    options = ReadOptions(layout, image_size, fps, person, min_confidence, skeleton)
    notes: list[str] = [] if corrections is None else corrections.lines()
    findings: list[Finding] = []
    taken: set[str] = set()
    with PoseStoreWriter(out, skeleton, title or "2D keypoints") as writer:
        for path in map(Path, sources):
            recording = read(path, options)
            if recording.skeleton.parents != skeleton.parents:
                raise ItesError(f"{path}: expected {skeleton.name}, got {recording.skeleton.name}")
            several = len(sources) > 1
            for note in recording.notes:
                named = not several or note.startswith(f"{path.stem}: ")
                notes.append(note if named else f"{path.stem}: {note}")
            clips = [
                replace(clip, name=_unused(clip.name, path, taken)) for clip in recording.clips
            ]
            if corrections is not None:
                clips = [corrections(clip, skeleton) for clip in clips]
            raw = [source.array() for source in recording.source]
            found = check(clips, recording.skeleton, prior=prior, raw=raw, layout=recording.layout)
            findings += refuse(found, len(clips), path)
            for clip in clips:
                if focal_length:
                    clip = replace(clip, focal_length=(focal_length,) * 2)
                camera = _camera(clip, field_of_view)
                notes += _assumptions(clip, camera)
                if camera.id not in writer.cameras:
                    writer.add_camera(camera.id, camera)
                writer.add(
                    clip.keypoints,
                    camera=camera.id,
                    subject=clip.name,
                    action="keypoints",
                    split=split,
                    fps=clip.fps,
                    confidence=clip.confidence,
                    first=clip.first_frame,
                )
    with PoseStore(out) as store:
        return {
            **store.summary(),
            "notes": list(dict.fromkeys(notes)),
            "findings": [finding.plain() for finding in summarise(findings)],
        }


def _unused(name: str, path: Path, taken: set[str]) -> str:
    """A unique clip name: a prefix from the folder or a numeric suffix resolves duplicates."""
    if name in taken:
        name = f"{path.absolute().parent.name}/{name}"
    start, count = name, 2
    while name in taken:
        name, count = f"{start} ({count})", count + 1
    taken.add(name)
    return name


def _assumptions(clip: Clip, camera: Camera) -> list[str]:
    """The shortcomings of a store with this clip, one per line."""
    lines = []
    if camera.assumed:
        lines.append(
            f"camera unknown: focal length {camera.focal_length[0]:.0f} px assumed, "
            f"{FIELD_OF_VIEW:g} degrees; give the focal length or field of view if known"
        )
    if not clip.fps > 0:
        lines.append("frames per second unknown; give them if known")
    return lines


def _camera(clip: Clip, field_of_view: float | None) -> Camera:
    """The clip's camera with the optical axis in the image centre; reports assumptions."""
    seen = seen_joints(clip)[..., None]
    edges = clip.keypoints.max((0, 1), where=seen, initial=1)
    extent = (math.ceil(edges[0]), math.ceil(edges[1]))
    width, height = clip.image_size or extent
    degrees = FIELD_OF_VIEW if field_of_view is None else field_of_view
    wide = focal_length_of(degrees, width)
    fx, fy = clip.focal_length if clip.focal_length and field_of_view is None else (wide, wide)
    assumed = clip.focal_length is None and field_of_view is None
    name = f"{width}x{height} f{fx:.6g},{fy:.6g}{' assumed' * assumed}"
    known = clip.image_size or (0, 0)
    centre = (width / 2, height / 2)
    return Camera(name, (fx, fy), centre, width=known[0], height=known[1], assumed=assumed)
