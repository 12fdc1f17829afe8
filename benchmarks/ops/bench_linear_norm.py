"""A block of the teacher's trunk: product, norm, residual and ReLU of each layer in one launch."""

from __future__ import annotations

from torch import Tensor

from benchmarks.ops.cases import Arguments, Case, Random, Work, measure
from ites import ops
from ites.ops.linear_norm import MOST_ROWS

WIDTHS = (1024, 256, 256, 1024)
SKIPS = (-1, -1, -1, 0)


def _make(poses: int, random: Random) -> Arguments:
    arguments = {"x": random(poses, WIDTHS[0])}
    inputs = WIDTHS[0]
    for index, width in enumerate(WIDTHS):
        weight = random(width, inputs, grad=False) / inputs**0.5
        arguments[f"weight{index}"] = weight.requires_grad_()
        arguments[f"gamma{index}"] = random(width, wide=True)
        arguments[f"beta{index}"] = random(width, wide=True)
        inputs = width
    return arguments


def _call(arguments: Arguments, backend: str) -> tuple[Tensor, ...]:
    kinds = (
        [arguments[f"{kind}{index}"] for index in range(len(WIDTHS))]
        for kind in ("weight", "gamma", "beta")
    )
    layers = ops.NormLayers(*kinds, SKIPS)
    return ops.linear_norm_relu(arguments["x"], layers, backend=backend)[:1]


_sizes = list(zip((WIDTHS[0], *WIDTHS), WIDTHS, strict=False))
_flop = 2.0 * sum(inputs * outputs for inputs, outputs in _sizes)
_outputs = sum(WIDTHS)

CASES = (
    Case(
        "linear_norm_relu, 1024 and a block",
        "linear_norm_relu",
        _make,
        _call,
        # Forward x, outputs and products, and a residual; backward these and two gradients.
        Work(values=(4 * WIDTHS[0] + 3 * _outputs, 5 * _outputs), flop=(_flop, 2 * _flop)),
        kernels=("cuda",),
        most=MOST_ROWS,
    ),
)


def bench(row, benchmark, device, seconds):
    measure(row, benchmark, device, seconds)
