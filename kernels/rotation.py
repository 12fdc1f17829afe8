"""Rotations: the exponential map, draws from a counter, rotate and project, the student's cycle.

A program takes the joints of as many whole poses as fit its block, densely: slot e is joint
`e % J` of pose `e // J`. Each rotation is drawn once, with one thread per rotation, and passed to
the joints through shared memory (`tl.gather`). Philox and the trigonometry are thus not repeated
per joint. No rotation is stored: the backward pass draws it again. Each pose is read once for all
its samples.
"""

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from .geometry import (
    drawn_quaternion,
    exp_quaternion,
    exp_vjp,
    inverse,
    load_vectors,
    pack_vectors,
    project,
    project_vjp,
    rotate,
    store_matrices,
    turn_quaternion,
)
from .philox import philox_words

_ROWS = 128


@triton.jit
def _so3_exp_kernel(w, out, rows, BLOCK: tl.constexpr):
    """Matrices (rows, 3, 3) of rotation vectors (rows, 3)."""
    first = tl.program_id(0).to(tl.int64) * BLOCK
    at = tl.arange(0, BLOCK)
    live = at < rows - first
    x, y, z = load_vectors(w + first * 3, at, live)
    c, qx, qy, qz = exp_quaternion(x, y, z)
    store_matrices(out + first * 9, c, qx, qy, qz, rows - first)


@triton.jit
def _so3_exp_backward_kernel(grad, w, grad_w, rows, BLOCK: tl.constexpr):
    """The gradient (rows, 3) to rotation vectors, given that to their matrices."""
    first = tl.program_id(0).to(tl.int64) * BLOCK
    at = tl.arange(0, BLOCK)
    live = at < rows - first
    x, y, z = load_vectors(w + first * 3, at, live)
    g00, g01, g02 = load_vectors(grad + first * 9, 3 * at, live)
    g10, g11, g12 = load_vectors(grad + first * 9, 3 * at + 1, live)
    g20, g21, g22 = load_vectors(grad + first * 9, 3 * at + 2, live)
    gx, gy, gz = exp_vjp(x, y, z, g00, g01, g02, g10, g11, g12, g20, g21, g22)
    _store_vectors(grad_w + first * 3, gx, gy, gz, rows - first)


def so3_exp(w: Tensor) -> Tensor:
    """Rotation matrices (N, 3, 3) of rotation vectors (N, 3)."""
    out = w.new_empty(w.shape[0], 3, 3)
    if out.numel():
        with torch.cuda.device_of(w):
            _so3_exp_kernel[(triton.cdiv(len(w), _ROWS),)](w, out, len(w), BLOCK=_ROWS)
    return out


def so3_exp_backward(grad: Tensor, w: Tensor) -> Tensor:
    """The gradient (N, 3) to the rotation vectors; exactly 0 at a zero vector."""
    grad_w = torch.empty_like(w)
    if grad_w.numel():
        with torch.cuda.device_of(w):
            _so3_exp_backward_kernel[(triton.cdiv(len(w), _ROWS),)](
                grad, w, grad_w, len(w), BLOCK=_ROWS
            )
    return grad_w


@triton.jit
def _philox_kernel(counter, out, poses, rows, BLOCK: tl.constexpr):
    """The random words of each row of a draw, int64 (rows, 4)."""
    row = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    u0, u1, u2, u3 = philox_words(counter, row % poses, (row // poses).to(tl.int32))
    live = row < rows
    tl.store(out + 4 * row, u0.to(tl.int64), mask=live)
    tl.store(out + 4 * row + 1, u1.to(tl.int64), mask=live)
    tl.store(out + 4 * row + 2, u2.to(tl.int64), mask=live)
    tl.store(out + 4 * row + 3, u3.to(tl.int64), mask=live)


@triton.jit
def _drawn(counter, elevation, spread, pose, sample, mask, half_turns, AXES: tl.constexpr):
    """(c, qx, qy, qz) of a `RotationDraw`, or of a `TurnDraw` if elevations are given."""
    if elevation is None:
        return drawn_quaternion(counter, pose, sample, half_turns, AXES)
    else:
        e = tl.load(elevation + pose, mask=mask, other=0.0)
        return turn_quaternion(counter, pose, sample, e, tl.load(spread), tl.load(spread + 1))


@triton.jit
def _draw_kernel(
    counter,
    elevation,
    spread,
    out,
    poses,
    rows,
    half_turns,
    AXES: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Matrices (rows, 3, 3) of a draw."""
    first = tl.program_id(0).to(tl.int64) * BLOCK
    at = tl.arange(0, BLOCK)
    row = first + at
    sample = (row // poses).to(tl.int32)
    c, qx, qy, qz = _drawn(
        counter, elevation, spread, row % poses, sample, row < rows, half_turns, AXES
    )
    store_matrices(out + first * 9, c, qx, qy, qz, rows - first)


def philox(counter: Tensor, poses: int, samples: int) -> Tensor:
    """The uint32 words of each rotation of a draw, int64 (samples * poses, 4), sample-major."""
    rows = samples * poses
    out = counter.new_empty(rows, 4)
    if rows:
        with torch.cuda.device_of(counter):
            _philox_kernel[(triton.cdiv(rows, _ROWS),)](counter, out, poses, rows, BLOCK=_ROWS)
    return out


def draw_rotations(
    like: Tensor,
    counter: Tensor,
    elevation: Tensor | None,
    spread: Tensor | None,
    poses: int,
    samples: int,
    axes: int,
    max_angle: float,
) -> Tensor:
    """The matrices (samples * poses, 3, 3) of a draw, sample-major."""
    rows = samples * poses
    out = like.new_empty(rows, 3, 3)
    if rows:
        with torch.cuda.device_of(like):
            _draw_kernel[(triton.cdiv(rows, _ROWS),)](
                counter,
                elevation,
                spread,
                out,
                poses,
                rows,
                max_angle / math.pi,
                AXES=axes,
                BLOCK=_ROWS,
            )
    return out


@triton.jit
def _store_vectors(pointer, x, y, z, count):
    """Store the first `count` of N vectors at consecutive addresses."""
    slot = tl.arange(0, 4 * x.shape[0])
    packed = tl.reshape(pack_vectors(x, y, z), [4 * x.shape[0]])
    mask = (slot % 4 < 3) & (slot // 4 < count)
    tl.store(pointer + 3 * (slot // 4) + slot % 4, packed, mask=mask)


@triton.jit
def _load_points(pointer, count, BLOCK: tl.constexpr):
    """x, y of the first `count` points."""
    slot = tl.arange(0, 2 * BLOCK)
    return tl.split(
        tl.reshape(tl.load(pointer + slot, mask=slot < 2 * count, other=0.0), [BLOCK, 2])
    )


@triton.jit
def _store_points(pointer, x, y, count):
    """Store the first `count` of N points at consecutive addresses."""
    slot = tl.arange(0, 2 * x.shape[0])
    tl.store(pointer + slot, tl.interleave(x, y), mask=slot < 2 * count)


@triton.jit
def _slots(poses, JOINTS: tl.constexpr, BLOCK: tl.constexpr, PADDED: tl.constexpr):
    """A program's first pose, its number of joints, the slots, and each slot's relative pose."""
    first_pose = tl.program_id(0).to(tl.int64) * (BLOCK // JOINTS)
    count = tl.minimum(poses - first_pose, BLOCK // JOINTS) * JOINTS
    slot = tl.arange(0, BLOCK)
    return first_pose, count, slot, tl.minimum(slot // JOINTS, PADDED - 1)


@triton.jit
def _block(joints, poses, JOINTS: tl.constexpr, BLOCK: tl.constexpr, PADDED: tl.constexpr):
    """The results of `_slots`, and the joints' x, y, z by slot."""
    first_pose, count, slot, pose = _slots(poses, JOINTS, BLOCK, PADDED)
    x, y, z = load_vectors(joints + first_pose * JOINTS * 3, slot, slot < count)
    return first_pose, count, slot, pose, x, y, z


@triton.jit
def _quaternions(
    rotations,
    elevation,
    spread,
    first_sample,
    first_pose,
    poses,
    half_turns,
    AXES: tl.constexpr,
    GROUP: tl.constexpr,
    POSES: tl.constexpr,
):
    """The drawn rotations [GROUP * POSES] of a group of samples; unused with matrices."""
    if AXES == 0:
        return 0.0, 0.0, 0.0, 0.0
    else:
        at = tl.arange(0, GROUP * POSES)
        pose = first_pose + at % POSES
        sample = first_sample + at // POSES
        return _drawn(rotations, elevation, spread, pose, sample, pose < poses, half_turns, AXES)


@triton.jit
def _rotated(
    x, y, z, c, qx, qy, qz, rotations, at, row, mask, AXES: tl.constexpr, BACK: tl.constexpr
):
    """(x, y, z) @ R, or @ R^T going back: R is drawn rotation `at`, or matrix `row`."""
    if AXES == 0:
        matrix = rotations + row * 9
        a00, a01, a02 = load_vectors(matrix, 0, mask)
        a10, a11, a12 = load_vectors(matrix, 1, mask)
        a20, a21, a22 = load_vectors(matrix, 2, mask)
        if BACK:
            a01, a10, a02, a20, a12, a21 = a10, a01, a20, a02, a21, a12
        return (
            x * a00 + y * a10 + z * a20,
            x * a01 + y * a11 + z * a21,
            x * a02 + y * a12 + z * a22,
        )
    else:
        sign = -1.0 if BACK else 1.0
        return rotate(
            x,
            y,
            z,
            tl.gather(c, at, 0),
            sign * tl.gather(qx, at, 0),
            sign * tl.gather(qy, at, 0),
            sign * tl.gather(qz, at, 0),
        )


@triton.jit
def _store_sums(
    pointer,
    values,
    count,
    DIVISOR: tl.constexpr,
    POSES: tl.constexpr,
    JOINTS: tl.constexpr,
    LANES: tl.constexpr,
):
    """Store the poses' sums over joints / DIVISOR, of the first `count` of [BLOCK] values."""
    slot = tl.arange(0, POSES * LANES)
    joint = slot % LANES
    at = tl.minimum(slot // LANES * JOINTS + joint, values.shape[0] - 1)
    spread = tl.where(joint < JOINTS, tl.gather(values, at, 0), 0.0)
    own = tl.arange(0, POSES)
    sums = tl.sum(tl.reshape(spread, [POSES, LANES]), 1)
    tl.store(pointer + own, sums / DIVISOR, mask=own * JOINTS < count)


@triton.jit
def _rotate_project_kernel(
    joints,
    rotations,
    elevation,
    spread,
    points,
    rotated,
    poses,
    half_turns,
    distance,
    JOINTS: tl.constexpr,
    SAMPLES: tl.constexpr,
    AXES: tl.constexpr,
    GROUP: tl.constexpr,
    BLOCK: tl.constexpr,
    PADDED: tl.constexpr,
):
    """Points (n B, J, 2) and, if wanted, rotated joints (n B, J, 3) of a block of poses."""
    first_pose, count, slot, pose, x, y, z = _block(joints, poses, JOINTS, BLOCK, PADDED)
    for first in range(0, SAMPLES, GROUP):
        c, qx, qy, qz = _quaternions(
            rotations,
            elevation,
            spread,
            first,
            first_pose,
            poses,
            half_turns,
            AXES,
            GROUP,
            PADDED,
        )
        for s in range(GROUP):
            row = first_pose + tl.cast(poses, tl.int64) * (first + s)
            left = tl.where(first + s < SAMPLES, count, 0)
            rx, ry, rz = _rotated(
                x,
                y,
                z,
                c,
                qx,
                qy,
                qz,
                rotations,
                s * PADDED + pose,
                row + pose,
                slot < left,
                AXES,
                False,
            )
            px, py = project(rx, ry, rz, distance)
            _store_points(points + row * JOINTS * 2, px, py, left)
            if rotated is not None:
                _store_vectors(rotated + row * JOINTS * 3, rx, ry, rz, left)


@triton.jit
def _rotate_project_backward_kernel(
    grad_points,
    grad_rotated,
    joints,
    rotations,
    elevation,
    spread,
    grad_joints,
    grad_elevation,
    poses,
    half_turns,
    distance,
    JOINTS: tl.constexpr,
    SAMPLES: tl.constexpr,
    AXES: tl.constexpr,
    GROUP: tl.constexpr,
    BLOCK: tl.constexpr,
    PADDED: tl.constexpr,
    LANES: tl.constexpr,
):
    """Gradients to the joints, summed over samples, and to the elevations."""
    first_pose, count, slot, pose, x, y, z = _block(joints, poses, JOINTS, BLOCK, PADDED)
    sx, sy, sz = tl.zeros_like(x), tl.zeros_like(x), tl.zeros_like(x)
    for first in range(0, SAMPLES, GROUP):
        c, qx, qy, qz = _quaternions(
            rotations,
            elevation,
            spread,
            first,
            first_pose,
            poses,
            half_turns,
            AXES,
            GROUP,
            PADDED,
        )
        for s in range(GROUP):
            row = first_pose + tl.cast(poses, tl.int64) * (first + s)
            left = tl.where(first + s < SAMPLES, count, 0)
            at = s * PADDED + pose
            rx, ry, rz = _rotated(
                x, y, z, c, qx, qy, qz, rotations, at, row + pose, slot < left, AXES, False
            )
            px, py = _load_points(grad_points + row * JOINTS * 2, left, BLOCK)
            gx, gy, gz = project_vjp(px, py, rx, ry, rz, distance)
            if grad_rotated is not None:
                ex, ey, ez = load_vectors(grad_rotated + row * JOINTS * 3, slot, slot < left)
                gx, gy, gz = gx + ex, gy + ey, gz + ez
            gx, gy, gz = _rotated(
                gx, gy, gz, c, qx, qy, qz, rotations, at, row + pose, slot < left, AXES, True
            )
            sx, sy, sz = sx + gx, sy + gy, sz + gz
    _store_vectors(grad_joints + first_pose * JOINTS * 3, sx, sy, sz, count)
    if elevation is not None:  # d Rx(e) / de = [x]x Rx(e)
        torque = sy * z - sz * y
        _store_sums(grad_elevation + first_pose, torque, count, 1, PADDED, JOINTS, LANES)


@triton.jit
def _equivariance_kernel(
    joints,
    points,
    depth,
    rotations,
    elevation,
    spread,
    out,
    poses,
    half_turns,
    distance,
    JOINTS: tl.constexpr,
    SAMPLES: tl.constexpr,
    AXES: tl.constexpr,
    GROUP: tl.constexpr,
    BLOCK: tl.constexpr,
    PADDED: tl.constexpr,
    LANES: tl.constexpr,
):
    """Mean distances (n B,) of lifted joints to the rotated joints of a block of poses."""
    first_pose, count, slot, pose, x, y, z = _block(joints, poses, JOINTS, BLOCK, PADDED)
    for first in range(0, SAMPLES, GROUP):
        c, qx, qy, qz = _quaternions(
            rotations,
            elevation,
            spread,
            first,
            first_pose,
            poses,
            half_turns,
            AXES,
            GROUP,
            PADDED,
        )
        for s in range(GROUP):
            row = first_pose + tl.cast(poses, tl.int64) * (first + s)
            left = tl.where(first + s < SAMPLES, count, 0)
            rx, ry, rz = _rotated(
                x,
                y,
                z,
                c,
                qx,
                qy,
                qz,
                rotations,
                s * PADDED + pose,
                row + pose,
                slot < left,
                AXES,
                False,
            )
            px, py = _load_points(points + row * JOINTS * 2, left, BLOCK)
            d = tl.load(depth + row * JOINTS + slot, mask=slot < left, other=0.0)
            scale = tl.maximum(d + distance, 1.0)
            ex, ey, ez = px * scale - rx, py * scale - ry, d - rz
            length = tl.sqrt(ex * ex + ey * ey + ez * ez)
            _store_sums(out + row, length, left, JOINTS, PADDED, JOINTS, LANES)


@triton.jit
def _equivariance_backward_kernel(
    grad,
    joints,
    points,
    depth,
    rotations,
    elevation,
    spread,
    grad_joints,
    grad_points,
    grad_depth,
    grad_elevation,
    poses,
    half_turns,
    distance,
    JOINTS: tl.constexpr,
    SAMPLES: tl.constexpr,
    AXES: tl.constexpr,
    GROUP: tl.constexpr,
    BLOCK: tl.constexpr,
    PADDED: tl.constexpr,
    LANES: tl.constexpr,
):
    """Gradients to joints, summed over samples, points, depths and elevations."""
    first_pose, count, slot, pose, x, y, z = _block(joints, poses, JOINTS, BLOCK, PADDED)
    sx, sy, sz = tl.zeros_like(x), tl.zeros_like(x), tl.zeros_like(x)
    for first in range(0, SAMPLES, GROUP):
        c, qx, qy, qz = _quaternions(
            rotations,
            elevation,
            spread,
            first,
            first_pose,
            poses,
            half_turns,
            AXES,
            GROUP,
            PADDED,
        )
        for s in range(GROUP):
            row = first_pose + tl.cast(poses, tl.int64) * (first + s)
            left = tl.where(first + s < SAMPLES, count, 0)
            at = s * PADDED + pose
            rx, ry, rz = _rotated(
                x, y, z, c, qx, qy, qz, rotations, at, row + pose, slot < left, AXES, False
            )
            px, py = _load_points(points + row * JOINTS * 2, left, BLOCK)
            d = tl.load(depth + row * JOINTS + slot, mask=slot < left, other=0.0)
            scale = tl.maximum(d + distance, 1.0)
            ex, ey, ez = px * scale - rx, py * scale - ry, d - rz
            length = tl.sqrt(ex * ex + ey * ey + ez * ez)
            g = tl.load(grad + row + pose, mask=slot < left, other=0.0) / JOINTS
            g = g * inverse(length)
            ex, ey, ez = g * ex, g * ey, g * ez
            _store_points(grad_points + row * JOINTS * 2, ex * scale, ey * scale, left)
            to_depth = tl.where(d + distance >= 1.0, ex * px + ey * py, 0.0) + ez
            tl.store(grad_depth + row * JOINTS + slot, to_depth, mask=slot < left)
            gx, gy, gz = _rotated(
                ex, ey, ez, c, qx, qy, qz, rotations, at, row + pose, slot < left, AXES, True
            )
            sx, sy, sz = sx - gx, sy - gy, sz - gz
    _store_vectors(grad_joints + first_pose * JOINTS * 3, sx, sy, sz, count)
    if elevation is not None:  # d Rx(e) / de = [x]x Rx(e)
        torque = sy * z - sz * y
        _store_sums(grad_elevation + first_pose, torque, count, 1, PADDED, JOINTS, LANES)


def _launch(kernel, tensors, poses, joints, rotations, samples, axes, max_angle, distance, **extra):
    """Run a kernel over blocks of whole poses.

    A block is 512 joints (30 poses of 17, with 2 idle slots), or 256 if 512 gives too few programs
    to fill a GPU. Rotations are drawn for up to four samples at once: with 30 poses this is one
    rotation for each of 128 threads.
    """
    block = 512 if poses * joints >= 1 << 18 else 256
    block = max(block, triton.next_power_of_2(joints))
    with torch.cuda.device_of(rotations):
        kernel[(triton.cdiv(poses, block // joints),)](
            *tensors,
            poses,
            max_angle / math.pi,
            distance,
            JOINTS=joints,
            SAMPLES=samples,
            AXES=0 if rotations.is_floating_point() else axes,
            GROUP=min(4, triton.next_power_of_2(samples)),
            BLOCK=block,
            PADDED=triton.next_power_of_2(block // joints),
            **extra,
        )


def rotate_project(
    joints: Tensor,
    rotations: Tensor,
    elevation: Tensor | None,
    spread: Tensor | None,
    samples: int,
    axes: int,
    max_angle: float,
    distance: float,
    with_rotated: bool,
) -> tuple[Tensor, Tensor]:
    """Points (n B, J, 2) and, if wanted, rotated joints (n B, J, 3) of poses (B, J, 3)."""
    poses, count, _ = joints.shape
    points = joints.new_empty(samples * poses, count, 2)
    rotated = joints.new_empty((samples * poses, count, 3) if with_rotated else 0)
    if points.numel():
        source = (rotations, elevation, spread)
        _launch(
            _rotate_project_kernel,
            (joints, *source, points, rotated if with_rotated else None),
            poses,
            count,
            rotations,
            samples,
            axes,
            max_angle,
            distance,
        )
    return points, rotated


def rotate_project_backward(
    grad_points: Tensor,
    grad_rotated: Tensor | None,
    joints: Tensor,
    rotations: Tensor,
    elevation: Tensor | None,
    spread: Tensor | None,
    samples: int,
    axes: int,
    max_angle: float,
    distance: float,
) -> tuple[Tensor, Tensor]:
    """Gradients to the joints (B, J, 3), summed over samples, and to the elevation."""
    poses, count, _ = joints.shape
    grads = torch.empty_like(joints), _elevation_gradient(elevation, joints)
    if joints.numel():
        source = (rotations, elevation, spread)
        _launch(
            _rotate_project_backward_kernel,
            (grad_points, grad_rotated, joints, *source, *grads),
            poses,
            count,
            rotations,
            samples,
            axes,
            max_angle,
            distance,
            LANES=triton.next_power_of_2(count),
        )
    return grads


def _elevation_gradient(elevation: Tensor | None, other: Tensor) -> Tensor:
    return other.new_empty(0) if elevation is None else torch.empty_like(elevation)


def equivariance_distance(
    joints: Tensor,
    points: Tensor,
    depth: Tensor,
    rotations: Tensor,
    elevation: Tensor | None,
    spread: Tensor | None,
    samples: int,
    axes: int,
    max_angle: float,
    distance: float,
) -> Tensor:
    """Mean joint distance (n B,) of lifted points (n B, J, 2), depth (n B, J) to rotated joints."""
    poses, count, _ = joints.shape
    out = joints.new_empty(samples * poses)
    if out.numel():
        _launch(
            _equivariance_kernel,
            (joints, points, depth, rotations, elevation, spread, out),
            poses,
            count,
            rotations,
            samples,
            axes,
            max_angle,
            distance,
            LANES=triton.next_power_of_2(count),
        )
    return out


def equivariance_distance_backward(
    grad: Tensor,
    joints: Tensor,
    points: Tensor,
    depth: Tensor,
    rotations: Tensor,
    elevation: Tensor | None,
    spread: Tensor | None,
    samples: int,
    axes: int,
    max_angle: float,
    distance: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients to joints (summed over samples), points, depth and elevation."""
    poses, count, _ = joints.shape
    to_elevation = _elevation_gradient(elevation, joints)
    grads = torch.empty_like(joints), torch.empty_like(points), torch.empty_like(depth)
    if joints.numel():
        source = (rotations, elevation, spread)
        _launch(
            _equivariance_backward_kernel,
            (grad, joints, points, depth, *source, *grads, to_elevation),
            poses,
            count,
            rotations,
            samples,
            axes,
            max_angle,
            distance,
            LANES=triton.next_power_of_2(count),
        )
    return *grads, to_elevation
