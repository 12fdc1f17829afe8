"""What is measured without 3D, on poses whose right figures are known."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import pytest
import torch
from lifting import BODY
from walking import walk

from ites.evaluation.coverage import SIDES, Coverage, coverage
from ites.evaluation.verdict import WORDS, join, judge_data, judge_figures
from ites.evaluation.without_truth import FIGURES, HeldOut, flat, measure
from ites.models.trust import Judgement
from ites.pose import geometry
from ites.pose.skeleton import HUMAN36M

TURN = 22.5
"""Degrees between views; it divides the turns by which poses are measured."""


class Level:
    """A judge whose camera is level and who is sure of half of the poses."""

    def __call__(self, points, poses, device):
        count = len(points)
        sure = np.where(np.arange(count) % 2, 0.5, 0.99).astype(np.float32)
        return Judgement(np.zeros(count, np.float32), np.full(count, -7.0, np.float32), sure)


def symmetric() -> np.ndarray:
    """A rigid body whose left bones are as long as its right ones, root-to-head distance 1."""
    body = BODY / np.linalg.norm(BODY[HUMAN36M.head])
    for left, right in enumerate(HUMAN36M.mirror):
        if right > left:
            body[left] = body[right] * [-1, 1, 1]
        if right == left:
            body[left, 0] = 0
    return (body - body[:1]).astype(np.float32)


class Known(NamedTuple):
    """A lifter that knows every view of the body it is asked for."""

    views: torch.Tensor
    poses: torch.Tensor

    def __call__(self, points):
        nearest = torch.cdist(points.flatten(1), self.views.flatten(1)).argmin(1)
        return self.poses[nearest]


@pytest.fixture(scope="module")
def known() -> Known:
    """The body in every direction of a ring of 22.5 degrees."""
    angles = [math.radians(TURN * k) for k in range(16)]
    turns = geometry.so3_exp(torch.tensor([[0.0, angle, 0.0] for angle in angles]))
    poses = torch.from_numpy(symmetric()) @ turns
    return Known(geometry.project(poses), poses)


def held(known: Known, lengths=(12, 4)) -> HeldOut:
    points = known.views.numpy()
    return HeldOut(points, list(lengths), np.full(16, 250.0, np.float32), HUMAN36M)


def test_a_right_lifter_has_no_error(known) -> None:
    figures = measure(known, held(known), Level())
    assert list(figures) == [figure.name for figure in FIGURES]
    assert figures["reprojection_px"] == pytest.approx(0, abs=1e-3)
    assert figures["bone_variation"] == pytest.approx(0, abs=0.05)
    assert figures["asymmetry"] == pytest.approx(0, abs=0.05)
    assert figures["equivariance"] == pytest.approx(0, abs=1.0)  # so3_exp is slightly off
    assert figures["cycle"] == pytest.approx(0, abs=1.0)
    assert figures["wrong_views"] == 0
    assert figures["log_density"] == -7
    assert figures["sign_confidence"] == pytest.approx(74.5) and figures["doubtful"] == 50


def test_a_flat_pose_is_convicted(known) -> None:
    figures = measure(flat, held(known), Level())
    assert figures["reprojection_px"] == pytest.approx(0, abs=1e-3)
    points = known.views.numpy()
    poses = np.concatenate([points * 5, 0 * points[..., :1]], -1)
    parents, joints = np.array(HUMAN36M.bones).T
    bones = np.linalg.norm(poses[:, joints] - poses[:, parents], axis=-1)
    heads = np.linalg.norm(poses[:12, HUMAN36M.head], axis=-1) / bones[:12].sum(1)
    scaled = 600 / heads.mean() / bones[:12].sum(1)
    lengths = bones[:12] * scaled[:, None]
    assert figures["bone_variation"] > 10
    assert figures["bone_variation"] == pytest.approx(
        100 * lengths.std(0).mean() / lengths.mean(), rel=0.1
    )
    assert figures["equivariance"] > 50


def test_one_sign_wrong_throughout_is_consistent(known) -> None:
    """Only the density of views tells it: the equivariance of mirrored depths is right too."""

    def mirrored(points):
        pose = known(points)
        return geometry.backproject(points, -pose[..., 2:])

    assert measure(mirrored, held(known), Level())["equivariance"] < 10


def test_the_reprojection_is_in_pixels_and_on_a_body_of_600_mm(known) -> None:
    def off(points):
        pose = known(points)
        views = geometry.project(pose)
        views[:, 5] += torch.tensor([0.02, 0.0])
        return geometry.backproject(views, pose[..., 2:])

    figures = measure(known, held(known), Level(), explains=off)
    assert figures["reprojection_px"] == pytest.approx(250 * 0.02 / 17, rel=1e-3)
    assert figures["reprojection_mm"] == pytest.approx(600 * 5 * 0.02 / 17, rel=0.02)


def test_photographs_tell_nothing_of_bones(known) -> None:
    assert math.isnan(measure(known, held(known, [1] * 16), Level())["bone_variation"])


def test_sides_and_different_poses() -> None:
    """A walking person seen from the side, from the front, and both."""
    side, front = (walk(turn=turn).keypoints for turn in (0.0, math.pi / 2))
    for points, name in ((side, "side"), (front, "front"), (walk(turn=-1.571).keypoints, "back")):
        covered = coverage(points - points[:, :1], HUMAN36M)
        assert covered.sides_seen in (1, 2) and covered.sides is not None
        assert max(covered.sides, key=covered.sides.__getitem__) == name
    still = np.repeat(front[:1], 50, axis=0)
    assert coverage(still - still[:, :1], HUMAN36M).different == 1
    assert coverage(side - side[:, :1], HUMAN36M).different > 2
    assert sum(coverage(side - side[:, :1], HUMAN36M).sides.values()) == pytest.approx(1)


ALL = dict.fromkeys(SIDES, 0.2)


@pytest.mark.parametrize(
    "covered, started, word, reason",
    [
        (Coverage(5000, 400, ALL), False, "good", ""),
        (Coverage(5000, 400, None), False, "good", ""),
        (Coverage(1500, 400, ALL), False, "do not use", "too few frames: 1,500 to train on"),
        (Coverage(1500, 400, ALL), True, "use with care", "too few frames: 1,500 to train on"),
        (Coverage(5000, 90, ALL), False, "use with care", "about 90 in 5,000 frames"),
        (Coverage(5000, 9, ALL), False, "do not use", "too few different poses: about 9"),
        (
            Coverage(5000, 400, {**dict.fromkeys(SIDES, 0.0), "front": 0.99, "side": 0.01}),
            False, "do not use", "seen from 1 of 5 sides (front 99%, side 1%)",
        ),
        (Coverage(5000, 9, ALL), True, "use with care", "too few different poses: about 9"),
        (
            Coverage(5000, 400, {**dict.fromkeys(SIDES, 0.0), "front": 0.99, "side": 0.01}),
            True, "use with care", "seen from 1 of 5 sides",
        ),
        (
            Coverage(5000, 400, {**dict.fromkeys(SIDES, 0.0), "front": 0.5, "side": 0.5}),
            False, "use with care", "seen from 2 of 5 sides",
        ),
    ],
)  # fmt: skip
def test_the_data_are_judged(covered, started, word, reason) -> None:
    verdict = judge_data(covered, started)
    assert verdict.word == word
    assert reason in " ".join(verdict.reasons) and bool(verdict.reasons) == (word != "good")


FLAT = {
    "equivariance": 120.0, "bone_variation": 20.0, "asymmetry": 20.0, "doubtful": 0.0,
    "wrong_views": 0.0,
}  # fmt: skip
RIGHT = {
    "equivariance": 50.0, "bone_variation": 10.0, "asymmetry": 10.0, "doubtful": 1.0,
    "wrong_views": 0.0,
}  # fmt: skip


@pytest.mark.parametrize(
    "changed, word, reason",
    [
        ({}, "good", ""),
        ({"equivariance": 80.0}, "use with care", "80 mm off, 67% of a flat pose's"),
        ({"equivariance": 110.0}, "do not use", "110 mm off, 92% of a flat pose's"),
        ({"bone_variation": 25.0}, "do not use", "bone lengths vary by 25.0%"),
        ({"bone_variation": math.nan}, "good", ""),
        ({"doubtful": 12.0}, "use with care", "sign is doubtful in 12% of poses"),
        ({"wrong_views": 30.0}, "do not use", "30.0% of turned views get the wrong sign"),
    ],
)
def test_the_figures_are_judged(changed, word, reason) -> None:
    verdict = judge_figures({**RIGHT, **changed}, FLAT)
    assert verdict.word == word
    assert reason in " ".join(verdict.reasons) and bool(verdict.reasons) == (word != "good")


def test_a_person_who_hardly_moves_is_not_held_to_a_share() -> None:
    small = {**RIGHT, "bone_variation": 2.9}
    assert judge_figures(small, {**FLAT, "bone_variation": 3.0}).word == "good"


def test_the_worst_verdict_counts() -> None:
    good = judge_figures(RIGHT, FLAT)
    poor = judge_data(Coverage(100, 9, ALL), False)
    assert join(good, poor).word == "do not use" and join(good, good).word == WORDS[0]
    assert join(good, poor).reasons == poor.reasons
