"""Other skeletons than a body's: a hand and a quadruped, trained, lifted and shown, tiny."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ites.cli.main import main
from ites.data.lifted import read_clips
from ites.data.store import PoseStore, PoseStoreWriter
from ites.pose.camera import human36m_cameras
from ites.pose.skeleton import Skeleton, load_skeleton


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
    assert len(page) > 10**6


def command(arguments: list[object]) -> None:
    """Run a command of `ites` in this process; its exit code is 0."""
    with pytest.raises(SystemExit) as stop:
        main([str(argument) for argument in arguments])
    assert not stop.value.code
