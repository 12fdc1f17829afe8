"""Batch normalisation with ReLU and residual, in one pass."""

from __future__ import annotations

import torch
from torch import Tensor

from ites.ops._registry import (
    define,
    differentiate,
    expect,
    expect_finite,
    expect_floating,
    in_dtype,
)
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
    eager_on_cpu = x.is_cpu and not torch.compiler.is_compiling()
    if eager_on_cpu and choose("batch_norm_relu", "cpu", x.dtype, backend) == "cpp":
        try:  # C++ checks its arguments itself. With the checks below a small batch takes longer.
            return _without_gradient(
                _batch_norm_relu(x, weight, bias, skip, relu, skip_after, eps, "cpp")
            )
        except RuntimeError:
            pass  # what it refuses is converted below, or refused in this function's words
    expect("batch_norm_relu", "x", x, "N", "C")
    expect("batch_norm_relu", "weight", weight, x.shape[1])
    expect("batch_norm_relu", "bias", bias, x.shape[1])
    if not x.is_floating_point():
        raise TypeError(f"batch_norm_relu: x must be floating, got {x.dtype}")
    expect_floating("batch_norm_relu", x, weight=weight, bias=bias, skip=skip)
    expect_finite("batch_norm_relu", "eps", eps, least=0)
    if skip is not None:
        expect("batch_norm_relu", "skip", skip, *x.shape)
        skip = in_dtype(skip, x.dtype)
    wide = torch.promote_types(x.dtype, torch.float32)
    weight, bias = in_dtype(weight, wide), in_dtype(bias, wide)
    chosen = choose("batch_norm_relu", x.device.type, x.dtype, backend)
    if chosen == "reference":
        var, mean = _statistics(x.to(wide))
        y = (x - mean) * (var + eps).rsqrt() * weight + bias
        y = _finish(y, None if skip is None else skip.to(wide), relu, skip_after)
        return y.to(x.dtype), mean.detach(), var.detach()
    return _without_gradient(
        _batch_norm_relu(
            x.contiguous(),
            weight.contiguous(),
            bias.contiguous(),
            None if skip is None else skip.contiguous(),
            relu,
            skip_after,
            eps,
            chosen,
        )
    )


def _without_gradient(results: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """The results, their mean and variance without gradient."""
    y, mean, var = results
    return (y, mean.detach(), var.detach()) if mean.requires_grad else results


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


differentiate("batch_norm_relu", _save, _vjp, constant=(1, 2))


def gradients_of_norm(
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    skip: Tensor | None,
    mean: Tensor,
    var: Tensor,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The gradients of `batch_norm_relu(x, weight, bias, skip)` by C++, without autograd.

    Args:
        grad: (N, C).
        x, weight, bias, skip, eps: see `batch_norm_relu`; x and skip contiguous.
        mean, var: (C,), which it returned.

    Returns:
        Those of x, weight, bias and skip; the last one is empty where there is no skip.
    """
    parameters = weight.contiguous(), bias.contiguous()
    results: tuple[Tensor, Tensor, Tensor, Tensor] = _batch_norm_relu_backward(
        grad.contiguous(), x, *parameters, skip, mean, var, True, False, eps, "cpp"
    )
    return results


def nested_norm_relu(
    x: Tensor,
    inner_weight: Tensor,
    added: Tensor,
    weight: Tensor,
    bias: Tensor,
    skip: Tensor | None = None,
    eps: float = 1e-5,
    backend: str | None = None,
) -> tuple[Tensor, Tensor]:
    """A norm of a norm: `relu(bn(bn(x; inner_weight, 0) + added; weight, bias)) + skip`.

    A bias of the inner norm would cancel. In CUDA the statistics of both norms follow from the
    joint moments of x and `added`; elsewhere it is two calls of `batch_norm_relu`.

    Args:
        x, added: (N, C); float32 or half, float64 on the reference and C++ backends.
        inner_weight, weight, bias: (C,), float32 where x is half.
        skip: (N, C) or None.
        eps: added to both variances.
        backend: see `ites.ops.backends`.

    Returns:
        The result (N, C), and without gradient (4, C): the batch's mean and biased variance of x,
        then those of the inner sum.

    Raises:
        ValueError, TypeError: a shape or dtype does not fit.

    Source: see `batch_norm_relu`; docs/method.md, 4.3.
    """
    expect("nested_norm_relu", "x", x, "N", "C")
    for name, tensor in (("inner_weight", inner_weight), ("weight", weight), ("bias", bias)):
        expect("nested_norm_relu", name, tensor, x.shape[1])
    expect("nested_norm_relu", "added", added, *x.shape)
    if skip is not None:
        expect("nested_norm_relu", "skip", skip, *x.shape)
    if not x.is_floating_point():
        raise TypeError(f"nested_norm_relu: x must be floating, got {x.dtype}")
    expect_floating(
        "nested_norm_relu", x, inner_weight=inner_weight, added=added, weight=weight, bias=bias,
        skip=skip,
    )  # fmt: skip
    expect_finite("nested_norm_relu", "eps", eps, least=0)
    wide = torch.promote_types(x.dtype, torch.float32)
    inner_weight, weight, bias = (in_dtype(t, wide) for t in (inner_weight, weight, bias))
    if choose("batch_norm_relu", x.device.type, x.dtype, backend) != "cuda":
        zero = torch.zeros_like(bias)
        z, mean, var = batch_norm_relu(
            x, inner_weight, zero, added, relu=False, eps=eps, backend=backend
        )
        y, *outer = batch_norm_relu(
            z, weight, bias, skip, skip_after=True, eps=eps, backend=backend
        )
        return y, torch.stack([mean, var, *outer])
    y, statistics = _nested_norm_relu(
        x.contiguous(),
        inner_weight.contiguous(),
        in_dtype(added, x.dtype).contiguous(),
        weight.contiguous(),
        bias.contiguous(),
        None if skip is None else in_dtype(skip, x.dtype).contiguous(),
        eps,
        "cuda",
    )
    return y, statistics[:4].detach()


_nested_norm_relu = define(
    "norm",
    "nested_norm_relu(Tensor x, Tensor inner_weight, Tensor added, Tensor weight, Tensor bias, "
    "Tensor? skip, float eps) -> (Tensor, Tensor)",
    lambda x, inner_weight, *_: (x.new_empty(x.shape), inner_weight.new_empty(5, x.shape[1])),
)
_nested_norm_relu_backward = define(
    "norm",
    "nested_norm_relu_backward(Tensor grad, Tensor x, Tensor inner_weight, Tensor added, "
    "Tensor weight, Tensor bias, Tensor statistics, float eps) "
    "-> (Tensor, Tensor, Tensor, Tensor, Tensor)",
    lambda grad, x, inner_weight, added, weight, bias, statistics, eps: tuple(
        tensor.new_empty(tensor.shape) for tensor in (x, inner_weight, added, weight, bias)
    ),
)


def _nested_vjp(saved, constants, grad, grad_statistics):
    has_skip, eps, backend = constants
    grad = grad.contiguous()
    grads = _nested_norm_relu_backward(grad, *saved, eps, backend)
    return *grads, grad if has_skip else None, None


differentiate(
    "nested_norm_relu",
    lambda inputs, output: (
        [*inputs[:5], output[1]],
        (inputs[5] is not None, inputs[6], inputs[7]),
    ),
    _nested_vjp,
)


def _check_running(running_means, running_vars, means, variances, shifts, correction, momentum):
    op, count = "move_running", len(running_means)
    kinds = (running_vars, means, variances, shifts)
    if not count or any(len(kind) != count for kind in kinds):
        sizes = ", ".join(str(len(kind)) for kind in (running_means, *kinds))
        raise ValueError(f"{op}: expected as many of each kind of tensor, got {sizes}")
    first = running_means[0]
    for index, parts in enumerate(zip(running_means, *kinds, strict=True)):
        running = parts[0]
        for tensor in parts:
            if tensor is not None and (
                tensor.shape != running.shape or tensor.dtype != first.dtype or tensor.ndim != 1
            ):
                raise ValueError(
                    f"{op}: norm {index}: expected {first.dtype} ({running.shape.numel()},), got "
                    f"{tensor.dtype} {tuple(tensor.shape)}"
                )
    if not first.is_floating_point():
        raise TypeError(f"{op}: running_means must be floating, got {first.dtype}")
    expect_finite(op, "correction", correction, least=0)
    expect_finite(op, "momentum", momentum, least=0, most=1)


_move_running = define(
    "norm",
    "move_running(Tensor(a!)[] running_means, Tensor(b!)[] running_vars, Tensor[] means, "
    "Tensor[] vars, Tensor[] shifts, float correction, float momentum) -> ()",
    lambda *_: None,
)


@torch.no_grad()
def move_running(
    running_means: list[Tensor],
    running_vars: list[Tensor],
    means: list[Tensor],
    variances: list[Tensor],
    shifts: list[Tensor | None],
    correction: float,
    momentum: float,
    backend: str | None = None,
) -> None:
    """Move running statistics towards those of a pass, in one launch in CUDA.

    `running = (1 - momentum) * running + momentum * statistic`, of `mean + shift` and
    `var * correction`.

    Args:
        running_means, running_vars: (C,) each, of every norm; changed in place.
        means, variances: (C,) each, of the pass.
        shifts: (C,) or None each.
        correction: makes the variances unbiased.
        momentum: from 0 to 1.
        backend: see `ites.ops.backends`.

    Raises:
        ValueError, TypeError: a number of tensors, a shape or a dtype does not fit.
    """
    _check_running(running_means, running_vars, means, variances, shifts, correction, momentum)
    first = running_means[0]
    if choose("batch_norm_relu", first.device.type, first.dtype, backend) == "cuda":
        own = [first.new_empty(0) if shift is None else shift.detach() for shift in shifts]
        _move_running(
            running_means, running_vars, means, variances, own, correction, momentum, "cuda"
        )
        return
    # The shifted ones come first: foreach adds lists.
    given = [(mean, shift) for mean, shift in zip(means, shifts, strict=True) if shift is not None]
    sums = torch._foreach_add(*zip(*given, strict=True)) if given else []
    shifted = iter(sums)
    moved = [
        mean if shift is None else next(shifted) for mean, shift in zip(means, shifts, strict=True)
    ]
    unbiased = torch._foreach_mul(variances, correction)
    torch._foreach_lerp_([*running_means, *running_vars], [*moved, *unbiased], momentum)
