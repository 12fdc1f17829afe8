"""Whole bodies that jump, frames out of order, and some that are turned otherwise."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from ites.data.checks.arrays import Floats
from ites.data.checks.group import ENOUGH, Body, Group
from ites.data.clips import ASSUMED_FPS
from ites.data.findings import Finding, ranges
from ites.pose.missing import norms
from ites.pose.swaps import limbs, sure_rate

SPEED = 12.0
"""Maximum speed of a person in metres per second."""
ACCELERATION = 60.0
"""Maximum acceleration of a whole person in metres per second squared."""
SUDDEN = 0.1
"""Metres of a single step amid smaller ones that a measurement's noise does not make."""
CHANGED, OFTEN, ENOUGH_JOINTS = 0.115, 8.0, 10
"""Metres: the least step about the root, of two thirds of the joints, that is another person at the
same place. It is what the step has beyond twice the steps around it, and below `OFTEN` frames per
second beyond twice the clip's usual ones too. 444 clips of the CMU database have at most 0.094 at
25 and 40 frames per second, 0.105 at 12, 0.112 at 8 and 0.11 at 5. And the joints to be seen."""
LONGEST, ASIDE, WIDE = 3, 0.25, 0.35
"""Frames in a row that differ from those before and after: in shape by `CHANGED`, below `OFTEN`
frames per second by `WIDE` metres; or in place by `ASIDE`, from `OFTEN` on."""
LIMIT_OF_ORDER = 12.0
"""Frames per second from which the order of frames shows."""
MOVING, JITTER, RANDOM = 0.06, 8.0, 0.7
"""Metres and pixels of a joint's standard deviation from which it moves; and its mean squared step
over twice its variance from which the order is random."""


def jumps(group: Group, _: Body) -> Iterator[tuple[int, Finding]]:
    """Frames to which the whole body moves impossibly, or changes its size; and disorder."""
    rows = np.flatnonzero(group.seen.sum(1) >= 4)  # a gap in between makes no jump
    before, after = rows[:-1], rows[1:]
    same = group.clip_of[before] == group.clip_of[after]
    before, after = before[same], after[same]
    middle = _steps(group, before, after)
    shape = _shape_steps(group, before, after)
    short = _excursions(group)
    scales = np.maximum(group.scale[after], 1e-9), np.maximum(group.scale[before], 1e-9)
    ratio = np.abs(np.log(scales[0] / scales[1]))
    starts = np.searchsorted(group.clip_of[after], np.arange(len(group.clips) + 1))
    for number, (clip, own) in enumerate(zip(group.clips, group.rows, strict=True)):
        steps = slice(int(starts[number]), int(starts[number + 1]))
        if steps.start == steps.stop:
            continue
        known = clip.fps if clip.fps > 0 else ASSUMED_FPS
        rate = clip.fps if clip.fps > 0 else group.motion[number]
        gap = after[steps] - before[steps]
        scale = np.fmax(group.scale[after[steps]], group.scale[before[steps]])
        far = np.fmax(scale, group.typical[number])
        with np.errstate(invalid="ignore"):
            fast = middle[steps] > far * np.maximum(0.4, SPEED / rate * gap)
            other = (ratio[steps] > 0.6) & (middle[steps] > 0.25 * far)
            moves = middle[steps] / far
            sudden = moves - 2 * _around(moves) > max(SUDDEN, ACCELERATION / rate**2)
            turned = shape[steps] / far
            changed = turned - 2 * _around(turned) > CHANGED
            if rate < OFTEN:
                changed &= turned - 2 * np.quantile(np.nan_to_num(turned), 0.9) > CHANGED
            sudden |= changed
            sudden &= gap == 1
        at = fast | other | sudden
        at |= np.isin(after[steps], short)
        jumps = after[steps][at] - own.start
        told = {"jumps": len(jumps)}
        if len(jumps):
            yield group.found(
                number,
                "jump",
                "warning",
                f"the whole body jumps before {len(jumps):,} of {len(clip):,} frames "
                f"({ranges(jumps)}): another person, another scene, frames turned otherwise or "
                "out of order",
                told,
                jumps,
            )
        elif known > LIMIT_OF_ORDER and _disordered(group, before[steps], after[steps], number):
            yield group.found(
                number,
                "jump",
                "warning",
                "the frames look out of order: one differs from the next as much as from any other",
                {**told, "disordered": True},
            )


def _excursions(group: Group) -> NDArray[np.intp]:
    """The first frames of excursions: up to `LONGEST` frames unlike those before and after."""
    rates = [
        sure_rate(clip.fps, motion) for clip, motion in zip(group.clips, group.motion, strict=True)
    ]
    rate, far = np.array(rates)[group.clip_of], group.typical[group.clip_of]
    rows = np.arange(len(far) - 1)
    found = [rows[:0]]
    slow = rate < OFTEN
    for steps, limit in (
        (_shape_steps, far * np.where(slow, WIDE, CHANGED)),
        (_steps, far * np.where(slow, np.inf, ASIDE)),
    ):
        moved = steps(group, rows, rows + 1)
        moved[group.clip_of[:-1] != group.clip_of[1:]] = 0
        for count in range(1, LONGEST + 1):
            both = np.minimum(moved[:-count], moved[count:])  # there, and back
            before = np.flatnonzero(both > limit[: len(both)])
            before = before[group.clip_of[before] == group.clip_of[before + count + 1]]
            left = 2 * steps(group, before, before + count + 1)
            found.append(before[both[before] - left > limit[before]] + 1)
    return np.unique(np.concatenate(found))


def _steps(group: Group, before: NDArray[np.intp], after: NDArray[np.intp]) -> Floats:
    """How far all but a quarter of the joints move at least, pixels; 0 where few are seen."""
    both = group.seen[before] & group.seen[after]
    moved = norms(group.points[after] - group.points[before])
    count = both.sum(1)
    ordered = np.sort(np.where(both, moved, np.inf), axis=1)
    middle = np.take_along_axis(ordered, np.maximum((count - 1) // 4, 0)[:, None], 1)[:, 0]
    return np.where(count >= 4, middle, 0)


def _shape_steps(group: Group, before: NDArray[np.intp], after: NDArray[np.intp]) -> Floats:
    """How far two thirds of the joints move about the root, pixels; 0 where few are seen.

    Sides of a limb that a detector exchanges do not count.
    """
    root = group.skeleton.root
    about = group.points - group.points[:, [root]]
    both = group.seen[before] & group.seen[after]
    both &= both[:, [root]]
    one, other = about[before], about[after]
    moved = norms(other - one)
    for left, right in limbs(group.skeleton):
        sides, exchanged = [*left, *right], [*right, *left]
        crossed = norms(other[:, exchanged] - one[:, sides])
        swap = both[:, sides].all(1) & (crossed.sum(1) < moved[:, sides].sum(1))
        moved[:, sides] = np.where(swap[:, None], crossed, moved[:, sides])
    count = both.sum(1)
    ordered = np.sort(np.where(both, moved, np.inf), axis=1)
    most = np.take_along_axis(ordered, np.maximum(2 * count // 3, 0)[:, None], 1)
    return np.where(count >= ENOUGH_JOINTS, most[:, 0], 0)


def _disordered(
    group: Group, before: NDArray[np.intp], after: NDArray[np.intp], number: int
) -> bool:
    """Whether joints that move far move as if a clip's frames were in a random order.

    The mean squared step, over twice the variance, is 1 in a random order (von Neumann).
    """
    if len(after) < ENOUGH:
        return False
    seen = group.seen[after] & group.seen[before]
    joints = np.flatnonzero(seen.mean(0) > 0.8)
    step = (group.points[after] - group.points[before])[:, joints]
    place = group.points[after][:, joints]
    step, place = (np.where(seen[:, joints, None], one, np.nan) for one in (step, place))
    spread = np.nanvar(place, axis=0)
    moving = spread > max(MOVING * group.typical[number], JITTER) ** 2
    if moving.sum() < 8:
        return False
    share = np.nanmean(step**2, axis=0)[moving] / (2 * spread[moving])
    return bool(np.quantile(share, 0.25) > RANDOM)


def _around(steps: Floats) -> Floats:
    """The largest of the three steps before and the three after each; 0 beyond the ends."""
    padded = np.pad(np.nan_to_num(steps), 3)
    sides = [padded[k : k + len(steps)] for k in (0, 1, 2, 4, 5, 6)]
    return np.max(sides, axis=0)
