"""Frames in which a detector confused left and right limbs."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ites.pose.missing import Floats, Mask
from ites.pose.skeleton import Skeleton

JUMP = 0.15
"""Mean distance per joint that a swap must save, in distances from root to head."""
LONGEST = 1.0
"""Longest duration of a swap, seconds."""
SLOWEST = 12.0
"""Below this many frames per second, people move too far between frames for a decision."""


def limbs(skeleton: Skeleton) -> list[tuple[list[int], list[int]]]:
    """The joints of each pair of limbs, left and right, from the trunk outwards."""
    pairs = []
    for joint in skeleton.left:
        if skeleton.parents[joint] in (*skeleton.left, *skeleton.right):
            continue
        chain = [joint]
        for parent, child in skeleton.bones:
            if parent in chain:
                chain.append(child)
        pairs.append((chain, [skeleton.mirror[j] for j in chain]))
    return pairs


def way(a: Floats, b: Floats) -> Floats:
    """The mean distance (...) between points a and b (..., K, 2)."""
    return np.asarray(np.linalg.norm(a - b, axis=-1).mean(-1))


def swapped(
    keypoints: Floats, skeleton: Skeleton, fps: float, seen: Mask | None = None
) -> list[tuple[list[int], list[int], NDArray[np.intp]]]:
    """Limbs that jump to the other side and back.

    From one frame to the next a limb is exchanged if that at least halves the way of its joints and
    saves `JUMP` per joint. Two exchanges at most `LONGEST` seconds apart enclose swapped frames.

    Args:
        keypoints: (T, J, 2), pixels, missing joints filled.
        skeleton: whose sides they are.
        fps: frames per second.
        seen: (T, J); a jump to or from joints that are not seen does not count. None: all are.

    Returns:
        For each pair of limbs that is swapped somewhere: its left joints, its right ones, the
        frames. Nothing below `SLOWEST` frames per second.
    """
    found: list[tuple[list[int], list[int], NDArray[np.intp]]] = []
    if not fps >= SLOWEST or len(keypoints) < 3:
        return found
    heads = np.linalg.norm(keypoints[:, skeleton.head] - keypoints[:, skeleton.root], axis=-1)
    size = float(np.median(heads))
    for left, right in limbs(skeleton):
        ends = [(a, b) for a, b in zip(left, right, strict=True) if len(left) == 1 or a != left[0]]
        one, other = (keypoints[:, list(side)] for side in zip(*ends, strict=True))

        keep = (way(one[1:], one[:-1]) + way(other[1:], other[:-1])) / 2
        swap = (way(one[1:], other[:-1]) + way(other[1:], one[:-1])) / 2
        jumps = (swap < 0.5 * keep) & (keep - swap > JUMP * size)
        if seen is not None:
            there: Mask = np.asarray(seen[:, [j for pair in ends for j in pair]].all(1))
            jumps &= there[1:] & there[:-1]
        events = np.flatnonzero(jumps) + 1
        frames: list[NDArray[np.intp]] = []
        switches: list[int] = []
        while len(events) > 1:
            if events[1] - events[0] <= LONGEST * fps:
                frames.append(np.arange(events[0], events[1]))
                switches += events[:2].tolist()
                events = events[2:]
            else:
                events = events[1:]
        if frames:
            a, b, at = keypoints[:, left[0]], keypoints[:, right[0]], np.array(switches)
            stay = way(a[at], a[at - 1]) + way(b[at], b[at - 1])
            change = way(a[at], b[at - 1]) + way(b[at], a[at - 1])
            first = 0 if change < stay else 1 if len(left) > 1 else 0  # a hip may be right
            found.append((left[first:], right[first:], np.concatenate(frames)))
    return found
