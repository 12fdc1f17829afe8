"""Clips turned upright, and the floor."""

from dataclasses import replace

import numpy as np
import pytest

from ites.data.clips import Clip, Clips
from ites.data.lifted import FRAME, read_clips, write_clips
from ites.data.upright import floor_of, stand_upright, upright_turn
from ites.errors import ItesError
from ites.pose.skeleton import HUMAN36M

RNG = np.random.default_rng(0)


def looking(down=30.0, roll=0.0):
    """The direction of gravity in the axes of a camera that looks down, in degrees, and rolls."""
    e, r = np.radians(down), np.radians(roll)
    x, y = -np.cos(e) * np.sin(r), np.cos(e) * np.cos(r)
    return x, y, np.sin(e)


def clips(gravity, frames=40):
    positions = RNG.normal(0, 0.3, (frames, 17, 3)).astype(np.float32)
    positions[:, 0] = 0
    root = np.stack([np.linspace(-1, 1, frames), np.full(frames, 0.2), np.full(frames, 4.0)], 1)
    clip = Clip(
        "a", np.zeros((frames, 17, 2), np.float32), 25.0, positions=positions,
        truth=2 * positions, root=root.astype(np.float32), gravity=gravity,
    )  # fmt: skip
    return Clips(HUMAN36M, [clip], unit="metre, by a height of 1.8 m, given")


@pytest.mark.parametrize(("down", "roll"), [(0, 0), (30, 0), (-20, 40), (85, 10), (90, 0)])
def test_gravity_becomes_the_vertical(down, roll):
    gravity = looking(down, roll)
    turn = upright_turn(gravity)
    np.testing.assert_allclose(gravity @ turn, [0, 1, 0], atol=1e-12)
    np.testing.assert_allclose(turn @ turn.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(turn) == pytest.approx(1)
    if abs(down) < 80:  # forward stays forward
        forward = [0, 0, 1] @ turn
        assert forward[0] == pytest.approx(0, abs=1e-12) and forward[2] > 0


def test_a_level_camera_changes_nothing():
    np.testing.assert_array_equal(upright_turn((0, 1, 0)), np.eye(3))


def test_positions_truth_and_path_are_turned_together():
    given = clips(looking(30))
    found = stand_upright(given)
    assert found.frame == "gravity" and found.unit == given.unit
    turn = upright_turn(looking(30))
    for name in ("positions", "truth", "root"):
        expected = getattr(given.clips[0], name) @ turn
        np.testing.assert_allclose(getattr(found.clips[0], name), expected, atol=1e-6)
    assert stand_upright(found) is found
    floor = stand_upright(found, floor=True)
    (clip,) = floor.clips
    lowest = (clip.positions[..., 1] + clip.root[:, None, 1]).max(1)  # y points down
    assert np.percentile(lowest, 95) == pytest.approx(0, abs=1e-5)
    np.testing.assert_allclose(clip.root[:, [0, 2]], found.clips[0].root[:, [0, 2]])
    assert stand_upright(floor, floor=True) is floor


def test_the_floor_is_robust():
    heights = np.ones((100, 17))
    heights[:, 3] = 0.1
    heights[7, 5] = -30
    heights[8] = np.nan
    assert floor_of(heights) == pytest.approx(0.1)
    assert floor_of(np.full((3, 17), np.nan)) == 0


@pytest.mark.parametrize("ending", ["npz", "h5"])
@pytest.mark.parametrize("floor", [None, False, True])
def test_a_file_states_its_frame_and_gives_it_back(tmp_path, ending, floor):
    given = clips(looking(20, 5))
    given = given if floor is None else stand_upright(given, floor)
    nothing = replace(given.clips[0], name="b", root=None, gravity=None, focal_assumed=True)
    path = tmp_path / f"a.{ending}"
    write_clips(path, replace(given, clips=[*given.clips, nothing]))
    read = read_clips(path)
    assert (read.frame, read.unit) == (given.frame, given.unit)
    one, other = read.clips
    np.testing.assert_array_equal(one.root, given.clips[0].root)
    assert one.gravity == pytest.approx(given.clips[0].gravity)
    assert (other.root, other.gravity, other.focal_assumed) == (None, None, True)
    assert "y down" in FRAME[read.frame]


def test_what_is_not_known_is_refused():
    given = clips(None)
    with pytest.raises(ItesError, match="a: up 'gravity' needs the camera's elevation"):
        stand_upright(given)
    pathless = clips(looking())
    pathless = replace(pathless, clips=[replace(pathless.clips[0], root=None)])
    with pytest.raises(ItesError, match="a: the floor needs a root path"):
        stand_upright(pathless, floor=True)
