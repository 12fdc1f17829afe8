"""Mirror images of poses. Both show a person, so both are lifted the same way."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ites.pose.skeleton import Skeleton


def mirror_image(points: Tensor, skeleton: Skeleton) -> Tensor:
    """Mirror 2D poses (B, J, 2): negate x and exchange left and right joints."""
    image = other_sides(points, skeleton)
    image[..., 0].neg_()
    return image


def other_sides(joints: Tensor, skeleton: Skeleton) -> Tensor:
    """Exchange left and right joints of values (B, J, ...).

    No index list is copied to the device, so a CUDA graph can capture it.
    """
    of_joint = joints.unbind(1)
    return torch.stack([of_joint[other] for other in skeleton.mirror], dim=1)


def mean_depth(lift: Callable[[Tensor], Tensor], points: Tensor, skeleton: Skeleton) -> Tensor:
    """Depths (B, J, 1) of 2D poses (B, J, 2), averaged over each pose and its mirror image.

    Args:
        lift: returns the depths (2B, J, 1) of 2D poses.
        points: to be lifted.
        skeleton: of the points.
    """
    both = lift(torch.cat([points, mirror_image(points, skeleton)]))
    depth, image = both.unflatten(0, (2, -1)).unbind(0)
    return (depth + other_sides(image, skeleton)) / 2
