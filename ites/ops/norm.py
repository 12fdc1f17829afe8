"""Batch normalisation with ReLU and residual, in one pass."""

from __future__ import annotations

import torch
from torch import Tensor

from ites.ops._registry import define, differentiate, expect, expect_finite, expect_floating
from ites.ops.backends import choose


def batch_norm_relu(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    skip: Tensor | None = None,
    relu: bool = True,
    skip_after: bool = False,
    eps: float = 1e-5,
    backend: str | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Normalise by the batch's own statistics, add a residual, apply ReLU.

    With bn(x) = (x - mean) / sqrt(var + eps) * weight + bias over the rows:
    `relu(bn(x) + skip)`; with `skip_after`, `relu(bn(x)) + skip`; without `relu`, `bn(x) + skip`.

    Args:
        x: (N, C); float32 or half, float64 on the reference and C++ backends.
        weight, bias: (C,), float32 where x is half.
        skip: (N, C) or None.
        relu: whether ReLU is applied.
        skip_after: whether the residual comes after ReLU.
        eps: added to the variance.
        backend: see `ites.ops.backends`.

    Returns:
        The result (N, C), and the batch's mean (C,) and biased variance (C,), which carry no
        gradient.

    Raises:
        ValueError, TypeError: a shape or dtype does not fit.

    Source: Ioffe and Szegedy, ICML 2015.
    """
    expect("batch_norm_relu", "x", x, "N", "C")
    expect("batch_norm_relu", "weight", weight, x.shape[1])
    expect("batch_norm_relu", "bias", bias, x.shape[1])
    if not x.is_floating_point():
        raise TypeError(f"batch_norm_relu: x must be floating, got {x.dtype}")
    expect_floating("batch_norm_relu", x, weight=weight, bias=bias, skip=skip)
    expect_finite("batch_norm_relu", "eps", eps, least=0)
    if skip is not None:
        expect("batch_norm_relu", "skip", skip, *x.shape)
        skip = skip.to(x.dtype)
    wide = torch.promote_types(x.dtype, torch.float32)
    weight, bias = weight.to(wide), bias.to(wide)
    chosen = choose("batch_norm_relu", x.device.type, x.dtype, backend)
    if chosen == "reference":
        var, mean = _statistics(x.to(wide))
        y = (x - mean) * (var + eps).rsqrt() * weight + bias
        y = _finish(y, None if skip is None else skip.to(wide), relu, skip_after)
        return y.to(x.dtype), mean.detach(), var.detach()
    y, mean, var = _batch_norm_relu(
        x.contiguous(),
        weight.contiguous(),
        bias.contiguous(),
        None if skip is None else skip.contiguous(),
        relu,
        skip_after,
        eps,
        chosen,
    )
    return y, mean.detach(), var.detach()


def _statistics(x: Tensor) -> tuple[Tensor, Tensor]:
    """Biased variance and mean of each column; zero where there are no rows."""
    if not x.shape[0]:
        return x.new_zeros(x.shape[1]), x.new_zeros(x.shape[1])
    return torch.var_mean(x, dim=0, correction=0)


def _finish(y: Tensor, skip: Tensor | None, relu: bool, skip_after: bool) -> Tensor:
    if skip is not None and not skip_after:
        y = y + skip
    if relu:
        y = y.relu()
    if skip is not None and skip_after:
        y = y + skip
    return y


_batch_norm_relu = define(
    "norm",
    "batch_norm_relu(Tensor x, Tensor weight, Tensor bias, Tensor? skip, bool relu, "
    "bool skip_after, float eps) -> (Tensor, Tensor, Tensor)",
    lambda x, weight, bias, *_: (
        x.new_empty(x.shape),
        weight.new_empty(weight.shape),
        weight.new_empty(weight.shape),
    ),
)


def _fake_backward(grad, x, weight, bias, skip, mean, var, relu, skip_after, eps):
    own_skip = skip is not None and relu and not skip_after
    return (
        x.new_empty(x.shape),
        weight.new_empty(weight.shape),
        bias.new_empty(bias.shape),
        x.new_empty(x.shape if own_skip else (0,)),
    )


_batch_norm_relu_backward = define(
    "norm",
    "batch_norm_relu_backward(Tensor grad, Tensor x, Tensor weight, Tensor bias, Tensor? skip, "
    "Tensor mean, Tensor var, bool relu, bool skip_after, float eps) "
    "-> (Tensor, Tensor, Tensor, Tensor)",
    _fake_backward,
)


def _save(inputs, output):
    x, weight, bias, skip, relu, *constants = inputs
    _, mean, var = output
    # Where ReLU does not reach the residual its gradient is the incoming one, and it is not kept.
    kept = skip if relu and not constants[0] else None
    return [x, weight, bias, kept, mean, var], (skip is not None, relu, *constants)


def _vjp(saved, constants, grad, grad_mean, grad_var):
    has_skip, *constants = constants
    grad = grad.contiguous()
    *grads, grad_skip = _batch_norm_relu_backward(grad, *saved, *constants)
    if not has_skip:
        grad_skip = None
    elif saved[3] is None:
        grad_skip = grad
    return *grads, grad_skip, None, None, None


differentiate("batch_norm_relu", _save, _vjp)
