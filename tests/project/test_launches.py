"""How many kernels a step and a frame launch on a GPU, recorded on a CPU."""

from __future__ import annotations

from unittest import mock

import pytest
import torch

from benchmarks.speed import model
from benchmarks.speed.launches import MODELS, Call, frame_calls, launches, step_calls
from ites.ops import _registry, philox


@pytest.mark.parametrize(("stage", "most"), [("teacher", 125), ("student", 263)])
def test_a_training_step(stage: str, most: int) -> None:
    calls = step_calls(stage)
    assert launches(calls) <= most
    names = {call.name for call in calls}
    assert "aten::zeros_like" not in names  # nothing is filled with zeros for a gradient
    norm = "linear_norm_relu" if stage == "teacher" else "nested_norm_relu"
    assert f"ites::{norm}_backward" in names
    assert [call.name for call in calls].count("ites::weight_gradients") == 1
    assert "ites::move_running" in names or stage == "teacher"  # moved by the layers' kernels


@pytest.mark.parametrize("focal_length", (1.0, None))
@pytest.mark.parametrize("name", MODELS)
def test_a_lifted_frame(name: str, focal_length: float | None) -> None:
    calls = frame_calls(name, focal_length)
    assert launches(calls) <= 40
    assert {"ites::frame_points", "ites::frame_metres"} <= {call.name for call in calls}


def test_real_kernels_run_afterwards() -> None:
    """Also those that were first looked up while kernels were empty."""
    _registry._direct.cache_clear()
    frame_calls("student", None)
    step_calls("teacher")
    counter = torch.tensor([0, 1, 2])
    assert torch.equal(philox(counter, 3, 2), philox(counter, 3, 2, backend="reference"))


def test_a_teacher_step_without_clusters() -> None:
    """GPUs before compute capability 9.0: a product and a norm per layer."""
    with (
        mock.patch("ites.models.layers.runs_at_once", return_value=False),
        mock.patch("ites.ops.linear.runs_in_clusters", return_value=False),
    ):
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
    expected = sum(parts) - constants.beside  # of the second layer
    assert model.seconds(forward, constants) == pytest.approx(expected)
    # 64 blocks read (64 + 32) x 1024 floats each, 24 rounds of 16 kB; all of them 25 MB of L2.
    once = model.tiles_seconds(64, 4 * 96 * 1024, 0, constants, False)
    again = model.tiles_seconds(64, 4 * 96 * 1024, 0, constants, True)
    assert (once, again) == (pytest.approx(3.6e-6), pytest.approx(6.29e-6, rel=1e-3))
    step = step_calls("teacher")
    assert model.step_seconds(step, constants) < 0.52e-3


def test_bf16_takes_the_same_layers() -> None:
    """Their products round the factors; those of the heads are cast by launches of their own."""
    calls = step_calls("teacher", precision="bf16")
    assert launches(calls) <= 150
    assert "ites::linear_norm_relu_backward" in {call.name for call in calls}


def test_the_model_divides_rows_among_the_blocks_of_a_cluster() -> None:
    """40 tiles of a student's weights in clusters of 8 blocks: 320 blocks of 1,360 rows."""
    constants = model.GUESSES["middle"]
    sizes = [(128, 392), (128, 64)] * 8
    shapes = [(rows, size[side]) for side in (0, 1) for rows in (2176, 8704) for size in sizes]
    call = Call("backward", "ites::weight_gradients", shapes)
    flop = 2 * 10880 * sum(m * k for m, k in sizes)
    spent = model.tiles_seconds(320, 4 * 2 * 128 * 1360, flop, constants, False)
    fixed = constants.small + constants.edge + 0.5 * constants.join
    assert model.seconds(call, constants) == pytest.approx(fixed + spent)
