"""Which side of a body is its left, by a detector's confidences of the face, and by other joints.

A walking person and the mirror image look alike in 2D. But a detector is surer of joints that it
sees: of the eyes from the front, of one ear from the side, of the ears alone from behind. And hips
and shoulders, knees and ankles cannot point to opposite sides throughout.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ites.pose.missing import norms

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

CHAIN = ("hip", "shoulder"), ("hip", "knee"), ("knee", "ankle"), ("shoulder", "elbow"), (
    "elbow", "wrist",
)  # fmt: skip
APART, SPAN, OPPOSITE, TELLING = 0.1, 1.8, 0.9, 12
"""Metres between left and right, in the image, from and up to which they tell a direction; the
share of such frames from which two pairs of joints contradict each other; and their least number.
In clips of the CMU database the share is at most 0.01 of hips and shoulders, 0.5 of arms and 0.88
of legs."""


def contradictions(
    points: NDArray[np.floating], seen: NDArray[np.bool_], names: Sequence[str], scale: float
) -> dict[tuple[str, str], NDArray[np.intp]]:
    """Pairs of `CHAIN` whose left and right are opposite throughout, and the frames.

    Args:
        points: (T, J, 2), pixels.
        seen: (T, J).
        names: of the J joints.
        scale: pixels per metre.
    """
    index = {name: joint for joint, name in enumerate(names)}
    across, there = {}, {}
    for part in {part for pair in CHAIN for part in pair}:
        sides = [index[f"left_{part}"], index[f"right_{part}"]]
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
