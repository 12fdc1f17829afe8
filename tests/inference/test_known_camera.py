"""Known cameras: lines of sight turned onto the axis, poses turned back, and the root's path."""

import numpy as np
import pytest
import torch
from lifting import motion

from ites.data.clips import Clip, Clips
from ites.data.datasets.keypoints import prepare_keypoints
from ites.data.lifted import read_clips
from ites.errors import ItesError
from ites.inference.assume import network_input
from ites.inference.lift import lift
from ites.inference.sight import gravity_of, lines_of_sight, root_path, with_size
from ites.inference.stream import Lifter, _axis_turn, _turn_points
from ites.models import UprightStudent, UprightTeacher
from ites.pose.camera import axis_turn, turn_back, turn_points
from ites.pose.skeleton import HUMAN36M
from ites.runs.checkpoint import Metadata, save_model

FOCAL, SIZE = 1200.0, (1920, 1080)


@pytest.fixture(scope="module")
def upright(tmp_path_factory):
    """A run folder with a small teacher and student of recipe upright; their scale is 1.5."""
    folder = tmp_path_factory.mktemp("upright")
    torch.manual_seed(0)
    for model in (
        UprightTeacher(width=32, blocks=1, atoms=4),
        UprightStudent(width=16, blocks=1),
    ):
        metadata = Metadata(kind=model.kind, skeleton=HUMAN36M, scale=1.5)
        save_model(folder / f"{model.kind}.safetensors", model, metadata)
    return folder


def off_axis(frames=30, degrees=20.0, distance=4.0):
    """A body (T, 17, 3), metres, camera axes, that turns at an angle from the optical axis."""
    angle = np.radians(degrees)
    away = distance * np.array([np.sin(angle), -0.1, np.cos(angle)])
    return motion(frames).astype(np.float64) - [0.2, 0, 5] + away


def seen(joints, focal=FOCAL, centre=(960, 540)):
    return joints[..., :2] / joints[..., 2:] * focal + centre


def clip_of(joints, **more):
    known = {"focal_length": (FOCAL, FOCAL), "image_size": SIZE, **more}
    return Clip("a", seen(joints).astype(np.float32), fps=25.0, **known)


def test_a_line_of_sight_comes_onto_the_axis_and_a_level_camera_stays_level():
    points = np.array([[0.4, -0.3], [-1.0, 0.2], [0.0, 0.0]])
    turns = axis_turn(points)
    rays = np.concatenate([points, np.ones((3, 1))], -1)
    turned = np.einsum("ni,nij->nj", rays, turns)
    np.testing.assert_allclose(turned[:, :2], 0, atol=1e-12)
    np.testing.assert_allclose(turned[:, 2], np.linalg.norm(rays, axis=-1))
    np.testing.assert_allclose(
        turns @ turns.swapaxes(-1, -2), np.tile(np.eye(3), (3, 1, 1)), atol=1e-12
    )
    np.testing.assert_allclose(turns[:, 1, 0], 0, atol=1e-12)  # the vertical stays vertical
    np.testing.assert_array_equal(turns[2], np.eye(3))


def test_roll_turns_the_image_clockwise():
    turn = axis_turn(np.zeros(2), np.pi / 2)
    np.testing.assert_allclose([1, 0, 1] @ turn, [0, 1, 1], atol=1e-12)  # right goes down
    rolled = axis_turn(np.array([0.4, 0.3]), 0.5)
    np.testing.assert_allclose([0.4, 0.3, 1] @ rolled, [0, 0, 1.25**0.5], atol=1e-12)


def test_the_tensors_of_a_stream_are_turned_alike():
    points = np.random.default_rng(0).normal(0, 0.3, (5, 17, 2)).astype(np.float32)
    turns = axis_turn(points[:, 0])
    of_stream = _axis_turn(torch.from_numpy(points[:, 0]))
    np.testing.assert_allclose(of_stream, turns, atol=1e-6)
    expected = turn_points(points, turns)
    np.testing.assert_allclose(
        _turn_points(torch.from_numpy(points), of_stream), expected, atol=1e-5
    )
    far = turn_points(np.array([[[0.0, 0.0], [-20.0, 0.0]]]), axis_turn(np.array([[3.0, 0.0]])))
    assert np.isfinite(far).all() and far[0, 1, 0] < 0


@pytest.mark.parametrize("degrees", [0.0, 20.0, -35.0])
@pytest.mark.parametrize("roll", [0.0, 0.4])
def test_true_depths_give_the_true_pose_and_path(degrees, roll):
    joints = off_axis(degrees=degrees)
    points, sight = lines_of_sight(clip_of(joints), HUMAN36M, known=True, roll=roll)
    np.testing.assert_allclose(points[:, 0], 0, atol=1e-6)
    size = 0.8
    unit = np.linalg.norm(joints[:, 0], axis=-1) / (5 * size)  # metres per network unit
    depth = ((joints - joints[:, :1]) @ sight.turns)[..., 2:] / unit[:, None, None]
    lifted = np.concatenate([size * points * (5 + depth), depth], -1).astype(np.float32)
    found = with_size(sight, size).to_camera(lifted) * unit[:, None, None]
    np.testing.assert_allclose(found, joints - joints[:, :1], atol=1e-5)
    path = root_path(
        found.astype(np.float32), unit.astype(np.float32), with_size(sight, size), HUMAN36M, 25.0
    )
    np.testing.assert_allclose(path, joints[:, 0], atol=1e-5)
    again = seen(found + path[:, None])
    np.testing.assert_allclose(again, seen(joints), atol=0.01)  # pixels


def test_the_path_is_smoothed_and_unknown_where_the_pose_is():
    joints = off_axis(50)
    points, sight = lines_of_sight(clip_of(joints), HUMAN36M, known=True)
    poses = (joints - joints[:, :1]).astype(np.float32)
    unit = np.full(50, 4.0 / 5, np.float32) * np.float32(np.linalg.norm(joints[0, 0]) / 4)
    unit[20] *= 3  # one pose is three times too large
    poses[20] *= 3
    poses[30:], unit[30:] = np.nan, np.nan
    path = root_path(poses, unit, sight, HUMAN36M, 25.0)
    np.testing.assert_allclose(path[:30], joints[:30, 0], atol=1e-4)
    assert np.isnan(path[30:]).all()


def test_gravity_is_found_in_the_cameras_axes():
    """A camera that looks down by 10 degrees sees a person 20 degrees to the side."""
    joints = off_axis()
    _, sight = lines_of_sight(clip_of(joints), HUMAN36M, known=True)
    down = np.array([0, np.cos(np.radians(10)), np.sin(np.radians(10))])
    there = down @ sight.turns  # [T, 3], as the network sees it
    elevation = np.arcsin(there[:, 2]).astype(np.float32)
    elevation[3] = np.nan
    elevation[5] = 1.2  # a wrong frame
    found = gravity_of(elevation, sight)
    assert np.degrees(np.arccos(found @ down)) < 4  # the network's camera has no roll
    assert np.linalg.norm(found) == pytest.approx(1)
    level, sight = lines_of_sight(clip_of(joints), HUMAN36M)
    np.testing.assert_allclose(gravity_of(0 * elevation, sight), [0, 1, 0], atol=1e-7)
    assert gravity_of(np.full(30, np.nan, np.float32), sight) is None


def test_only_a_known_camera_is_turned():
    joints = off_axis()
    clip = clip_of(joints)
    for given, turned, known in (
        (clip, True, True),
        (clip, False, False),  # recipe paper
        (clip_of(joints, focal_length=None), True, False),
        (clip_of(joints, image_size=None), True, False),
        (clip_of(joints, image_size=None, principal_point=(960.0, 540.0)), True, True),
    ):
        found = network_input(Clips(HUMAN36M, [given]), 1.5, turned=turned)
        assert found.sights[0].exact is known
        assert found.clips.clips[0].focal_assumed is (given.focal_length is None)
        codes = [note.code for note in found.assumed.notes]
        assert ("known-camera" in codes) is known
        assert ("no-image-size" in codes) is (given.image_size is None and not known)
        heads = np.linalg.norm(found.points[:, 10], axis=-1)
        if turned:
            assert heads.mean() == pytest.approx(0.2, rel=1e-5)


@pytest.mark.parametrize("stage", ["teacher", "student"])
def test_a_person_off_the_axis_is_lifted_as_one_on_it(upright, tmp_path, stage):
    """The same views of the same body, on the axis and 20 degrees off: the same pose, turned."""
    centred = off_axis(degrees=0.0)
    turn = axis_turn(np.array([np.tan(np.radians(20.0)), 0]))
    aside = centred @ turn.T
    for name, joints in (("on", centred), ("off", aside)):
        np.savez(
            tmp_path / f"{name}.npz", keypoints=seen(joints), focal_length=FOCAL,
            image_size=SIZE, fps=25,
        )  # fmt: skip
        lift(
            upright,
            tmp_path / f"{name}.npz",
            tmp_path / f"{name}3d.npz",
            stage=stage,
            device="cpu",
            temporal=False,
        )
    on, off = (read_clips(tmp_path / f"{name}3d.npz").clips[0] for name in ("on", "off"))
    np.testing.assert_allclose(off.positions, on.positions @ turn.T, atol=1e-4)
    np.testing.assert_allclose(off.root, on.root @ turn.T, atol=1e-3)
    np.testing.assert_array_equal(off.positions[:, 0], 0)


def test_pose_and_path_are_seen_where_the_keypoints_were(upright, tmp_path):
    """The lifted positions on the root's path project onto the (cleaned) keypoints."""
    joints = off_axis(distance=3.0)
    np.savez(
        tmp_path / "in.npz", keypoints=seen(joints), focal_length=FOCAL, image_size=SIZE, fps=25
    )
    lift(upright, tmp_path / "in.npz", tmp_path / "o.npz", device="cpu")
    (clip,) = read_clips(tmp_path / "o.npz").clips
    points = (clip.keypoints - [960, 540]) / FOCAL
    heads = np.linalg.norm(turn_points(points, axis_turn(points[:, 0]))[:, 10], axis=-1)
    away = 5 * (0.2 / heads.mean()) * clip.metres_per_unit  # the distance before smoothing
    ray = clip.root / np.linalg.norm(clip.root, axis=-1, keepdims=True)
    again = seen(clip.positions + (ray * away[:, None])[:, None])
    np.testing.assert_allclose(again, clip.keypoints, atol=0.05)


def test_a_file_and_the_store_made_of_it_are_lifted_alike(upright, tmp_path):
    joints = off_axis()
    np.savez(tmp_path / "in.npz", keypoints=seen(joints), image_size=SIZE, fps=25)
    for name, focal in (("known", FOCAL), ("unknown", None)):
        store = tmp_path / f"{name}.h5"
        prepare_keypoints([tmp_path / "in.npz"], store, focal_length=focal)
        lift(upright, store, tmp_path / f"{name}-s.npz", device="cpu")
        lift(
            upright,
            tmp_path / "in.npz",
            tmp_path / f"{name}-f.npz",
            device="cpu",
            focal_length=focal,
        )
        one, other = (read_clips(tmp_path / f"{name}-{of}.npz").clips[0] for of in "sf")
        np.testing.assert_allclose(one.positions, other.positions, atol=1e-5)
        np.testing.assert_allclose(one.root, other.root, atol=1e-4)
        assert one.focal_assumed is other.focal_assumed is (focal is None)
    known, unknown = (read_clips(tmp_path / f"{n}-f.npz").clips[0] for n in ("known", "unknown"))
    assert np.abs(known.positions - unknown.positions).max() > 1e-3


def test_a_stream_of_a_known_camera_is_lifted_as_from_a_file(upright, tmp_path):
    points = seen(off_axis()).astype(np.float32)
    np.savez(tmp_path / "in.npz", keypoints=points, focal_length=FOCAL, image_size=SIZE, fps=25)
    for options in ({}, {"height": 1.8}, {"bone": {"left_knee": 0.4}}):
        lift(
            upright,
            tmp_path / "in.npz",
            tmp_path / "o.npz",
            device="cpu",
            temporal=False,
            **options,
        )
        (clip,) = read_clips(tmp_path / "o.npz").clips
        lifter = Lifter(upright, focal_length=FOCAL, image_size=SIZE, device="cpu", **options)
        # A file takes medians of bones, a stream means.
        close = 1e-4 if not options else 0.05
        np.testing.assert_allclose(lifter.lift(points), clip.positions, atol=close)
    with pytest.raises(
        ItesError, match="Lifter: height must lie between 0.3 and 3 metres, got 180"
    ):
        Lifter(upright, height=180.0, device="cpu")


def test_a_roll_that_is_given_is_undone_and_turned_back(upright, tmp_path):
    joints = off_axis(degrees=0.0)
    roll = axis_turn(np.zeros(2), np.radians(26.0))
    for name, shown, options in (
        ("level", joints, {}),
        ("rolled", joints @ roll.T, {"roll": 26.0}),
    ):
        for focal in (FOCAL, None):
            np.savez(tmp_path / "in.npz", keypoints=seen(shown), image_size=SIZE, fps=25)
            out = tmp_path / f"{name}{focal is None}.npz"
            lift(
                upright,
                tmp_path / "in.npz",
                out,
                device="cpu",
                temporal=False,
                focal_length=focal,
                **options,
            )
    for unknown in (False, True):
        level, rolled = (
            read_clips(tmp_path / f"{name}{unknown}.npz").clips[0] for name in ("level", "rolled")
        )
        np.testing.assert_allclose(rolled.positions, level.positions @ roll.T, atol=2e-3)
    with pytest.raises(ItesError, match="roll must lie between -180 and 180 degrees, got 200"):
        lift(upright, tmp_path / "in.npz", tmp_path / "o.npz", roll=200.0)


def test_perspective_grows_as_the_camera_comes_near():
    pose = np.array([[[0.0, 0, 0], [1, 0, 1]]])
    same = turn_back(pose, np.eye(3)[None], 1.0)
    np.testing.assert_allclose(same, pose, atol=1e-6)
    near, far = (turn_back(pose, np.eye(3)[None], size)[0, 1, 0] for size in (0.5, 2.0))
    assert (near, far) == (pytest.approx(7 / 6), pytest.approx(5.5 / 6))


@pytest.mark.parametrize("focal", [None, 1674.0])
def test_a_real_portrait_clip_is_lifted_alike_from_file_and_store(upright, shared, tmp_path, focal):
    source = shared / "cases/25-portrait-camera-store-or-array/balance_cam2_h36m.npz"
    prepare_keypoints([source], tmp_path / "s.h5", focal_length=focal)
    clips = []
    for given, options in ((tmp_path / "s.h5", {}), (source, {"focal_length": focal})):
        lift(given, tmp_path / "o.npz", run=upright, device="cpu", **options)
        clips += read_clips(tmp_path / "o.npz").clips
    store, file = clips
    np.testing.assert_allclose(store.positions, file.positions, atol=1e-5)
    np.testing.assert_allclose(store.root, file.root, atol=1e-4)
    assert store.focal_assumed is file.focal_assumed is (focal is None)
