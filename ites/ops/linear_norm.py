"""Chains of linear layers with batch normalisation, residual and ReLU."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ites.ops import backends
from ites.ops._registry import (
    define,
    differentiate,
    expect,
    expect_alike,
    expect_finite,
    expect_floating,
    in_dtype,
    nobody_watches,
)
from ites.ops.backends import choose
from ites.ops.linear import linear, linear_gradients, linear_keeping
from ites.ops.norm import batch_norm_relu, gradients_of_norm, move_running
from ites.ops.weight_gradients import (
    WeightFactors,
    factor_bits,
    runs_in_clusters,
    weight_gradients,
)

MOST_ROWS = 512  # that a cluster of 8 blocks holds


class NormLayers(NamedTuple):
    """The parameters of layers that follow one another, one of each per layer.

    weights (M, K); gammas, betas (M,): scale and shift of the norm. `skips`: the index of the
    earlier layer whose output is added before ReLU, -1 for none.
    """

    weights: Sequence[Tensor]
    gammas: Sequence[Tensor]
    betas: Sequence[Tensor]
    skips: Sequence[int]


class RunningStatistics(NamedTuple):
    """Running statistics of layers, which a pass moves; see `move_running`.

    means, variances (M,): changed in place. shifts (M,) or None: added to the batch's means.
    momentum: from 0 to 1.
    """

    means: Sequence[Tensor]
    variances: Sequence[Tensor]
    shifts: Sequence[Tensor | None]
    momentum: float


def runs_at_once(
    x: Tensor, weights: Sequence[Tensor], skips: Sequence[int], backend: str | None = None
) -> bool:
    """Whether `linear_norm_relu` takes kernels of its own for these arguments.

    They are in CUDA, for GPUs with clusters of blocks: float32, 1 to 512 rows, widths that are
    multiples of 4, and at most one residual from each layer.
    """
    taken = [skip for skip in skips if skip >= 0]
    return (
        runs_in_clusters(x, backend)
        and 1 <= len(x) <= MOST_ROWS
        and x.shape[1] > 0
        and all(len(weight) and len(weight) % 4 == 0 for weight in weights)
        and len(taken) == len(set(taken))
    )


def runs_as_one_node(x: Tensor, skips: Sequence[int], backend: str | None = None) -> bool:
    """Whether `linear_norm_relu` records one gradient for the whole chain, of the same kernels.

    It does for C++ on a CPU. Recording each layer from Python takes a tenth of a teacher's step.
    """
    taken = [skip for skip in skips if skip >= 0]
    return (
        x.is_cpu
        and not backends.on_gpu(x)
        and nobody_watches((x,))
        and torch.is_grad_enabled()
        and not torch.is_autocast_enabled("cpu")
        and choose("batch_norm_relu", "cpu", x.dtype, backend) == "cpp"
        and len(taken) == len(set(taken))
    )


def linear_norm_relu(
    x: Tensor,
    layers: NormLayers,
    eps: float = 1e-5,
    backend: str | None = None,
    factors: WeightFactors | None = None,
    running: RunningStatistics | None = None,
) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """Layers `y = relu(bn(x W^T) + skip)` in a chain, each layer the next one's x.

    bn normalises by the batch's own statistics, see `batch_norm_relu`. Where `runs_at_once`, a
    layer is one launch per direction, and the gradients of all weights are one more. Elsewhere a
    layer is `linear` and `batch_norm_relu`, on a CPU within one node of autograd, see
    `runs_as_one_node`.

    Products are in float32, or in TF32 where `torch.get_float32_matmul_precision()` allows it.
    Under autocast to bf16 their factors are rounded to it, and all else stays float32.

    Args:
        x: (N, K).
        layers: of at least one layer.
        eps: added to the variances.
        backend: see `ites.ops.backends`.
        factors: collects the factors of the weights' gradients, which then are the caller's to
            compute; only where `runs_at_once` or `runs_as_one_node`.
        running: statistics to move towards the batch's, with the unbiased variance.

    Returns:
        The last layer's output (N, M), and without gradient every layer's batch mean (M,) and
        biased variance (M,) of `x W^T`.

    Raises:
        ValueError, TypeError: a shape or dtype does not fit.

    Source: docs/method.md, 3.1; Ioffe and Szegedy, ICML 2015.
    """
    _check(x, layers, eps)
    one_node = runs_as_one_node(x, layers.skips, backend)
    if one_node or not runs_at_once(x, layers.weights, layers.skips, backend):
        if one_node:
            flat = [tensor for kind in layers[:3] for tensor in kind]
            numbered: Any = None
            if factors is not None:
                numbered = [(factors, factors.number(weight)) for weight in layers.weights]
            y, *found = _Node.apply(x, tuple(layers.skips), eps, backend, numbered, *flat)
            means, variances = found[: len(layers.skips)], found[len(layers.skips) :]
        elif factors is not None:
            raise ValueError("linear_norm_relu: factors are collected where runs_at_once is true")
        else:
            outputs, _, means, variances = _one_by_one(x, layers, eps, backend)
            y = outputs[-1]
        if running is not None and len(x):
            correction = len(x) / max(len(x) - 1, 1)
            move_running(
                list(running.means), list(running.variances), means, variances,
                list(running.shifts), correction, running.momentum, backend,
            )  # fmt: skip
        return y, means, variances
    flat = [_ready(tensor) for kind in layers[:3] for tensor in kind]
    bits = factor_bits(x.device.type)
    collected = None
    if factors is not None:
        collected = factors, [factors.number(weight) for weight in layers.weights]
    y, *statistics = _Chain.apply(
        x.contiguous(), tuple(layers.skips), eps, bits, collected, running, *flat
    )
    count = len(layers.weights)
    return y, statistics[:count], statistics[count:]


def linear_nested_norm_relu(
    x: Tensor,
    matrix: Tensor,
    inner_weight: Tensor,
    inner_bias: Tensor,
    added: Tensor,
    weight: Tensor,
    bias: Tensor,
    skip: Tensor | None = None,
    eps: float = 1e-5,
    backend: str | None = None,
) -> tuple[Tensor, Tensor]:
    """The end of a graph layer: `relu(bn(bn(x @ matrix.T) + added)) + skip`.

    In C++ it is one call, which takes some rows at a time, so that the product, the sum and their
    gradients are used while they are in the cache. Elsewhere it is `linear` and `batch_norm_relu`.

    Args:
        x: (N, K).
        matrix: (C, K).
        inner_weight, inner_bias, weight, bias: (C,), of both norms.
        added: (N, C).
        skip: (N, C) or None.
        eps: added to both variances.
        backend: see `ites.ops.backends`.

    Returns:
        The result (N, C), and without gradient (4, C): the batch's mean and biased variance of the
        product, then those of the sum.

    Raises:
        ValueError, TypeError: a shape or dtype does not fit.

    Source: docs/method.md, 4.3.
    """
    op = "linear_nested_norm_relu"
    expect(op, "x", x, "N", "K")
    rows, channels = len(x), matrix.shape[0] if matrix.ndim else 0
    expect(op, "matrix", matrix, channels, x.shape[1])
    parameters = {
        "inner_weight": inner_weight, "inner_bias": inner_bias, "weight": weight, "bias": bias
    }  # fmt: skip
    for name, tensor in parameters.items():
        expect(op, name, tensor, channels)
    expect(op, "added", added, rows, channels)
    if skip is not None:
        expect(op, "skip", skip, rows, channels)
    expect_finite(op, "eps", eps, least=0)
    expect_floating(op, x, added=added, skip=skip, **parameters)
    device = x.device.type
    if (
        torch.is_autocast_enabled(device)
        or choose("batch_norm_relu", device, x.dtype, backend) != "cpp"
    ):
        z = linear(x, matrix, None, backend)
        z, mean, var = batch_norm_relu(
            z, inner_weight, inner_bias, added, relu=False, eps=eps, backend=backend
        )
        y, *outer = batch_norm_relu(
            z, weight, bias, skip, skip_after=True, eps=eps, backend=backend
        )
        return y, torch.stack([mean, var, *outer])
    expect_alike(op, x=x, matrix=matrix)
    ready = (inner_weight, inner_bias, added, weight, bias)
    y, _, _, statistics = _linear_nested_norm_relu(
        x.contiguous(),
        matrix.contiguous(),
        *(in_dtype(tensor, x.dtype).contiguous() for tensor in ready),
        None if skip is None else in_dtype(skip, x.dtype).contiguous(),
        eps,
        "cpp",
    )
    return y, statistics.detach()


_linear_nested_norm_relu = define(
    "linear_norm",
    "linear_nested_norm_relu(Tensor x, Tensor matrix, Tensor inner_weight, Tensor inner_bias, "
    "Tensor added, Tensor weight, Tensor bias, Tensor? skip, float eps) "
    "-> (Tensor, Tensor, Tensor, Tensor)",
    lambda x, matrix, inner_weight, inner_bias, added, *_: (
        *(added.new_empty(added.shape) for _ in range(3)),
        inner_weight.new_empty(4, *inner_weight.shape),
    ),
)
_linear_nested_norm_relu_backward = define(
    "linear_norm",
    "linear_nested_norm_relu_backward(Tensor grad, Tensor x, Tensor matrix, Tensor inner_weight, "
    "Tensor inner_bias, Tensor weight, Tensor bias, Tensor product, Tensor sum, "
    "Tensor statistics, float eps) "
    "-> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
    lambda grad, x, matrix, inner_weight, inner_bias, weight, bias, *_: tuple(
        t.new_empty(t.shape) for t in (x, matrix, inner_weight, inner_bias, grad, weight, bias)
    ),
)


def _nested_vjp(saved, constants, grad, *_):
    has_skip, eps, backend = constants
    grad = grad.contiguous()
    grads = _linear_nested_norm_relu_backward(grad, *saved, eps, backend)
    return *grads, grad if has_skip else None, None


differentiate(
    "linear_nested_norm_relu",
    lambda inputs, output: (
        [*inputs[:4], *inputs[5:7], *output[1:]],
        (inputs[7] is not None, inputs[8], inputs[9]),
    ),
    _nested_vjp,
    constant=(1, 2, 3),
)


def _ready(tensor: Tensor) -> Tensor:
    """The tensor contiguous, and aligned for loads of 16 bytes."""
    tensor = tensor.contiguous()
    if torch.compiler.is_compiling():  # which has no addresses
        return tensor
    return tensor.clone() if tensor.data_ptr() % 16 else tensor


def _check(x: Tensor, layers: NormLayers, eps: float) -> None:
    op = "linear_norm_relu"
    expect(op, "x", x, "N", "K")
    weights, gammas, betas, skips = layers
    count = len(weights)
    if not count or not len(gammas) == len(betas) == len(skips) == count:
        sizes = ", ".join(str(len(kind)) for kind in layers)
        raise ValueError(f"{op}: expected one or more of each of a layer's parts, got {sizes}")
    inputs = x.shape[1]
    widths: list[int] = []
    for index in range(count):
        weight, skip = weights[index], skips[index]
        expect(op, f"weights[{index}]", weight, "M", inputs)
        inputs = weight.shape[0]
        expect(op, f"gammas[{index}]", gammas[index], inputs)
        expect(op, f"betas[{index}]", betas[index], inputs)
        if not -1 <= skip < index or (skip >= 0 and widths[skip] != inputs):
            raise ValueError(
                f"{op}: skips[{index}] must be -1 or an earlier layer of {inputs} outputs, "
                f"got {skip}"
            )
        widths.append(inputs)
        expect_alike(op, x=x, weight=weight, gamma=gammas[index], beta=betas[index])
    expect_finite(op, "eps", eps, least=0)


def _one_by_one(
    x: Tensor, layers: NormLayers, eps: float, backend: str | None
) -> tuple[list[Tensor], list[Tensor], list[Tensor], list[Tensor]]:
    """Outputs, products, means and variances of the layers."""
    outputs: list[Tensor] = []
    products, means, variances = [], [], []
    for index, (weight, gamma, beta, skip) in enumerate(zip(*layers, strict=True)):
        if index - 1 in layers.skips and index:
            z, x = linear_keeping(x, weight, backend)
            outputs[-1] = x
        else:
            z = linear(x, weight, None, backend)
        added = outputs[skip] if skip >= 0 else None
        x, mean, var = batch_norm_relu(z, gamma, beta, added, eps=eps, backend=backend)
        outputs.append(x)
        products.append(z)
        means.append(mean)
        variances.append(var)
    return outputs, products, means, variances


class _Node(torch.autograd.Function):
    """The layers by the two ops' kernels on a CPU, with one gradient for all."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        skips: tuple[int, ...],
        eps: float,
        backend: str | None,
        collected: list[tuple[WeightFactors, int | None]] | None,
        *parameters: Tensor,
    ) -> tuple[Tensor, ...]:
        count = len(skips)
        weights, gammas, betas = (parameters[i : i + count] for i in range(0, 3 * count, count))
        outputs, products, means, variances = _one_by_one(
            x, NormLayers(weights, gammas, betas, skips), eps, backend
        )
        ctx.save_for_backward(x, *parameters, *outputs, *products, *means, *variances)
        ctx.constants = skips, eps, backend, collected
        statistics = (*means, *variances)
        ctx.mark_non_differentiable(*statistics)
        ctx.set_materialize_grads(False)
        return (outputs[-1], *statistics)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor | None, *_: None) -> tuple[Any, ...]:
        skips, eps, backend, collected = ctx.constants
        count = len(skips)
        to_parameters: list[Tensor | None] = [None] * (3 * count)
        if grad is None:
            return (None,) * (5 + 3 * count)
        x, *saved = ctx.saved_tensors
        parts = [saved[i : i + count] for i in range(0, 7 * count, count)]
        weights, gammas, betas, outputs, products, means, variances = parts
        to_x, to_weight = ctx.needs_input_grad[0], ctx.needs_input_grad[5 : 5 + count]
        of_skips: dict[int, Tensor] = {}
        behind: Any = grad
        for i in reversed(range(count)):
            if i in of_skips:
                behind += of_skips.pop(i)
            skip = outputs[skips[i]] if skips[i] >= 0 else None
            own, to_parameters[count + i], to_parameters[2 * count + i], to_skip = (
                gradients_of_norm(
                    behind, products[i], gammas[i], betas[i], skip, means[i], variances[i], eps
                )
            )
            if skip is not None:
                of_skips[skips[i]] = to_skip
            behind, to_parameters[i] = linear_gradients(
                own, outputs[i - 1] if i else x, weights[i], i > 0 or to_x, to_weight[i], backend,
                collected and collected[i],
            )  # fmt: skip
        return behind, None, None, None, None, *to_parameters


class _Chain(torch.autograd.Function):
    """The layers by their own kernels; see `linear_norm_relu`."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        skips: tuple[int, ...],
        eps: float,
        bits: int,
        collected: tuple[WeightFactors, list[int | None]] | None,
        running: RunningStatistics | None,
        *parameters: Tensor,
    ) -> tuple[Tensor, ...]:
        count = len(skips)
        weights, gammas, betas = (parameters[i : i + count] for i in range(0, 3 * count, count))
        means, variances, shifts, momentum = running or ([], [], [], 0.0)
        moved = [x.new_empty(0) if shift is None else shift.detach() for shift in shifts]
        kept = _linear_norm_relu(
            x, list(weights), list(gammas), list(betas), list(means), list(variances), moved,
            skips, eps, momentum, bits, "cuda",
        )  # fmt: skip
        ctx.save_for_backward(x, *weights, *gammas, *kept)
        ctx.constants, ctx.collected = (skips, eps, bits), collected
        y, statistics = kept[count - 1], kept[2 * count :]
        ctx.mark_non_differentiable(*statistics)
        ctx.set_materialize_grads(False)
        return (y, *statistics)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor | None, *_: None) -> tuple[Any, ...]:
        skips, eps, bits = ctx.constants
        count = len(skips)
        if grad is None:
            return (None,) * (6 + 3 * count)
        x, *saved = ctx.saved_tensors
        parts = [saved[i : i + count] for i in range(0, 6 * count, count)]
        weights, gammas, outputs, products, means, variances = parts
        results = _linear_norm_relu_backward(
            grad.contiguous(), weights, gammas, skips, outputs, products, means, variances, eps,
            bits, "cuda",
        )  # fmt: skip
        grads, others = results[:count], results[count:]
        inputs = [x, *outputs[:-1]]
        grad_weights: Sequence[Tensor | None] = [None] * count
        if ctx.collected is None:
            grad_weights = weight_gradients(grads, inputs, 1, bits)
        else:
            factors, numbers = ctx.collected
            for number, layer_grad, layer_x in zip(numbers, grads, inputs, strict=True):
                factors.add(number, layer_grad, layer_x, bits)
        grad_x = grads[0] @ weights[0] if ctx.needs_input_grad[0] else None
        return grad_x, None, None, None, None, None, *grad_weights, *others


def _fake(x, weights, *_):
    rows = [x.new_empty(len(x), len(weight)) for weight in weights]
    columns = [x.new_empty(len(weight)) for weight in weights]
    return [t.new_empty(t.shape) for kind in (rows, rows, columns, columns) for t in kind]


def _fake_backward(grad, weights, gammas, skips, outputs, products, means, variances, eps, bits):
    return [t.new_empty(t.shape) for kind in (outputs, gammas, gammas) for t in kind]


_linear_norm_relu = define(
    "linear_norm",
    "linear_norm_relu(Tensor x, Tensor[] weights, Tensor[] gammas, Tensor[] betas, "
    "Tensor(a!)[] running_means, Tensor(b!)[] running_vars, Tensor[] shifts, int[] skips, "
    "float eps, float momentum, int bits) -> Tensor[]",
    _fake,
)
_linear_norm_relu_backward = define(
    "linear_norm",
    "linear_norm_relu_backward(Tensor grad, Tensor[] weights, Tensor[] gammas, int[] skips, "
    "Tensor[] outputs, Tensor[] products, Tensor[] means, Tensor[] vars, float eps, int bits) "
    "-> Tensor[]",
    _fake_backward,
)
