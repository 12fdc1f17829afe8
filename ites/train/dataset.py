"""What a training set must be, before anything is learned from it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ites.errors import ItesError
from ites.runs.settings import Settings

LEAST_POSES = {"paper": 2, "upright": 30}
"""Different poses that a recipe needs; "upright" learns a density of them."""
LEAST_DIRECTIONS = 4
"""Principal components that a density needs; a pose in which one joint moves alone has two."""
SAMPLE = 4096
"""Poses that are looked at, spread over the set."""
FLAT = 1e-3
"""Width over length below which the joints of a pose lie on a line; change of a pose, over its
size, below which two poses are the same."""
WILD = 1e3
"""A pose that is larger than the median one by this factor has a joint far outside the image."""


def check_poses(points: NDArray[np.float32], settings: Settings) -> None:
    """Refuse a training set that nothing can be learned from.

    Args:
        points: (N, J, 2), the networks' input, root-relative.
        settings: of the training: the data's name, the split, the recipe.

    Raises:
        ItesError: poses are too few, not finite, all alike, points or lines, or one is far larger
            than the others.
    """
    name = f"{settings.data}, split {settings.split}"
    count, least = len(points), LEAST_POSES[settings.recipe]
    if count < least:
        raise ItesError(_too_few(name, least, count, settings.recipe))
    sizes = np.sqrt(np.square(points, dtype=np.float64).sum((1, 2)))  # [N]
    if not np.isfinite(sizes).all():
        raise ItesError(
            f"{name}: expected finite keypoints, got others in pose {np.argmin(np.isfinite(sizes))}"
        )
    median, largest = float(np.median(sizes)), float(sizes.max())
    if largest > WILD * median > 0:
        raise ItesError(
            f"{name}: expected poses of like size, got pose {sizes.argmax()}, "
            f"{largest / median:.0e} times as large as the median one; "
            "remove keypoints far outside the image"
        )
    collapsed = sizes <= FLAT * median
    if collapsed.any():
        raise ItesError(
            f"{name}: expected poses of {points.shape[1]} joints, got all joints at one place in "
            f"{int(collapsed.sum()):,} of {count:,} poses, the first of them pose "
            f"{collapsed.argmax()}; mark joints that were not found as missing"
        )
    sample = points[:: max(1, count // SAMPLE)].astype(np.float64)
    spread = np.linalg.svd(sample - sample.mean(1, keepdims=True), compute_uv=False)  # [n, 2]
    if np.median(spread[:, 1] / spread[:, 0].clip(min=1e-30)) < FLAT:
        raise ItesError(
            f"{name}: expected poses in two dimensions, got joints that lie on a line; "
            "are both coordinates there?"
        )
    rows = sample.reshape(len(sample), -1)
    different = _different(rows, FLAT * median, least)
    if different < least:
        raise ItesError(_too_few(name, least, different, settings.recipe, of=count))
    if settings.recipe == "upright":
        deviation = np.linalg.svd(rows - rows.mean(0), compute_uv=False) / len(rows) ** 0.5
        moves = int((deviation > FLAT * median).sum())
        if moves < LEAST_DIRECTIONS:
            raise ItesError(
                f"{name}: recipe upright expected poses that vary in at least {LEAST_DIRECTIONS} "
                f"independent directions, got {moves}"
            )


def _too_few(name: str, least: int, got: int, recipe: str, of: int = 0) -> str:
    among = f" among {of:,}" if of else ""
    different = "different " if of else ""
    return f"{name}: recipe {recipe} expected at least {least} {different}poses, got {got}{among}"


def _different(rows: NDArray[np.float64], distance: float, enough: int) -> int:
    """How many rows (N, C) are farther than `distance` from each other, up to `enough`."""
    found = 0
    while len(rows) and found < enough:
        found += 1
        rows = rows[np.square(rows - rows[0]).sum(1) > distance**2]
    return found
