"""Frames in which a detector confused left and right limbs.

Left minus right of a limb changes smoothly, and an exchange of sides negates it. For the four
frames around each step the signs with the smallest second differences are found. The step is an
exchange if a change of sign shortens them to `share_of(fps)` times, and by `GAIN` in all. The limb
is judged with and without its innermost joint: a hip or shoulder may be right where the rest is
swapped.

A frame rate may be unknown or wrong. So motion that is rougher than a rate of `SLOWEST` or more is
judged as if it had fewer frames per second: `sure_rate`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ites.pose.missing import Floats, Mask, norms
from ites.pose.skeleton import Skeleton

SMOOTHNESS = (0.04, 0.08, 0.3)
"""Mean squared step of a limb's joints over twice their variance (von Neumann's ratio), at which so
many frames per second are sure: `MOTION_RATES`. In 222 clips of the CMU database it is at most
0.076 at 40 and 0.124 at 25 frames per second, at least 0.028 at 8 and 0.049 at 5."""
MOTION_RATES = (25.0, 5.0, 3.0)
MOVING, FEW = 0.06, 4
"""Metres of a joint's standard deviation from which it moves; least steps in which it is seen."""
GAIN = 0.35
"""Metres by which an exchange must shorten a limb's second differences; more beyond 3 joints."""
BODY = 0.72
"""Metres from root to head of an adult."""
LONGEST = 1.0
"""Longest duration, seconds, of a swap that can be exchanged back."""
SLOWEST = 12.0
"""Below this many frames per second, people move too far between frames to exchange anything."""


def share_of(fps: float) -> float:
    """The factor by which an exchange must shorten the second differences."""
    return float(np.interp(fps, [3, 5, 12, 20], [0.05, 0.15, 0.3, 0.5]))


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


def motion_rate(keypoints: Floats, seen: Mask, skeleton: Skeleton, metre: float) -> float:
    """The frames per second that the smoothness of a clip's motion is sure of.

    Joints of both sides are taken together, so exchanged sides do not change it.

    Args:
        keypoints: (T, J, 2), pixels.
        seen: (T, J).
        skeleton: whose limbs they are.
        metre: pixels per metre.

    Returns:
        3 to 25, see `SMOOTHNESS`; 25 if too little moves to tell.
    """
    chains = [(left[1:], right[1:]) for left, right in limbs(skeleton)]
    left, right = ([joint for chain in chains for joint in chain[side]] for side in (0, 1))
    both = seen[:, left] & seen[:, right] & seen[:, [skeleton.root]]
    pair = both[1:] & both[:-1]
    a, b = (keypoints[:, side] - keypoints[:, [skeleton.root]] for side in (left, right))

    def squares(one: Floats, other: Floats) -> Floats:
        return np.asarray(((one[1:] - other[:-1]) ** 2).sum(-1))

    steps = np.minimum(squares(a, a) + squares(b, b), squares(a, b) + squares(b, a))
    count = np.maximum(both.sum(0), 1)
    spread = np.zeros(len(left))
    for points in (a, b):
        mean = np.where(both[..., None], points, 0).sum(0) / count[:, None]
        away = ((points - mean) ** 2).sum(-1)
        spread += np.where(both, away, 0).sum(0) / count
    moving = (spread > 2 * (MOVING * metre) ** 2) & (pair.sum(0) >= FEW)
    if moving.sum() < 2:
        return MOTION_RATES[0]
    step = np.where(pair, steps, 0).sum(0)[moving] / pair.sum(0)[moving]
    ratio = float(np.median(step / (2 * spread[moving])))
    return float(np.interp(ratio, SMOOTHNESS, MOTION_RATES))


def sure_rate(fps: float, motion: float) -> float:
    """The frames per second by which to judge a clip.

    Args:
        fps: as stated; nan if unknown.
        motion: by `motion_rate`.
    """
    return fps if 0 < fps < SLOWEST else float(np.fmin(fps, motion))


def exchanges(
    left: Floats, right: Floats, seen: Mask, metre: Floats, share: Floats, clip: NDArray[np.intp]
) -> Mask:
    """The frames before which the sides of one pair of limbs are exchanged.

    Args:
        left, right: (T, K, 2) corresponding joints from the trunk outwards, pixels.
        seen: (T, K) whether both are seen.
        metre: (T,) pixels per metre; nan: no exchange is found.
        share: (T,) the factor of `share_of`.
        clip: (T,) the number of each frame's clip; sides of two clips are not compared.

    Returns:
        (T,)
    """
    count, joints = seen.shape
    event = np.zeros(count, bool)
    if count < 4:
        return event
    there = seen[:-3] & seen[1:-2] & seen[2:-1] & seen[3:]
    there &= (clip[3:] == clip[:-3])[:, None]
    apart, middle = left - right, left + right
    before, here, after, last = (apart[k : count - 3 + k] for k in range(4))

    def bend(p: Floats, q: Floats, r: Floats) -> Floats:
        """The second difference of three frames per joint."""
        return norms(p - 2 * q + r) * there

    bends = {
        sign: [
            bend(before, here, sign * after),
            bend(-before, here, sign * after),
            bend(here, sign * after, last),
            bend(here, sign * after, -last),
        ]
        for sign in (1, -1)
    }
    moved = norms(middle[2:-1] - middle[1:-2]) * there
    for first in range(min(2, joints - 1) or 1):
        # The signs of the outer frames are free: only the agreement of the middle two matters.
        kept, change = (
            np.minimum(*(b[:, first:].sum(1) for b in bends[sign][:2]))
            + np.minimum(*(b[:, first:].sum(1) for b in bends[sign][2:]))
            for sign in (1, -1)
        )
        # At an exchange of sides their midpoint is continuous; at a cut of the clip it is not.
        steady = moved[:, first:].sum(1) / 2 < 0.5 * kept
        gain = GAIN * max(1, joints / 3) * metre[:-3]
        with np.errstate(invalid="ignore"):
            shorter = (change < share[:-3] * kept) & (kept - change > gain)
        event[2:-1] |= shorter & steady & (there[:, first:].sum(1) >= min(2, joints))
    return event


def minority(event: Mask) -> Mask:
    """The frames (T,) of a clip whose sides differ from those of most frames."""
    state = np.cumsum(event) % 2 == 1
    return ~state if state.sum() > len(state) / 2 else state


def brief_swaps(
    keypoints: Floats, skeleton: Skeleton, fps: float, seen: Mask | None = None
) -> list[tuple[list[int], list[int], NDArray[np.intp]]]:
    """Limbs that change sides and back within `LONGEST` seconds.

    Args:
        keypoints: (T, J, 2), pixels, missing joints filled.
        skeleton: whose sides they are.
        fps: frames per second.
        seen: (T, J); joints that are not seen do not count. None: all are.

    Returns:
        For each pair of limbs that is swapped somewhere: its left joints, its right ones, the
        frames. Nothing below `SLOWEST` frames per second.
    """
    found: list[tuple[list[int], list[int], NDArray[np.intp]]] = []
    if not fps >= SLOWEST or len(keypoints) < 4:
        return found
    seen = np.ones(keypoints.shape[:2], bool) if seen is None else seen
    heads = norms(keypoints[:, skeleton.head] - keypoints[:, skeleton.root])
    size, one_clip = len(keypoints), np.zeros(len(keypoints), np.intp)
    own = float(np.median(heads)) / BODY
    rate = sure_rate(fps, motion_rate(keypoints, seen, skeleton, own))
    metre, share = np.full(size, own), np.full(size, share_of(rate))
    for left, right in limbs(skeleton):
        a, b = keypoints[:, left], keypoints[:, right]
        event = exchanges(a, b, seen[:, left] & seen[:, right], metre, share, one_clip)
        edges = np.flatnonzero(np.diff(minority(event), prepend=False, append=False))
        runs = [
            (i, j) for i, j in edges.reshape(-1, 2) if i > 0 and j < size and j - i <= LONGEST * fps
        ]
        if runs:
            at = np.array(runs).ravel()
            stay = norms(a[at, 0] - a[at - 1, 0]) + norms(b[at, 0] - b[at - 1, 0])
            change = norms(a[at, 0] - b[at - 1, 0]) + norms(b[at, 0] - a[at - 1, 0])
            # A hip may be right where its knee and ankle are swapped.
            first = 1 if len(left) > 1 and change.sum() >= stay.sum() else 0
            frames = np.concatenate([np.arange(i, j) for i, j in runs])
            found.append((left[first:], right[first:], frames))
    return found
