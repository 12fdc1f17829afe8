"""Running a model over many poses, in batches that suit the device."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ites.errors import ItesError
from ites.pose.skeleton import Skeleton, root_relative

ROWS = {"cpu": 17 << 9, "cuda": 17 << 16}
"""Joints that are lifted at a time: on a CPU what stays in its cache, on a GPU what fills it."""

Pose = Callable[[Tensor], Tensor]
"""A model's `pose`: points (B, J, 2) float32 to (B, J, 3), network units; or its `clean`."""


def batch_size_for(device: torch.device | str, skeleton: Skeleton) -> int:
    """Poses to lift at a time on a device."""
    return max(1, ROWS.get(torch.device(device).type, ROWS["cuda"]) // skeleton.num_joints)


@torch.inference_mode()
def lift_points(
    pose: Pose,
    points: NDArray[np.float32],
    skeleton: Skeleton,
    batch_size: int | None = None,
    device: torch.device | str = "cpu",
) -> NDArray[np.float32]:
    """Lift normalised 2D poses.

    Args:
        pose: see `Pose`.
        points: (N, J, 2) float32, network units, root at the origin.
        skeleton: its root is what the result is relative to.
        batch_size: poses at a time; None: what suits the device.
        device: where `pose` runs.

    Returns:
        (N, J, 3) float32, network units, camera frame, root-relative.

    Raises:
        ItesError: a lifted pose is not finite.
    """
    on_gpu = torch.device(device).type == "cuda"
    source = torch.from_numpy(points)
    source = source.pin_memory() if on_gpu else source
    lifted = torch.empty(*points.shape[:2], 3, pin_memory=on_gpu)
    size = batch_size or batch_size_for(device, skeleton)
    for batch, result in zip(source.split(size), lifted.split(size), strict=True):
        result.copy_(pose(batch.to(device, non_blocking=True)))
    if not lifted.isfinite().all():
        raise ItesError("lift: the model's output is not finite; was its training sound?")
    return root_relative(lifted.numpy(), skeleton.root)


@torch.inference_mode()
def cleaned(
    clean: Pose, points: NDArray[np.float32], device: torch.device | str
) -> NDArray[np.float32]:
    """Normalised 2D poses (N, J, 2) as a model lifts them; see `ites.models.Teacher.clean`."""
    return clean(torch.from_numpy(points).to(device)).cpu().numpy()
