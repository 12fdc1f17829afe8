"""How many kernels a step and a frame launch on a GPU, recorded on a CPU."""

from __future__ import annotations

import pytest

from benchmarks.speed.launches import frame_calls, launches, step_calls


@pytest.mark.parametrize(("stage", "most"), [("teacher", 240), ("student", 300)])
def test_a_training_step(stage: str, most: int) -> None:
    calls = step_calls(stage)
    assert launches(calls) <= most
    names = {call.name for call in calls}
    assert "aten::zeros_like" not in names  # nothing is filled with zeros for a gradient
    assert "ites::batch_norm_relu_backward" in names


@pytest.mark.parametrize(("stage", "most"), [("teacher", 150), ("student", 180)])
def test_a_lifted_frame(stage: str, most: int) -> None:
    assert launches(frame_calls(stage)) <= most
