"""Keypoints in other axes are turned, flipped and exchanged; nothing else of a clip changes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import people
import pytest
from walking import JOINT, turned, walk

from ites.data.checks import check
from ites.data.corrections import Corrections, flip_y, rotate, swap_sides
from ites.data.datasets.keypoints import prepare_keypoints
from ites.data.store import PoseStore
from ites.errors import ItesError
from ites.pose.skeleton import HUMAN36M, load_skeleton


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_turning_back_what_was_turned(quarters: int) -> None:
    clip = replace(walk(8), focal_length=(1000.0, 1100.0))
    sideways = turned(clip, quarters)
    if quarters % 2:
        sideways = replace(sideways, focal_length=(1100.0, 1000.0))
    back = rotate(sideways, 360 - 90 * quarters)
    np.testing.assert_allclose(back.keypoints, clip.keypoints, atol=1e-3)
    assert back.image_size == clip.image_size
    assert back.focal_length == clip.focal_length
    assert check([back]) == []


def test_what_a_check_proposes_corrects_it() -> None:
    for quarters in (1, 3):
        clip = turned(walk(), quarters)
        (finding,) = check([clip])
        assert check([rotate(clip, finding.data["rotate"])]) == []


def test_rotation_by_hand() -> None:
    clip = replace(walk(1), image_size=(100, 50))
    points = np.zeros_like(clip.keypoints)
    points[0, 0] = (10, 20)
    clip = replace(clip, keypoints=points)
    assert rotate(clip, 90).keypoints[0, 0].tolist() == [30, 10]
    assert rotate(clip, 180).keypoints[0, 0].tolist() == [90, 30]
    assert rotate(clip, 270).keypoints[0, 0].tolist() == [20, 90]
    assert rotate(clip, 90).image_size == (50, 100)
    assert rotate(clip, 0) is clip
    with pytest.raises(ItesError, match="rotate must be one of 0, 90, 180, 270 degrees, got 45"):
        rotate(clip, 45)


def test_y_upwards_with_and_without_an_image_size() -> None:
    clip = walk(8)
    height = clip.image_size[1] if clip.image_size else 0
    up = replace(clip, keypoints=clip.keypoints * [1, -1] + [0, height])
    np.testing.assert_allclose(flip_y(up).keypoints, clip.keypoints, atol=1e-3)
    unknown = flip_y(replace(up, image_size=None))  # the same but for where 0 is
    apart = unknown.keypoints - clip.keypoints
    np.testing.assert_allclose(apart, np.broadcast_to(apart[0, 0], apart.shape), atol=1e-3)
    assert unknown.keypoints.min() >= 0
    negated = flip_y(replace(clip, keypoints=clip.keypoints * [1, -1], image_size=None))
    np.testing.assert_allclose(negated.keypoints, clip.keypoints)


def test_missing_joints_stay_where_they_are() -> None:
    confidence = np.ones((8, 17), np.float32)
    confidence[2, 5] = 0
    points = walk(8).keypoints.copy()
    points[2, 5] = 0
    clip = replace(walk(8), keypoints=points, confidence=confidence)
    for mended in (flip_y(clip), rotate(clip, 90), rotate(clip, 180)):
        assert mended.keypoints[2, 5].tolist() == [0, 0]
        assert mended.confidence is confidence


def test_sides_change_places_with_their_confidence() -> None:
    confidence = np.ones((8, 17), np.float32)
    confidence[:, JOINT["left_knee"]] = 0.5
    clip = replace(walk(8), confidence=confidence)
    other = swap_sides(clip, HUMAN36M)
    np.testing.assert_array_equal(
        other.keypoints[:, JOINT["left_wrist"]], clip.keypoints[:, JOINT["right_wrist"]]
    )
    assert other.confidence is not None
    assert (other.confidence[:, JOINT["right_knee"]] == 0.5).all()
    np.testing.assert_array_equal(swap_sides(other, HUMAN36M).keypoints, clip.keypoints)


def test_corrections_are_made_in_order_and_reported() -> None:
    nothing = Corrections()
    assert not nothing and nothing.lines() == []
    clip = walk(8)
    assert nothing(clip, HUMAN36M) is clip
    all_of_them = Corrections(flip_y=True, rotate=90, swap_sides=True)
    assert all_of_them.lines() == [
        "y flipped: it pointed up",
        "image turned by 90 degrees clockwise",
        "left and right exchanged",
    ]
    mended = all_of_them(clip, HUMAN36M)
    expected = swap_sides(rotate(flip_y(clip), 90), HUMAN36M)
    np.testing.assert_array_equal(mended.keypoints, expected.keypoints)
    with pytest.raises(ItesError, match="got 7"):
        Corrections(rotate=7)


def test_keypoints_with_3d_beside_them_are_not_turned() -> None:
    clip = replace(walk(2), truth=np.zeros((2, 17, 3), np.float32))
    assert Corrections()(clip, HUMAN36M) is clip
    with pytest.raises(ItesError, match="walk: keypoints with 3D poses beside them"):
        Corrections(flip_y=True)(clip, HUMAN36M)


def test_a_store_of_another_skeleton_exchanges_its_own_sides(tmp_path: Path) -> None:
    skeleton = load_skeleton("coco17")
    keypoints = people.walk("coco17", 8)
    np.savez(tmp_path / "a.npz", keypoints=keypoints, image_size=(1280, 960), fps=25.0)
    prepare_keypoints(
        [tmp_path / "a.npz"],
        tmp_path / "a.h5",
        layout="coco17",
        skeleton=skeleton,
        corrections=Corrections(swap_sides=True),
    )
    with PoseStore(tmp_path / "a.h5") as store:
        np.testing.assert_allclose(store.keypoints(), keypoints[:, list(skeleton.mirror)])
