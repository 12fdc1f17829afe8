"""Clips: keypoints of one person over time, with their 3D if known.

`ites.data.keypoint_reader` reads clips to lift; `ites.data.lifted` writes and reads lifted clips.
2D in pixels; 3D in metres in the camera's frame (x right, y down, z forward) relative to the root.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ites.data.store import PoseStore, Sequence
from ites.errors import shorten
from ites.pose.camera import Camera
from ites.pose.missing import fill, impossible
from ites.pose.skeleton import Skeleton, root_relative

Floats = NDArray[np.floating]
ASSUMED_FPS = 25.0
"""Default frames per second of a clip with an unknown rate."""

METRE = "metre"
FRAMES = ("camera", "gravity", "gravity, floor at 0")
"""Axes of 3D: the camera's (x right, y down, z forward), or those turned so that y is gravity's
direction and z level; with the floor, y = 0 is where the lowest foot stands."""


@dataclass(frozen=True)
class Clip:
    """One person seen by one camera over time.

    Args:
        name: the clip's name.
        keypoints: (T, J, 2) float32, pixels.
        fps: frames per second; nan if unknown.
        confidence: (T, J) float32, 0 for a missing joint; None if absent.
        positions: (T, J, 3) float32, metres, camera frame, root-relative: the lifted pose.
        truth: the measured pose in the same form.
        focal_length: (fx, fy), pixels, or None if unknown.
        image_size: (width, height), pixels, or None if unknown.
        metres_per_unit: (T,) float32, the metres per network unit in each pose.
        elevation, log_density, sign_confidence: (T,) float32, see `ites.models.trust.Judgement`.
        focal_assumed: whether the focal length is an assumption that nothing known supports.
        principal_point: (cx, cy), pixels, or None: the image's centre.
        root: (T, 3) float32, metres, the root's path: its place relative to the camera.
        gravity: the direction of gravity in the camera's axes, a unit vector; None if unknown.
        first_frame: the place of the first row among the video's frames.
        expected_error: (T,) float32, the expected mean error of a pose's joints after the optimal
            similarity, thousandths of the positions' unit: millimetres.
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
    focal_assumed: bool = False
    principal_point: tuple[float, float] | None = None
    root: Floats | None = None
    gravity: tuple[float, float, float] | None = None
    first_frame: int = 0
    expected_error: Floats | None = None

    def __len__(self) -> int:
        return len(self.keypoints)


@dataclass(frozen=True)
class Clips:
    """Clips of one skeleton with title, acknowledgement, and lifting settings.

    Args:
        skeleton: of the clips.
        clips: any number.
        title, acknowledgement: of the data.
        settings: of the lifting.
        frame: axes of `positions`, `truth` and `root`, one of `FRAMES`.
        unit: of them, in words: what makes them metres.
        notes: what a reader left out, a line each; they are not stored.
    """

    skeleton: Skeleton
    clips: list[Clip]
    title: str = ""
    acknowledgement: str = ""
    settings: dict[str, Any] = field(default_factory=dict)
    frame: str = "camera"
    unit: str = METRE
    notes: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return sum(map(len, self.clips))


def cut(lengths: list[int], size: int) -> list[slice]:
    """Divide clips into portions of whole clips, each the shortest with at least `size` frames."""
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
    """Set the confidence of impossible keypoints to 0; see `ites.pose.missing.impossible`.

    Returns:
        The clip, and a line with their number and the first of them; none if there are none.
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
        The clip and the number of filled joints.
    """
    seen = seen_joints(clip)
    if seen.all():
        return clip, 0
    filled = fill(clip.keypoints, seen, skeleton)
    return replace(clip, keypoints=filled), int(np.count_nonzero(~seen))


def stored_sequences(store: PoseStore, split: str | None) -> list[Sequence]:
    """A split's sequences of a store; None selects "test" if present, else all."""
    if split is None and "test" in store.splits:
        split = "test"
    return [sequence for sequence in store.sequences if split in (None, sequence.split)]


def other_splits(store: PoseStore, split: str | None) -> list[str]:
    """A line on the splits that `stored_sequences` leaves out, if none is named."""
    if split is not None or "test" not in store.splits or len(store.splits) < 2:
        return []
    counts = {name: len(store.sequences_of(name)) for name in store.splits}
    number = counts.pop("test")
    read = f"clips of split test alone are read: {number:,} sequence{'s' * (number != 1)}"
    others = ", ".join(f"{name} {count:,}" for name, count in counts.items())
    return [shorten(f"{read}; left out: {others}")]


def stored_clips(store: PoseStore, rows: list[Sequence]) -> Clips:
    """The clips of a store's sequences."""
    keypoints, confidence = store.keypoints(rows), store.confidence(rows)
    positions = store.positions(rows)
    truth = roots = None
    if positions is not None:
        roots = positions[:, store.skeleton.root].astype(np.float32, copy=False)
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
                principal_point=camera.center if camera.width else None,
                root=None if roots is None else roots[own],
                gravity=None if roots is None else _gravity(camera),
                first_frame=sequence.first,
            )
        )
    return Clips(store.skeleton, clips, store.title, store.acknowledgement)


def _gravity(camera: Camera) -> tuple[float, float, float] | None:
    """The direction of gravity in a camera's axes; None if its place in the world is unknown."""
    if camera.orientation == Camera.orientation:
        return None
    origin, below = camera.world_to_camera(np.array([[0.0, 0, 0], [0, 0, -1]]))
    x, y, z = (below - origin) / np.linalg.norm(below - origin)
    return float(x), float(y), float(z)
