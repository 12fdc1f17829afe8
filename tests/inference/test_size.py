"""Metres from a height, a bone or an assumed body size."""

import numpy as np
import pytest
from lifting import keypoints

from ites.data.lifted import read_clips
from ites.errors import ItesError
from ites.inference.lift import lift
from ites.inference.size import STATURE, body_size_of, metres_per_unit, unseen_bones
from ites.pose.skeleton import HUMAN36M, Skeleton

TREE = Skeleton("arm", ("base", "middle", "tip"), (-1, 0, 1), head=2)


def standing(height=1.0):
    """(17, 3): a person of a height, every bone as `STATURE` says, units of the height."""
    pose = np.zeros((17, 3))
    steps = {
        1: (0, (-0.05, 0, 0)), 2: (1, (0, 0.245, 0)), 3: (2, (0, 0.246, 0)),
        4: (0, (0.05, 0, 0)), 5: (4, (0, 0.245, 0)), 6: (5, (0, 0.246, 0)),
        7: (0, (0, -0.144, 0)), 8: (7, (0, -0.144, 0)), 9: (8, (0, -0.102, 0)),
        10: (9, (0, -0.08, 0)), 11: (8, (0.1, 0, 0)), 12: (11, (0, 0.17, 0)),
        13: (12, (0, 0.15, 0)), 14: (8, (-0.1, 0, 0)), 15: (14, (0, 0.17, 0)),
        16: (15, (0, 0.15, 0)),
    }  # fmt: skip
    for joint, (parent, step) in steps.items():
        pose[joint] = pose[parent] + step
    return height * pose


def clip(frames=9):
    """Poses of one person at several sizes, one of them with a misplaced joint."""
    poses = np.stack([standing(size) for size in np.linspace(1, 2, frames)])
    poses[4, 3] += 5
    return poses.astype(np.float32)


def lengths(poses):
    parents, joints = np.array(HUMAN36M.bones).T
    return np.median(np.linalg.norm(poses[:, joints] - poses[:, parents], axis=-1), axis=0)


def test_the_shares_of_the_height_reach_from_ankle_to_crown():
    assert sum(STATURE.values()) == pytest.approx(0.961)


@pytest.mark.parametrize(
    ("given", "height"),
    [
        ({"height": 1.8}, 1.8),
        ({"bone": {"left_knee": 0.49}}, 2.0),
        ({"bone": {"knee": 0.49}}, 2.0),
        ({"bone": {"knee": 0.49, "ankle": 0.492}}, 2.0),
        ({"body_size": 0.47 * 1.5}, 1.5),
    ],
)
def test_a_length_of_the_body_gives_metres(given, height):
    poses = clip()
    factors = metres_per_unit(poses, HUMAN36M, body_size_of(HUMAN36M, **given))
    metric = poses * factors[:, None, None]
    parents, joints = np.array(HUMAN36M.bones).T
    np.testing.assert_allclose(lengths(metric), lengths(standing(height)[None]), rtol=1e-5)


def test_bones_that_are_never_seen_do_not_count():
    poses, seen = clip(), np.ones((9, 17), bool)
    poses[:, [3, 6]] *= 3  # stand-ins of a wrong length
    seen[:, [3, 6]] = False
    size = body_size_of(HUMAN36M, height=1.8)
    factors = metres_per_unit(poses, HUMAN36M, size, seen)
    metric = poses[0] * factors[0]
    assert np.linalg.norm(metric[2] - metric[1]) == pytest.approx(0.245 * 1.8, rel=1e-5)
    assert unseen_bones(size, seen, HUMAN36M) == ["ankle"]
    assert unseen_bones(size, np.ones((9, 17), bool), HUMAN36M) == []
    seen[:, 6] = True  # one side is enough
    assert unseen_bones(size, seen, HUMAN36M) == []


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"height": 180.0}, r"between 0.3 and 3 metres, got 180; is that centimetres\?"),
        ({"height": 1800.0}, r"got 1800; is that millimetres\?"),
        ({"height": 0.0}, "height must lie between 0.3 and 3 metres, got 0$"),
        ({"height": float("nan")}, "height must lie between 0.3 and 3 metres, got nan"),
        ({"height": -1.8}, "got -1.8"),
        ({"bone": {"left_knee": 45.0}}, r"bone left_knee must be .*got 45; is that centimetres\?"),
        ({"bone": {"left_knee": float("inf")}}, "bone left_knee must be longer than 0 .* got inf"),
        (
            {"bone": {"tail": 0.3}},
            "bone must be the joint at a bone's end, hip, knee, .*got 'tail'",
        ),
        ({"bone": {"pelvis": 0.3}}, "got 'pelvis', which has no bone above it"),
        ({"body_size": 0.0}, "body_size must be positive and finite"),
        ({"body_size": "0.7"}, "body_size must be a number, got '0.7'"),
        ({"height": True}, "height must be a number, got True"),
        ({"bone": {"knee": "0.4"}}, "knee must be a number of metres, got '0.4'"),
        (
            {"bone": {"knee": 0.43, "left_knee": 0.86}},
            "bone must give each length once, got knee, left_knee, of which two are left_knee's",
        ),
        ({"body_size": 0.7, "height": 1.8}, "one of body_size, height and bone, got body_size and"),
    ],
)
def test_nonsense_is_refused(tmp_path, run, given, message):
    np.savez(tmp_path / "in.npz", keypoints=keypoints())
    with pytest.raises(ItesError, match=message) as caught:
        lift(run, tmp_path / "in.npz", tmp_path / "o.npz", device="cpu", **given)
    assert len(str(caught.value)) <= 300
    assert [path.name for path in tmp_path.iterdir()] == ["in.npz"]


def test_a_skeleton_without_these_bones_takes_its_own():
    with pytest.raises(ItesError, match="arm has none: give a bone's length"):
        body_size_of(TREE, height=1.8)
    poses = np.array([[[0, 0, 0], [0, 1, 0], [0, 1, 2]]], np.float32)
    factors = metres_per_unit(poses, TREE, body_size_of(TREE, bone={"tip": 0.5}))
    np.testing.assert_allclose(factors, 0.25)


@pytest.mark.parametrize(
    "given", [{}, {"height": 1.8}, {"bone": {"knee": 0.45}}], ids=["assumed", "height", "bone"]
)
def test_frames_that_show_nobody_do_not_count(given):
    """What was filled in there has other proportions than the person."""
    poses, empty = clip(30), np.zeros(30, bool)
    empty[5:25] = True
    poses[empty, 1:] = np.random.default_rng(0).normal(0, 1, (20, 16, 3))
    size = body_size_of(HUMAN36M, **given)
    seen = np.repeat(~empty[:, None], 17, 1)
    expected = metres_per_unit(poses[~empty], HUMAN36M, size)
    found = metres_per_unit(poses, HUMAN36M, size, seen, empty)
    np.testing.assert_allclose(found[~empty], expected, rtol=1e-6)
    assert np.isfinite(metres_per_unit(poses, HUMAN36M, size, seen, ~seen[:, 0] | True)).all()


def test_the_file_says_what_makes_its_metres(tmp_path, run):
    np.savez(tmp_path / "in.npz", keypoints=keypoints(), fps=25)
    for given, words in (
        ({}, "metre, by a mean of 0.72 m from root to head, assumed"),
        ({"body_size": 0.72}, "metre, by a mean of 0.72 m from root to head, given"),
        ({"height": 1.8}, "metre, by a height of 1.8 m, given"),
        ({"bone": {"knee": 0.45}}, "metre, by bone lengths: knee 0.45 m, given"),
    ):
        summary = lift(run, tmp_path / "in.npz", tmp_path / "o.npz", device="cpu", **given)
        assert read_clips(tmp_path / "o.npz").unit == words
        assert "metres by " + words.removeprefix("metre, by ") in summary["notes"]
