"""The size of a 2D pose by itself: the sum of the 2D lengths of its bones."""

from __future__ import annotations

import torch
from torch import Tensor

from ites.pose.skeleton import Skeleton

TOTAL = 0.75
"""Sum of the 2D lengths of all bones of a scaled pose: a standing adult 4 m away."""


def bone_shares(points: Tensor, skeleton: Skeleton) -> Tensor:
    """The mean share (bones,) of each bone in the sum of 2D lengths of poses (N, J, 2)."""
    lengths = _lengths(points, skeleton)
    return (lengths / lengths.sum(1, keepdim=True).clamp(min=1e-9)).mean(0)


def own_scale(points: Tensor, skeleton: Skeleton, shares: Tensor | None = None) -> Tensor:
    """The factors (B,) that scale 2D poses (B, J, 2): `TOTAL * sum of shares / sum of lengths`.

    Args:
        points: nan where a joint is missing.
        skeleton: of the points.
        shares: (bones,), see `bone_shares`; only needed where joints are missing. The sums run over
            the bones of which both ends are seen.
    """
    lengths = _lengths(points, skeleton)
    if shares is None:
        return TOTAL / lengths.sum(1).clamp(min=1e-9)
    seen = lengths.isfinite()
    expected = (seen * shares).sum(1)
    found = TOTAL * expected / lengths.nan_to_num().sum(1).clamp(min=1e-9)
    return torch.where(expected > 0, found, torch.ones_like(found))


def _lengths(points: Tensor, skeleton: Skeleton) -> Tensor:
    of_joint = points.unbind(1)  # an index list would be copied to the device, which no graph holds
    ends = ([of_joint[bone[end]] for bone in skeleton.bones] for end in (1, 0))
    joints, parents = (torch.stack(found, dim=1) for found in ends)
    return torch.linalg.vector_norm(joints - parents, dim=-1)
