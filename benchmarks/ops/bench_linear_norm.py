"""A block of the teacher's trunk: product, norm, residual and ReLU of each layer in one launch, and
the gradients of its weights in another."""

from __future__ import annotations

from torch import Tensor

from benchmarks.ops.cases import Arguments, Case, Random, Work, measure
from ites import ops
from ites.ops.linear_norm import MOST_ROWS
from ites.ops.weight_gradients import factor_bits, weight_gradients

WIDTHS = (1024, 256, 256, 1024)
SKIPS = (-1, -1, -1, 0)
PASSES = 2


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


def _make_factors(poses: int, random: Random) -> Arguments:
    """Factors of the weights' gradients, of two passes."""
    return {
        f"{kind}{part}{index}": random(poses, size, grad=False)
        for part in range(PASSES)
        for index, sizes in enumerate(_sizes)
        for kind, size in zip(("input", "grad"), sizes, strict=True)
    }


def _multiply(arguments: Arguments, backend: str) -> tuple[Tensor, ...]:
    count = len(_sizes)
    grads, inputs = (
        [arguments[f"{kind}{part}{index}"] for part in range(PASSES) for index in range(count)]
        for kind in ("grad", "input")
    )
    if backend == "cuda":
        return tuple(weight_gradients(grads, inputs, PASSES, factor_bits("cuda")))
    pairs = [grad.T @ x for grad, x in zip(grads, inputs, strict=True)]
    return tuple(one + other for one, other in zip(pairs[:count], pairs[count:], strict=True))


_sizes = list(zip((WIDTHS[0], *WIDTHS), WIDTHS, strict=False))
_flop = 2.0 * sum(inputs * outputs for inputs, outputs in _sizes)
_outputs = sum(WIDTHS)

CHANNELS, INNER, JOINTS = 128, 64, 17


def _make_end(poses: int, random: Random) -> Arguments:
    rows = poses * JOINTS
    return {
        "x": random(rows, INNER),
        "matrix": random(CHANNELS, INNER),
        **{name: random(CHANNELS, wide=True) for name in ("inner_weight", "inner_bias")},
        "added": random(rows, CHANNELS),
        **{name: random(CHANNELS, wide=True) for name in ("weight", "bias")},
        "skip": random(rows, CHANNELS),
    }


def _call_end(arguments: Arguments, backend: str) -> tuple[Tensor, ...]:
    return ops.linear_nested_norm_relu(**arguments, backend=backend)[:1]


_end_flop = 2.0 * JOINTS * INNER * CHANNELS

CASES = (
    Case(
        "linear_nested_norm_relu, a graph layer's end",
        "linear_nested_norm_relu",
        _make_end,
        _call_end,
        # Forward x, what is added, skip, product, sum and result; backward x, product, sum and
        # the gradients of the result, the sum and x.
        Work(
            values=(JOINTS * (INNER + 5 * CHANNELS), JOINTS * (2 * INNER + 4 * CHANNELS)),
            flop=(_end_flop, 2 * _end_flop),
        ),
        kernels=("cpp",),
    ),
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
    Case(
        "weight_gradients, 1024 and a block, two passes",
        "linear_norm_relu",
        _make_factors,
        _multiply,
        Work(values=(PASSES * sum(map(sum, _sizes)), 0), flop=(PASSES * _flop, 0)),
        differentiable=False,
        kernels=("cuda",),
    ),
)


def bench(row, benchmark, device, seconds):
    measure(row, benchmark, device, seconds)
