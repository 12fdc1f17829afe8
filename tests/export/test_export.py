"""Exports, read back by libraries that are not ours."""

import json
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from ites.data.clips import Clip, Clips
from ites.data.lifted import read_clips, write_clips
from ites.data.store import PoseStoreWriter
from ites.errors import ItesError
from ites.export import PRESETS, export
from ites.export.frames import CAMERA, OPENSIM, UNITY, UNREAL, Y_UP, Z_UP
from ites.export.motion import GRAVITY_AXES, to_motion
from ites.export.rotations import (
    euler_zxy,
    find_rotations,
    forward_kinematics,
    quaternions,
)
from ites.pose.camera import Camera
from ites.pose.skeleton import HUMAN36M, Skeleton
from ites.show.view import view

TREE = Skeleton("arm", ("base", "middle", "tip"), (-1, 0, 1), head=2)


def standing() -> np.ndarray:
    """(17, 3) a person who stands and faces the camera, camera axes, metres."""
    return np.array(
        [
            (0, 0, 0), (-0.13, 0, 0), (-0.13, 0.44, 0), (-0.13, 0.88, 0),
            (0.13, 0, 0), (0.13, 0.44, 0), (0.13, 0.88, 0),
            (0, -0.23, 0), (0, -0.48, 0), (0, -0.56, -0.05), (0, -0.72, 0),
            (0.15, -0.45, 0), (0.17, -0.17, 0), (0.18, 0.08, 0),
            (-0.15, -0.45, 0), (-0.17, -0.17, 0), (-0.18, 0.08, 0),
        ],
        np.float32,
    )  # fmt: skip


def clips(frames: int = 40, names: tuple[str, ...] = ("walk",), seed: int = 0) -> Clips:
    """Clips of people who move at random, their bones of varying length."""
    rng = np.random.default_rng(seed)
    made = []
    for index, name in enumerate(names):
        count = frames + 7 * index
        wander = rng.normal(0, 0.02, (count, 17, 3)).cumsum(0).astype(np.float32)
        wander[:, 0] = 0
        made.append(
            Clip(
                name=name,
                keypoints=np.zeros((count, 17, 2), np.float32),
                fps=25.0 + 5 * index,
                positions=standing() + wander,
                sign_confidence=np.linspace(0, 1, count, dtype=np.float32),
            )
        )
    return Clips(HUMAN36M, made)


def test_frames_are_what_their_words_say() -> None:
    right, down, forward = np.eye(3)
    for frame, expected in (
        (CAMERA, {"right": (1, 0, 0), "up": (0, -1, 0), "forward": (0, 0, 1)}),
        (Y_UP, {"right": (1, 0, 0), "up": (0, 1, 0), "forward": (0, 0, -1)}),
        (Z_UP, {"right": (1, 0, 0), "up": (0, 0, 1), "forward": (0, 1, 0)}),
        (UNITY, {"right": (1, 0, 0), "up": (0, 1, 0), "forward": (0, 0, 1)}),
        (UNREAL, {"right": (0, 1, 0), "up": (0, 0, 1), "forward": (1, 0, 0)}),
        (OPENSIM, {"right": (0, 0, -1), "up": (0, 1, 0), "forward": (-1, 0, 0)}),
    ):
        for vector, name in ((right, "right"), (-down, "up"), (forward, "forward")):
            assert np.allclose(frame.convert(vector) / frame.factor, expected[name]), frame.axes
        handed = round(np.linalg.det(np.array(frame.matrix)))
        assert handed == (1 if "right-handed" in frame.axes else -1)
        assert np.allclose(frame.up, expected["up"])


def test_rotations_give_back_positions_and_constant_bones_keep_their_length() -> None:
    motion = to_motion(clips().clips[0], HUMAN36M, Y_UP)
    found = find_rotations(motion.positions, HUMAN36M, Y_UP)
    again = forward_kinematics(found.local, found.offsets, HUMAN36M)
    assert np.abs(again - motion.positions).max() < 1e-12
    assert np.allclose(found.local @ found.local.swapaxes(-1, -2), np.eye(3))
    assert np.allclose(np.linalg.det(found.local), 1)
    offsets = np.broadcast_to(found.rest, motion.positions.shape).copy()
    rebuilt = forward_kinematics(found.local, offsets, HUMAN36M)
    parents, joints = np.array(HUMAN36M.bones).T
    lengths = np.linalg.norm(rebuilt[:, joints] - rebuilt[:, parents], axis=-1)
    assert np.ptp(lengths, axis=0).max() < 1e-12


def test_a_t_pose_has_no_rotation() -> None:
    """Joints of a person in the rest pose, whatever the frame, are not turned."""
    found = find_rotations(to_motion(clips().clips[0], HUMAN36M, Y_UP).positions, HUMAN36M, Y_UP)
    offsets = found.rest[None].copy()
    pose = forward_kinematics(np.tile(np.eye(3), (1, 17, 1, 1)), offsets, HUMAN36M)
    for frame in (Y_UP, OPENSIM, Z_UP):
        turned = pose @ np.array(Y_UP.matrix) @ np.array(frame.matrix).T
        again = find_rotations(turned, HUMAN36M, frame)
        assert np.allclose(again.local, np.eye(3), atol=1e-12)


@pytest.mark.parametrize("bend", [0.0, 90.0, 180.0])
def test_a_bone_turns_by_the_shortest_way(bend: float) -> None:
    angle = np.radians(bend)
    tip = np.array([np.sin(angle), 1 + np.cos(angle), 0])
    positions = np.array([[[0, 0, 0], [0, 1, 0], [0, 2, 0]], [[0, 0, 0], [0, 1, 0], tip]], float)
    found = find_rotations(positions, TREE, Y_UP)
    turn = np.degrees(np.arccos(np.clip((np.trace(found.local[1, 1]) - 1) / 2, -1, 1)))
    assert turn == pytest.approx(bend, abs=1e-6)
    assert np.allclose(forward_kinematics(found.local, found.offsets, TREE), positions)


def test_angles_and_quaternions_mean_the_same_rotations() -> None:
    rng = np.random.default_rng(3)
    q = rng.normal(size=(200, 2, 4))
    q /= np.linalg.norm(q, axis=-1, keepdims=True)
    x, y, z, w = np.moveaxis(q, -1, 0)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    rotation = np.moveaxis(np.array(rows), (0, 1), (-2, -1))
    found = quaternions(rotation)
    assert np.allclose(np.abs(np.sum(found * q, axis=-1)), 1)
    assert (np.sum(found[1:] * found[:-1], axis=-1) >= 0).all()

    def about(axis: int, degrees: np.ndarray) -> np.ndarray:
        c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
        m = np.zeros((*degrees.shape, 3, 3))
        i, j = [(1, 2), (2, 0), (0, 1)][axis]
        m[..., axis, axis] = 1
        m[..., i, i], m[..., j, j], m[..., i, j], m[..., j, i] = c, c, -s, s
        return m

    angles = euler_zxy(rotation)
    again = about(2, angles[..., 0]) @ about(0, angles[..., 1]) @ about(1, angles[..., 2])
    assert np.allclose(again, rotation)
    assert np.abs(np.diff(euler_zxy(about(1, np.arange(0, 720, 10.0)[:, None])), axis=0)).max() < 11


@pytest.mark.parametrize("preset", [None, *PRESETS])
def test_bvh_is_read_back(tmp_path, preset: str | None) -> None:
    bvhio = pytest.importorskip("bvhio")
    given = clips()
    summary = export(given, tmp_path / "walk.bvh", preset=preset)
    assert summary["files"] == [str(tmp_path / "walk.bvh")]
    frame = PRESETS[preset].interchange if preset else Y_UP
    motion = to_motion(given.clips[0], HUMAN36M, frame)
    root = bvhio.readAsHierarchy(str(tmp_path / "walk.bvh"))
    for index in (0, 11, 39):
        root.loadPose(index)
        read = {joint.Name: np.array(joint.PositionWorld) for joint, _, _ in root.layout()}
        for joint, name in enumerate(HUMAN36M.joints):
            error = np.abs(read[name] - motion.positions[index, joint]).max() / frame.factor
            assert error < 1e-3, (index, name)


def test_bvh_of_constant_bones_has_rotations_alone(tmp_path) -> None:
    pybvh = pytest.importorskip("pybvh")
    given = clips()
    motion = to_motion(given.clips[0], HUMAN36M, Y_UP)
    found = find_rotations(motion.positions, HUMAN36M, Y_UP)
    offsets = np.broadcast_to(found.rest, motion.positions.shape)
    rigid = forward_kinematics(found.local, offsets, HUMAN36M)
    camera = (rigid @ np.array(Y_UP.matrix)).astype(np.float32)
    steady = replace(given, clips=[replace(given.clips[0], positions=camera)])
    summary = export(steady, tmp_path / "walk.bvh", bones="constant")
    assert "constant bones move joints by 0.0 mm" in summary["notes"][-1]
    text = (tmp_path / "walk.bvh").read_text()
    assert text.count("CHANNELS 6") == 1 and text.count("CHANNELS 3") == 16
    read = pybvh.read_bvh_file(tmp_path / "walk.bvh")
    assert read.frame_time == pytest.approx(0.04)
    positions = read.joint_positions()
    order = [read.joint_names.index(name) for name in HUMAN36M.joints]
    assert np.abs(positions[:, order] - rigid).max() < 1e-3


def test_trc_is_read_back(tmp_path) -> None:
    trc = pytest.importorskip("trc")
    given = clips()
    given.clips[0].positions[5, 3] = np.nan
    export(given, tmp_path / "walk.trc", preset="opensim")
    read = trc.TRCData()
    read.load(str(tmp_path / "walk.trc"))
    expected = OPENSIM.convert(given.clips[0].positions)
    assert read["Units"] == "m" and read["DataRate"] == 25.0 and read["NumFrames"] == 40
    assert read["Markers"] == list(HUMAN36M.joints)
    for frame in range(40):
        time, points = read[frame + 1]
        assert time == pytest.approx(frame / 25)
        known = np.isfinite(expected[frame]).all(-1)
        assert np.abs(np.array(points)[known] - expected[frame][known]).max() < 1e-3
        assert np.isnan(np.array(points)[~known]).all()


def test_c3d_is_read_back(tmp_path) -> None:
    pytest.importorskip("ezc3d")
    c3d = pytest.importorskip("c3d")
    given = clips()
    given.clips[0].positions[5, 3] = np.nan
    export(given, tmp_path / "walk.c3d")
    with (tmp_path / "walk.c3d").open("rb") as file:
        reader = c3d.Reader(file)
        points = np.array([frame[1] for frame in reader.read_frames()])  # (T, J, 5)
    expected = Y_UP.convert(given.clips[0].positions)
    known = np.isfinite(expected).all(-1)
    assert np.abs(points[known, :3] - expected[known]).max() < 1e-3
    assert points[5, 3, 3] == -1 and (points[known, 3] == 0).all()
    assert reader.get("POINT").get("UNITS").string_value.strip() == "m"
    assert reader.point_rate == pytest.approx(25)
    assert [label.strip() for label in reader.point_labels] == list(HUMAN36M.joints)


def test_gltf_is_read_back(tmp_path) -> None:
    pygltflib = pytest.importorskip("pygltflib")
    trimesh = pytest.importorskip("trimesh")
    given = clips(names=("walk", "run"))
    export(given, tmp_path / "two.glb")
    scene = trimesh.load(str(tmp_path / "two.glb"))
    assert len(scene.geometry) == 2
    document = pygltflib.GLTF2().load(str(tmp_path / "two.glb"))
    blob = document.binary_blob()

    def array(index: int) -> np.ndarray:
        accessor = document.accessors[index]
        view = document.bufferViews[accessor.bufferView]
        raw = blob[view.byteOffset : view.byteOffset + view.byteLength]
        return np.frombuffer(raw, np.float32).reshape(accessor.count, -1)

    assert [animation.name for animation in document.animations] == ["walk", "run"]
    for clip, animation, skin in zip(given.clips, document.animations, document.skins, strict=True):
        places = {}
        for channel in animation.channels:
            sampler = animation.samplers[channel.sampler]
            places[channel.target.node, channel.target.path] = array(sampler.output)
        times = array(animation.samplers[0].input)[:, 0]
        assert np.allclose(times, np.arange(len(clip)) / clip.fps)
        above = {c: i for i, node in enumerate(document.nodes) for c in node.children or []}
        expected = Y_UP.convert(clip.positions)
        for frame in (0, 17):

            def world(node: int, frame=frame, places=places, above=above) -> np.ndarray:
                matrix = np.eye(4)
                if (node, "translation") in places:
                    x, y, z, w = places[node, "rotation"][frame].astype(float)
                    matrix[:3, :3] = [
                        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
                        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
                        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
                    ]
                    matrix[:3, 3] = places[node, "translation"][frame]
                return world(above[node]) @ matrix if node in above else matrix

            for joint, node in enumerate(skin.joints):
                assert document.nodes[node].name == HUMAN36M.joints[joint]
                assert np.abs(world(node)[:3, 3] - expected[frame, joint]).max() < 1e-3


@pytest.mark.parametrize("preset, frame", [(None, CAMERA), ("unreal", UNREAL), ("blender", Z_UP)])
def test_tables_hold_positions_and_say_their_frame(tmp_path, preset, frame) -> None:
    given = clips(names=("walk", "run"))
    given.clips[1].positions[2, 4] = np.nan
    export(given, tmp_path / "poses.json", preset=preset)
    read = json.loads((tmp_path / "poses.json").read_text())
    assert (read["axes"], read["unit"]) == (frame.axes, frame.unit)
    assert [c["fps"] for c in read["clips"]] == [25.0, 30.0]
    for clip, found in zip(given.clips, read["clips"], strict=True):
        expected = frame.convert(clip.positions)
        got = np.array(found["positions"], float)
        assert np.allclose(got, expected, atol=1e-5, equal_nan=True)
    assert read["clips"][1]["positions"][2][4] == [None] * 3

    export(given, tmp_path / "poses.csv", preset=preset)
    lines = (tmp_path / "poses.csv").read_text().splitlines()
    head = [line for line in lines if line.startswith("#")]
    assert any(frame.words in line for line in head) and any("25, 30" in line for line in head)
    columns = lines[len(head)].split(",")
    assert columns[:4] == ["clip", "frame", "time", "pelvis_x"]
    assert columns[-1] == "sign_confidence"
    row = lines[len(head) + 1 + 40 + 2].split(",")
    assert row[:3] == ["run", "2", "0.066667"]
    assert row[3 + 3 * 4 : 3 + 3 * 5] == ["", "", ""]
    expected = frame.convert(given.clips[1].positions)[2, 5]
    assert np.allclose([float(v) for v in row[18:21]], expected, atol=1e-4 * frame.factor)


def test_tables_count_frames_from_the_videos_first(tmp_path) -> None:
    given = clips(names=("walk", "late"))
    given.clips[1] = replace(given.clips[1], first_frame=60)
    export(given, tmp_path / "poses.json")
    read = json.loads((tmp_path / "poses.json").read_text())
    assert [clip["first_frame"] for clip in read["clips"]] == [0, 60]
    export(given, tmp_path / "poses.csv")
    lines = (tmp_path / "poses.csv").read_text().splitlines()
    row = next(line for line in lines if line.startswith("late")).split(",")
    assert row[:3] == ["late", "60", "2.000000"]


def test_h5_and_npz_stay_whole(tmp_path) -> None:
    given = clips(names=("walk", "run", "sit"))
    write_clips(tmp_path / "lifted.npz", given)
    export(tmp_path / "lifted.npz", tmp_path / "some.h5", clip="run")
    (read,) = read_clips(tmp_path / "some.h5").clips
    assert read.name == "run"
    assert np.array_equal(read.positions, given.clips[1].positions)
    assert np.array_equal(read.sign_confidence, given.clips[1].sign_confidence)


def test_several_people_make_several_files_and_the_floor_is_under_all(tmp_path) -> None:
    given = clips(names=("cam 1/person 2", "cam 1:person 2", "run"))
    summary = export(given, tmp_path / "x.trc", floor=True)
    names = [path.rsplit("/", 1)[1] for path in summary["files"]]
    assert names == ["x-cam_1_person_2.trc", "x-cam_1_person_2-1.trc", "x-run.trc"]
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(names)
    for name in names:
        rows = [line.split("\t") for line in (tmp_path / name).read_text().splitlines()[6:]]
        heights = np.array([[float(v) for v in row[3::3]] for row in rows])
        assert np.percentile(heights.min(1), 5) == pytest.approx(0, abs=1e-5)


def test_unknown_joints_are_reported_and_bvh_goes_on(tmp_path) -> None:
    given = clips()
    given.clips[0].positions[:, 3] = np.nan
    given.clips[0].positions[4:8, 13] = np.nan
    summary = export(given, tmp_path / "x.bvh")
    words = "made up, straight as in a T-pose and as long as on the other side"
    assert "4 unknown joints filled in from the frames around" in summary["notes"]
    assert f"walk: never seen: right_ankle: {words}" in summary["notes"]
    assert "nan" not in (tmp_path / "x.bvh").read_text()


def test_a_joint_that_is_never_seen_is_as_long_as_on_the_other_side(tmp_path) -> None:
    """It goes straight on from the bone before it, as an untouched bone in Blender does."""
    given = clips(names=("a", "b"))
    whole = to_motion(given.clips[0], HUMAN36M, Y_UP).complete()
    for clip in given.clips:
        clip.positions[:, [12, 13, 3, 10]] = np.nan  # left elbow and wrist, right ankle, head
    motion = to_motion(given.clips[0], HUMAN36M, Y_UP)
    placed = motion.complete()
    for joint, before, other, above in ((12, 11, 15, 14), (13, 12, 16, 15), (3, 2, 6, 5)):
        length = np.median(np.linalg.norm(whole[:, other] - whole[:, above], axis=-1))
        bone = np.linalg.norm(placed[:, joint] - placed[:, before], axis=-1)
        np.testing.assert_allclose(bone, length)
    found = find_rotations(placed, HUMAN36M, Y_UP)
    for straight in (11, 12, 2):
        np.testing.assert_allclose(found.local[:, straight] @ [1, 0, 0], [[1, 0, 0]] * 40, atol=0.2)
    np.testing.assert_array_equal(placed[:, 10], placed[:, 9])
    notes = export(given, tmp_path / "x.glb")["notes"]
    assert any(
        line.startswith("2 clips: never seen: right_ankle, left_elbow, left_wrist: made up")
        for line in notes
    )
    assert "2 clips: never seen: head: put at the joint before" in notes
    assert not any("filled in" in line for line in notes)


def test_names_of_files_are_short_and_differ(tmp_path) -> None:
    """A file system takes 255 bytes, and may not tell upper from lower case."""
    names = ("é" * 300, "é" * 299, "a", "a-3", "A", "a")
    files = export(clips(frames=4, names=names), tmp_path / "x.trc")["files"]
    assert len({Path(file).name.casefold() for file in files}) == len(names)
    assert all(len(Path(file).name.encode()) < 240 for file in files)
    assert len(list(tmp_path.iterdir())) == len(names)


def test_tables_of_upright_clips_name_their_axes(tmp_path) -> None:
    given = replace(clips(), frame="gravity")
    export(given, tmp_path / "x.csv", travel=False)
    export(given, tmp_path / "x.json", travel=False)
    head = (tmp_path / "x.csv").read_text().splitlines()[1]
    assert "gravity axes: x right, y down along gravity" in head and "camera axes" not in head
    content = json.loads((tmp_path / "x.json").read_text())
    assert content["axes"].startswith("gravity axes:") and "against gravity" in content["up"]


@pytest.mark.parametrize("ending", ["NPZ", "H5"])
def test_an_ending_may_be_upper_case(tmp_path, ending: str) -> None:
    export(clips(), tmp_path / f"x.{ending}")
    np.testing.assert_array_equal(
        read_clips(tmp_path / f"x.{ending}").clips[0].positions, clips().clips[0].positions
    )


def unit_of(path: Path) -> str:
    if path.suffix == ".npz":
        return str(np.load(path)["unit"])
    with h5py.File(path) as file:
        return str(file.attrs["unit"])


@pytest.mark.parametrize("ending", ["npz", "h5"])
def test_the_unit_names_only_what_is_there(tmp_path, ending: str) -> None:
    given = clips()
    export(given, tmp_path / f"x.{ending}")
    assert unit_of(tmp_path / f"x.{ending}") == "metre"
    (one,) = given.clips
    one = replace(one, metres_per_unit=np.ones(len(one), np.float32))
    export(replace(given, clips=[one]), tmp_path / f"x.{ending}")
    words = "metre; divide by metres_per_unit for network units"
    assert unit_of(tmp_path / f"x.{ending}") == words


def test_the_split_of_a_store_is_named_and_chosen(tmp_path) -> None:
    camera = Camera("c", (900.0, 900.0), (500.0, 500.0), width=1000, height=1000)
    with PoseStoreWriter(tmp_path / "s.h5", HUMAN36M) as writer:
        for number, split in enumerate(("train", "train", "test", "val")):
            points = standing() + np.float32([0, 0, 4]) + np.zeros((3, 1, 1), np.float32)
            writer.add(
                camera.project(points), camera=writer.key_of(camera), subject=f"s{number}",
                action="a", split=split, fps=25.0, positions=points,
            )  # fmt: skip
    words = "clips of split test alone are read: 1 sequence; left out: train 2, val 1"
    for name, count in (("x.trc", 1), ("x.npz", 1)):
        summary = export(tmp_path / "s.h5", tmp_path / name)
        assert len(summary["files"]) == count and words in summary["notes"]
    summary = export(tmp_path / "s.h5", tmp_path / "y.trc", split="train")
    assert len(summary["files"]) == 2 and words not in summary["notes"]
    assert words in view(tmp_path / "s.h5", tmp_path / "v.html")["notes"]
    assert view(tmp_path / "s.h5", tmp_path / "v.html", split="val")["clips"] == ["s3/a/c"]
    with pytest.raises(ItesError, match="x.npz: only a pose store has splits, got split 'train'"):
        export(tmp_path / "x.npz", tmp_path / "z.trc", split="train")
    with pytest.raises(ItesError, match="expected a split of train, test, val, got 'other'"):
        export(tmp_path / "s.h5", tmp_path / "z.trc", split="other")


@pytest.mark.parametrize(
    "name, options, message",
    [
        ("x.fbx", {}, "must end in .npz, .h5, .csv"),
        ("x.bvh", {"preset": "maya"}, "preset must be one of blender, unity"),
        ("x.bvh", {"bones": "soft"}, "bones must be one of exact, constant"),
        ("x.trc", {"bones": "constant"}, "a choice of BVH files alone"),
        ("x.npz", {"preset": "unity"}, "keeps poses and the root's path apart"),
        ("x.npz", {"floor": True}, "a floor in .npz needs up 'gravity'"),
        ("x.bvh", {"up": "left"}, "up must be camera or gravity, got 'left'"),
        ("x.bvh", {"up": "gravity"}, "walk: up 'gravity' needs the camera's elevation"),
        ("x.bvh", {"travel": True}, "walk: expected a root path to travel by"),
        ("x.bvh", {"clip": "nobody"}, "whose name holds 'nobody', got walk"),
    ],
)
def test_what_cannot_be_is_refused(tmp_path, name, options, message) -> None:
    with pytest.raises(ItesError, match=message):
        export(clips(), tmp_path / name, **options)
    assert list(tmp_path.iterdir()) == []


def test_a_clip_without_3d_is_refused(tmp_path) -> None:
    given = clips()
    flat = replace(given, clips=[replace(given.clips[0], positions=None)])
    with pytest.raises(ItesError, match="walk: expected 3D positions"):
        export(flat, tmp_path / "x.bvh")
    assert list(tmp_path.iterdir()) == []


def tilted() -> tuple[Clips, np.ndarray]:
    """A walk seen by a camera that looks down by 30 degrees; and its points (T, 17, 3) as they
    stand in gravity's axes, y down, from the camera."""
    (walk,) = clips().clips
    path = np.stack([np.linspace(-1, 1, 40), np.full(40, 0.6), np.linspace(4, 5, 40)], 1)
    level = walk.positions + path[:, None]
    e = np.radians(30)
    turn = np.array([[1, 0, 0], [0, np.cos(e), np.sin(e)], [0, -np.sin(e), np.cos(e)]])
    seen = replace(
        walk, positions=(walk.positions @ turn).astype(np.float32),
        root=(path @ turn).astype(np.float32), gravity=(0.0, np.cos(e), np.sin(e)),
    )  # fmt: skip
    return Clips(HUMAN36M, [seen], unit="metre, by a height of 1.8 m, given"), level


def read_points(path) -> tuple[np.ndarray, str]:
    """Points (T, 17, 3) of an exported file by an independent reader, and all its text."""
    if path.suffix == ".bvh":
        root = pytest.importorskip("bvhio").readAsHierarchy(str(path))
        rows = []
        for index in range(40):
            root.loadPose(index)
            places = {j.Name: np.array(j.PositionWorld) for j, _, _ in root.layout()}
            rows.append([places[name] for name in HUMAN36M.joints])
        return np.array(rows), ""
    if path.suffix == ".trc":
        read = pytest.importorskip("trc").TRCData()
        read.load(str(path))
        return np.array([read[i + 1][1] for i in range(40)]), path.read_text().splitlines()[0]
    if path.suffix == ".c3d":
        read = pytest.importorskip("ezc3d").c3d(str(path))
        stated = read["parameters"]["MANUFACTURER"]["FRAME"]["value"][0]
        return read["data"]["points"][:3].transpose(2, 1, 0), stated
    if path.suffix == ".json":
        read = json.loads(path.read_text())
        stated = "; ".join(read[key] for key in ("axes", "unit", "up", "origin", "scale"))
        return np.array(read["clips"][0]["positions"]), stated
    lines = path.read_text().splitlines()
    rows = [line.split(",")[3:54] for line in lines if not line.startswith("#")][1:]
    return np.array(rows, float).reshape(-1, 17, 3), lines[1]


@pytest.mark.parametrize("ending", ["bvh", "trc", "c3d", "json", "csv"])
@pytest.mark.parametrize("floor", [False, True])
def test_an_upright_export_stands_and_travels(tmp_path, ending: str, floor: bool) -> None:
    given, level = tilted()
    path = tmp_path / f"walk.{ending}"
    summary = export(given, path, up="gravity", floor=floor)
    found, stated = read_points(path)
    frame = CAMERA if ending in ("json", "csv") else Y_UP
    expected = frame.convert(level)
    if floor:
        height = expected @ frame.up
        expected -= np.percentile(height.min(1), 5) * frame.up
    assert np.abs(found - expected).max() < 1e-3
    words = [
        GRAVITY_AXES if frame is CAMERA else frame.axes,
        "up against gravity", "at the camera", "by a height of 1.8 m, given",
    ]  # fmt: skip
    words += ["its height at the floor"] * floor
    assert all(word in summary["notes"][0] for word in words)
    assert ending == "bvh" or all(word in stated for word in words)


def test_poses_stay_in_place_unless_they_travel(tmp_path) -> None:
    given, level = tilted()
    export(given, tmp_path / "a.json")
    export(given, tmp_path / "b.json", travel=True)
    export(given, tmp_path / "c.json", up="gravity", travel=False)
    a, b, c = (read_points(tmp_path / f"{name}.json")[0] for name in "abc")
    assert np.allclose(a, given.clips[0].positions, atol=1e-5)
    assert np.allclose(b, a + given.clips[0].root[:, None], atol=1e-5)
    assert np.allclose(c, level - level[:, :1], atol=1e-5)
    write_clips(tmp_path / "up.npz", given)
    export(tmp_path / "up.npz", tmp_path / "up.h5", up="gravity", floor=True)
    assert read_clips(tmp_path / "up.h5").frame == "gravity, floor at 0"
    with pytest.raises(ItesError, match="expected poses in camera axes, got gravity, floor at 0"):
        export(tmp_path / "up.h5", tmp_path / "d.json", up="camera")


def test_an_assumed_focal_length_is_reported_with_the_path(tmp_path) -> None:
    given, _ = tilted()
    known = export(given, tmp_path / "a.csv", travel=True)
    assumed = replace(given, clips=[replace(given.clips[0], focal_assumed=True)])
    summary = export(assumed, tmp_path / "b.csv", travel=True)
    assert not any("assumed" in note for note in known["notes"])
    assert any("in proportion to the focal length, assumed" in note for note in summary["notes"])


def test_gltf_states_frame_unit_rate_and_version(tmp_path) -> None:
    pygltflib = pytest.importorskip("pygltflib")
    given, _ = tilted()
    export(given, tmp_path / "a.glb", up="gravity")
    asset = pygltflib.GLTF2().load(str(tmp_path / "a.glb")).asset
    assert asset.generator.startswith("ites ") and asset.extras["unit"] == "m"
    assert "up against gravity" in asset.extras["frame"]
    assert asset.extras["framesPerSecond"] == [25.0]
