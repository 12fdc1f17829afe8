"""Batch normalisation over rows with ReLU and residual at its edges.

Forward: a pass for the statistics, their combination, a pass that applies them. Each program
computes a mean and a sum of squared deviations. Chan's formula combines them, so a mean far from
zero costs no digits. Backward: a pass for the two sums over rows, and a pass for the gradient.
Each tile is 2048 entries, at most 64 channels wide. Inputs may be half; all arithmetic is float32.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from . import PROGRAMS


@triton.jit
def _tile(step, rows, channels, BLOCK_ROWS: tl.constexpr, BLOCK: tl.constexpr):
    """Offsets and mask of tile `step` of this program's channels."""
    row = step.to(tl.int64) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    channel = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    mask = (row < rows)[:, None] & (channel < channels)[None, :]
    return row[:, None] * channels + channel, mask


@triton.jit
def _load(pointer, at, mask):
    """Entries at the given offsets as float32, 0 where masked."""
    return tl.load(pointer + at, mask=mask, other=0.0).to(tl.float32)


@triton.jit
def _statistics_kernel(
    x, means, squares, rows, channels, BLOCK_ROWS: tl.constexpr, BLOCK: tl.constexpr
):
    """Mean and sum of squared deviations of each program's rows: (programs, C) twice."""
    channel = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    mean = tl.zeros([BLOCK], tl.float32)
    square = tl.zeros([BLOCK], tl.float32)
    seen = 0.0
    step = tl.program_id(0)
    while step < tl.cdiv(rows, BLOCK_ROWS):
        at, mask = _tile(step, rows, channels, BLOCK_ROWS, BLOCK)
        value = _load(x, at, mask)
        count = tl.minimum(rows - step * BLOCK_ROWS, BLOCK_ROWS).to(tl.float32)
        here = tl.sum(value, 0) / count
        offset = tl.where(mask, value - here[None, :], 0.0)
        mean, square, seen = _combine(mean, square, seen, here, tl.sum(offset * offset, 0), count)
        step += tl.num_programs(0)
    to = tl.program_id(0) * channels + channel
    tl.store(means + to, mean, mask=channel < channels)
    tl.store(squares + to, square, mask=channel < channels)


@triton.jit
def _combine(mean, square, seen, other_mean, other_square, other_seen):
    """Chan's formula: the statistics of two sets of rows together."""
    total = seen + other_seen
    delta = other_mean - mean
    share = other_seen / total
    return mean + delta * share, square + other_square + delta * delta * seen * share, total


@triton.jit
def _finish_kernel(
    means,
    squares,
    mean_out,
    var_out,
    rows,
    channels,
    programs,
    BLOCK_ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Combine the programs' statistics: mean and biased variance of all rows."""
    channel = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = channel < channels
    mean = tl.zeros([BLOCK], tl.float32)
    square = tl.zeros([BLOCK], tl.float32)
    seen = 0.0
    p = 0
    while p < programs:
        other_mean = tl.load(means + p * channels + channel, mask=inside, other=0.0)
        other_square = tl.load(squares + p * channels + channel, mask=inside, other=0.0)
        # Whole tiles p, p + programs, ..., but for the last tile, which may be short.
        tiles = tl.cdiv(rows, BLOCK_ROWS)
        count = tl.cdiv(tiles - p, programs) * BLOCK_ROWS
        count -= tl.where((tiles - 1) % programs == p, tiles * BLOCK_ROWS - rows, 0)
        mean, square, seen = _combine(
            mean, square, seen, other_mean, other_square, count.to(tl.float32)
        )
        p += 1
    tl.store(mean_out + channel, mean, mask=inside)
    tl.store(var_out + channel, square / rows, mask=inside)


@triton.jit
def _apply_kernel(
    x,
    weight,
    bias,
    skip,
    mean,
    var,
    out,
    rows,
    channels,
    eps,
    RELU: tl.constexpr,
    SKIP_AFTER: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """`relu(bn(x) + skip)`, or with the residual after ReLU, or without ReLU."""
    at, mask = _tile(tl.program_id(0), rows, channels, BLOCK_ROWS, BLOCK)
    centre, scale, shift, _ = _affine(weight, bias, mean, var, channels, eps, BLOCK)
    value = (_load(x, at, mask) - centre) * scale + shift
    if skip is not None and not SKIP_AFTER:
        value += _load(skip, at, mask)
    if RELU:
        value = tl.where(value < 0.0, 0.0, value)  # keeps a NaN
    if skip is not None and SKIP_AFTER:
        value += _load(skip, at, mask)
    tl.store(out + at, value.to(out.dtype.element_ty), mask=mask)


@triton.jit
def _affine(weight, bias, mean, var, channels, eps, BLOCK: tl.constexpr):
    """Mean, weight / sqrt(var + eps), bias and 1 / sqrt(var + eps) of this program's channels."""
    channel = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = channel < channels
    spread = 1.0 / tl.sqrt(tl.load(var + channel, mask=inside, other=1.0) + eps)
    scale = tl.load(weight + channel, mask=inside, other=0.0) * spread
    shift = tl.load(bias + channel, mask=inside, other=0.0)
    centre = tl.load(mean + channel, mask=inside, other=0.0)
    return centre[None, :], scale[None, :], shift[None, :], spread[None, :]


@triton.jit
def _before_relu(
    grad, x, skip, at, mask, centre, scale, shift, RELU: tl.constexpr, SKIP_AFTER: tl.constexpr
):
    """The gradient of ReLU's input, and x minus its mean."""
    g = _load(grad, at, mask)
    offset = _load(x, at, mask) - centre
    if RELU:
        value = offset * scale + shift
        if skip is not None and not SKIP_AFTER:
            value += _load(skip, at, mask)
        g = tl.where(value > 0.0, g, 0.0)
    return g, tl.where(mask, offset, 0.0)


@triton.jit
def _sums_kernel(
    grad,
    x,
    weight,
    bias,
    skip,
    mean,
    var,
    sums,
    rows,
    channels,
    eps,
    RELU: tl.constexpr,
    SKIP_AFTER: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Each program's sums of the gradient, and of the gradient times normalised x: (2, C)."""
    channel = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    centre, scale, shift, spread = _affine(weight, bias, mean, var, channels, eps, BLOCK)
    to_bias = tl.zeros([BLOCK], tl.float32)
    to_weight = tl.zeros([BLOCK], tl.float32)
    step = tl.program_id(0)
    while step < tl.cdiv(rows, BLOCK_ROWS):
        at, mask = _tile(step, rows, channels, BLOCK_ROWS, BLOCK)
        g, offset = _before_relu(grad, x, skip, at, mask, centre, scale, shift, RELU, SKIP_AFTER)
        to_bias += tl.sum(g, 0)
        to_weight += tl.sum(g * offset * spread, 0)
        step += tl.num_programs(0)
    to = sums + tl.program_id(0) * (2 * channels) + channel
    tl.store(to, to_bias, mask=channel < channels)
    tl.store(to + channels, to_weight, mask=channel < channels)


@triton.jit
def _apply_backward_kernel(
    grad,
    x,
    weight,
    bias,
    skip,
    mean,
    var,
    grad_bias,
    grad_weight,
    grad_x,
    grad_skip,
    rows,
    channels,
    eps,
    RELU: tl.constexpr,
    SKIP_AFTER: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """`scale (g - mean(g) - x_hat mean(g x_hat))`, and the gradient to a residual before ReLU."""
    at, mask = _tile(tl.program_id(0), rows, channels, BLOCK_ROWS, BLOCK)
    channel = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = channel < channels
    centre, scale, shift, spread = _affine(weight, bias, mean, var, channels, eps, BLOCK)
    g, offset = _before_relu(grad, x, skip, at, mask, centre, scale, shift, RELU, SKIP_AFTER)
    if grad_skip is not None:
        tl.store(grad_skip + at, g.to(grad_skip.dtype.element_ty), mask=mask)
    mean_g = tl.load(grad_bias + channel, mask=inside, other=0.0)[None, :] / rows
    mean_gx = tl.load(grad_weight + channel, mask=inside, other=0.0)[None, :] / rows
    value = scale * (g - mean_g - offset * spread * mean_gx)
    tl.store(grad_x + at, value.to(grad_x.dtype.element_ty), mask=mask)


def _sizes(rows: int, channels: int) -> tuple[dict[str, int], tuple[int, int], int]:
    """Tile, grid of tiles, and programs over rows of a kernel that sums them."""
    block = min(64, triton.next_power_of_2(channels))
    sizes = dict(BLOCK_ROWS=2048 // block, BLOCK=block, num_warps=8)
    grid = triton.cdiv(rows, sizes["BLOCK_ROWS"]), triton.cdiv(channels, block)
    return sizes, grid, min(grid[0], triton.cdiv(PROGRAMS, grid[1]))


def batch_norm_relu(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    skip: Tensor | None,
    relu: bool,
    skip_after: bool,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Result (N, C), mean (C,) and biased variance (C,) of x (N, C); zeros where N is 0."""
    rows, channels = x.shape
    out, mean, var = torch.empty_like(x), torch.zeros_like(weight), torch.zeros_like(weight)
    if x.numel():
        sizes, grid, programs = _sizes(rows, channels)
        means, squares = (weight.new_empty(programs, channels) for _ in range(2))
        with torch.cuda.device_of(x):
            _statistics_kernel[(programs, grid[1])](x, means, squares, rows, channels, **sizes)
            _finish_kernel[(grid[1],)](means, squares, mean, var, rows, channels, programs, **sizes)
            _apply_kernel[grid](
                x,
                weight,
                bias,
                skip,
                mean,
                var,
                out,
                rows,
                channels,
                eps,
                RELU=relu,
                SKIP_AFTER=skip_after,
                **sizes,
            )
    return out, mean, var


def batch_norm_relu_backward(
    grad_out: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    skip: Tensor | None,
    mean: Tensor,
    var: Tensor,
    relu: bool,
    skip_after: bool,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients to x, weight, bias and skip; the last is empty where it is none or grad_out."""
    rows, channels = x.shape
    through = skip is not None and relu and not skip_after
    grad_x, grad_skip = torch.empty_like(x), x.new_empty(x.shape if through else 0)
    if not x.numel():
        return grad_x, torch.zeros_like(weight), torch.zeros_like(bias), grad_skip
    sizes, grid, programs = _sizes(rows, channels)
    sums = weight.new_empty(programs, 2, channels)
    inputs = grad_out, x, weight, bias, skip, mean, var
    modes = dict(RELU=relu, SKIP_AFTER=skip_after)
    with torch.cuda.device_of(x):
        _sums_kernel[(programs, grid[1])](*inputs, sums, rows, channels, eps, **modes, **sizes)
        grad_bias, grad_weight = sums[:, 0].sum(0), sums[:, 1].sum(0)
        _apply_backward_kernel[grid](
            *inputs,
            grad_bias,
            grad_weight,
            grad_x,
            grad_skip if through else None,
            rows,
            channels,
            eps,
            **modes,
            **sizes,
        )
    return grad_x, grad_weight, grad_bias, grad_skip
