"""Clips: keypoints of one person over time, with 3D beside them where it is known.

`ites.data.keypoint_reader` reads what can be lifted; `ites.data.lifted` writes and reads what was.
2D in pixels; 3D in metres in the camera's frame (x right, y down, z forward) relative to the root.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ites.data.store import PoseStore, Sequence
from ites.pose.missing import fill, impossible
from ites.pose.skeleton import Skeleton, root_relative

Floats = NDArray[np.floating]
ASSUMED_FPS = 25.0
"""Frames per second of a clip whose rate nothing tells."""


@dataclass(frozen=True)
class Clip:
    """One person seen by one camera over time.

    Args:
        name: what to call it.
        keypoints: (T, J, 2) float32, pixels.
        fps: frames a second; nan where unknown.
        confidence: (T, J) float32, 0 for a missing joint; None where there is none.
        positions: (T, J, 3) float32, metres, camera frame, root-relative: the lifted pose.
        truth: the same, measured.
        focal_length: (fx, fy), pixels, or None where unknown.
        image_size: (width, height), pixels, or None where unknown.
        metres_per_unit: (T,) float32, what one network unit was taken to be in each pose.
        elevation, log_density, sign_confidence: (T,) float32, see `ites.models.trust.Judgement`.
    """

    name: str
    keypoints: Floats
    fps: float = float("nan")
    confidence: Floats | None = None
    positions: Floats | None = None
    truth: Floats | None = None
    focal_length: tuple[float, float] | None = None
    image_size: tuple[int, int] | None = None
    metres_per_unit: Floats | None = None
    elevation: Floats | None = None
    log_density: Floats | None = None
    sign_confidence: Floats | None = None

    def __len__(self) -> int:
        return len(self.keypoints)


@dataclass(frozen=True)
class Clips:
    """Clips of one skeleton, what they are, whom to acknowledge, and how they were lifted."""

    skeleton: Skeleton
    clips: list[Clip]
    title: str = ""
    acknowledgement: str = ""
    settings: dict[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return sum(map(len, self.clips))


def cut(lengths: list[int], size: int) -> list[slice]:
    """Cut clips into portions of whole clips, each the shortest of at least `size` frames."""
    portions, start, frames = [], 0, 0
    for clip, length in enumerate(lengths, 1):
        frames += length
        if frames >= size or clip == len(lengths):
            portions.append(slice(start, clip))
            start, frames = clip, 0
    return portions


def seen_joints(clip: Clip) -> NDArray[np.bool_]:
    """Which joints of a clip a detector saw: (T, J) bool, confidence above 0."""
    if clip.confidence is None:
        return np.ones(clip.keypoints.shape[:2], bool)
    return np.asarray(clip.confidence > 0)


def drop_impossible(clip: Clip, skeleton: Skeleton) -> tuple[Clip, list[str]]:
    """Give keypoints that cannot be right confidence 0; see `ites.pose.missing.impossible`.

    Returns:
        The clip, and a line that says how many they are and names the first; none if there is none.
    """
    seen = seen_joints(clip)
    bad = impossible(clip.keypoints, seen, clip.image_size)
    if not bad.any():
        return clip, []
    frame, joint = np.argwhere(bad)[0]
    x, y = clip.keypoints[frame, joint]
    note = (
        f"{clip.name}: {np.count_nonzero(bad):,} impossible keypoints count as missing, the first "
        f"in frame {frame}: {skeleton.joints[joint]} at ({x:.6g}, {y:.6g})"
    )
    given = 1.0 if clip.confidence is None else clip.confidence
    return replace(clip, confidence=np.where(bad | ~seen, 0, given).astype(np.float32)), [note]


def fill_missing(clip: Clip, skeleton: Skeleton) -> tuple[Clip, int]:
    """Fill joints of confidence 0; see `ites.pose.missing.fill`.

    Returns:
        The clip, and how many joints were filled.
    """
    seen = seen_joints(clip)
    if seen.all():
        return clip, 0
    filled = fill(clip.keypoints, seen, skeleton)
    return replace(clip, keypoints=filled), int(np.count_nonzero(~seen))


def stored_sequences(store: PoseStore, split: str | None) -> list[Sequence]:
    """A split's sequences of a store; of None those of "test" where there is one, else all."""
    if split is None and "test" in store.splits:
        split = "test"
    return [sequence for sequence in store.sequences if split in (None, sequence.split)]


def stored_clips(store: PoseStore, rows: list[Sequence]) -> Clips:
    """The clips of a store's sequences."""
    keypoints, confidence = store.keypoints(rows), store.confidence(rows)
    positions = store.positions(rows)
    truth = None
    if positions is not None:
        truth = root_relative(positions, store.skeleton.root).astype(np.float32, copy=False)
    clips = []
    for sequence in store.sequences_of(rows):
        camera, own = store.cameras[sequence.camera], sequence.rows
        clips.append(
            Clip(
                name=str(sequence),
                keypoints=keypoints[own],
                fps=sequence.fps,
                confidence=None if confidence is None else confidence[own],
                truth=None if truth is None else truth[own],
                focal_length=None if camera.assumed else camera.focal_length,
                image_size=(camera.width, camera.height) if camera.width else None,
            )
        )
    return Clips(store.skeleton, clips, store.title, store.acknowledgement)
