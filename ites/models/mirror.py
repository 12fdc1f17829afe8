"""Mirror images: a person's is a person, so a pose and its image must be lifted alike."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ites.skeleton import Skeleton


def mirror_image(points: Tensor, skeleton: Skeleton) -> Tensor:
    """2D poses (B, J, 2) in a mirror: x changes its sign, left joints become right ones."""
    image = points[:, list(skeleton.mirror)]
    image[..., 0].neg_()
    return image


def mean_depth(lift: Callable[[Tensor], Tensor], points: Tensor, skeleton: Skeleton) -> Tensor:
    """Depths (B, J, 1) of 2D poses (B, J, 2): the mean of a pose's and of its mirror image's.

    Args:
        lift: gives the depths (2B, J, 1) of 2D poses.
        points, skeleton: what is lifted.
    """
    depth, image = lift(torch.cat([points, mirror_image(points, skeleton)])).chunk(2)
    return (depth + image[:, list(skeleton.mirror)]) / 2
