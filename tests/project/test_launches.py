"""How many kernels a step and a frame launch on a GPU, recorded on a CPU."""

from __future__ import annotations

from unittest import mock

import pytest

from benchmarks.speed import model
from benchmarks.speed.launches import MODELS, Call, frame_calls, launches, step_calls


@pytest.mark.parametrize(("stage", "most"), [("teacher", 130), ("student", 300)])
def test_a_training_step(stage: str, most: int) -> None:
    calls = step_calls(stage)
    assert launches(calls) <= most
    names = {call.name for call in calls}
    assert "aten::zeros_like" not in names  # nothing is filled with zeros for a gradient
    norm = "linear_norm_relu" if stage == "teacher" else "nested_norm_relu"
    assert f"ites::{norm}_backward" in names


@pytest.mark.parametrize("focal_length", (1.0, None))
@pytest.mark.parametrize("name", MODELS)
def test_a_lifted_frame(name: str, focal_length: float | None) -> None:
    calls = frame_calls(name, focal_length)
    assert launches(calls) <= 40
    assert {"ites::frame_points", "ites::frame_metres"} <= {call.name for call in calls}


def test_a_teacher_step_without_clusters() -> None:
    """GPUs before compute capability 9.0, and bf16: a product and a norm per layer."""
    with mock.patch("ites.models.layers.runs_at_once", return_value=False):
        calls = step_calls("teacher")
    assert 130 < launches(calls) <= 240
    assert "ites::batch_norm_relu_backward" in {call.name for call in calls}


def test_the_model_counts_the_layers_of_a_chain() -> None:
    constants = model.GUESSES["middle"]
    shapes = [(512, 34), (1024, 34), (256, 1024), (1024,), (256,), (1024,), (256,)]
    forward = Call("forward", "ites::linear_norm_relu", shapes)
    assert forward.launches == 2
    sizes = ((1024, 34), (256, 1024))
    parts = [model.layer_seconds(512, *size, constants, False) for size in sizes]
    assert model.seconds(forward, constants) == pytest.approx(sum(parts))
    # 64 blocks read (64 + 32) x 1024 floats each, 24 rounds of 16 kB; all of them 25 MB of L2.
    once = model.tiles_seconds(64, 4 * 96 * 1024, 0, constants, False)
    again = model.tiles_seconds(64, 4 * 96 * 1024, 0, constants, True)
    assert (once, again) == (pytest.approx(3.6e-6), pytest.approx(6.29e-6, rel=1e-3))
    step = step_calls("teacher")
    assert model.step_seconds(step, constants) < 0.60e-3
