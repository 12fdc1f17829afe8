"""Recipe "upright" trained on views of known cameras that are turned towards the people."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from lifting import motion

import ites
from ites.data.store import PoseStore, PoseStoreWriter
from ites.errors import ItesError
from ites.pose.camera import Camera
from ites.pose.skeleton import HUMAN36M
from ites.runs.checkpoint import load_model
from ites.runs.settings import make_settings, why_without_effect
from ites.training.dataset import read_training_set
from ites.training.evaluation import Evaluator
from ites.training.log import quiet_console

KNOWN = Camera("camera", (1000.0, 1100.0), (480.0, 530.0), width=1000, height=1000)
CPU = torch.device("cpu")


def write_store(path, camera):
    """Sixty poses per split, 16 degrees off the optical axis."""
    with PoseStoreWriter(path, HUMAN36M) as writer:
        writer.add_camera(camera.id, camera)
        for number, split in enumerate(("train", "test")):
            joints = motion(60, number) + np.float32([1.2, -0.4, 0])
            writer.add(
                camera.project(joints), camera=camera.id, subject="one", action="walk",
                split=split, fps=25.0, positions=joints, confidence=np.ones((60, 17)),
            )  # fmt: skip
    return path


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_store(tmp_path_factory.mktemp("turned") / "s.h5", KNOWN)


def settings(data, stage="teacher", **given):
    options = {"data": str(data), "recipe": "upright", "device": "cpu", **given}
    return make_settings(stage, options=options)


@pytest.mark.parametrize("stage", ("prior", "teacher", "student"))
def test_every_stage_sees_the_person_on_the_axis(data, stage):
    with PoseStore(data) as store:
        seen = read_training_set(store, settings(data, stage), CPU)
        turned = read_training_set(store, settings(data, stage, cameras="turned"), CPU)
        points, scale, _ = store.turned_points("train")
        np.testing.assert_array_equal(seen.array, store.points("train")[0])
    np.testing.assert_array_equal(turned.array, points)
    assert turned.scale == scale != seen.scale
    assert np.abs(turned.array - seen.array).max() > 0.005


def test_a_run_is_evaluated_as_it_was_trained(data, tmp_path):
    run = tmp_path / "run"
    small = {"width": 8, "blocks": 1, "batch": 16, "steps": 3}
    teacher = {**small, "pilot_steps": 0}
    ites.train(
        data, run, recipe="upright", cameras="turned", prior={"components": 6, **small},
        teacher=teacher, student=small, device="cpu", console=quiet_console(),
    )  # fmt: skip
    model, metadata = load_model(run, "student", CPU)
    assert metadata.settings["cameras"] == "turned"
    with PoseStore(data) as store:
        given = settings(data, "student", cameras="turned", evaluate_split="test")
        own = Evaluator.on(store, given, metadata.scale, CPU)(model)
        plain = Evaluator.on(store, settings(data, "student"), metadata.scale, CPU)(model)
    figures = ites.evaluate(run, data, stage="student", save=False).over_poses.figures
    for name, value in own.items():
        assert value == pytest.approx(figures[name], rel=1e-4), name
    assert plain["n_mpjpe"] != pytest.approx(figures["n_mpjpe"], rel=1e-3)


def test_cameras_that_are_not_known_cannot_be_turned(tmp_path):
    path = write_store(tmp_path / "s.h5", replace(KNOWN, assumed=True))
    with (
        PoseStore(path) as store,
        pytest.raises(ItesError, match=r"s\.h5: cameras = turned expected cameras of known"),
    ):
        read_training_set(store, settings(path, cameras="turned"), CPU)


@pytest.mark.parametrize("recipe", ("paper", "general"))
def test_other_recipes_have_no_turned_cameras(recipe):
    given = make_settings("teacher", options={"recipe": recipe, "cameras": "turned"})
    assert why_without_effect(given, "cameras")
