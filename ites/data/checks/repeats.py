"""Frames that repeat the one before, and joints that a tracker holds in one place.

A detector that sees a new image gives other numbers, if only by its noise.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from ites.data.checks.arrays import Bools, Floats
from ites.data.checks.group import Body, Group
from ites.data.findings import Finding, listed, ranges
from ites.pose.missing import norms

RARE = 0.02
"""Share of a clip's frames up to which repeated ones are only a note."""
JOINTS = 4
"""Least joints that are seen in both frames."""
STILL = 0.2
"""A step is a repetition if it is so small beside the one before and the one after."""
OFTEN = 0.15
"""Least share of steps that are small ones, if none is exactly 0."""
DIFFERENT = 0.5
"""Share of different numbers among the coordinates below which they are rounded."""
MOVES, LONG = 0.10, 8
"""Metres by which a body moves while a joint stays, and least frames in which it stays."""


HELD = 5
"""Repeated frames in a row from which it is no slower video."""


def repeated(points: Floats, seen: Bools) -> Bools:
    """The frames (T,) that repeat the one before.

    Args:
        points: (T, J, 2), pixels.
        seen: (T, J).
    """
    found = np.zeros(len(points), bool)
    if len(points) < 3:
        return found
    both = seen[1:] & seen[:-1]
    enough = both.sum(1) >= JOINTS
    moved = norms(points[1:] - points[:-1])
    same = enough & (seen[1:] == seen[:-1]).all(1) & np.where(both, moved == 0, True).all(1)
    steps = np.where(enough, _medians(moved, both), 0)
    fresh = np.concatenate([[True], ~same])
    if is_coarse(
        points[fresh], seen[fresh]
    ):  # a person who stands still has the same numbers again
        same &= _beside(steps) > 0
    found[1:] = same
    if same.any():
        return found
    small = enough & (steps < STILL * _beside(steps))
    if small.sum() >= OFTEN * len(steps) and small.sum() > JOINTS:
        found[1:] = small
    return found


def longest(frames: Bools) -> int:
    """The length of the longest run of frames."""
    edges = np.flatnonzero(np.diff(np.pad(frames.astype(np.int8), 1)))
    return int((edges[1::2] - edges[::2]).max(initial=0))


def held(points: Floats, seen: Bools, metre: float) -> Bools:
    """Where joints (T, J) stay in exactly one place while the body moves.

    Args:
        points: (T, J, 2), pixels.
        seen: (T, J).
        metre: pixels per metre.
    """
    found = np.zeros(seen.shape, bool)
    if len(points) <= LONG or not metre > 0 or is_coarse(points, seen):
        return found
    both = seen[1:] & seen[:-1]
    stays = both & (points[1:] == points[:-1]).all(-1)
    for joint in np.flatnonzero(stays.sum(0) >= LONG):
        edges = np.flatnonzero(np.diff(np.pad(stays[:, joint].astype(np.int8), 1)))
        for start, stop in edges.reshape(-1, 2):
            if stop - start < LONG:
                continue
            rows = slice(int(start), int(stop) + 1)
            own = np.where(seen[rows, :, None], points[rows], np.nan)
            full = np.flatnonzero(seen[rows].mean(0) > 0.5)
            low, high = np.nanmin(own[:, full], axis=0), np.nanmax(own[:, full], axis=0)
            if np.median(norms(high - low)) > MOVES * metre:
                found[rows, joint] = True
    return found


def is_coarse(points: Floats, seen: Bools) -> bool:
    """Whether coordinates are rounded: then the same numbers come again and again."""
    across = points[seen][:, 0]
    return len(np.unique(across)) < DIFFERENT * len(across)


def _medians(moved: Floats, both: Bools) -> Floats:
    """The medians (T,) of how far joints move."""
    ordered = np.sort(np.where(both, moved, np.inf), axis=1)
    middle = np.maximum((both.sum(1) - 1) // 2, 0)
    return np.where(both.any(1), np.take_along_axis(ordered, middle[:, None], 1)[:, 0], 0)


def _beside(steps: Floats) -> Floats:
    """The smaller of the step before and the one after each; that which is there at the ends."""
    padded = np.pad(steps, 1, mode="reflect")
    return np.asarray(np.minimum(padded[:-2], padded[2:]))


def repeats(group: Group, _: Body) -> Iterator[tuple[int, Finding]]:
    """Frames that repeat the one before, and joints that stay while the body moves."""
    for number, (clip, rows) in enumerate(zip(group.clips, group.rows, strict=True)):
        points, seen = group.points[rows], group.seen[rows]
        again = repeated(points, seen)
        count, frames = int(again.sum()), len(clip)
        if count:
            where, named = np.flatnonzero(again), ranges(np.flatnonzero(again))
            rate, held_on = clip.fps * (1 - count / frames), longest(again)
            why = "the video has fewer frames per second"
            why += f", about {rate:.3g}" if rate > 0 else ""
            if held_on >= HELD:
                why, rate = "a recording or a tracker that stood still", math.nan
            yield group.found(
                number,
                "repeated",
                "warning" if count >= max(2, RARE * frames) else "note",
                f"{count:,} of {frames:,} frames repeat the one before ({named}): {why}",
                {"frames": count, "fps": rate, "longest": held_on},
                where,
            )
        stays = held(points[~again], seen[~again], float(group.typical[number]))
        if stays.any():
            where = np.flatnonzero(~again)[stays.any(1)]
            names = [group.skeleton.joints[j] for j in np.flatnonzero(stays.any(0))]
            yield group.found(
                number,
                "repeated",
                "warning",
                f"joints stay in exactly one place while the body moves ({listed(names)}; "
                f"{ranges(where)}): a tracker that lost them and holds the last place",
                {"joints": names, "frames": len(where)},
                where,
            )
