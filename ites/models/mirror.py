"""Mirror images of poses: both must be lifted alike, because both show a person."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ites.pose.skeleton import Skeleton


def mirror_image(points: Tensor, skeleton: Skeleton) -> Tensor:
    """2D poses (B, J, 2) in a mirror: x changes its sign, left joints become right ones."""
    image = other_sides(points, skeleton)
    image[..., 0].neg_()
    return image


def other_sides(joints: Tensor, skeleton: Skeleton) -> Tensor:
    """Values of joints, (B, J, ...), with left and right joints exchanged.

    No list of indices is copied to the device, so that a CUDA graph can hold it.
    """
    of_joint = joints.unbind(1)
    return torch.stack([of_joint[other] for other in skeleton.mirror], dim=1)


def mean_depth(lift: Callable[[Tensor], Tensor], points: Tensor, skeleton: Skeleton) -> Tensor:
    """Depths (B, J, 1) of 2D poses (B, J, 2): the mean of a pose's and of its mirror image's.

    Args:
        lift: gives the depths (2B, J, 1) of 2D poses.
        points: to be lifted.
        skeleton: of the points.
    """
    both = lift(torch.cat([points, mirror_image(points, skeleton)]))
    depth, image = both.unflatten(0, (2, -1)).unbind(0)
    return (depth + other_sides(image, skeleton)) / 2
