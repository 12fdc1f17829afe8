"""Lifted poses fitted to each clip: one body, smooth motion, and views that look human.

A single frame leaves each depth uncertain. The frames of a clip show one body, so together they
constrain its bone lengths better than each frame alone. A prior, which is a density of 2D poses,
rates how the fitted poses look from other sides.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ites.data.clips import cut
from ites.pose import geometry
from ites.pose.missing import BRIEF
from ites.pose.skeleton import Skeleton

BONES = 7.0
"""Weight of a bone's deviation from its length in the clip, relative to a depth's deviation."""
ACCELERATION = 2.0
"""Weight of a joint's second difference in 3D, by the same."""
LAG = 0.2
"""Seconds between the frames of the longer second differences; the shorter ones are adjacent."""
SOFTNESS = 0.01
"""Transition from a quadratic to a linear penalty of a deviation; network units."""
VIEWS, VIEW_LIMIT = 0.35, 30.0
"""Weight of a turned view's negative log density, and its soft limit, nats. The limit is lower than
in training: people whose joints the prior does not know must not be pulled to those it knows."""
VIEW_RATE = 10.0
"""Views per second of video in each step."""
KNOTS = 20.0
"""Depths per second of video that the fit determines, about; the others lie between them."""
GOLDEN = 0.6180339887498949
"""Share of a full turn between the views of neighbouring frames."""
POINTS = 0.2
"""Weight of a keypoint's movement, in units of the clip's noise."""
LEAST_NOISE = 1e-4
"""Noise of exact keypoints, in the points' units."""
UNSEEN = 0.08
"""Noise of a joint that is not seen nearby in time, the same, for a root at distance 5."""
TOO_LONG = 1.5
"""A bone that is too long by this factor at any depth has a wrong keypoint at its end."""
MARGIN = 6.0
"""Multiples of the clip's noise by which it may be longer still."""
NEAR = 1.5
"""Bones within this factor of the frame's median length ratio determine its size."""
DRIFT = 1.1
"""The fit moves a bone's usual length by at most this factor from that of the lifted poses."""
SHORT = 5
"""Longest run of frames with a wrong keypoint that starts from interpolated depths."""
STEPS, RATE, RATE_OF_POINTS, RATE_OF_ELEVATION = 40, 0.05, 0.15, 0.01
"""Steps of Adam and their sizes: network units, units of noise, radians."""
BETAS = 0.9, 0.999
"""Decay of Adam's means of gradients and of their squares."""
REFRESH = 5
"""Steps between updates of the medians."""
TOGETHER = 1 << 14
"""Approximate poses per fit; clips stay whole."""


class Views(NamedTuple):
    """What rates how poses look from other sides.

    Attributes:
        density: negative log density (B,), nats, of 2D poses (B, J, 2) seen at elevations (B,); see
            `ites.models.Prior.at`.
        elevation: (N,) of each pose's line of sight, radians, smooth in time.
    """

    density: Callable[[Tensor, Tensor], Tensor]
    elevation: Tensor


def consistent_poses(
    points: Tensor,
    depth: Tensor,
    lengths: list[int],
    skeleton: Skeleton,
    rates: Sequence[float] | None = None,
    distance: float | Tensor = geometry.DISTANCE,
    device: torch.device | str = "cpu",
    seen: Tensor | None = None,
    noise: Tensor | None = None,
    views: Views | None = None,
) -> tuple[Tensor, Tensor]:
    """Fit poses near the given ones that suit each clip as a whole.

    Minimises over depths d, points p and a constant of each clip's elevations e, by Adam,
    `sum |d - depth| + BONES * sum |l_b / s - m_b| + ACCELERATION * sum |a|
    + POINTS * sum |p - points| / noise + VIEWS * sum L tanh(density(view) / L)`, L = `VIEW_LIMIT`,
    each |x| smoothed below `SOFTNESS`.

    - A pose's bone lengths l_b are divided by its size s, because a person who approaches the
      camera appears larger. m_b is their mean over the clip and over left and right, see
      `_Fit.usual_of`.
    - a are second differences of the joints in 3D, between adjacent frames and between frames `LAG`
      seconds apart.
    - A view shows the pose turned about the true vertical, `X @ Rx(e) @ Ry(g) @ Rx(-e)`. The
      azimuth g differs in each frame and step. Each step sees about `VIEW_RATE` views per second;
      the gradient of each is spread over the frames around it. Adam's steps would otherwise move
      the seen frames alone, whatever the other sums say.
    - For the same reason, depths are linear in time between about `KNOTS` per second.

    Bad frames do not affect good ones. s is the mean ratio of bones to their m_b over the ratios
    within `NEAR` of the median. The second and third sums omit a bone that is `TOO_LONG` times m_b
    in 2D alone. They omit a joint with no other bones. A frame with such a bone was lifted wrongly
    as a whole. Short runs of such frames start from interpolated depths, and the third sum does not
    couple them to good frames.

    Args:
        points: (N, J, 2), the network's input, cleaned, of clips one after another.
        depth: (N, J, 1), lifted from it, network units, relative to the root.
        lengths: frames per clip, N in all.
        skeleton: of the poses.
        rates: frames per second of each clip; None or nan: unknown, adjacent frames alone count.
        distance: c, one number or (N, 1, 1) for the poses.
        device: where the fit runs; the tensors may lie elsewhere.
        seen: (N, J) bool, the joints that a detector saw; None: all.
        noise: (N,), the error of each pose's points, in their units, see `moved_by`; each clip's
            median counts. None: points stay, and joints that were not seen have no weight.
        views: what rates turned poses; None: nothing.

    Returns:
        Points (N, J, 2) and depths (N, J, 1), on the device of `depth`.

    Source: the constancy of bones is Yu et al.'s, ICCV 2021, the density of views ElePose's, CVPR
    2022, here as a fit to each clip.
    """
    found, start = [], 0
    rates = [float("nan")] * len(lengths) if rates is None else rates
    if seen is None:
        seen = torch.ones(points.shape[:2], dtype=torch.bool)
    for some in cut(lengths, TOGETHER):
        rows = slice(start, start + sum(lengths[some]))
        start = rows.stop
        flat, lifted, there = (tensor[rows].to(device) for tensor in (points, depth, seen))
        away = distance[rows].to(device) if isinstance(distance, Tensor) else distance
        own_noise = None if noise is None else noise[rows].to(device)
        own_views = (
            None if views is None else views._replace(elevation=views.elevation[rows].to(device))
        )
        fit = _Fit(flat, lifted, there, lengths[some], rates[some], skeleton, away)
        found.append([part.to(depth.device) for part in fit(own_noise, own_views)])
    flat, lifted = (torch.cat(parts) for parts in zip(*found, strict=True))
    return flat, lifted


class Adam:
    """Adam, as `torch.optim.Adam` computes it, which imports PyTorch's compiler: two seconds.

    Args:
        steered: tensors that require a gradient, with the size of their steps.
    """

    def __init__(self, steered: list[tuple[Tensor, float]]) -> None:
        self.tensors = [tensor for tensor, _ in steered]
        self.rates = [rate for _, rate in steered]
        self.means = [torch.zeros_like(tensor) for tensor in self.tensors]
        self.squares = [torch.zeros_like(tensor) for tensor in self.tensors]
        self.count = 0

    def step(self, loss: Tensor, decay: float) -> None:
        """Lower the loss by a step, of sizes that are multiplied by `decay`."""
        self.count += 1
        sure, sure_square = (1 - beta**self.count for beta in BETAS)
        gradients = torch.autograd.grad(loss, self.tensors)
        with torch.no_grad():
            for tensor, rate, mean, square, gradient in zip(
                self.tensors, self.rates, self.means, self.squares, gradients, strict=True
            ):
                mean.lerp_(gradient, 1 - BETAS[0])
                square.mul_(BETAS[1]).addcmul_(gradient, gradient, value=1 - BETAS[1])
                scale = (square.sqrt() / math.sqrt(sure_square)).add_(1e-8)
                tensor.addcdiv_(mean, scale, value=-rate * decay / sure)


class _Fit:
    """A fit to some clips; see `consistent_poses`."""

    def __init__(
        self,
        points: Tensor,
        depth: Tensor,
        seen: Tensor,
        lengths: list[int],
        rates: Sequence[float],
        skeleton: Skeleton,
        distance: float | Tensor,
    ) -> None:
        device = points.device
        self.points, self.depth, self.seen, self.distance = points, depth, seen, distance
        self.skeleton, self.rates = skeleton, rates
        self.frames = torch.tensor(lengths, device=device)
        clips = torch.arange(len(lengths), device=device)
        self.clip = torch.repeat_interleave(clips, self.frames)  # [N]
        starts = self.frames.cumsum(0) - self.frames
        self.place = torch.arange(len(points), device=device) - starts[self.clip]
        self.parents, self.joints = torch.tensor(skeleton.bones, device=device).T
        bone = {joint: index for index, (_, joint) in enumerate(skeleton.bones)}
        mirror = [bone[skeleton.mirror[joint]] for _, joint in skeleton.bones]
        self.mirror = torch.tensor(mirror, device=device)
        last = self.place == self.frames[self.clip] - 1
        self.knots = (self.place % self.every(KNOTS) == 0) | last

    @torch.enable_grad()
    def __call__(self, noise: Tensor | None, views: Views | None) -> tuple[Tensor, Tensor]:
        """The fitted points and depths."""
        with torch.no_grad():
            error = self.points.new_zeros(len(self.points), 1)
            if noise is not None:
                middle = segment_median(noise[:, None], self.clip, self.frames)
                error = middle[self.clip].clamp(min=LEAST_NOISE)
            good, wrong = self.judge_bones(error)
            depth = between(self.depth, ~wrong, self.clip)
            depth = torch.where(wrong[:, None, None], depth, self.depth)
            counted = good if noise is None else good | ~self.both(self.seen)
            bends = self.bends(counted, wrong)
            sigma = None if noise is None else self.noise_of(error)[..., None]
        free = torch.ones(self.skeleton.num_joints, 1, device=depth.device)
        free[self.skeleton.root] = 0
        fill = self.filler()
        knots = depth[self.knots].requires_grad_(True)
        moved = torch.zeros_like(self.points).requires_grad_(True)  # in units of noise
        lean = depth.new_zeros(len(self.frames)).requires_grad_(True)
        steered = [(knots, RATE)]
        if sigma is not None:
            steered.append((moved, RATE_OF_POINTS))
        if views is not None:
            steered.append((lean, RATE_OF_ELEVATION))
        optimiser = Adam(steered)
        for step in range(STEPS):
            found = fill(knots)
            flat = self.points if sigma is None else self.points + free * moved * sigma
            pose = geometry.backproject(flat, found * free, self.distance)
            bones = self.bones_of(pose)
            if step % REFRESH == 0:
                with torch.no_grad():
                    near = self.measuring(bones, good)
                    length = self.usual_of(bones / self.size_of(bones, near), good)
                    expected = length.clamp(self.usual / DRIFT, self.usual * DRIFT)[self.clip]
            departure = (bones / self.size_of(bones.detach(), near) - expected) * counted
            loss = _length(found - depth).sum() + BONES * _length(departure).sum()
            for early, middle, late, weight in bends:
                bend = pose[late] - 2 * pose[middle] + pose[early]
                far = (bend.square().sum(-1) + SOFTNESS**2).sqrt()
                loss = loss + ACCELERATION * (weight * far).sum()
            if sigma is not None:
                loss = loss + POINTS * (1 + moved.square().sum(-1)).sqrt().sum()
            if views is not None:
                loss = loss + VIEWS * self.unlikely(pose, lean, views, step)
            optimiser.step(loss, decay=(1 + math.cos(math.pi * step / STEPS)) / 2)
        with torch.no_grad():
            flat = self.points if sigma is None else self.points + free * moved * sigma
            return flat, fill(knots) * free

    def every(self, per_second: float) -> Tensor:
        """Frames (N,) from one to the next of so many per second, in each frame's clip."""
        frames = [max(1, round(rate / per_second)) if rate > 0 else 1 for rate in self.rates]
        return torch.tensor(frames, device=self.clip.device)[self.clip]

    def filler(self) -> Callable[[Tensor], Tensor]:
        """What gives all frames (N, J, 1) their depths, from those at the knots."""
        if self.knots.all():
            return lambda depth: depth
        before, after, share = around(self.knots, self.clip)
        index = self.knots.cumsum(0) - 1
        before, after, share = index[before], index[after], share[:, None, None]
        return lambda depth: torch.lerp(
            depth.index_select(0, before), depth.index_select(0, after), share.to(depth)
        )

    def unlikely(self, pose: Tensor, lean: Tensor, views: Views, step: int) -> Tensor:
        """The limited negative log density of turned views, summed over the poses.

        Each step sees `VIEW_RATE` frames per second, which stand for their neighbours.

        Args:
            pose: (N, J, 3).
            lean: (S,), what each clip adds to its elevations, radians.
            views: see `Views`.
            step: of the fit; it chooses frames and azimuths.
        """
        seen = (self.place + step) % self.every(VIEW_RATE) == 0
        pose, count = self.spread(pose, seen)
        rows = seen.nonzero()[:, 0]
        share = (self.place[rows] * GOLDEN + step * GOLDEN**2) % 1.0
        up = views.elevation[rows] + lean[self.clip[rows]]
        azimuth = (2 * torch.pi * share).to(pose)[:, None]
        down = geometry.so3_exp(torch.nn.functional.pad(up[:, None], (0, 2)))  # Rx(e)
        turn = geometry.so3_exp(torch.nn.functional.pad(azimuth, (1, 1)))
        view = geometry.project(pose @ (down @ turn @ down.mT))
        density = views.density(view, up)
        return (count * VIEW_LIMIT * torch.tanh(density / VIEW_LIMIT)).sum()

    def spread(self, pose: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor]:
        """The poses (R, J, 3) of chosen frames, and how many frames (R,) each stands for.

        Their gradients reach those frames in proportion. A frame between two chosen ones counts for
        both, the more for the nearer.

        Args:
            pose: (N, J, 3).
            chosen: (N,) bool, R of them true.
        """
        if chosen.all():
            return pose, pose.new_ones(len(pose))
        before, after, later = around(chosen, self.clip)
        count, total = pose.new_zeros(len(pose)), torch.zeros_like(pose)
        for at, share in ((before, 1 - later.to(pose)), (after, later.to(pose))):
            count = count.index_add(0, at, share)
            total = total.index_add(0, at, share[:, None, None] * pose)
        mean, count = total[chosen] / count[chosen, None, None], count[chosen]
        return pose[chosen].detach() + (mean - mean.detach()), count

    def judge_bones(self, error: Tensor) -> tuple[Tensor, Tensor]:
        """Which bones (N, B) can be right, and which frames (N,) show one that cannot.

        Also finds the usual lengths (S, B) of the lifted poses' bones.

        Args:
            error: (N, 1), of the points, in their units.
        """
        good = self.both(self.seen)
        bones = self.bones_of(geometry.backproject(self.points, self.depth, self.distance))
        self.usual = self.usual_of(bones, good)
        for _ in range(2):
            near = self.measuring(bones, good)
            self.usual = self.usual_of(bones / self.size_of(bones, near), good)
        size = self.size_of(bones, self.measuring(bones, good))
        flat = geometry.backproject(self.points, 0 * self.depth, self.distance)
        longest = TOO_LONG * size * self.usual[self.clip]
        away = self.distance[:, 0] if isinstance(self.distance, Tensor) else self.distance
        short = self.bones_of(flat) < longest + MARGIN * error * away
        self.usual = self.usual_of(bones / size, good & short)
        return good & short, (good & ~short).any(1)

    def noise_of(self, error: Tensor) -> Tensor:
        """The scale (N, J) of the points' error, in their units, from that of joints seen (N, 1).

        A joint that was not seen lies between its sightings. The error of an interpolation grows
        with the square of their distance in time.
        """
        at, count = torch.arange(len(error), device=error.device)[:, None], len(error)
        before = at.where(self.seen, -1).cummax(0).values
        after = at.where(self.seen, count).flip(0).cummin(0).values.flip(0)
        inside = (before >= 0) & (after < count)
        before, after = before.clamp(min=0), after.clamp(max=count - 1)
        inside &= (self.clip[before] == self.clip[:, None]) & (
            self.clip[after] == self.clip[:, None]
        )
        rate = torch.tensor(self.rates, dtype=error.dtype, device=error.device)[self.clip, None]
        gap = torch.where(inside & (rate > 0), (after - before) / rate, BRIEF)
        unseen = UNSEEN * geometry.DISTANCE / self.distance
        if isinstance(unseen, Tensor):
            unseen = unseen[:, 0]
        far = unseen * (gap / BRIEF).clamp(max=1).square()
        return torch.where(self.seen, error, torch.maximum(error, far))

    def bends(self, good: Tensor, wrong: Tensor) -> list[tuple[Tensor, Tensor, Tensor, Tensor]]:
        """The second differences that count: rows of the three frames (M,), and weights (M, J).

        Args:
            good: (N, B), the bones that count.
            wrong: (N,), frames that were lifted wrongly.
        """
        touching = torch.zeros(self.seen.shape, device=good.device)
        for ends in (self.joints, self.parents):
            touching.index_add_(1, ends, good.to(touching.dtype))
        sound = touching > 0
        lags = [max(1, round(rate * LAG)) if rate > 0 else 1 for rate in self.rates]
        lag, found = torch.tensor(lags, device=good.device)[self.clip], []
        for apart in sorted({1, *lags}):
            rows = torch.arange(max(0, len(self.clip) - 2 * apart), device=good.device)
            inside = self.clip[rows] == self.clip[rows + 2 * apart]
            if apart > 1:
                inside &= lag[rows] == apart
            inside &= wrong[rows] == wrong[rows + apart]
            inside &= wrong[rows] == wrong[rows + 2 * apart]
            early = rows[inside]
            middle, late = early + apart, early + 2 * apart
            weight = (sound[early] & sound[middle] & sound[late]).to(self.points.dtype)
            if len(early):
                found.append((early, middle, late, weight))
        return found

    def both(self, joints: Tensor) -> Tensor:
        """Which bones (N, B) have both ends among the joints (N, J)."""
        return joints[:, self.joints] & joints[:, self.parents]

    def bones_of(self, pose: Tensor) -> Tensor:
        """The lengths (N, B) of the bones of poses (N, J, 3)."""
        bones = pose[:, self.joints] - pose[:, self.parents]
        return bones.norm(dim=-1).clamp(min=1e-6)

    def usual_of(self, own: Tensor, good: Tensor) -> Tensor:
        """The mean (S, B) over each clip of lengths (N, B), of good bones if there are any.

        A length counts as at most `NEAR` times the median, and at least its `NEAR`th part.
        """
        counted = good | ~self.any_of(good)[self.clip]
        middle = segment_median(own.where(counted, torch.nan), self.clip, self.frames)[self.clip]
        near = own.clamp(middle / NEAR, middle * NEAR) * counted
        total = near.new_zeros(len(self.frames), near.shape[1]).index_add(0, self.clip, near)
        usual = total / self.count_of(counted)
        return (usual + usual[:, self.mirror]) / 2

    def count_of(self, which: Tensor) -> Tensor:
        """The number (S, B) of frames of each clip that have a flag (N, B)."""
        zero = torch.zeros(len(self.frames), which.shape[1], device=which.device)
        return zero.index_add(0, self.clip, which.to(zero.dtype))

    def any_of(self, which: Tensor) -> Tensor:
        """Which flags (S, B) some frame of each clip has, of flags (N, B)."""
        return self.count_of(which) > 0

    def measuring(self, bones: Tensor, good: Tensor) -> Tensor:
        """Which bones (N, B) determine the pose's size."""
        ratio = bones / self.usual[self.clip]
        median = ratio.where(good, torch.nan).nanmedian(1, keepdim=True).values.nan_to_num(1.0)
        near = good & (ratio < NEAR * median) & (ratio > median / NEAR)
        return near | ~near.any(1, keepdim=True)

    def size_of(self, bones: Tensor, near: Tensor) -> Tensor:
        """The size (N, 1) of poses relative to their clips, by bones that are `near`."""
        usual = self.usual[self.clip]
        return (bones * near).sum(1, keepdim=True) / (usual * near).sum(1, keepdim=True)


def moved_by(points: Tensor, cleaned: Tensor) -> Tensor:
    """How far a network moved points (N, J, 2) when it cleaned them: (N,), their mean distance.

    Args:
        points: nan where a joint is missing; it does not count.
        cleaned: (N, J, 2). A common shift does not count.
    """
    given = points.isfinite().all(-1, keepdim=True)
    count = given.sum(1, keepdim=True).clamp(min=1)
    away = (cleaned - points).where(given, points.new_zeros(()))
    away = (away - away.sum(1, keepdim=True) / count) * given
    return away.norm(dim=-1).sum(1) / count[:, 0, 0]


def between(values: Tensor, good: Tensor, clip: Tensor) -> Tensor:
    """Interpolate values linearly in time between the nearest good frames of the clip.

    Args:
        values: (N, J, D).
        good: (N) bool.
        clip: (N) int64, ascending: the clip of each frame.

    Returns:
        (N, J, D); unchanged in runs of more than `SHORT` bad frames, and at the ends.
    """
    before, after, share = around(good, clip)
    inside = (before < after) & (after - before - 1 <= SHORT)
    found = torch.lerp(values[before], values[after], share[:, None, None].to(values.dtype))
    return found.where(inside[:, None, None], values)


def around(chosen: Tensor, clip: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The chosen frames of the clip before and after each frame, and the share of the later one.

    Args:
        chosen: (N,) bool.
        clip: (N,) int64, ascending: the clip of each frame.

    Returns:
        Rows (N,) and (N,), and (N,) from 0 to 1. A chosen frame has itself as both, a frame with
        chosen ones on one side the nearest of them, and a frame of a clip without any itself.
    """
    count = len(chosen)
    at = torch.arange(count, device=chosen.device)
    before = at.where(chosen, -1).cummax(0).values
    after = at.where(chosen, count).flip(0).cummin(0).values.flip(0)
    early = (before >= 0) & (clip[before] == clip)
    late = (after < count) & (clip[after.clamp(max=count - 1)] == clip)
    before, after = (
        before.where(early, after.where(late, at)),
        after.where(late, before.where(early, at)),
    )
    share = (at - before) / (after - before).clamp(min=1)
    return before, after, share * (before < after)


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
