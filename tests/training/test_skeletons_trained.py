"""Other skeletons than a body's: a hand and a quadruped, trained, lifted and shown, tiny."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ites.cli.main import main
from ites.data.lifted import read_clips
from ites.data.store import PoseStore, PoseStoreWriter
from ites.errors import ItesError
from ites.pose.camera import human36m_cameras
from ites.pose.layouts import to_human36m
from ites.pose.skeleton import HUMAN36M, Skeleton, load_skeleton


def write_store(path: Path, skeleton: Skeleton) -> None:
    """Poses of bones of fixed lengths in random directions, standing upright."""
    rng = np.random.default_rng(0)
    camera = human36m_cameras("S1")[0]
    lengths = rng.uniform(0.1, 0.3, skeleton.num_joints)
    rest = rng.normal(size=(skeleton.num_joints, 3))
    with PoseStoreWriter(path, skeleton) as writer:
        writer.add_camera("camera", camera)
        for split, poses in (("train", 60), ("test", 10)):
            joints = np.zeros((poses, skeleton.num_joints, 3))
            placed = {skeleton.root}
            while len(placed) < skeleton.num_joints:
                for parent, joint in skeleton.bones:
                    if parent in placed and joint not in placed:
                        way = rest[joint] + 0.3 * rng.normal(size=(poses, 3))
                        way *= lengths[joint] / np.linalg.norm(way, axis=1, keepdims=True)
                        joints[:, joint] = joints[:, parent] + way
                        placed.add(joint)
            joints += [0, 0, 5]
            writer.add(
                camera.project(joints),
                camera="camera",
                subject=split,
                action="move",
                split=split,
                fps=10,
                positions=joints,
            )


@pytest.mark.parametrize("recipe", ("paper", "upright"))
@pytest.mark.parametrize("name", ("hand21", "ap10k17"))
def test_trained_evaluated_lifted_and_shown(name: str, recipe: str, tmp_path: Path) -> None:
    skeleton = load_skeleton(name)
    store, run, lifted = tmp_path / "s.h5", tmp_path / "run", tmp_path / "lifted.npz"
    write_store(store, skeleton)
    small = ["--set", "width=8", "--set", "blocks=1", "--set", "batch=16", "--steps", "3"]
    small += ["--set", "prior.components=6"] if recipe == "upright" else []
    command(["train", "--data", store, "--out", run, "--recipe", recipe, *small])
    command(["evaluate", run, "--data", store])
    command(["lift", run, store, "-o", lifted])
    with PoseStore(store) as file:
        assert file.skeleton == skeleton
    assert read_clips(lifted).skeleton == skeleton
    with np.load(lifted, allow_pickle=False) as arrays:
        assert arrays["positions"].shape == (10, skeleton.num_joints, 3)
        assert np.isfinite(arrays["positions"]).all()
    pytest.importorskip("plotly")
    command(["view", lifted])
    page = (tmp_path / "lifted.html").read_text(encoding="utf-8")
    assert "startViewer(root, dat" in page and f'"{skeleton.joints[-1]}"' in page


def command(arguments: list[object]) -> None:
    """Run a command of `ites` in this process; its exit code is 0."""
    with pytest.raises(SystemExit) as stop:
        main([str(argument) for argument in arguments])
    assert not stop.value.code


def test_own_keypoints_of_a_hand_are_prepared_trained_and_lifted(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rest = rng.uniform(100, 400, (21, 2))
    hand = (rest + rng.normal(0, 20, (40, 21, 2))).astype(np.float32)
    np.savez(tmp_path / "clip.npz", keypoints=hand)
    store, run, lifted = tmp_path / "s.h5", tmp_path / "run", tmp_path / "lifted.npz"
    size = ["--image-size", "500", "500"]
    clip = tmp_path / "clip.npz"
    command(["prepare", "keypoints", clip, "--skeleton", "hand21", *size, "-o", store])
    with PoseStore(store) as file:
        assert file.skeleton == load_skeleton("hand21")
        assert np.allclose(file.keypoints("train"), hand)
    small = ["--set", "width=8", "--set", "blocks=1", "--set", "batch=16", "--steps", "2"]
    command(["train", "--data", store, "--out", run, "--set", "prior.components=6", *small])
    command(["lift", run, clip, *size, "-o", lifted])
    clips = read_clips(lifted)
    assert clips.skeleton == load_skeleton("hand21")
    assert clips.clips[0].positions is not None and np.isfinite(clips.clips[0].positions).all()


def test_keypoints_of_a_named_file_stand_in_the_order_of_the_skeleton(tmp_path: Path) -> None:
    """A user's own skeleton, whose joints a table names in another order."""
    path = tmp_path / "arm.toml"
    path.write_text(
        'joints = ["nose", "left_shoulder", "left_elbow", "left_wrist"]\n'
        'head = "left_elbow"\n[parents]\nleft_shoulder = "nose"\n'
        'left_elbow = "left_shoulder"\nleft_wrist = "left_elbow"\n'
    )
    names = ("left_wrist", "left_elbow", "left_shoulder", "nose")
    header = ",".join(f"{name}_{axis}" for name in names for axis in "xy")
    places = np.random.default_rng(0).uniform(10, 90, (6, 4, 2)).round(3)
    lines = [",".join(map(str, row)) for row in places.reshape(6, -1)]
    table, store = tmp_path / "arm.csv", tmp_path / "arm.h5"
    table.write_text("\n".join([header, *lines]) + "\n")
    size = ["--image-size", "100", "100"]
    command(["prepare", "keypoints", table, "--skeleton", path, *size, "-o", store])
    with PoseStore(store) as file:
        assert file.skeleton == load_skeleton(path)
        assert np.allclose(file.keypoints("train"), places[:, ::-1], atol=1e-3)
    with pytest.raises(SystemExit) as stop:
        main(
            ["prepare", "keypoints", str(table), "--skeleton", "hand21", "-o", str(tmp_path / "x")]
        )
    assert stop.value.code == 2


def test_a_layout_of_ones_own_is_converted(tmp_path: Path) -> None:
    path = tmp_path / "coco_backwards.toml"
    coco = load_skeleton("coco17")
    joints = coco.joints[::-1]
    parents = {
        joint: coco.joints[parent]
        for joint, parent in zip(coco.joints, coco.parents, strict=True)
        if parent >= 0
    }
    path.write_text(
        f"joints = {list(joints)}\nhead = 'left_hip'\n[parents]\n"
        + "".join(f"{joint} = '{parent}'\n" for joint, parent in parents.items())
        + "[maps.human36m]\nsource = 'here'\nhead = [{ nose = 1 }]\n"
    )
    keypoints = np.random.default_rng(0).uniform(0, 100, (5, 17, 2))
    converted, _ = to_human36m(keypoints, str(path))
    expected, _ = to_human36m(keypoints[:, ::-1], "coco17")
    head = HUMAN36M.head
    others = [joint for joint in range(17) if joint != head]
    assert np.allclose(converted[:, others], expected[:, others])
    assert np.allclose(converted[:, head], keypoints[:, joints.index("nose")])
    with pytest.raises(ItesError, match=r"expected a table \[maps.human36m\], got none"):
        path.write_text(path.read_text().split("[maps")[0])
        to_human36m(keypoints, str(path))
