"""The linear layer, whose products a CPU takes from our own loops."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from ites.ops import backends
from ites.ops._registry import define, differentiate, expect, expect_alike
from ites.ops.backends import choose
from ites.ops.weight_gradients import WeightFactors, factor_bits, runs_in_clusters

FEW = 16
"""Rows of x, up to which PyTorch's product is faster than ours on a CPU."""


def linear(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, backend: str | None = None
) -> Tensor:
    """`x @ weight.T + bias`.

    On a CPU it is C++, because PyTorch's product uses the widest instructions on Intel's processors
    only. On those, on every other backend, and for a few rows, it is PyTorch's own.

    Args:
        x: (..., K).
        weight: (M, K).
        bias: (M,) or None.
        backend: see `ites.ops.backends`.

    Returns:
        (..., M).

    Raises:
        ValueError, TypeError: a shape, dtype or device does not fit.
    """
    if not x.ndim:
        raise ValueError("linear: x must be (..., K), got ()")
    expect("linear", "weight", weight, "M", x.shape[-1])
    if bias is not None:
        expect("linear", "bias", bias, weight.shape[0])
    device = x.device.type
    cast = torch.is_autocast_enabled(device)  # which gives all three one dtype
    for name, tensor in (("weight", weight), ("bias", bias)):
        if tensor is not None and (
            tensor.device != x.device or (tensor.dtype != x.dtype and not cast)
        ):
            raise TypeError(
                f"linear: {name} must be {x.dtype} on {x.device} like x, "
                f"got {tensor.dtype} on {tensor.device}"
            )
    rows = x.numel() // max(x.shape[-1], 1)
    if cast or choose("linear", device, x.dtype, backend) != "cpp" or rows <= FEW:
        return functional.linear(x, weight, bias)
    flat = x if x.ndim == 2 else x.reshape(-1, x.shape[-1])
    bias = None if bias is None else bias.contiguous()
    y = _linear(flat.contiguous(), weight.contiguous(), bias, "cpp")
    return y if x.ndim == 2 else y.view(*x.shape[:-1], weight.shape[0])


def linear_gradients(
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    to_x: bool,
    to_weight: bool,
    backend: str | None = None,
    collected: tuple[WeightFactors, int | None] | None = None,
) -> tuple[Tensor | None, Tensor | None]:
    """The gradients of `linear(x, weight)` on a CPU, to the bits of autograd's.

    Args:
        grad: (N, M), contiguous.
        x: (N, K).
        weight: (M, K).
        to_x, to_weight: which gradients are wanted.
        backend: see `ites.ops.backends`.
        collected: what gets the weight's gradient in place of the caller, and the weight's number.

    Returns:
        The gradients (N, K) and (M, K), None where not wanted.
    """
    grad_x = grad_weight = None
    ours = len(x) > FEW and choose("linear", "cpu", x.dtype, backend) == "cpp"
    if ours:
        ready = x.contiguous(), weight.contiguous()
        grad_x, grad_weight = _linear_backward(grad, *ready, to_x, to_weight, "cpp")
    elif to_x:
        grad_x = grad @ weight
    if to_weight and collected is not None:
        factors, number = collected
        factors.add_now(number, grad, x, grad_weight)
        grad_weight = None
    elif to_weight and not ours:
        grad_weight = grad.T @ x
    return grad_x if to_x else None, grad_weight if to_weight else None


class _KeptProduct(torch.autograd.Function):
    """`x @ matrix` or `x @ matrix.T`, and x; x's gradient is one product that adds the other's."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, matrix: Tensor, transposed: bool, factors: WeightFactors | None
    ) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(x, matrix)
        ctx.set_materialize_grads(False)
        ctx.transposed, ctx.factors = transposed, factors
        ctx.number = None if factors is None else factors.number(matrix)
        return x @ (matrix.T if transposed else matrix), x.view_as(x)

    @staticmethod
    def backward(
        ctx: Any, grad: Tensor | None, kept: Tensor | None
    ) -> tuple[Tensor | None, Tensor | None, None, None]:
        if grad is None:
            return kept, None, None, None
        x, matrix = ctx.saved_tensors
        back = matrix if ctx.transposed else matrix.T
        grad_x = grad_matrix = None
        if ctx.needs_input_grad[0]:
            grad_x = grad @ back if kept is None else torch.addmm(kept, grad, back)
        if ctx.needs_input_grad[1]:
            left, right = (grad, x) if ctx.transposed else (x, grad)
            if ctx.factors is None:
                grad_matrix = left.T @ right
            else:
                ctx.factors.add(ctx.number, left, right, factor_bits(x.device.type))
        return grad_x, grad_matrix, None, None


def keeping(
    x: Tensor,
    matrix: Tensor,
    transposed: bool = False,
    factors: WeightFactors | None = None,
    backend: str | None = None,
) -> tuple[Tensor, Tensor]:
    """`x @ matrix`, and x for a residual: on a GPU the product's backward adds its gradient.

    On a CPU and under autocast these are two steps, as `torch.addmm` rounds otherwise there.

    Args:
        x: (N, K).
        matrix: (K, M), or (M, K) where `transposed`.
        factors: collects the factors of the matrix's gradient, on GPUs with clusters of blocks.
        backend: see `ites.ops.backends`.

    Returns:
        (N, M), and x.
    """
    if not backends.on_gpu(x) or torch.is_autocast_enabled(x.device.type):
        return x @ (matrix.T if transposed else matrix), x
    collects = factors is not None and runs_in_clusters(x, backend)
    product, kept = _KeptProduct.apply(x, matrix, transposed, factors if collects else None)
    return product, kept


def linear_keeping(
    x: Tensor, weight: Tensor, backend: str | None = None, factors: WeightFactors | None = None
) -> tuple[Tensor, Tensor]:
    """`linear(x, weight)`, and x for a residual; see `keeping`.

    Args:
        x: (N, K).
        weight: (M, K).
        backend: see `ites.ops.backends`.
        factors: see `keeping`.

    Returns:
        (N, M), and x.
    """
    if not backends.on_gpu(x):
        return linear(x, weight, None, backend), x
    return keeping(x, weight, True, factors, backend)


FEW_ROWS = 128
"""Rows of x, up to which a GPU takes `linear_relu` from one kernel: a guess."""


def fuses_linear_relu(x: Tensor, backend: str | None = None) -> bool:
    """Whether `linear_relu` of x (..., K) is one launch here, not one per operator.

    Never under `torch.compile` and `torch.export`, which join operators by themselves.
    """
    if x.dtype != torch.float32 or torch.is_autocast_enabled(x.device.type):
        return False
    if torch.compiler.is_compiling():  # where the number of rows may be free
        return False
    if choose("linear_relu", x.device.type, x.dtype, backend) != "cuda":
        return False
    return x.numel() // max(x.shape[-1], 1) <= FEW_ROWS


def linear_relu(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    skip: Tensor | None = None,
    *,
    scaled: Tensor | None = None,
    scale: Tensor | None = None,
    after: Tensor | None = None,
    backend: str | None = None,
) -> Tensor:
    """A folded layer: `relu(x @ weight.T + bias + skip + scaled * scale) + after`.

    In CUDA it is one launch for at most `FEW_ROWS` rows, without gradient; elsewhere the product
    and PyTorch's operators.

    Args:
        x: (..., K).
        weight: (M, K).
        bias, scale: (M,) or None.
        skip, scaled, after: (..., M) or None; `scaled` needs `scale` and `skip`.
        backend: see `ites.ops.backends`.

    Returns:
        (..., M).

    Raises:
        ValueError, TypeError: a shape, dtype or device does not fit.
    """
    op, tensors = "linear_relu", {"skip": skip, "scaled": scaled, "after": after}
    if not x.ndim:
        raise ValueError(f"{op}: x must be (..., K), got ()")
    expect(op, "weight", weight, "M", x.shape[-1])
    shape = (*x.shape[:-1], weight.shape[0])
    for name, tensor in tensors.items():
        if tensor is not None:
            expect(op, name, tensor, *shape)
    for name, tensor in (("bias", bias), ("scale", scale)):
        if tensor is not None:
            expect(op, name, tensor, weight.shape[0])
    others = {name: t for name, t in (*tensors.items(), ("scale", scale)) if t is not None}
    expect_alike(op, x=x, **others)
    if (scaled is None) != (scale is None) or (scale is not None and skip is None):
        raise ValueError(f"{op}: scaled and scale are given together, with skip")
    given = [t for t in (x, weight, bias, scale, *tensors.values()) if t is not None]
    if fuses_linear_relu(x, backend) and not (
        torch.is_grad_enabled() and any(t.requires_grad for t in given)
    ):
        flat = [None if t is None else t.reshape(-1, shape[-1]) for t in tensors.values()]
        rows = x.reshape(-1, x.shape[-1])
        own_skip, own_scaled, own_after = flat
        y = _linear_relu(
            *(
                None if t is None else t.contiguous()
                for t in (rows, weight, bias, own_skip, own_scaled, scale, own_after)
            ),
            "cuda",
        )
        return y.view(shape)
    if scaled is not None and scale is not None and skip is not None:
        skip = torch.addcmul(skip, scaled, scale)
    y = linear(x, weight, bias, backend)
    y = (y if skip is None else y + skip).relu()
    return y if after is None else y + after


_linear_relu = define(
    "linear",
    "linear_relu(Tensor x, Tensor weight, Tensor? bias, Tensor? skip, Tensor? scaled, "
    "Tensor? scale, Tensor? after) -> Tensor",
    lambda x, weight, *_: x.new_empty(x.shape[0], weight.shape[0]),
)
_linear = define(
    "linear",
    "linear(Tensor x, Tensor weight, Tensor? bias) -> Tensor",
    lambda x, weight, bias: x.new_empty(x.shape[0], weight.shape[0]),
)
_linear_backward = define(
    "linear",
    "linear_backward(Tensor grad, Tensor x, Tensor weight, bool to_x, bool to_weight) "
    "-> (Tensor, Tensor)",
    lambda grad, x, weight, to_x, to_weight: (
        x.new_empty(x.shape[0] if to_x else 0, x.shape[1]),
        weight.new_empty(weight.shape[0] if to_weight else 0, weight.shape[1]),
    ),
)


def _linear_vjp(saved, constants, grad):
    to_x, to_weight, to_bias = constants
    grad = grad.contiguous()
    grad_x = grad_weight = None
    if to_x or to_weight:
        grad_x, grad_weight = _linear_backward(grad, *saved, to_x, to_weight, "cpp")
    return (
        grad_x if to_x else None,
        grad_weight if to_weight else None,
        grad.sum(0) if to_bias else None,
    )


differentiate(
    "linear",
    lambda inputs, output: (
        [*inputs[:2]],
        tuple(t is not None and t.requires_grad for t in inputs[:3]),
    ),
    _linear_vjp,
)
