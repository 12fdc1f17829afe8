"""Semantic graph convolution and the non-local block, mixed over the joints of a pose.

Edge part. A tile is rows x channels. Row r is joint `r % J` of the tile's pose `r // J`. A loop
over the position of an edge in its row gathers each row's next neighbour. A skeleton's few edges
thus cost a few coalesced reads from cache and no dense J x J product. Each program recomputes the
softmax over a row's logits: two such loops over one number per row. In the backward pass a small
kernel first lists the edges by column with their weights. The gradient to a joint is then gathered
in the same way.

Non-local part. Each program takes one pose and loops over its pairs of joints.

Inputs may be half; every sum is float32. Programs make partial sums over poses, which are added at
the end in a fixed order.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from . import PROGRAMS

_SLOTS = tl.constexpr(8)  # edges of a row whose logits' gradients are summed in one pass


@triton.jit
def _softmax(logits, start, degree):
    """Largest logit and sum of exponentials of each row's edges."""
    largest = tl.full(start.shape, -3e38, tl.float32)
    most = tl.max(degree)
    d = 0
    while d < most:
        logit = tl.load(logits + start + d, mask=d < degree, other=float("-inf"))
        largest = tl.maximum(largest, logit)
        d += 1
    total = tl.zeros(start.shape, tl.float32)
    d = 0
    while d < most:
        logit = tl.load(logits + start + d, mask=d < degree, other=float("-inf"))
        total += tl.exp(logit - largest)
        d += 1
    return largest, total


@triton.jit
def _rows(block, poses, JOINTS: tl.constexpr, ROWS: tl.constexpr):
    """Each row's pose, joint, and whether it exists, for a tile of whole poses."""
    row = tl.arange(0, ROWS)
    pose = block.to(tl.int64) * (ROWS // JOINTS) + row // JOINTS
    return pose, row % JOINTS, (row < ROWS // JOINTS * JOINTS) & (pose < poses)


@triton.jit
def _mix_kernel(
    h,
    logits,
    bias,
    residual,
    row_start,
    columns,
    y,
    poses,
    JOINTS: tl.constexpr,
    STRIDE: tl.constexpr,
    CHANNELS: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """y along the edges, of a tile of rows and a block of channels."""
    pose, joint, live = _rows(tl.program_id(0), poses, JOINTS, ROWS)
    channel = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    wanted = live[:, None] & (channel < CHANNELS)[None, :]
    start = tl.load(row_start + joint)
    degree = tl.load(row_start + joint + 1) - start
    largest, total = _softmax(logits, start, degree)
    at = ((pose * JOINTS + joint) * CHANNELS)[:, None] + channel
    sums = tl.load(bias + channel, mask=channel < CHANNELS, other=0.0)[None, :]
    sums = tl.zeros([ROWS, BLOCK], tl.float32) + sums
    if residual is not None:
        sums += tl.load(residual + at, mask=wanted, other=0.0).to(tl.float32)
    most = tl.max(degree)
    d = 0
    while d < most:
        edge = d < degree
        other = tl.load(columns + start + d, mask=edge, other=0)
        logit = tl.load(logits + start + d, mask=edge, other=float("-inf"))
        weight = tl.where(edge, tl.exp(logit - largest) / total, 0.0)
        first = (pose * JOINTS + other) * STRIDE + tl.where(other == joint, 0, CHANNELS)
        sources = h + first[:, None] + channel
        passed = (live & edge)[:, None] & (channel < CHANNELS)[None, :]
        value = tl.load(sources, mask=passed, other=0.0).to(tl.float32)
        sums += weight[:, None] * value
        d += 1
    tl.store(y + at, sums.to(y.dtype.element_ty), mask=wanted)


@triton.jit
def _transpose_kernel(
    logits,
    row_start,
    columns,
    weights,
    column_start,
    column_rows,
    column_edges,
    edges,
    JOINTS: tl.constexpr,
    LANES: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Softmax weights of the edges, and the edges sorted by column, in one program."""
    joint = tl.arange(0, LANES)
    inside = joint < JOINTS
    start = tl.load(row_start + joint, mask=inside, other=0)
    degree = tl.load(row_start + joint + 1, mask=inside, other=0) - start
    largest, total = _softmax(logits, start, degree)
    edge = tl.arange(0, BLOCK)
    column = tl.load(columns + edge, mask=edge < edges, other=JOINTS)
    place = tl.zeros([BLOCK], tl.int32)
    before = tl.zeros([LANES], tl.int32)
    e = 0
    while e < edges:
        c = tl.load(columns + e)
        place += ((c < column) | ((c == column) & (e < edge))).to(tl.int32)
        before += (c < joint).to(tl.int32)
        e += 1
    tl.store(column_edges + place, edge, mask=edge < edges)
    tl.store(column_start + joint, before, mask=joint <= JOINTS)
    row = tl.zeros([BLOCK], tl.int32)
    i = 1
    while i < JOINTS:
        row += (tl.load(row_start + i) <= edge).to(tl.int32)
        i += 1
    tl.store(column_rows + place, row, mask=edge < edges)
    weight = tl.load(logits + edge, mask=edge < edges, other=0.0)
    weight = tl.exp(weight - tl.gather(largest, row, 0)) / tl.gather(total, row, 0)
    tl.store(weights + edge, weight, mask=edge < edges)


@triton.jit
def _mix_backward_kernel(
    grad_y,
    h,
    row_start,
    columns,
    weights,
    column_start,
    column_rows,
    column_edges,
    grad_h,
    edge_partials,
    bias_partials,
    poses,
    edges,
    JOINTS: tl.constexpr,
    STRIDE: tl.constexpr,
    CHANNELS: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Gradients to the features, and each program's gradients to edge weights and bias."""
    channel = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = (channel < CHANNELS)[None, :]
    joint = tl.arange(0, ROWS) % JOINTS
    start = tl.load(row_start + joint)
    degree = tl.load(row_start + joint + 1) - start
    in_start = tl.load(column_start + joint)
    in_degree = tl.load(column_start + joint + 1) - in_start
    slot = tl.arange(0, _SLOTS)[None, :]
    most = tl.max(degree)
    bias_sums = tl.zeros([BLOCK], tl.float32)
    blocks = tl.cdiv(poses, ROWS // JOINTS)
    # Usually one round: only a joint with more than eight edges needs another.
    first_slot = 0
    while first_slot < most:
        edge_sums = tl.zeros([ROWS, _SLOTS], tl.float32)
        block = tl.program_id(0)
        while block < blocks:
            pose, joint, live = _rows(block, poses, JOINTS, ROWS)
            wanted = live[:, None] & inside
            at = (pose * JOINTS + joint)[:, None] * CHANNELS + channel
            g = tl.load(grad_y + at, mask=wanted, other=0.0).to(tl.float32)
            d = first_slot
            while d < tl.minimum(most, first_slot + _SLOTS):
                edge = d < degree
                other = tl.load(columns + start + d, mask=edge, other=0)
                first = (pose * JOINTS + other) * STRIDE + tl.where(other == joint, 0, CHANNELS)
                sources = h + first[:, None] + channel
                value = tl.load(sources, mask=wanted & edge[:, None], other=0.0).to(tl.float32)
                along = tl.sum(g * value, 1)[:, None]
                edge_sums += tl.where(slot == d - first_slot, along, 0.0)
                d += 1
            if first_slot == 0:
                bias_sums += tl.sum(g, 0)
                _gather_backward(
                    grad_y,
                    weights,
                    column_rows,
                    column_edges,
                    grad_h,
                    g,
                    pose,
                    joint,
                    in_start,
                    in_degree,
                    channel,
                    wanted,
                    JOINTS,
                    STRIDE,
                    CHANNELS,
                )
            block += tl.num_programs(0)
        part = tl.program_id(0) * tl.num_programs(1) + tl.program_id(1)
        part = part.to(tl.int64) * (ROWS // JOINTS) + tl.arange(0, ROWS) // JOINTS
        place = start[:, None] + first_slot + slot
        known = (first_slot + slot < degree[:, None]) & (
            tl.arange(0, ROWS) < ROWS // JOINTS * JOINTS
        )[:, None]
        tl.store(edge_partials + part[:, None] * edges + place, edge_sums, mask=known)
        first_slot += _SLOTS
    tl.store(
        bias_partials + tl.program_id(0) * CHANNELS + channel, bias_sums, mask=channel < CHANNELS
    )


@triton.jit
def _gather_backward(
    grad_y,
    weights,
    column_rows,
    column_edges,
    grad_h,
    g,
    pose,
    joint,
    in_start,
    in_degree,
    channel,
    wanted,
    JOINTS: tl.constexpr,
    STRIDE: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    """Store the gradient to a tile's self and neighbour columns, gathered along incoming edges."""
    own = tl.zeros(joint.shape, tl.float32)
    sums = tl.zeros_like(g)
    most = tl.max(in_degree)
    d = 0
    while d < most:
        edge = d < in_degree
        row = tl.load(column_rows + in_start + d, mask=edge, other=0)
        number = tl.load(column_edges + in_start + d, mask=edge, other=0)
        weight = tl.load(weights + number, mask=edge, other=0.0)
        own += tl.where(row == joint, weight, 0.0)
        weight = tl.where(row == joint, 0.0, weight)
        sources = grad_y + (pose * JOINTS + row)[:, None] * CHANNELS + channel
        passed = wanted & (weight != 0.0)[:, None]
        sums += weight[:, None] * tl.load(sources, mask=passed, other=0.0).to(tl.float32)
        d += 1
    to = grad_h + (pose * JOINTS + joint)[:, None] * STRIDE + channel
    tl.store(to, (own[:, None] * g).to(grad_h.dtype.element_ty), mask=wanted)
    tl.store(to + CHANNELS, sums.to(grad_h.dtype.element_ty), mask=wanted)


@triton.jit
def _softmax_backward_kernel(
    grad_weights, weights, row_start, grad_logits, JOINTS: tl.constexpr, LANES: tl.constexpr
):
    """Gradient to the logits: `A_e (g_e - sum over the row of A g)`, in one program."""
    joint = tl.arange(0, LANES)
    start = tl.load(row_start + joint, mask=joint < JOINTS, other=0)
    degree = tl.load(row_start + joint + 1, mask=joint < JOINTS, other=0) - start
    mean = tl.zeros([LANES], tl.float32)
    most = tl.max(degree)
    d = 0
    while d < most:
        weight = tl.load(weights + start + d, mask=d < degree, other=0.0)
        mean += weight * tl.load(grad_weights + start + d, mask=d < degree, other=0.0)
        d += 1
    d = 0
    while d < most:
        weight = tl.load(weights + start + d, mask=d < degree, other=0.0)
        grad = tl.load(grad_weights + start + d, mask=d < degree, other=0.0)
        tl.store(grad_logits + start + d, weight * (grad - mean), mask=d < degree)
        d += 1


@triton.jit
def _relu(x):
    """max(x, 0) that keeps a NaN, which `tl.maximum` would hide."""
    return tl.where(x < 0.0, 0.0, x)


@triton.jit
def _second_wins(first, second):
    """Whether the second of two is the larger one, or nan."""
    return (second > first) | (second != second)


@triton.jit
def _larger(first, second):
    """The larger of two; the first at a tie, nan if either is."""
    return tl.where(_second_wins(first, second), second, first)


@triton.jit
def _load_row(pointer, at, mask):
    """Entries at the given offsets as float32, 0 where masked."""
    return tl.load(pointer + at, mask=mask, other=0.0).to(tl.float32)


@triton.jit
def _attend_kernel(
    h,
    bias,
    v,
    pairs,
    t,
    PAIRS: tl.constexpr,
    JOINTS: tl.constexpr,
    STRIDE: tl.constexpr,
    CHANNELS: tl.constexpr,
    ATTENDED: tl.constexpr,
    LANES: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """t of one pose: a row per joint."""
    pose = h + tl.program_id(0).to(tl.int64) * (JOINTS * STRIDE) + 2 * CHANNELS
    joint = tl.arange(0, LANES)
    m = tl.arange(0, BLOCK)
    inside = m < ATTENDED
    theta = _load_row(pose + 2 * ATTENDED, joint * STRIDE, joint < JOINTS)
    theta += tl.load(bias + CHANNELS + ATTENDED)
    g_bias = tl.load(bias + CHANNELS + m, mask=inside, other=0.0)
    direction = tl.load(v + m, mask=inside, other=0.0)
    sums = tl.zeros([LANES, BLOCK], tl.float32)
    for p in range(PAIRS):
        left = pose + tl.load(pairs + 2 * p) * STRIDE
        right = pose + tl.load(pairs + 2 * p + 1) * STRIDE
        g = _larger(_load_row(left, m, inside), _load_row(right, m, inside)) + g_bias
        phi = _larger(_load_row(left + ATTENDED, m, inside), _load_row(right + ATTENDED, m, inside))
        affinity = _relu(theta + tl.sum(direction * phi)) / PAIRS
        sums += affinity[:, None] * g[None, :]
    to = t + tl.program_id(0).to(tl.int64) * (JOINTS * ATTENDED)
    to += joint[:, None] * ATTENDED + m
    tl.store(to, sums.to(t.dtype.element_ty), mask=(joint < JOINTS)[:, None] & inside[None, :])


@triton.jit
def _attend_backward_kernel(
    grad_t,
    h,
    bias,
    v,
    pairs,
    grad_h,
    partials,
    poses,
    PAIRS: tl.constexpr,
    JOINTS: tl.constexpr,
    STRIDE: tl.constexpr,
    CHANNELS: tl.constexpr,
    ATTENDED: tl.constexpr,
    LANES: tl.constexpr,
    BLOCK: tl.constexpr,
    TAIL: tl.constexpr,
):
    """Gradients to g, phi, theta, padding, and each program's share for (bias of g, kappa, v)."""
    joint = tl.arange(0, LANES)
    m = tl.arange(0, BLOCK)
    inside = m < ATTENDED
    tile = (joint < JOINTS)[:, None] & inside[None, :]
    kappa = tl.load(bias + CHANNELS + ATTENDED)
    g_bias = tl.load(bias + CHANNELS + m, mask=inside, other=0.0)
    direction = tl.load(v + m, mask=inside, other=0.0)
    bias_sums = tl.zeros([BLOCK], tl.float32)
    v_sums = tl.zeros([BLOCK], tl.float32)
    theta_sums = tl.zeros([LANES], tl.float32)
    block = tl.program_id(0)
    while block < poses:
        first = block.to(tl.int64) * (JOINTS * STRIDE) + 2 * CHANNELS
        theta = _load_row(h + first + 2 * ATTENDED, joint * STRIDE, joint < JOINTS) + kappa
        rows = block.to(tl.int64) * JOINTS + joint
        grad = _load_row(grad_t, rows[:, None] * ATTENDED + m, tile)
        to_theta = tl.zeros([LANES], tl.float32)
        to_g = tl.zeros([LANES, BLOCK], tl.float32)
        to_phi = tl.zeros([LANES, BLOCK], tl.float32)
        for p in range(PAIRS):
            left, right = tl.load(pairs + 2 * p), tl.load(pairs + 2 * p + 1)
            here, there = h + first + left * STRIDE, h + first + right * STRIDE
            g, g_other = _load_row(here, m, inside), _load_row(there, m, inside)
            phi = _load_row(here + ATTENDED, m, inside)
            phi_other = _load_row(there + ATTENDED, m, inside)
            g_source = tl.where(_second_wins(g, g_other), right, left)
            phi_source = tl.where(_second_wins(phi, phi_other), right, left)
            g, phi = _larger(g, g_other) + g_bias, _larger(phi, phi_other)
            affinity = _relu(theta + tl.sum(direction * phi)) / PAIRS
            slope = tl.where(affinity > 0.0, tl.sum(grad * g[None, :], 1) / PAIRS, 0.0)
            to_pooled = tl.sum(grad * affinity[:, None], 0)
            to_score = tl.sum(slope)
            to_theta += slope
            to_g += tl.where(joint[:, None] == g_source[None, :], to_pooled[None, :], 0.0)
            bias_sums += to_pooled
            to_pooled = to_score * direction
            to_phi += tl.where(joint[:, None] == phi_source[None, :], to_pooled[None, :], 0.0)
            v_sums += to_score * phi
        theta_sums += to_theta
        to = grad_h + first + joint[:, None] * STRIDE + m
        tl.store(to, to_g.to(grad_h.dtype.element_ty), mask=tile)
        tl.store(to + ATTENDED, to_phi.to(grad_h.dtype.element_ty), mask=tile)
        rest = tl.arange(0, TAIL)
        tail = tl.where(rest[None, :] == 0, to_theta[:, None], 0.0).to(grad_h.dtype.element_ty)
        in_tail = rest < STRIDE - 2 * CHANNELS - 2 * ATTENDED
        to = grad_h + first + 2 * ATTENDED + joint[:, None] * STRIDE + rest
        tl.store(to, tail, mask=(joint < JOINTS)[:, None] & in_tail[None, :])
        block += tl.num_programs(0)
    to = partials + tl.program_id(0) * (2 * ATTENDED + 1) + m
    tl.store(to, bias_sums, mask=inside)
    tl.store(to + ATTENDED, tl.sum(theta_sums), mask=m == 0)
    tl.store(to + ATTENDED + 1, v_sums, mask=inside)


def _mix_sizes(joints: int, stride: int, channels: int, entries: int) -> dict[str, int]:
    """A tile with the given number of entries, at most 32 channels and 256 rows.

    4096 entries hold seven poses of 17 joints. The backward pass uses 2048, three poses, which
    leaves registers for the sums.
    """
    block = min(32, triton.next_power_of_2(channels))
    rows = max(triton.next_power_of_2(joints), min(entries // block, 256))
    sizes = dict(JOINTS=joints, STRIDE=stride, CHANNELS=channels, ROWS=rows, BLOCK=block)
    return sizes | dict(num_warps=8)


def _attend_sizes(joints: int, stride: int, channels: int, attended: int) -> dict[str, int]:
    """A pose's joints x channels, both padded."""
    return dict(
        JOINTS=joints,
        STRIDE=stride,
        CHANNELS=channels,
        ATTENDED=attended,
        LANES=triton.next_power_of_2(joints),
        BLOCK=triton.next_power_of_2(attended),
    )


def graph_mix(
    h: Tensor,
    logits: Tensor,
    bias: Tensor,
    v: Tensor,
    residual: Tensor | None,
    row_start: Tensor,
    cols: Tensor,
    pairs: Tensor,
    channels: int,
) -> tuple[Tensor, Tensor]:
    """y (B, J, C) along the edges and t (B, J, M) by attention, from features (B, J, S)."""
    poses, joints, stride = h.shape
    attended = v.shape[0]
    y, t = h.new_empty(poses, joints, channels), h.new_empty(poses, joints, attended)
    with torch.cuda.device_of(h):
        if y.numel():
            sizes = _mix_sizes(joints, stride, channels, 4096)
            grid = _mix_grid(poses, sizes)
            _mix_kernel[grid](h, logits, bias, residual, row_start, cols, y, poses, **sizes)
        if t.numel():
            sizes = _attend_sizes(joints, stride, channels, attended)
            _attend_kernel[(poses,)](h, bias, v, pairs, t, PAIRS=len(pairs), **sizes)
    return y, t


def _mix_grid(poses: int, sizes: dict[str, int]) -> tuple[int, int]:
    """Programs over tiles of poses and over blocks of channels."""
    return (
        triton.cdiv(poses, sizes["ROWS"] // sizes["JOINTS"]),
        triton.cdiv(sizes["CHANNELS"], sizes["BLOCK"]),
    )


def graph_mix_backward(
    grad_y: Tensor | None,
    grad_t: Tensor | None,
    h: Tensor,
    logits: Tensor,
    bias: Tensor,
    v: Tensor,
    row_start: Tensor,
    cols: Tensor,
    pairs: Tensor,
    channels: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients to features, logits, bias and v; a None gradient is 0."""
    attended = v.shape[0]
    grad_h, grad_bias = torch.empty_like(h), torch.zeros_like(bias)
    with torch.cuda.device_of(h):
        if grad_y is not None and grad_y.numel():
            grad_logits, to_bias = _mix_backward(grad_y, grad_h, h, logits, row_start, cols)
            grad_bias[:channels] = to_bias
        else:
            grad_logits = torch.zeros_like(logits)
            grad_h[..., : 2 * channels] = 0
        if grad_t is not None and grad_t.numel():
            sums = _attend_backward(grad_t, grad_h, h, bias, v, pairs, channels)
            grad_bias[channels:] = sums[: attended + 1]
            grad_v = sums[attended + 1 :].clone()
        else:
            grad_v = torch.zeros_like(v)
            grad_h[..., 2 * channels :] = 0
    return grad_h, grad_logits, grad_bias, grad_v


def _mix_backward(
    grad_y: Tensor, grad_h: Tensor, h: Tensor, logits: Tensor, row_start: Tensor, cols: Tensor
) -> tuple[Tensor, Tensor]:
    """Fill the self and neighbour columns of grad_h; gradients to logits and to y's bias."""
    poses, joints, stride = h.shape
    edges, lanes = len(logits), triton.next_power_of_2(joints + 1)
    weights, grad_logits = torch.empty_like(logits), torch.empty_like(logits)
    column_start, column_rows, column_edges = (
        row_start.new_empty(size) for size in (joints + 1, edges, edges)
    )
    transposed = weights, column_start, column_rows, column_edges
    _transpose_kernel[(1,)](
        logits,
        row_start,
        cols,
        *transposed,
        edges,
        JOINTS=joints,
        LANES=lanes,
        BLOCK=triton.next_power_of_2(edges),
    )
    sizes = _mix_sizes(joints, stride, grad_y.shape[2], 2048)
    tiles, blocks = _mix_grid(poses, sizes)
    programs = min(tiles, triton.cdiv(PROGRAMS, blocks))
    edge_partials = logits.new_empty(programs * blocks * (sizes["ROWS"] // joints), edges)
    bias_partials = logits.new_empty(programs, grad_y.shape[2])
    _mix_backward_kernel[(programs, blocks)](
        grad_y,
        h,
        row_start,
        cols,
        *transposed,
        grad_h,
        edge_partials,
        bias_partials,
        poses,
        edges,
        **sizes,
    )
    grad_weights = edge_partials.sum(0)
    _softmax_backward_kernel[(1,)](
        grad_weights, weights, row_start, grad_logits, JOINTS=joints, LANES=lanes
    )
    return grad_logits, bias_partials.sum(0)


def _attend_backward(
    grad_t: Tensor, grad_h: Tensor, h: Tensor, bias: Tensor, v: Tensor, pairs: Tensor, channels: int
) -> Tensor:
    """Fill the other columns of grad_h; gradients to (bias of g, kappa, v) as one tensor."""
    poses, joints, stride = h.shape
    attended = len(v)
    programs = min(poses, PROGRAMS)
    partials = v.new_empty(programs, 2 * attended + 1)
    _attend_backward_kernel[(programs,)](
        grad_t,
        h,
        bias,
        v,
        pairs,
        grad_h,
        partials,
        poses,
        PAIRS=len(pairs),
        TAIL=triton.next_power_of_2(stride - 2 * channels - 2 * attended),
        **_attend_sizes(joints, stride, channels, attended),
    )
    return partials.sum(0)
