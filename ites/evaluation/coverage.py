"""What 2D poses of one's own cover: how many differ, and from how many sides people are seen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ites.pose.skeleton import Skeleton

SIDES = ("front", "front and side", "side", "back and side", "back")
"""Directions that a person turns to the camera, left and right joined: mirror images are trained on
too."""
SEEN = 0.03
"""The least share of the frames with which a side counts as seen."""
APART = 0.15
"""Two poses differ by this root-mean-square distance of a joint, in root-to-head distances."""
SAMPLE, ENOUGH = 4096, 1000
"""Poses that are compared with each other, and the number of different ones counted."""
_WIDTH = 1.0
"""Width of shoulders and hips together over the trunk's length, seen from the front: the mean of
17 subjects of the CMU database."""
_LEAST_TRUNK = 0.6
"""The trunk's length over its median below which a person bends and the ratio means nothing."""


@dataclass(frozen=True)
class Coverage:
    """What a set of 2D poses covers.

    Attributes:
        frames: number of poses.
        different: number of different poses, by `APART`; at most `ENOUGH`.
        sides: share of the frames by side, of `SIDES`; None of another skeleton than a body.
    """

    frames: int
    different: int
    sides: dict[str, float] | None

    @property
    def sides_seen(self) -> int | None:
        """The number of sides from which people are seen; None if unknown."""
        if self.sides is None:
            return None
        return sum(share >= SEEN for share in self.sides.values())

    def plain(self) -> dict[str, Any]:
        """All of it for JSON."""
        return {"frames": self.frames, "different": self.different, "sides": self.sides}


def coverage(points: NDArray[np.floating], skeleton: Skeleton) -> Coverage:
    """Measure what 2D poses cover.

    Args:
        points: (N, J, 2), root-relative, any unit, y down.
        skeleton: of the points.
    """
    return Coverage(len(points), different_poses(points, skeleton), sides_seen(points, skeleton))


def different_poses(points: NDArray[np.floating], skeleton: Skeleton) -> int:
    """Count different poses: each is farther than `APART` from all counted before it.

    Args: see `coverage`. Of many poses, `SAMPLE` evenly spaced ones are compared.
    """
    sample = np.asarray(points[:: max(1, len(points) // SAMPLE)], np.float64)
    heads = np.linalg.norm(sample[:, skeleton.head] - sample[:, skeleton.root], axis=-1)
    rows = sample.reshape(len(sample), -1)
    limit = skeleton.num_joints * (APART * float(heads.mean())) ** 2
    found = 0
    while len(rows) and found < ENOUGH:
        found += 1
        rows = rows[np.square(rows - rows[0]).sum(1) > limit]
    return found


def sides_seen(points: NDArray[np.floating], skeleton: Skeleton) -> dict[str, float] | None:
    """The share of poses by the side that a person turns to the camera.

    `cos(angle) = (left - right of shoulders + left - right of hips) / (trunk's length * width)`,
    horizontally: 1 facing the camera, 0 from the side, -1 from the back.

    Args: see `coverage`.

    Returns:
        Shares by `SIDES`; None if the skeleton lacks shoulders or hips.
    """
    index = {name: joint for joint, name in enumerate(skeleton.joints)}
    needed = [f"{side}_{part}" for part in ("shoulder", "hip") for side in ("left", "right")]
    if not all(name in index for name in needed):
        return None
    left_shoulder, right_shoulder, left_hip, right_hip = (points[:, index[n]] for n in needed)
    across = (left_shoulder - right_shoulder + left_hip - right_hip)[:, 0]
    middle = (left_shoulder + right_shoulder - left_hip - right_hip) / 2
    trunk = np.linalg.norm(middle, axis=-1)
    upright = trunk > _LEAST_TRUNK * np.median(trunk)
    cosine = np.clip(across[upright] / (_WIDTH * trunk[upright]), -1, 1)
    place = np.minimum(np.arccos(cosine) / np.pi * len(SIDES), len(SIDES) - 1).astype(int)
    counts = np.bincount(place, minlength=len(SIDES)) / max(1, len(place))
    return {name: float(share) for name, share in zip(SIDES, counts, strict=True)}
