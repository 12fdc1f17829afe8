"""The lengths of bones, in NumPy."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from ites.pose.skeleton import Skeleton

Float = TypeVar("Float", bound=np.floating)


def bone_lengths(positions: NDArray[Float], skeleton: Skeleton) -> NDArray[Float]:
    """The lengths of a skeleton's bones, in the order of `Skeleton.bones`.

    Args:
        positions: (N, J, D), any unit.
        skeleton: of the positions.

    Returns:
        (N, bones), in the unit and dtype of `positions`.
    """
    parents, joints = np.array(skeleton.bones).T
    lengths: NDArray[Float] = np.linalg.norm(positions[:, joints] - positions[:, parents], axis=-1)
    return lengths
