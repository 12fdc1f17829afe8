"""Skeletons and keypoint layouts."""

import numpy as np
import pytest

from ites.errors import ItesError
from ites.pose.layouts import to_human36m
from ites.pose.skeleton import HUMAN36M, Skeleton


def test_human36m():
    assert HUMAN36M.num_joints == 17 and HUMAN36M.root == 0
    assert len(HUMAN36M.edges) == 49
    assert HUMAN36M.edges[:5] == ((0, 0), (0, 1), (0, 4), (0, 7), (1, 0))
    assert HUMAN36M.mirror[4] == 1 and HUMAN36M.mirror[16] == 13 and HUMAN36M.mirror[10] == 10
    for left, right in zip(HUMAN36M.left, HUMAN36M.right, strict=True):
        assert HUMAN36M.joints[left] == HUMAN36M.joints[right].replace("right", "left")
    used = [joint for pair in HUMAN36M.pooling for joint in pair]
    assert sorted(used) == [j for j in range(17) if j != 9]


def test_json_round_trip():
    assert Skeleton.from_json(HUMAN36M.to_json()) == HUMAN36M
    with pytest.raises(ItesError, match="expected the JSON of a skeleton"):
        Skeleton.from_json('{"name": "x"}')


def test_default_pooling_pairs_joints_with_parents():
    chain = Skeleton("chain", tuple("abcde"), (-1, 0, 1, 2, 3))
    assert chain.pooling == ((1, 2), (3, 4))


@pytest.mark.parametrize(
    "fields, message",
    (
        ({"parents": (-1, 0)}, "3 joints but 2 parents"),
        ({"parents": (0, 0, 0)}, "hold -1 once"),
        ({"parents": (-1, 2, 1)}, "circle"),
        ({"left": (1,)}, "pair up"),
        ({"head": 3}, r"0\.\.2"),
        ({"pooling": ((0, 5),)}, r"0\.\.2"),
    ),
)
def test_refusals(fields, message):
    given = {"name": "s", "joints": ("a", "b", "c"), "parents": (-1, 0, 1), **fields}
    with pytest.raises(ItesError, match=message):
        Skeleton(**given)


def test_coco_to_human36m():
    coco = np.arange(34, dtype=np.float64).reshape(17, 2)
    confidence = np.linspace(0.1, 0.9, 17)
    ours, ours_confidence = to_human36m(coco, "coco17", confidence)
    names = HUMAN36M.joints
    assert np.allclose(ours[names.index("right_knee")], coco[14])
    assert np.allclose(ours[names.index("left_wrist")], coco[9])
    assert np.allclose(ours[0], (coco[11] + coco[12]) / 2)
    assert np.allclose(ours[names.index("thorax")], (coco[5] + coco[6]) / 2)
    assert ours_confidence[0] == confidence[11]


def test_coco_head_is_above_the_nose():
    """The crown lies beyond the eyes, seen from the nose."""
    coco = np.zeros((17, 2))
    coco[0], coco[1], coco[2] = (0, 10), (-1, 9), (1, 9)
    head = to_human36m(coco, "coco17")[0][HUMAN36M.head]
    assert head[1] < 9


def test_mpi3dhp_to_human36m_is_a_permutation():
    ours, _ = to_human36m(np.arange(17.0)[:, None].repeat(2, 1), "mpi3dhp17")
    assert sorted(ours[:, 0]) == list(range(17))
    assert ours[0, 0] == 14 and ours[HUMAN36M.joints.index("left_wrist"), 0] == 7


def test_layout_refusals():
    with pytest.raises(ItesError, match=r"coco17 keypoints must have shape \(..., 17, D\)"):
        to_human36m(np.zeros((4, 13, 2)), "coco17")
    with pytest.raises(ItesError, match="layout must be one of"):
        to_human36m(np.zeros((4, 17, 2)), "openpose")
