"""Detectors' errors for training: noise with heavy tails, swapped limbs, joints that are missing.

All draws are Philox's, so a training that is resumed repeats them.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ites.ops import philox

NOISE = 0.003
"""Median standard deviation of a keypoint's error, network units: about 0.8% of a body's height."""
SPREAD = 0.75, 0.6
"""Standard deviations of the logarithm of that, from pose to pose and from joint to joint."""
OUTLIERS = 0.015, 8.0
"""Share of joints that are far off, and by how many times as much."""
SWAPPED = 0.015
"""Share of poses whose legs have changed sides, and of those whose arms have."""
INCOMPLETE = 0.4
"""Share of poses that lack joints: half of these lack random ones, half a part of the body."""
_LESS_SURE = (1.4, 1.4, 1, 1.2, 1.4, 1, 1.2, 1, 1, 1, 1, 1, 1, 1.2, 1, 1, 1.2)
_PARTS = (
    (15, 16), (12, 13), (16,), (13,), (13, 16), (12, 13, 15, 16), (14, 15, 16), (11, 12, 13),
    (2, 3), (5, 6), (3,), (6,), (3, 6), (2, 3, 5, 6), (1, 2, 3, 4, 5, 6), (9,), (9, 10),
    (2, 3, 15, 16), (5, 6, 12, 13), (0, 1, 4), (10,), (15,), (12,), (2,), (5,),
    (1, 2, 3), (4, 5, 6), (0, 1, 2, 3), (0, 4, 5, 6),
)  # fmt: skip
_ARMS = ((11, 12, 13), (14, 15, 16))
_LEGS = ((1, 2, 3), (4, 5, 6))


def uniform(counter: Tensor, stream: int, rows: int, columns: int) -> Tensor:
    """Numbers (rows, columns) in [0, 1), float32, of one of a step's streams."""
    own = counter + torch.tensor([(stream + 1) << 40, 0, 0], device=counter.device)
    words = philox(own, rows, -(-columns // 4))
    return (
        ((words >> 8).float() * 2.0**-24).view(-1, rows, 4).permute(1, 0, 2).flatten(1)[:, :columns]
    )


def normal(uniforms: Tensor) -> Tensor:
    """Standard normal numbers (..., 2 n) of uniform ones, by Box and Muller."""
    first, second = uniforms.chunk(2, dim=-1)
    radius, angle = (-2 * (-first).log1p()).sqrt(), 2 * math.pi * second
    return torch.cat([radius * angle.cos(), radius * angle.sin()], dim=-1)


def disturb(
    points: Tensor, counter: Tensor, stream: int, amount: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Disturb 2D poses (B, 17, 2) of Human3.6M's joints as a detector would.

    Args:
        points: network units.
        counter: int64 (3,): seed, step, first pose.
        stream: different numbers give independent draws.
        amount: factor of the noise.

    Returns:
        The disturbed poses, and which joints are seen, (B, 17) bool.
    """
    count, joints, _ = points.shape
    own = uniform(counter, stream, count * joints, 6).view(count, joints, 6)
    pose = uniform(counter, stream + 1, count, 8)
    level = normal(pose[:, :2])[:, :1]
    error, tail = normal(own[..., :2]), normal(own[..., 2:4])[..., 0]
    size = amount * NOISE * torch.exp(SPREAD[0] * level + SPREAD[1] * tail)
    size = size * points.new_tensor(_LESS_SURE)
    size = torch.where(own[..., 4] < OUTLIERS[0], OUTLIERS[1] * size, size)
    found = points
    for column, (one, other) in ((2, _LEGS), (3, _ARMS)):
        order = list(range(joints))
        for a, b in zip(one, other, strict=True):
            order[a], order[b] = b, a
        swapped = (pose[:, column] < SWAPPED)[:, None, None]
        found = torch.where(swapped, found[:, order], found)
    parts = torch.ones(len(_PARTS), joints, dtype=torch.bool, device=points.device)
    for row, missing in enumerate(_PARTS):
        parts[row, list(missing)] = False
    part = parts[(pose[:, 5] * len(_PARTS)).long()]
    scattered = own[..., 5] >= 0.5 * pose[:, 6:7]
    chosen = torch.where((pose[:, 7] < 0.5)[:, None], part, scattered)
    seen = chosen | (pose[:, 4] >= INCOMPLETE)[:, None]
    return found + size[..., None] * error, seen
