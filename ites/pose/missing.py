"""Missing joints: which keypoints are impossible, and how missing ones are filled.

Keypoints are (T, J, 2), pixels, x right, y down; `seen` is (T, J), bool.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ites.pose.skeleton import HUMAN36M, Skeleton

Floats = NDArray[np.floating]
Mask = NDArray[np.bool_]

FAR = 10.0
"""A keypoint is impossible beyond this multiple of the median joint's distance from the middle.

Of the poses of the CMU database none reaches 7.
"""
OUTSIDE = 1.0
"""Image widths and heights beyond the border from which on a keypoint counts as impossible."""
FILLED, FILLED_OF_ROUNDED, FILLER_ROUNDED = 0.005, 0.05, 0.5
"""Least share of all joints at a filler's point, beyond those of its most frequent joint; the same
of coordinates that are rounded; and the share of different points below which they are."""
FILLER_KINDS, FILLER_APART, FILLER_FRAMES = 4, 0.3, 2000
"""Least number of kinds of joints at a filler's point; how far apart these are usually, in sizes of
a person; and about how many frames tell."""
BRIDGE = 0.5
"""Longest gap, seconds, that is filled between frames that show a person."""
BRIEF = 0.42
"""Longest time, seconds, between two sights of a joint for which interpolation beats a network that
completes missing joints. 30% of the joints missing, real motion: 62 against 88 mm at 12 frames per
second, 84 against 90 at 5."""
SPREADS, SHARE = 6.0, 0.5
"""How far from the median a value may be to count in `robust_mean`: median absolute deviations,
and at least a share of the median itself."""

# A standing person seen from the front: each joint's offset from its parent, in distances from
# pelvis to crown. These are the mean bones of 17 subjects of the CMU database. Sideways offsets
# hold for a person who faces the camera or turns the back, and shrink as he turns.
_STANDING = {
    "right_hip": (-0.12, 0.02),
    "right_knee": (0.0, 0.55),
    "right_ankle": (0.0, 0.60),
    "left_hip": (0.12, 0.02),
    "left_knee": (0.0, 0.55),
    "left_ankle": (0.0, 0.60),
    "spine": (0.0, -0.33),
    "thorax": (0.0, -0.33),
    "neck": (0.0, -0.19),
    "head": (0.0, -0.15),
    "left_shoulder": (0.21, 0.06),
    "left_elbow": (0.0, 0.38),
    "left_wrist": (0.0, 0.35),
    "right_shoulder": (-0.21, 0.06),
    "right_elbow": (0.0, 0.38),
    "right_wrist": (0.0, 0.35),
}


def norms(vectors: Floats) -> Floats:
    """Lengths (...) of vectors (..., 2); faster than `numpy.linalg.norm`."""
    x, y = vectors[..., 0], vectors[..., 1]
    return np.sqrt(x * x + y * y)


def robust_mean(values: Floats) -> float:
    """The mean of those values that lie near their median; nan of none.

    Near: within 6 median absolute deviations, or within half of the median. Values that are not
    finite do not count.
    """
    values = np.asarray(values, np.float64)
    values = values[np.isfinite(values)]
    if not len(values):
        return float("nan")
    median = float(np.median(values))
    off = np.abs(values - median)
    return float(values[off <= max(SPREADS * float(np.median(off)), SHARE * abs(median))].mean())


def filler_points(keypoints: Floats, seen: Mask) -> list[tuple[Floats, Mask]]:
    """Points at which joints lie exactly that are elsewhere apart: a program's filler.

    As (1, 1), (-2, -2) or the image's middle for joints that were not found. A joint that stands
    still, and coordinates rounded to whole pixels, put one joint and its neighbours at a point.

    Args:
        keypoints: (T, J, 2), any unit, of one person or several.
        seen: (T, J).

    Returns:
        Each such point, (2,), and the joints (T, J) that lie there.
    """
    step = max(1, len(keypoints) // FILLER_FRAMES)
    some, there = keypoints[::step], seen[::step]
    if not there.any():
        return []
    flat = some[there].astype(np.float64)
    points, counts = np.unique(flat[:, 0] + 1j * flat[:, 1], return_counts=True)
    rounded = len(points) < FILLER_ROUNDED * len(flat)
    least = max(8.0, (FILLED_OF_ROUNDED if rounded else FILLED) * len(flat))
    found = []
    for index in np.argsort(-counts)[:4]:
        if counts[index] < least:
            break
        point = np.array([points[index].real, points[index].imag], keypoints.dtype)
        at = there & (some == point).all(-1)
        each = at.sum(0)
        kinds = (each > 1) & (there & ~at).any(0)
        if kinds.sum() < FILLER_KINDS or each.sum() - each.max() < least:
            continue
        usual = np.array(
            [np.median(some[there[:, j] & ~at[:, j], j], 0) for j in np.flatnonzero(kinds)]
        )
        shown = (there & ~at)[..., None]
        low = np.where(shown, some, np.inf).min(1)
        high = np.where(shown, some, -np.inf).max(1)
        whole = np.isfinite(low).all(1)
        size = float(np.median(norms(high[whole] - low[whole])))
        if norms(usual.max(0) - usual.min(0)) > FILLER_APART * size:
            found.append((point, seen & (keypoints == point).all(-1)))
    return found


def impossible(
    keypoints: Floats, seen: Mask | None = None, image_size: tuple[int, int] | None = None
) -> Mask:
    """Which keypoints cannot be right: not finite, far outside the image or far from the body.

    Outside: by more than the image's own width or height, unless most keypoints are, which says
    that the image size is wrong. Far: `FAR` times the median distance of the joints seen from their
    median, of this frame or the clip.

    Args:
        keypoints: (T, J, 2), pixels.
        seen: (T, J), which of them count at all; None: all.
        image_size: (width, height), pixels, where known.

    Returns:
        (T, J) bool; False where not `seen`.
    """
    finite = np.isfinite(keypoints).all(-1)
    seen = np.ones(finite.shape, bool) if seen is None else seen
    bad = seen & ~finite
    usable = seen & finite
    if image_size is not None and usable.any():
        size = np.asarray(image_size, np.float64)
        out = (np.where(usable[..., None], keypoints, 0) < -OUTSIDE * size) | (
            np.where(usable[..., None], keypoints, 0) > (1 + OUTSIDE) * size
        )
        outside = usable & out.any(-1)
        if np.count_nonzero(outside) < 0.5 * np.count_nonzero(usable):
            bad |= outside
            usable &= ~outside
    frames = np.flatnonzero(usable.sum(1) > 2)
    if not len(frames):
        return bad
    rows = np.where(usable[frames, :, None], keypoints[frames], np.nan)
    with np.errstate(over="ignore"):  # then it is far indeed
        away = np.linalg.norm(rows - _middle(rows)[:, None], axis=-1)
    size_of_frame = _middle(away)
    usual = float(np.median(size_of_frame))
    limit = FAR * np.clip(size_of_frame, usual, 4 * usual)
    if usual > 0:
        bad[frames] |= np.nan_to_num(away) > limit[:, None]
    return bad


def _middle(values: Floats) -> Floats:
    """The lower median along the second axis of (T, J, ...); nan does not count."""
    ranked = np.sort(values, axis=1)  # nan comes last
    at = (np.isfinite(values).sum(1, keepdims=True) - 1).clip(min=0) // 2
    return np.asarray(np.take_along_axis(ranked, at, axis=1)[:, 0])


def interpolate(keypoints: Floats, seen: Mask) -> Floats:
    """Fill joints that are missing in some frames linearly in time, the ends with the nearest.

    Args:
        keypoints: (T, J, D).
        seen: (T, J).

    Returns:
        (T, J, D); a joint that is never seen keeps what stands there.
    """
    filled, frames = keypoints.copy(), np.arange(len(keypoints))
    for joint in np.flatnonzero(~seen.all(0) & seen.any(0)):
        there = seen[:, joint]
        for axis in range(keypoints.shape[2]):
            filled[~there, joint, axis] = np.interp(
                frames[~there], frames[there], keypoints[there, joint, axis]
            )
    return filled


def unknown(seen: Mask, fps: float = float("nan")) -> Mask:
    """Joints without any information, (T, J) bool.

    These are joints that are never seen in the clip, and all joints of frames that show none. A gap
    of up to `BRIDGE` seconds between two frames that show somebody does not count: what was seen on
    both sides show it.

    Args:
        seen: (T, J).
        fps: frames per second; nan: taken as 25.
    """
    empty: Mask = np.asarray(~seen.any(1))
    longest = round(BRIDGE * (fps if fps > 0 else 25.0))
    edges = np.flatnonzero(np.diff(empty, prepend=False, append=False))
    for start, stop in edges.reshape(-1, 2):
        if start > 0 and stop < len(empty) and stop - start <= longest:
            empty[start:stop] = False
    never: Mask = np.asarray(~seen.any(0))
    return never[None] | empty[:, None]


def briefly_missing(seen: Mask, fps: float) -> Mask:
    """Missing joints (T, J) bool that were seen shortly before and after.

    The two frames are at most `BRIEF` seconds apart, so a value between theirs is nearly exact.

    Args:
        seen: (T, J).
        fps: frames per second; nan, unknown: no joint counts.
    """
    if not fps > 0:
        return np.zeros_like(seen)
    frames = np.arange(len(seen))[:, None]
    before = np.maximum.accumulate(np.where(seen, frames, -np.inf), axis=0)
    after = np.minimum.accumulate(np.where(seen, frames, np.inf)[::-1], axis=0)[::-1]
    brief: Mask = np.asarray(~seen & (after - before <= BRIEF * fps))
    return brief


def fill(keypoints: Floats, seen: Mask, skeleton: Skeleton) -> Floats:
    """Fill each missing joint, for a network that needs all of them.

    A joint seen in another frame of the clip moves with the body: its offset from its parent is
    filled linearly in time, the ends with the nearest. A joint that is never seen is put where a
    standing person has it, relative to the nearest seen joint of the skeleton. The size is that of
    the seen bones. In another skeleton than Human3.6M's it is put at that joint.

    Args:
        keypoints: (T, J, 2), pixels.
        seen: (T, J).
        skeleton: of the joints.

    Returns:
        (T, J, 2), all finite.
    """
    if seen.all():
        return keypoints
    filled = _along(interpolate(keypoints, seen), seen, skeleton)
    known: Mask = np.asarray(seen.any(0))
    if known.all():
        return filled
    offsets = _standing(filled, known, skeleton)
    filled[:, ~known] = 0
    if not known.any():  # somebody must stand somewhere
        known[skeleton.root] = True
    while not known.all():
        before = known.copy()
        for joint in np.flatnonzero(~before):
            parent = skeleton.parents[joint]
            children = [c for p, c in skeleton.bones if p == joint and before[c]]
            if parent >= 0 and before[parent]:
                filled[:, joint] = filled[:, parent] + offsets[:, joint]
            elif children:
                filled[:, joint] = np.mean([filled[:, c] - offsets[:, c] for c in children], axis=0)
            else:
                continue
            known[joint] = True
    return filled


def _along(keypoints: Floats, seen: Mask, skeleton: Skeleton) -> Floats:
    """Put filled joints (T, J, 2) where the offset from their parent, linear in time, has them."""
    moved, frames = keypoints.copy(), np.arange(len(keypoints))
    order = [skeleton.root]
    for joint in order:  # each after its parent
        order += [child for parent, child in skeleton.bones if parent == joint]
        parent, away = skeleton.parents[joint], ~seen[:, joint]
        both = seen[:, joint] & seen[:, parent]
        if parent < 0 or not away.any() or not both.any():
            continue
        offset = keypoints[both, joint] - keypoints[both, parent]
        for axis in range(keypoints.shape[2]):
            change = np.interp(frames[away], frames[both], offset[:, axis])
            moved[away, joint, axis] = moved[away, parent, axis] + change
    return moved


def _standing(keypoints: Floats, known: Mask, skeleton: Skeleton) -> Floats:
    """(T, J, 2): each joint's offset from its parent, pixels, of a standing person."""
    offsets = np.zeros(keypoints.shape, keypoints.dtype)
    if skeleton.joints != HUMAN36M.joints:
        return offsets
    model = np.array([_STANDING.get(name, (0.0, 0.0)) for name in skeleton.joints])
    lengths = [
        np.quantile(np.linalg.norm(keypoints[:, j] - keypoints[:, p], axis=-1), 0.9)
        / np.linalg.norm(model[j])
        for p, j in skeleton.bones
        if known[p] and known[j]
    ]
    size = float(np.median(lengths)) if lengths else 1.0
    offsets[:] = size * model
    sides = np.zeros(len(keypoints))
    for name in ("shoulder", "hip"):
        left, right = (skeleton.joints.index(f"{side}_{name}") for side in ("left", "right"))
        if known[left] and known[right] and size > 0:
            across = keypoints[:, left, 0] - keypoints[:, right, 0]
            sides = np.clip(across / (size * (model[left, 0] - model[right, 0])), -1, 1)
            break
    offsets[..., 0] *= sides[:, None]
    return offsets
