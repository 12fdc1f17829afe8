"""Whether a store's 3D projects onto its 2D: a truth in other axes gives figures of nothing."""

from __future__ import annotations

import os

import numpy as np
from numpy.typing import NDArray

from ites.errors import ItesError
from ites.pose.skeleton import Skeleton

APART = 0.4
"""Share of the 2D pose that the 3D leaves unexplained, from which on another reading is tried."""
TOGETHER = 0.5
"""What the other reading may leave at most of that share."""


def refuse_other_axes(
    path: str | os.PathLike[str],
    points: NDArray[np.float32],
    positions: NDArray[np.float32],
    skeleton: Skeleton,
) -> None:
    """Refuse 3D that does not project onto the 2D, but would with other axes or exchanged sides.

    `left(x, P) = |x - s P_xy| / |x|` with the `s >= 0` that makes it least, both root-relative: the
    projection by a distant camera. Its median over the poses counts. Noise and perspective leave
    less than `APART`; of a 3D that fits in no reading nothing is known.

    Args:
        path: of the store, for the message.
        points: (N, J, 2), root-relative, x right, y down, in any unit.
        positions: (N, J, 3) in camera axes, metres.
        skeleton: of both.

    Raises:
        ItesError: the people are behind the camera, or another reading leaves at most `TOGETHER`
            of what the 3D as given leaves.
    """
    if len(positions) and np.median(positions[:, skeleton.root, 2]) < 0:
        raise ItesError(
            f"{path}: positions: expected camera axes, x right, y down, z forward, got people "
            "behind the camera: z is below 0"
        )
    x, y, z = np.moveaxis(positions - positions[:, [skeleton.root]], -1, 0)
    other = list(skeleton.mirror)
    given = _left(points, x, y)
    if not given > APART:
        return
    readings = {
        "y upwards": _left(points, x, -y),
        "x to the left": _left(points, -x, y),
        "x to the left and y upwards": _left(points, -x, -y),
        "z upwards": min(_left(points, sign * x, -z) for sign in (1, -1)),
        "z downwards": min(_left(points, sign * x, z) for sign in (1, -1)),
        "x and y exchanged": _left(points, y, x),
        "left and right joints exchanged": _left(points, x[:, other], y[:, other]),
    }
    words, least = min(readings.items(), key=lambda reading: reading[1])
    if least <= TOGETHER * given:
        raise ItesError(
            f"{path}: positions: expected camera axes, x right, y down, z forward, and the joints "
            f"of the keypoints; got 3D that projects onto the keypoints with {words}"
        )


def _left(points: NDArray[np.float32], x: NDArray[np.float32], y: NDArray[np.float32]) -> float:
    """The median over poses of the share that `points` (N, J, 2) keep of themselves."""
    flat = np.stack([x, y], axis=-1)
    along = np.einsum("njc,njc->n", points, flat)
    size = np.einsum("njc,njc->n", points, points)
    of_flat = np.einsum("njc,njc->n", flat, flat)
    with np.errstate(invalid="ignore", divide="ignore"):
        explained = np.maximum(along, 0) ** 2 / (size * of_flat)
    explained = explained[np.isfinite(explained)]
    return float(np.sqrt(np.median(np.maximum(1 - explained, 0)))) if explained.size else 0.0
