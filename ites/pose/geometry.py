"""Rotations and the networks' camera, in plain PyTorch.

Conventions, stated here once. Poses are row vectors, so a rotation acts from the right:
`X' = X @ R`. Camera axes: x right, y down, z forward. The networks' camera has unit focal length
and stands `distance` (5 units) before the subject's root joint.
"""

from __future__ import annotations

import torch
from torch import Tensor

DISTANCE = 5.0
"""c, the subject's distance from the networks' camera (docs/method.md, 1.4)."""


def hat(w: Tensor) -> Tensor:
    """The matrices [w]x (..., 3, 3) of vectors w (..., 3)."""
    x, y, z = w.unbind(-1)
    zero = torch.zeros_like(x)
    return torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], dim=-1).unflatten(-1, (3, 3))


def so3_exp(rotation_vector: Tensor) -> Tensor:
    """Rotation matrices of rotation vectors, by the paper's formula.

    With a = |w| and f = 1 / (a + 1e-4): `I + f sin(a) [w]x + f^2 (1 - cos a) [w]x^2`. The 1e-4
    makes it slightly off orthonormal. Its gradient at w = 0 is zero, and finite everywhere.

    Args:
        rotation_vector: (..., 3), radians; acts on row vectors from the right.

    Returns:
        (..., 3, 3).

    Source: docs/method.md, 2.1.
    """
    angle = torch.linalg.vector_norm(rotation_vector, dim=-1)[..., None, None]
    f = 1 / (angle + 1e-4)
    w = hat(rotation_vector)
    eye = torch.eye(3, dtype=w.dtype, device=w.device)
    return eye + f * angle.sin() * w + f.square() * (1 - angle.cos()) * (w @ w)


def project(joints: Tensor, distance: float = DISTANCE) -> Tensor:
    """Project joints by the networks' camera: `X[..., :2] / max(distance + X[..., 2], 1)`.

    Args:
        joints: (..., 3) in network units, camera axes, relative to the root.
        distance: c, network units.

    Returns:
        (..., 2). Source: docs/method.md, 1.4.
    """
    return joints[..., :2] / (joints[..., 2:] + distance).clamp(min=1)


def backproject(points: Tensor, depth: Tensor, distance: float | Tensor = DISTANCE) -> Tensor:
    """Lift points to given depths: the inverse of `project`.

    `concat(points * max(depth + distance, 1), depth)`.

    Args:
        points: (..., 2), projections by the networks' camera.
        depth: (..., 1), z relative to the root, network units.
        distance: c, network units; a number, or a tensor that broadcasts against `depth`.

    Returns:
        (..., 3). Source: docs/method.md, 1.4.
    """
    return torch.cat([points * (depth + distance).clamp(min=1), depth], dim=-1)


def unrolled(points: Tensor, roll: Tensor) -> Tensor:
    """2D poses of rolled cameras, as level cameras see them.

    `(x, y)' = (x cos(roll) - y sin(roll), y cos(roll) + x sin(roll))`.

    Args:
        points: (N, J, 2), relative to the root or the principal point; any unit.
        roll: (N,) or (), clockwise, radians.

    Returns:
        (N, J, 2).
    """
    c, s = roll.cos()[..., None], roll.sin()[..., None]
    x, y = points.unbind(-1)
    return torch.stack([c * x - s * y, c * y + s * x], dim=-1)
