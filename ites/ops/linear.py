"""The linear layer, whose products a CPU takes from our own loops."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from ites.ops._registry import define, differentiate, expect
from ites.ops.backends import choose

FEW = 16  # rows of x, up to which PyTorch's product is the faster one


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
    flat = x.reshape(-1, x.shape[-1]).contiguous()
    y = _linear(flat, weight.contiguous(), None if bias is None else bias.contiguous(), "cpp")
    return y.view(*x.shape[:-1], weight.shape[0])


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
