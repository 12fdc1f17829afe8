"""Random arguments for every op; `helpers/fuzz_ops.py --count 10000` does it at length."""

from __future__ import annotations

import shutil

import pytest
import torch
from fuzz_ops import OPS, PUBLIC, RAW, has_backends, is_emulated, run_op, schemas

from ites import ops

pytest.importorskip("ites._C")


def test_every_op_has_a_row():
    assert schemas() == set(RAW)
    public = {name for name in ops.__all__ if has_backends(getattr(ops, name))}
    assert public == set(PUBLIC)
    assert {"linear_norm_relu", "frame_points", "mirrored_output", "join_graph_layers"} <= public


EMULATED = (
    "linear_relu", "linear_norm_relu_backward", "weight_gradients", "nested_norm_relu",
    "join_graph_layers", "join_graph_layers_backward",
)  # fmt: skip
"""Ops of CUDA alone that are tested here; the others are run by the program."""


@pytest.mark.parametrize(
    "op", [*(op for op in OPS if not is_emulated(op)), *(f"ites::{name}" for name in EMULATED)]
)
def test_random_arguments(op):
    """No call ends the process, and what is answered is what the reference answers."""
    count = 300
    if is_emulated(op):
        count = 100  # as every access to memory is checked
        if torch.version.cuda is not None:
            pytest.skip("this PyTorch has CUDA, for which the emulation stands in")
        if shutil.which("c++") is None or shutil.which("ninja") is None:
            pytest.skip("needs a C++ compiler and ninja")
    outcomes, faults = run_op(op, seed=1, count=count)
    assert not faults, "\n".join(faults[:5])
    assert sum(outcomes.values()) == count
    assert outcomes["answered"] >= count / 10 and outcomes["refused"] >= count / 10
