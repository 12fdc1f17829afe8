"""Batch normalisation with ReLU and residual, at the widths of both networks."""

from __future__ import annotations

from benchmarks.cases import JOINTS, Arguments, Case, Random, Work, measure
from ites import ops


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
    )


CASES = (
    _case("batch_norm_relu, 17 x 128", JOINTS, 128),
    _case("batch_norm_relu, 1024", 1, 1024),
)


def bench(row, benchmark, device, seconds):
    measure(row, benchmark, device, seconds)
