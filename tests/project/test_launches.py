"""How many kernels a step and a frame launch on a GPU, recorded on a CPU."""

from __future__ import annotations

import pytest

from benchmarks.speed.launches import MODELS, frame_calls, launches, step_calls


@pytest.mark.parametrize(("stage", "most"), [("teacher", 240), ("student", 300)])
def test_a_training_step(stage: str, most: int) -> None:
    calls = step_calls(stage)
    assert launches(calls) <= most
    names = {call.name for call in calls}
    assert "aten::zeros_like" not in names  # nothing is filled with zeros for a gradient
    assert "ites::batch_norm_relu_backward" in names


@pytest.mark.parametrize("focal_length", (1.0, None))
@pytest.mark.parametrize("name", MODELS)
def test_a_lifted_frame(name: str, focal_length: float | None) -> None:
    calls = frame_calls(name, focal_length)
    assert launches(calls) <= 40
    assert {"ites::frame_points", "ites::frame_metres"} <= {call.name for call in calls}
