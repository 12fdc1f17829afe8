"""Which side of a body is its left, by a detector's confidences of the face, and by other joints.

A walking person and the mirror image look alike in 2D. But a detector is surer of joints that it
sees: of the eyes from the front, of one ear from the side, of the ears alone from behind. And hips
and shoulders, knees and ankles cannot point to opposite sides throughout.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from ites.data.checks.arrays import Bools
from ites.data.checks.group import FEW, LIMBS, Body, Group
from ites.data.findings import Finding, ranges
from ites.pose.layouts import LAYOUT_JOINTS
from ites.pose.missing import norms
from ites.pose.swaps import exchanges, minority, share_of, sure_rate

FACE = ("nose", "left_eye", "right_eye", "left_ear", "right_ear")
UNINFORMED = ("mediapipe33",)
"""Layouts of detectors that are sure of a face seen from behind."""
CLEAR, DIM = 0.7, 0.4
"""A joint is seen from here on, or hidden up to here; times the clip's median confidence."""
BESIDE = 0.04
"""Metres from the ear to the nose, across the image, from which a head is turned."""
SURER = 0.65
"""Share of the frontal views in which a detector is surer of nose and eyes than of the ears. With
confidences that do not depend on the view it is a half."""

AGAINST = 0.8
"""Minimum share of contradicting frames among those whose face shows the side."""

TRUNK_PAIR = ("hip", "shoulder")
LIMB_PAIRS = ("hip", "knee"), ("knee", "ankle"), ("shoulder", "elbow"), ("elbow", "wrist")
CHAIN = (TRUNK_PAIR, *LIMB_PAIRS)
APART, SPAN, OPPOSITE, TELLING = 0.1, 1.8, 0.9, 12
"""Metres between left and right, in the image, from and up to which they tell a direction; the
share of such frames from which two pairs of joints contradict each other; and their least number.
In clips of the CMU database the share is at most 0.01 of hips and shoulders, 0.5 of arms and 0.88
of legs."""
CROSSED = 1.15
"""The bones between two pairs on opposite sides, in usual lengths, 90% of the frames, up to which
limbs may be crossed: folded arms, somebody who sits cross-legged. Joints that are opposite to both
neighbours cannot be."""


def contradictions(
    points: NDArray[np.floating],
    seen: NDArray[np.bool_],
    joints: Mapping[str, tuple[int, int]],
    scale: float,
) -> dict[tuple[str, str], NDArray[np.intp]]:
    """Pairs of `CHAIN` whose left and right are opposite throughout, and the frames.

    Args:
        points: (T, J, 2), pixels.
        seen: (T, J).
        joints: left and right of each part that `CHAIN` names.
        scale: pixels per metre.
    """
    across, there = {}, {}
    for part, pair in joints.items():
        sides = list(pair)
        across[part] = points[:, sides[0]] - points[:, sides[1]]
        apart = norms(across[part])
        there[part] = seen[:, sides].all(1) & (apart > APART * scale) & (apart < SPAN * scale)
    found = {}
    for one, other in CHAIN:
        told = there[one] & there[other]
        opposite = told & ((across[one] * across[other]).sum(-1) < 0)
        if opposite.sum() >= max(TELLING, OPPOSITE * told.sum()):
            found[one, other] = np.flatnonzero(opposite)
    return found


def side_votes(
    face: NDArray[np.floating], wide: NDArray[np.floating], usual: float, scale: float
) -> NDArray[np.int8]:
    """Whether left and right are as the face tells, frame by frame.

    - From the front, nose and both eyes are seen: left is on the image's right.
    - From behind, an ear is seen, nose and eyes are not: left is on the image's left.
    - From the side, one ear is seen: the right one of somebody who looks to the image's right.

    Args:
        face: (T, 5, 3) the joints of `FACE`: pixels and confidence.
        wide: (T,) 1 where the body's left is on the image's right, -1 on its left, 0 undecided.
        usual: the clip's median confidence.
        scale: pixels per metre.

    Returns:
        (T,) 1 where left and right are right, -1 where they are exchanged, 0 where none can tell.
    """
    votes = np.zeros(len(face), np.int8)
    sure = np.nan_to_num(face[..., 2])
    if not (usual > 0 and scale > 0) or len(np.unique(sure)) < 10:  # no detector gave them
        return votes
    clear, dim = sure > CLEAR * usual, sure < DIM * usual
    front = clear[:, :3].all(1)
    facing = front & (wide != 0)
    surer, count = (sure[:, :3].mean(1) > sure[:, 3:].mean(1))[facing].sum(), facing.sum()
    if surer >= max(SURER * count, count / 2 + 1.5 * count**0.5):  # more than chance
        votes[facing] = wide[facing]
    behind = dim[:, :3].all(1) & clear[:, 3:].any(1)
    votes[behind] = -wide[behind]
    for ear, other, looks in ((3, 4, -1), (4, 3, 1)):  # the left ear: to the image's left
        aside = face[:, 0, 0] - face[:, ear, 0]
        turned = clear[:, 0] & clear[:, ear] & dim[:, other] & (np.abs(aside) > BESIDE * scale)
        votes[turned] = np.where(np.sign(aside[turned]) == looks, 1, -1)
    return votes


def exchanged_sides(group: Group, body: Body) -> Iterator[tuple[int, Finding]]:
    """Frames in which left and right of legs, arms or both swap temporarily."""
    changed = [_exchanges(group, body.legs), _exchanges(group, body.arms)]
    for number, (clip, rows) in enumerate(zip(group.clips, group.rows, strict=True)):
        legs, arms = (minority(event[rows]) for event in changed)
        for what, frames in (
            ("legs and arms", legs & arms),
            ("legs", legs & ~arms),
            ("arms", arms & ~legs),
        ):
            if frames.any():
                where = np.flatnonzero(frames)
                yield group.found(
                    number,
                    "swapped-sides",
                    "warning",
                    f"left and right {what} change places in {len(where):,} of "
                    f"{len(clip):,} frames: {ranges(where)}",
                    {"what": what, "frames": len(where)},
                    where,
                )


def _exchanges(group: Group, pairs: Sequence[tuple[int, int]]) -> Bools:
    """The frames (N,) before which left and right of some joints are exchanged."""
    left, right = (list(side) for side in zip(*pairs, strict=True))
    rates = [
        sure_rate(clip.fps, motion) for clip, motion in zip(group.clips, group.motion, strict=True)
    ]
    shares = np.array([share_of(rate) for rate in rates])
    return exchanges(
        group.points[:, left],
        group.points[:, right],
        group.seen[:, left] & group.seen[:, right],
        group.typical[group.clip_of],
        shares[group.clip_of],
        group.clip_of,
    )


def mirrored(group: Group, body: Body) -> Iterator[tuple[int, Finding]]:
    """Left and right throughout, by the confidences of nose, eyes and ears."""
    for number, (clip, rows, raw) in enumerate(
        zip(group.clips, group.rows, group.raw, strict=True)
    ):
        names = LAYOUT_JOINTS.get(group.layouts[number], ())
        if raw is None or raw.ndim != 3 or raw.shape[1:] != (len(names), 3):
            continue
        if not set(FACE) <= set(names) or group.layouts[number] in UNINFORMED:
            continue
        face = raw[:, [names.index(name) for name in FACE]]
        wide = np.zeros(len(clip))  # 1: left is on the image's right; -1: on its left
        for side in (1, -1):
            apart = np.array([
                side * (group.points[rows][:, left, 0] - group.points[rows][:, right, 0])
                for left, right in (body.shoulders, body.hips)
            ])  # fmt: skip
            both = group.seen[rows][:, [*body.shoulders, *body.hips]].all(1)
            wide[(apart > 0.10 * group.typical[number]).all(0) & both] = side
        sure = raw[..., 2][raw[..., 2] > 0]
        usual = float(np.median(sure)) if len(sure) else 0.0
        votes = side_votes(face, wide, usual, float(group.typical[number]))
        against, told = np.flatnonzero(votes < 0), np.count_nonzero(votes)
        if len(against) >= FEW and len(against) > AGAINST * told:
            yield group.found(
                number,
                "mirrored",
                "warning",
                f"left and right are exchanged: the confidences of eyes and ears show the "
                f"side in {told:,} frames, and it is the other in {len(against):,}",
                {"frames": len(against), "told": int(told)},
                against,
            )


def exchanged_limbs(group: Group, body: Body) -> Iterator[tuple[int, Finding]]:
    """Left and right of some joints exchanged throughout, and of others not."""
    parts = ("hip", "knee", "ankle", "shoulder", "elbow", "wrist")
    joints = dict(zip(parts, (*body.legs, *body.arms), strict=True))
    usual = dict(zip(LIMB_PAIRS, LIMBS, strict=True))
    for number, (clip, rows) in enumerate(zip(group.clips, group.rows, strict=True)):
        points, scale = group.points[rows], float(group.typical[number])
        found = contradictions(points, group.seen[rows], joints, scale)
        if not found:
            continue
        named = [part for pair in found for part in pair]
        crossed = TRUNK_PAIR not in found and len(set(named)) == len(named)
        crossed = crossed and all(
            np.quantile(norms(points[at][:, joints[one]] - points[at][:, joints[other]]), 0.9)
            < CROSSED * usual[one, other] * scale
            for (one, other), at in found.items()
        )
        frames = np.unique(np.concatenate(list(found.values())))
        pairs = [f"{one}s and {other}s" for one, other in found]
        of = f"{len(frames):,} of {len(clip):,} frames"
        yield group.found(
            number,
            "crossed-limbs" if crossed else "mirrored-limbs",
            "note" if crossed else "warning",
            f"{'; '.join(pairs)} are on opposite sides in {of}: crossed limbs, or left and right "
            "of some joints exchanged"
            if crossed
            else f"left and right of some joints are exchanged: those of {'; '.join(pairs)} are on "
            f"opposite sides in {of}",
            {"pairs": pairs, "frames": len(frames)},
            frames,
        )
