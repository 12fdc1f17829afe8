"""A clip as the formats take it: positions in a frame, what is missing, names, rate."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ites.data.clips import Clip
from ites.errors import ItesError
from ites.export.frames import Frame
from ites.pose.missing import interpolate
from ites.pose.skeleton import Skeleton

FPS = 25.0
"""Frames per second where the clip says none."""


@dataclass(frozen=True)
class Motion:
    """One person's 3D poses in a frame.

    Attributes:
        name: of the clip.
        skeleton: of the poses.
        frame: axes and unit of `positions`.
        fps: frames per second.
        positions: (T, J, 3); nan where a joint is unknown.
    """

    name: str
    skeleton: Skeleton
    frame: Frame
    fps: float
    positions: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.positions)

    @property
    def seconds(self) -> NDArray[np.float64]:
        """(T,) the time of each frame, from 0."""
        return np.arange(len(self)) / self.fps

    def complete(self) -> NDArray[np.float64]:
        """The positions (T, J, 3) with none missing, for formats that cannot leave one out.

        A gap is filled linearly in time, the ends with the nearest; a joint that is never known
        stands at its parent's place.
        """
        known: NDArray[np.bool_] = np.all(np.isfinite(self.positions), axis=-1)
        positions = np.asarray(interpolate(self.positions, known), np.float64)
        never = np.flatnonzero(~known.any(0)).tolist()
        for joint in sorted(never, key=self._depth):  # a parent first
            parent = self.skeleton.parents[joint]
            positions[:, joint] = positions[:, parent] if parent >= 0 else 0.0
        return positions

    def _depth(self, joint: int) -> int:
        parent = self.skeleton.parents[joint]
        return 0 if parent < 0 else 1 + self._depth(parent)


def to_motion(clip: Clip, skeleton: Skeleton, frame: Frame, *, floor: bool = False) -> Motion:
    """A lifted clip in a frame.

    Args:
        clip: with `positions`, metres, camera axes.
        skeleton: of the clip.
        frame: what to convert to.
        floor: shift the clip along the frame's up axis so that its lowest joint stands at 0.

    Raises:
        ItesError: the clip holds no 3D positions, or none that is finite.
    """
    if clip.positions is None or not np.isfinite(clip.positions).any():
        raise ItesError(f"{clip.name}: expected 3D positions to export, got none; lift it first")
    positions = frame.convert(clip.positions)
    if floor:
        height = positions @ frame.up
        positions = positions - np.nanmin(height) * frame.up
    fps = clip.fps if clip.fps > 0 else FPS
    return Motion(clip.name, skeleton, frame, float(fps), positions)
