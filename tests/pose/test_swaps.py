"""Limbs whose sides are swapped are found; limbs that cross are not."""

from __future__ import annotations

import numpy as np
import pytest
from walking import JOINT, walk

from ites.pose.skeleton import HUMAN36M
from ites.pose.swaps import brief_swaps, minority

LEG, ARM = ("hip", "knee", "ankle"), ("shoulder", "elbow", "wrist")


def swap(points: np.ndarray, parts: tuple[str, ...], frames: list[int]) -> list[int]:
    """Swap joints in place; returns the left ones."""
    left, right = ([JOINT[f"{side}_{part}"] for part in parts] for side in ("left", "right"))
    points[np.ix_(frames, left + right)] = points[np.ix_(frames, right + left)]
    return left


@pytest.mark.parametrize("parts", [LEG, LEG[1:], ARM, ARM[1:]])
@pytest.mark.parametrize("frames", [[30], [20, 21, 22, 23], [10, 11, 40, 41, 42]])
def test_the_frames_and_joints_of_a_brief_swap(parts: tuple[str, ...], frames: list[int]) -> None:
    points = walk(turn=1.1).keypoints
    right = points.copy()
    left = swap(points, parts, frames)
    ((joints, others, found),) = brief_swaps(points, HUMAN36M, 25.0)
    assert joints == left
    np.testing.assert_array_equal(found, frames)
    points[np.ix_(found, joints + others)] = points[np.ix_(found, others + joints)]
    np.testing.assert_array_equal(points, right)


@pytest.mark.parametrize("turn", [0.0, 0.6, 1.6, 3.0])
def test_legs_that_cross_are_not_swapped(turn: float) -> None:
    assert brief_swaps(walk(100, turn=turn).keypoints, HUMAN36M, 25.0) == []


def test_what_is_too_long_too_slow_or_never_ends_is_no_brief_swap() -> None:
    points = walk(100).keypoints
    long, open_ended, brief = points.copy(), points.copy(), points.copy()
    swap(long, LEG, list(range(20, 50)))
    swap(open_ended, LEG, list(range(95, 100)))
    swap(brief, LEG, list(range(20, 24)))
    assert brief_swaps(long, HUMAN36M, 25.0) == []
    assert brief_swaps(open_ended, HUMAN36M, 25.0) == []
    assert brief_swaps(brief, HUMAN36M, 11.0) == []
    unseen = np.ones(points.shape[:2], bool)
    unseen[:, JOINT["left_knee"]] = unseen[:, JOINT["right_ankle"]] = False
    assert brief_swaps(brief, HUMAN36M, 25.0, unseen) == []


def test_the_minority_of_the_frames_is_swapped() -> None:
    event = np.zeros(10, bool)
    event[[2, 4]] = True
    np.testing.assert_array_equal(np.flatnonzero(minority(event)), [2, 3])
    event[[4, 9]] = [False, True]
    np.testing.assert_array_equal(np.flatnonzero(minority(event)), [0, 1, 9])
