"""The baseline of the timings computes what the released program computed."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from op_contract import relative_error

from benchmarks.speed.baseline import Student, Teacher, optimiser_of

GOLDEN = ("golden_small_seed1_b8.npz", "golden_small_seed200_b33.npz")
WITHIN = 1e-8


@pytest.fixture(params=GOLDEN)
def golden(request, shared):
    with np.load(shared / "golden" / request.param, allow_pickle=False) as arrays:
        return {name: torch.from_numpy(np.asarray(arrays[name])) for name in arrays.files}


def load(model, golden, kind):
    prefix = f"{kind}.init."
    model.load_state_dict(
        {n.removeprefix(prefix): t for n, t in golden.items() if n.startswith(prefix)}
    )
    return model.double().train()


@pytest.mark.parametrize("kind", ("teacher", "student"))
def test_three_steps_of_the_released_program(golden, kind):
    points = golden[f"{kind}.input"].double()
    model = Teacher(width=64, blocks=2) if kind == "teacher" else Student(width=32, blocks=2)
    optimiser = optimiser_of(load(model, golden, kind))
    for step in range(3):
        prefix = f"{kind}.step{step}."
        rotations = golden[f"{prefix}R"]
        if kind == "teacher":
            losses = model.losses(points, rotations, centre=step % 2 == 0)
        else:
            losses = model.losses(points, golden["student.teacher_depth"].double(), rotations)
        for name, loss in losses.items():
            assert relative_error(loss, golden[prefix + name]) < WITHIN, name
        optimiser.zero_grad()
        losses["total_loss"].backward()
        for name, parameter in model.named_parameters():
            expected = golden[f"{prefix}grad.{name}"]
            if not expected.numel():
                assert parameter.grad is None
            elif expected.abs().max() < 1e-12:  # zero in exact arithmetic
                assert parameter.grad.abs().max() < 1e-12
            else:
                assert relative_error(parameter.grad, expected) < WITHIN, name
        optimiser.step()
    for name, tensor in model.state_dict().items():
        assert relative_error(tensor, golden[f"{kind}.after3.{name}"]) < WITHIN, name
    model.eval()
    with torch.no_grad():
        output = model(points - points[:, :1] if kind == "teacher" else points)
    for name, tensor in output.items():
        assert relative_error(tensor, golden[f"{kind}.eval.{name}"]) < WITHIN, name
