"""A pose store of the user's own 2D keypoints, for training or fine-tuning without 3D.

The input is any format that `ites.data.readers` reads, with one clip per person and video.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ites.data.checks import Density, check
from ites.data.clips import Clip, seen_joints
from ites.data.corrections import Corrections
from ites.data.findings import Finding, refuse, summarise
from ites.data.readers import read
from ites.data.readers.options import ReadOptions, check_options
from ites.data.store import PoseStore, PoseStoreWriter
from ites.errors import ItesError, shorten
from ites.pose.camera import FIELD_OF_VIEW, Camera, focal_length_of
from ites.pose.skeleton import HUMAN36M, Skeleton
from ites.system.files import keep_source


def prepare_keypoints(
    sources: Sequence[Path],
    out: Path,
    *,
    layout: str | None = None,
    skeleton: Skeleton = HUMAN36M,
    split: str | None = None,
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

    All clips of a pose store are read, whatever their split, and keep their cameras. Clips with
    equal keypoints are stored once, with a note.

    Args:
        sources: files or folders that `ites.data.readers.read` accepts.
        out: the store to write.
        layout: the joint order, one of `ites.pose.layouts.LAYOUTS`; None: as `read` derives it.
        skeleton: of the store; if it is not Human3.6M's, the files must contain its joints.
        split: the split of the clips; None: a pose store's clips keep their own, others are
            "train".
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
    repeats, credits = Repeats(), list[str]()
    with PoseStoreWriter(out, skeleton, title or "2D keypoints") as writer:
        for path in map(Path, sources):
            recording = read(path, options)
            require_joints(path, recording.skeleton, skeleton)
            credits.append(recording.acknowledgement)
            several = len(sources) > 1
            for note in recording.notes:
                named = not several or note.startswith(f"{path.stem}: ")
                notes.append(note if named else f"{path.stem}: {note}")
            if recording.beside:
                left = f"left out beside the keypoints: {', '.join(recording.beside)}"
                notes.append(f"{path.stem}: {left}" if several else left)
            clips, sources_of = [], []
            for clip, source in zip(recording.clips, recording.source, strict=True):
                if corrections is not None:
                    clip = corrections(clip, skeleton)
                if not repeats.found(clip, path):
                    clips.append(replace(clip, name=_unused(clip.name, path, taken)))
                    sources_of.append(source)
            if not clips:
                continue
            raw = [source.array() for source in sources_of]
            found = check(clips, recording.skeleton, prior=prior, raw=raw, layout=recording.layout)
            findings += refuse(found, len(clips), path)
            turned = corrections is not None and (corrections.flip_y or corrections.rotate != 0)
            for clip, source in zip(clips, sources_of, strict=True):
                if focal_length:
                    clip = replace(clip, focal_length=(focal_length,) * 2)
                camera = _camera(clip, field_of_view, None if turned else source.camera)
                notes += _assumptions(clip, camera)
                writer.add(
                    clip.keypoints,
                    camera=writer.key_of(camera),
                    subject=clip.name,
                    action="keypoints",
                    split=split or source.split or "train",
                    fps=clip.fps,
                    confidence=clip.confidence,
                    first=clip.first_frame,
                )
        writer.acknowledge(" ".join(dict.fromkeys(filter(None, credits))))
    with PoseStore(out) as store:
        return {
            **store.summary(),
            "notes": list(dict.fromkeys([*repeats.lines(), *notes])),
            "findings": [finding.plain() for finding in summarise(findings)],
        }


class Repeats:
    """Clips whose keypoints another clip has: a file that is given twice, or its copy.

    Frames that were trained on, and are held out as well, would make a measurement too good.
    """

    def __init__(self) -> None:
        self._first: dict[bytes, tuple[Path, Clip]] = {}
        self._again: dict[tuple[Path, Path, bool], list[str]] = {}

    def found(self, clip: Clip, path: Path) -> bool:
        """Whether a clip before this one has the same keypoints; they are remembered."""
        if not seen_joints(clip).any():
            return False
        key = hashlib.blake2b(_shown(clip).tobytes(), digest_size=16).digest()
        if key not in self._first:
            self._first[key] = path, replace(clip, keypoints=clip.keypoints[:0], confidence=None)
            return False
        first, other = self._first[key]
        differs = (clip.focal_length, clip.image_size, str(clip.fps)) != (
            other.focal_length, other.image_size, str(other.fps),
        )  # fmt: skip
        self._again.setdefault((path, first, differs), []).append(clip.name)
        return True

    def lines(self) -> Iterator[str]:
        """A line for each two files of which one repeats clips of the other."""
        for (path, first, differs), names in self._again.items():
            several = len(names) > 1
            clips = f"{len(names):,} clips" if several else f"clip {names[0]}"
            if path == first:
                again = f"{'are' if several else 'is'} given twice"
            else:
                again = f"{'have' if several else 'has'} the keypoints of {first}"
            count = "counted once" + ", with the first's camera and rate" * differs
            yield shorten(f"{path}: {clips} {again}; {count}")


def _shown(clip: Clip) -> NDArray[np.float32]:
    """The keypoints (T, J, 2), 0 where a joint is missing."""
    seen = seen_joints(clip)[..., None]
    return np.where(seen, clip.keypoints, np.float32(0)).astype(np.float32)


def frame_keys(clip: Clip) -> list[bytes | None]:
    """The keypoints of each frame as bytes; None where fewer than half of the joints are seen."""
    enough = seen_joints(clip).mean(1) >= 0.5
    return [row.tobytes() if good else None for row, good in zip(_shown(clip), enough, strict=True)]


def require_joints(path: Path, got: Skeleton, wanted: Skeleton) -> None:
    """Refuse a skeleton whose joints stand in another order or on other sides.

    Raises:
        ItesError: they differ, see `Skeleton.difference`.
    """
    if difference := wanted.difference(got):
        raise ItesError(
            f"{path}: expected the joints of {wanted.name}, got those of {got.name}: {difference}"
        )


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


def _camera(clip: Clip, field_of_view: float | None, stored: Camera | None) -> Camera:
    """The clip's camera.

    Args:
        clip: its focal length, image size and principal point are the camera's, where known. The
            optical axis is in the image's centre otherwise.
        field_of_view: overrides the focal length.
        stored: the camera in a pose store, which keeps its name, distortion and place.
    """
    seen = seen_joints(clip)[..., None]
    edges = clip.keypoints.max((0, 1), where=seen, initial=1)
    extent = (math.ceil(edges[0]), math.ceil(edges[1]))
    width, height = clip.image_size or extent
    known = clip.image_size or (0, 0)
    same = stored is not None and (stored.width, stored.height) == known
    degrees = FIELD_OF_VIEW if field_of_view is None else field_of_view
    wide = focal_length_of(degrees, width)
    fx, fy = clip.focal_length if clip.focal_length and field_of_view is None else (wide, wide)
    assumed = clip.focal_length is None and field_of_view is None
    centre = clip.principal_point or (width / 2, height / 2)
    if stored is not None and same:
        centre = stored.center
        fx, fy = stored.focal_length if assumed else (fx, fy)
    size = f"{width}x{height}" if clip.image_size else "unknown size"
    name = f"{size} f{fx:.6g},{fy:.6g}{' assumed' * assumed}" if stored is None else stored.id
    return replace(
        stored or Camera(name, (fx, fy), centre),
        focal_length=(fx, fy),
        center=centre,
        width=known[0],
        height=known[1],
        assumed=assumed,
    )
