"""Before and after a network that sees each pose and its mirror image; in CUDA one launch each.

Not run on a GPU. `ites.models.general` says the same in PyTorch's operators, for every other
backend. They have no gradient.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ites.ops._registry import define, expect, expect_alike, expect_index, expect_indices
from ites.ops.backends import choose


def fuses_mirrored(points: Tensor, backend: str | None = None) -> bool:
    """Whether `mirrored_input` and `mirrored_output` run here: CUDA, float32, without gradient."""
    device = points.device.type
    if points.dtype != torch.float32 or torch.is_grad_enabled():
        return False
    if torch.is_autocast_enabled(device) or torch.compiler.is_compiling():
        return False
    return choose("mirrored_input", device, points.dtype, backend) == "cuda"


def mirrored_input(
    points: Tensor, shares: Tensor, bones: Tensor, mirror: Tensor, total: float, factor: float
) -> tuple[Tensor, Tensor, Tensor]:
    """The input of 2D poses and of their mirror images, at the poses' own scale.

    Args:
        points: (B, J, 2), nan where a joint is missing.
        shares: (n,); see `ites.models.sizes.own_scale`.
        bones: int64 (2, n): each bone's joint and its parent.
        mirror: int64 (J,), each joint's on the other side; of a joint in the middle, itself.
        total: sum of the lengths of all bones after scaling.
        factor: of the input.

    Returns:
        The poses (2B, J, 2), then the images, relative to the mean of the joints that are seen, 0
        where missing, times the factor; which are missing (2B, J), 0 or 1; the scales (B,).

    Raises:
        ValueError, TypeError: a shape, dtype or table does not fit.
    """
    op = "mirrored_input"
    expect(op, "points", points, "B", "J", 2)
    expect(op, "bones", bones, 2, "n")
    expect(op, "shares", shares, bones.shape[1])
    expect(op, "mirror", mirror, points.shape[1])
    expect_alike(op, points=points, shares=shares)
    return _mirrored_input(
        points.contiguous(), shares, bones.contiguous(), mirror, total, factor, "cuda"
    )


def mirrored_output(
    points: Tensor,
    scales: Tensor,
    camera: Tensor,
    direct: Tensor,
    mirror: Tensor,
    root: int,
    distance: float,
    noiseless: float,
    most_moved: float,
    *,
    original: Tensor | None = None,
    depth: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """The mean of the estimates of poses and of their images, completed and denoised.

    Args:
        points: (B, J, 2), nan where a joint is missing.
        scales: (B,), of `mirrored_input`.
        camera: (2B, J, 3), the dictionary's poses; of the points, then of the images.
        direct: (2B, J), added to their depths.
        mirror: int64 (J,).
        root: joint.
        distance: c of `ites.pose.geometry.project`.
        noiseless, most_moved: see `ites.models.general`.
        original, depth: (B, J, 2) and (B, J, 1), in a second pass whose points are the first's:
            what the first was given, and its depths, which stay where no joint was missing.

    Returns:
        Complete points (B, J, 2), in a second pass the given ones; depths (B, J, 1) and poses
        (B, J, 3), in the units of the points, relative to the root.

    Raises:
        ValueError, TypeError: a shape, dtype or table does not fit.
    """
    op = "mirrored_output"
    expect(op, "points", points, "B", "J", 2)
    count, joints, _ = points.shape
    expect(op, "scales", scales, count)
    expect(op, "camera", camera, 2 * count, joints, 3)
    expect(op, "direct", direct, 2 * count, joints)
    expect(op, "mirror", mirror, joints)
    expect_index(op, "root", root, joints)
    expect_alike(op, points=points, scales=scales, camera=camera, direct=direct)
    for name, tensor, last in (("original", original, 2), ("depth", depth, 1)):
        if tensor is not None:
            expect(op, name, tensor, count, joints, last)
            expect_alike(op, points=points, **{name: tensor})
    return _mirrored_output(
        points.contiguous(),
        scales,
        camera.contiguous(),
        direct.contiguous(),
        None if original is None else original.contiguous(),
        depth,
        mirror,
        root,
        distance,
        noiseless,
        most_moved,
        "cuda",
    )


def _check_input(op, points, shares, bones, mirror, *_):
    expect(op, "points", points, "B", "J", 2)
    expect_indices(op, "bones", bones, points, points.shape[1])
    expect_indices(op, "mirror", mirror, points, points.shape[1], pairs=True)


def _check_output(op, points, scales, camera, direct, original, depth, mirror, *_):
    expect(op, "points", points, "B", "J", 2)
    expect_indices(op, "mirror", mirror, points, points.shape[1], pairs=True)


_mirrored_input = define(
    "mirrored",
    "mirrored_input(Tensor points, Tensor shares, Tensor bones, Tensor mirror, float total, "
    "float factor) -> (Tensor, Tensor, Tensor)",
    lambda points, *_: (
        points.new_empty(2 * points.shape[0], points.shape[1], 2),
        points.new_empty(2 * points.shape[0], points.shape[1]),
        points.new_empty(points.shape[0]),
    ),
    _check_input,
)
_mirrored_output = define(
    "mirrored",
    "mirrored_output(Tensor points, Tensor scales, Tensor camera, Tensor direct, "
    "Tensor? original, Tensor? depth, Tensor mirror, int root, float distance, float noiseless, "
    "float most_moved) -> (Tensor, Tensor, Tensor)",
    lambda points, *_: tuple(points.new_empty(*points.shape[:2], last) for last in (2, 1, 3)),
    _check_output,
)
