"""Temporal consistency of lifted clips: constant bone lengths and smooth depths.

A single frame leaves each depth uncertain. The frames of a clip show one body, so together they
constrain its bone lengths better than each frame alone.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ites.data.clips import cut
from ites.pose import geometry
from ites.pose.skeleton import Skeleton

BONES = 5.0
"""Weight of a bone's deviation from its length in the clip, relative to a depth's deviation."""
ACCELERATION = 0.5
"""Weight of a depth's second difference; valid for rates from 5 to 40 frames per second."""
SOFTNESS = 0.01
"""Transition from a quadratic to a linear penalty of a deviation; network units."""
TOO_LONG = 1.5
"""A bone that is too long by this factor at any depth has a wrong keypoint at its end."""
NEAR = 1.5
"""Bones within this factor of the frame's median length ratio determine its size."""
DRIFT = 1.1
"""The fit moves a bone's usual length by at most this factor from that of the lifted poses."""
SHORT = 5
"""Longest run of frames with a wrong keypoint that starts from interpolated depths."""
STEPS, RATE = 50, 0.03
REFRESH = 5
"""Steps between updates of the medians."""
TOGETHER = 1 << 14
"""Approximate poses per fit; clips stay whole."""


def consistent_depths(
    points: Tensor,
    depth: Tensor,
    lengths: list[int],
    skeleton: Skeleton,
    distance: float | Tensor = geometry.DISTANCE,
    device: torch.device | str = "cpu",
    seen: Tensor | None = None,
) -> Tensor:
    """Fit depths near the given ones that keep each clip's bone lengths constant and are smooth.

    Minimises over d, by Adam,
    `sum |d - depth| + BONES * sum |l_b / s - m_b| + ACCELERATION * sum |d[t+1] - 2 d[t] + d[t-1]|`,
    each |x| smoothed below `SOFTNESS`. A pose's bone lengths l_b are divided by its size s, because
    a person who approaches the camera appears larger. m_b is their median over the clip, averaged
    over left and right.

    Bad frames do not affect good ones. s is the mean ratio of bones to their m_b over the ratios
    within `NEAR` of the median. The second and third sums omit a bone that is `TOO_LONG` times m_b
    in 2D alone. They omit a joint with no other bones, and a joint that was not seen. A frame with
    such a bone was lifted wrongly as a whole. Short runs of such frames start from interpolated
    depths, and the third sum does not couple them to good frames.

    Args:
        points: (N, J, 2), the network's input, of clips one after another.
        depth: (N, J, 1), lifted from it, network units, relative to the root.
        lengths: frames per clip, N in all.
        skeleton: of the poses.
        distance: c, one number or (N, 1, 1) for the poses.
        device: where the fit runs; the tensors may lie elsewhere.
        seen: (N, J) bool, the joints that a detector saw; None: all.

    Returns:
        (N, J, 1), on the device of `depth`.

    Source: the constancy of bones is Yu et al.'s, ICCV 2021, here as a fit to each clip.
    """
    found, start = [], 0
    if seen is None:
        seen = torch.ones(points.shape[:2], dtype=torch.bool)
    for some in cut(lengths, TOGETHER):
        rows = slice(start, start + sum(lengths[some]))
        start = rows.stop
        flat, lifted, there = (tensor[rows].to(device) for tensor in (points, depth, seen))
        away = distance[rows].to(device) if isinstance(distance, Tensor) else distance
        fitted = _fit(flat, lifted, there, lengths[some], skeleton, away)
        found.append(fitted.to(depth.device))
    return torch.cat(found)


@torch.enable_grad()
def _fit(
    points: Tensor,
    depth: Tensor,
    seen: Tensor,
    lengths: list[int],
    skeleton: Skeleton,
    distance: float | Tensor,
) -> Tensor:
    device = points.device
    frames = torch.tensor(lengths, device=device)
    clip = torch.repeat_interleave(torch.arange(len(lengths), device=device), frames)  # [N]
    parents, joints = torch.tensor(skeleton.bones, device=device).T
    bone = {joint: index for index, (_, joint) in enumerate(skeleton.bones)}
    mirror = torch.tensor([bone[skeleton.mirror[j]] for _, j in skeleton.bones], device=device)
    free = torch.ones(skeleton.num_joints, 1, device=device)
    free[skeleton.root] = 0

    def bones_of(pose: Tensor) -> Tensor:  # [N, B]
        return (pose[:, joints] - pose[:, parents]).norm(dim=-1).clamp(min=1e-6)

    def usual_of(own: Tensor, good: Tensor) -> Tensor:  # [S, B]
        usual = segment_median(own.where(good, torch.nan), clip, frames)
        unseen = ~usual.isfinite()
        if unseen.any():
            usual = usual.where(~unseen, segment_median(own, clip, frames))
        return (usual + usual[:, mirror]) / 2

    def telling(bones: Tensor, good: Tensor) -> Tensor:  # [N, B], bones that determine the size
        ratio = bones / usual[clip]
        median = ratio.where(good, torch.nan).nanmedian(1, keepdim=True).values.nan_to_num(1.0)
        near = good & (ratio < NEAR * median) & (ratio > median / NEAR)
        return near | ~near.any(1, keepdim=True)

    def size_of(bones: Tensor, near: Tensor) -> Tensor:  # [N, 1]
        return (bones * near).sum(1, keepdim=True) / (usual[clip] * near).sum(1, keepdim=True)

    with torch.no_grad():
        good = seen[:, joints] & seen[:, parents]
        bones = bones_of(geometry.backproject(points, depth, distance))
        usual = usual_of(bones, good)
        for _ in range(2):
            usual = usual_of(bones / size_of(bones, telling(bones, good)), good)
        size = size_of(bones, telling(bones, good))
        least = bones_of(geometry.backproject(points, 0 * depth, distance))
        wrong = (good & (least >= TOO_LONG * size * usual[clip])).any(1)  # [N]
        good &= least < TOO_LONG * size * usual[clip]
        depth = torch.where(wrong[:, None, None], between(depth, ~wrong, clip), depth)
        sound = seen.clone()  # joints with a good bone
        touching = torch.zeros_like(seen, dtype=points.dtype)
        for ends in (joints, parents):
            touching.index_add_(1, ends, good.to(points.dtype))
        sound &= touching > 0
        inside = (clip[2:] == clip[:-2])[:, None] & sound[2:] & sound[1:-1] & sound[:-2]
        inside &= ((wrong[2:] == wrong[1:-1]) & (wrong[1:-1] == wrong[:-2]))[:, None]

    found = depth.clone().requires_grad_(True)
    optimiser = torch.optim.Adam([found], RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, STEPS)
    for step in range(STEPS):
        bones = bones_of(geometry.backproject(points, found, distance))
        if step % REFRESH == 0:
            with torch.no_grad():
                near = telling(bones, good)
                length = usual_of(bones / size_of(bones, near), good)
                expected = length.clamp(usual / DRIFT, usual * DRIFT)[clip]  # [N, B]
        departure = (bones / size_of(bones, near) - expected) * good
        bend = found[2:] - 2 * found[1:-1] + found[:-2]
        loss = (
            _length(found - depth).sum()
            + BONES * _length(departure).sum()
            + ACCELERATION * (inside[..., None] * _length(bend)).sum()
        )
        (found.grad,) = torch.autograd.grad(loss, found)
        found.grad *= free
        optimiser.step()
        schedule.step()
    return found.detach()


def between(values: Tensor, good: Tensor, clip: Tensor) -> Tensor:
    """Interpolate values linearly in time between the nearest good frames of the clip.

    Args:
        values: (N, J, D).
        good: (N) bool.
        clip: (N) int64, ascending: the clip of each frame.

    Returns:
        (N, J, D); unchanged in runs of more than `SHORT` bad frames, and at the ends.
    """
    count = len(values)
    at = torch.arange(count, device=values.device)
    before = at.where(good, -1).cummax(0).values
    after = at.where(good, count).flip(0).cummin(0).values.flip(0)
    inside = (before >= 0) & (after < count) & (after - before - 1 <= SHORT)
    before, after = before.where(inside, at), after.where(inside, at)
    inside &= (clip[before] == clip) & (clip[after] == clip)
    share = (at - before) / (after - before).clamp(min=1)
    found = torch.lerp(values[before], values[after], share[:, None, None].to(values.dtype))
    return found.where(inside[:, None, None], values)


def segment_median(values: Tensor, segment: Tensor, lengths: Tensor) -> Tensor:
    """The median over each segment of rows, of the values that are finite.

    Args:
        values: (N, B); nan does not count.
        segment: (N) int64, ascending: the segment of each row.
        lengths: (S) int64, rows per segment.

    Returns:
        (S, B), nan if a segment has no finite value. The median of an even number of values is the
        mean of the two middle ones.
    """
    order = values.argsort(dim=0, stable=True)  # nan sorts last
    by_segment = segment[order].argsort(dim=0, stable=True)
    ranked = values.gather(0, order.gather(0, by_segment))
    zero = torch.zeros(len(lengths), values.shape[1], dtype=torch.long, device=values.device)
    count = zero.index_add(0, segment, values.isfinite().long())
    start = (lengths.cumsum(0) - lengths)[:, None]
    low = (start + (count - 1).clamp(min=0) // 2).clamp(max=max(len(values) - 1, 0))
    high = (start + count // 2).clamp(max=max(len(values) - 1, 0))
    middle = (ranked.gather(0, low) + ranked.gather(0, high)) / 2
    return middle.where(count > 0, torch.nan)


def _length(x: Tensor) -> Tensor:
    """|x|, rounded near 0."""
    return (x.square() + SOFTNESS**2).sqrt()
