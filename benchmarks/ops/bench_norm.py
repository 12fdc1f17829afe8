"""Batch normalisation with ReLU and residual, at the widths of both networks."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.ops.cases import JOINTS, Arguments, Case, Random, Work, measure
from ites import ops


def _eager(arguments: Arguments) -> tuple[Tensor, ...]:
    """PyTorch's own BatchNorm, which has a kernel of its own, then the sum and ReLU."""
    x, weight, bias = (arguments[name] for name in ("x", "weight", "bias"))
    if len(x) == 1:  # which PyTorch's refuses to normalise
        mean, var = x.mean(0), x.var(0, correction=0)
        return (((x - mean) * (var + 1e-5).rsqrt() * weight + bias + arguments["skip"]).relu(),)
    y = functional.batch_norm(x, None, None, weight, bias, training=True)
    return (torch.relu(y + arguments["skip"]),)


def _case(name: str, rows_each: int, channels: int) -> Case:
    def make(poses: int, random: Random) -> Arguments:
        return {
            "x": random(rows_each * poses, channels),
            "weight": random(channels, wide=True),
            "bias": random(channels, wide=True),
            "skip": random(rows_each * poses, channels),
        }

    values = rows_each * channels
    return Case(
        name,
        "batch_norm_relu",
        make,
        lambda arguments, backend: ops.batch_norm_relu(**arguments, backend=backend)[:1],
        Work(values=(3 * values, 5 * values), flop=(8.0 * values, 14.0 * values)),
        half=True,
        eager=_eager,
    )


CASES = (
    _case("batch_norm_relu, 17 x 128", JOINTS, 128),
    _case("batch_norm_relu, 1024", 1, 1024),
)


def bench(row, benchmark, device, seconds):
    measure(row, benchmark, device, seconds)
