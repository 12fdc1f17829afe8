"""A clip in the form for export: positions in a frame, missing joints, names, rate."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ites.data.clips import METRE, Clip
from ites.data.upright import floor_of
from ites.errors import ItesError
from ites.export.frames import CAMERA, Frame
from ites.export.rotations import extend, t_pose
from ites.pose.missing import interpolate
from ites.pose.skeleton import Skeleton

FPS = 25.0
"""Default frames per second."""
GRAVITY_AXES = "gravity axes: x right, y down along gravity, z forward and level, right-handed"
"""Of tables without a preset, which keep the clips' axes, where the clips are upright."""
UPS = {"camera": "up as in the image", "gravity": "up against gravity"}
"""By the axes of the clips, where up is."""
ROOT, CAMERA_PLACE = "at the root joint of each pose", "at the camera"


@dataclass(frozen=True)
class Motion:
    """One person's 3D poses in a frame.

    Attributes:
        name: of the clip.
        skeleton: of the poses.
        frame: axes and unit of `positions`.
        fps: frames per second.
        positions: (T, J, 3); nan where a joint is unknown.
        up: where the frame's up axis points: `UP`, or against gravity.
        origin: where the frame's origin is, in words.
        scale: what makes the unit what it is, in words.
    """

    name: str
    skeleton: Skeleton
    frame: Frame
    fps: float
    positions: NDArray[np.float64]
    up: str = UPS["camera"]
    origin: str = ROOT
    scale: str = METRE

    @property
    def words(self) -> str:
        """Axes, unit, origin and scale in a line, for files."""
        return f"{self.frame.words}; {self.up}; origin {self.origin}; scale: {self.scale}"

    def __len__(self) -> int:
        return len(self.positions)

    @property
    def seconds(self) -> NDArray[np.float64]:
        """(T,) the time of each frame in seconds, from 0."""
        return np.arange(len(self)) / self.fps

    def complete(self) -> NDArray[np.float64]:
        """The positions (T, J, 3) without gaps, for formats that need every joint.

        Gaps are filled linearly in time, the ends with the nearest value. A joint that is never
        known stands as in the T-pose, by the length of the bone on the other side of the body; or
        at its parent, where that length is unknown too.
        """
        known: NDArray[np.bool_] = np.all(np.isfinite(self.positions), axis=-1)
        positions = np.asarray(interpolate(self.positions, known), np.float64)
        for joint in self.never_known():
            parent = self.skeleton.parents[joint]
            positions[:, joint] = positions[:, parent] if parent >= 0 else 0.0
        lengths = {}
        for joint in self.mirrored():
            step = positions[:, self.skeleton.mirror[joint]]
            step = step - positions[:, self.skeleton.mirror[self.skeleton.parents[joint]]]
            lengths[joint] = float(np.median(np.linalg.norm(step, axis=-1)))
        return extend(positions, self.skeleton, self.frame, lengths)

    def never_known(self) -> list[int]:
        """The joints that are known in no frame, a parent before its child."""
        known = np.all(np.isfinite(self.positions), axis=-1)
        return sorted(np.flatnonzero(~known.any(0)).tolist(), key=self._depth)

    def mirrored(self) -> list[int]:
        """Those of `never_known` whose bone is known on the other side of the body."""
        if t_pose(self.skeleton, self.frame) is None:
            return []
        never, mirror = set(self.never_known()), self.skeleton.mirror
        return [
            joint
            for joint in self.never_known()
            if mirror[joint] not in never
            and (parent := self.skeleton.parents[joint]) >= 0
            and mirror[parent] not in never
            and self.skeleton.parents[mirror[joint]] == mirror[parent]
        ]

    def _depth(self, joint: int) -> int:
        parent = self.skeleton.parents[joint]
        return 0 if parent < 0 else 1 + self._depth(parent)


def to_motion(
    clip: Clip,
    skeleton: Skeleton,
    frame: Frame,
    *,
    floor: bool = False,
    travel: bool = False,
    axes: str = "camera",
    scale: str = METRE,
) -> Motion:
    """Convert a lifted clip to a frame.

    Args:
        clip: with `positions`, metres, camera axes or gravity's.
        skeleton: of the clip.
        frame: the target frame.
        floor: shift the clip along the frame's up axis so that the lowest joint stands at 0; see
            `ites.data.upright.floor_of`.
        travel: let the poses travel by the root's path; else each pose's root is at the origin.
        axes: of the clip, one of `ites.data.clips.FRAMES`.
        scale: what makes the clip's unit metres, in words.

    Raises:
        ItesError: the clip has no 3D positions, or none of them is finite, or no path to travel.
    """
    if clip.positions is None or not np.isfinite(clip.positions).any():
        raise ItesError(f"{clip.name}: expected 3D positions to export, got none; lift it first")
    positions = clip.positions.astype(np.float64)
    origin = ROOT
    if travel:
        if clip.root is None:
            raise ItesError(f"{clip.name}: expected a root path to travel by; lift the clip again")
        positions = positions + clip.root[:, None]
        origin = CAMERA_PLACE + ", its height at the floor" * axes.endswith("floor at 0")
    positions = frame.convert(positions)
    if floor:
        height = positions @ frame.up
        positions = positions - floor_of(height) * frame.up
        origin = f"{CAMERA_PLACE if travel else ROOT}, its height at the floor"
    fps = clip.fps if clip.fps > 0 else FPS
    if frame is CAMERA and axes != "camera":
        frame = replace(frame, axes=GRAVITY_AXES)
    up = UPS["camera" if axes == "camera" else "gravity"]
    return Motion(clip.name, skeleton, frame, float(fps), positions, up, origin, scale)
