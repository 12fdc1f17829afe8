"""Clips lifted as wholes: bones keep their lengths, and nothing jerks.

A single frame leaves each depth a little open. The frames of a clip show one body: what they say
of its bones together is more than each says alone.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ites.data.clips import cut
from ites.pose import geometry
from ites.pose.skeleton import Skeleton

BONES = 5.0
"""Weight of a bone's departure from its length in the clip, of a depth's from its lifted value."""
ACCELERATION = 0.5
"""Weight of a depth's second difference in time; one for all rates from 5 to 40 frames a second."""
SOFTNESS = 0.01
"""Below it a departure counts by its square, beyond by its length; network units."""
STEPS, RATE = 50, 0.03
TOGETHER = 1 << 14
"""Poses that are fitted at a time, but for a clip's end."""


def consistent_depths(
    points: Tensor,
    depth: Tensor,
    lengths: list[int],
    skeleton: Skeleton,
    distance: float = geometry.DISTANCE,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Depths near those given with which a clip's bones keep their lengths and nothing jerks.

    Minimises over d, by Adam,
    `sum |d - depth| + BONES * sum |l_b / s - m_b| + ACCELERATION * sum |d[t+1] - 2 d[t] + d[t-1]|`,
    each |x| rounded below `SOFTNESS`. Bone lengths l_b of a pose are divided by its size s, their
    sum over that of the clip's mean, for who walks up to the camera grows; m_b is their mean over
    the clip and over left and right.

    Args:
        points: (N, J, 2), the network's input, of clips one after another.
        depth: (N, J, 1), lifted from it, network units, relative to the root.
        lengths: frames of each clip, N in all.
        skeleton: of the poses.
        distance: c.
        device: where it is done; the tensors may lie elsewhere.

    Returns:
        (N, J, 1), where `depth` is.

    Source: the constancy of bones is Yu et al.'s, ICCV 2021, here as a fit to each clip.
    """
    found, start = [], 0
    for some in cut(lengths, TOGETHER):
        rows = slice(start, start + sum(lengths[some]))
        start = rows.stop
        flat, lifted = points[rows].to(device), depth[rows].to(device)
        found.append(_fit(flat, lifted, lengths[some], skeleton, distance).to(depth.device))
    return torch.cat(found)


@torch.enable_grad()
def _fit(
    points: Tensor, depth: Tensor, lengths: list[int], skeleton: Skeleton, distance: float
) -> Tensor:
    device = points.device
    frames = torch.tensor(lengths, device=device)
    clip = torch.repeat_interleave(torch.arange(len(lengths), device=device), frames)  # [N]
    inside = (clip[2:] == clip[:-2])[:, None, None]  # three frames of one clip
    parents, joints = torch.tensor(skeleton.bones, device=device).T
    bone = {joint: index for index, (_, joint) in enumerate(skeleton.bones)}
    mirror = torch.tensor([bone[skeleton.mirror[j]] for _, j in skeleton.bones], device=device)
    free = torch.ones(skeleton.num_joints, 1, device=device)
    free[skeleton.root] = 0

    def mean(values: Tensor) -> Tensor:  # [N, B] -> [S, B]
        total = values.new_zeros(len(frames), values.shape[1]).index_add_(0, clip, values)
        return total / frames[:, None]

    def departure(pose: Tensor) -> Tensor:  # [N, B]
        bones = (pose[:, joints] - pose[:, parents]).norm(dim=-1)
        size = bones.sum(1, keepdim=True).clamp(min=1e-6)
        own = bones / size * mean(size)[clip].detach()
        usual = mean(own).detach()
        return own - ((usual + usual[:, mirror]) / 2)[clip]

    found = depth.clone().requires_grad_(True)
    optimiser = torch.optim.Adam([found], RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, STEPS)
    for _ in range(STEPS):
        bend = found[2:] - 2 * found[1:-1] + found[:-2]
        loss = (
            _length(found - depth).sum()
            + BONES * _length(departure(geometry.backproject(points, found, distance))).sum()
            + ACCELERATION * (inside * _length(bend)).sum()
        )
        (found.grad,) = torch.autograd.grad(loss, found)
        found.grad *= free
        optimiser.step()
        schedule.step()
    return found.detach()


def _length(x: Tensor) -> Tensor:
    """|x|, rounded near 0."""
    return (x.square() + SOFTNESS**2).sqrt()
