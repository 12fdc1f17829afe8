"""The pose dictionary: reconstruct, rotate, project, compare; and the teacher's cycle.

A program holds a tile of poses x joints (joints padded to a power of two). The reconstruction
`a @ D + mean` is a loop over atoms, exact float32: three rows of D serve every pose of the tile.
Backward passes reconstruct again instead of reading poses. Two products use `tl.dot` in IEEE
float32: the sum over joints for the coefficients, and the sum over poses for the dictionary. The
mean is one more atom with coefficient 1. Sums over poses stay in a program's registers while it
loops over tiles. The programs' partial sums are added at the end, in a fixed order.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from . import PROGRAMS
from .geometry import (
    exp_quaternion,
    exp_vjp,
    inverse,
    load_vectors,
    pack_vectors,
    project,
    project_vjp,
    rotate,
)


@triton.jit
def _tile(block, rows, JOINTS: tl.constexpr, POSES: tl.constexpr, LANES: tl.constexpr):
    """Rows of a tile, which of them exist, vectors' numbers [POSES, LANES], which of them exist."""
    row = block.to(tl.int64) * POSES + tl.arange(0, POSES)
    joint = tl.arange(0, LANES)
    live = row < rows
    return row, live, row[:, None] * JOINTS + joint, live[:, None] & (joint < JOINTS)


@triton.jit
def _reconstruct(
    coefficients,
    dictionary,
    mean,
    row,
    live,
    ATOMS: tl.constexpr,
    JOINTS: tl.constexpr,
    LANES: tl.constexpr,
):
    """x, y, z [POSES, LANES] of the canonical poses; 0 in padded lanes."""
    joint = tl.arange(0, LANES)
    inside = joint < JOINTS
    mx, my, mz = load_vectors(mean, joint, inside)
    zero = tl.zeros([row.shape[0], LANES], tl.float32)
    x, y, z = zero + mx, zero + my, zero + mz
    for k in range(ATOMS):
        a = tl.load(coefficients + row * ATOMS + k, mask=live, other=0.0)[:, None]
        dx, dy, dz = load_vectors(dictionary + k * 3 * JOINTS, joint, inside)
        x, y, z = x + a * dx, y + a * dy, z + a * dz
    return x, y, z


@triton.jit
def _store_poses(pointer, x, y, z, row, live, JOINTS: tl.constexpr):
    """Store a tile's poses [POSES, LANES], writing neighbouring addresses together."""
    slot = tl.arange(0, 4 * x.shape[1])
    packed = tl.reshape(pack_vectors(x, y, z), [x.shape[0], 4 * x.shape[1]])
    at = row[:, None] * (3 * JOINTS) + 3 * (slot // 4) + slot % 4
    tl.store(pointer + at, packed, mask=live[:, None] & (slot % 4 < 3) & (slot // 4 < JOINTS))


@triton.jit
def _load_atoms(
    dictionary,
    axis,
    ATOMS: tl.constexpr,
    JOINTS: tl.constexpr,
    LANES: tl.constexpr,
    PADDED: tl.constexpr,
):
    """One coordinate of the dictionary, transposed: [LANES, PADDED]."""
    joint = tl.arange(0, LANES)[:, None]
    k = tl.arange(0, PADDED)[None, :]
    at = dictionary + k * (3 * JOINTS) + 3 * joint + axis
    return tl.load(at, mask=(joint < JOINTS) & (k < ATOMS), other=0.0)


@triton.jit
def _load_transposed(coefficients, row, live, ATOMS: tl.constexpr, PADDED: tl.constexpr):
    """Coefficients [PADDED, POSES], with 1 for the mean after the last atom."""
    k = tl.arange(0, PADDED)[:, None]
    a = tl.load(
        coefficients + row[None, :] * ATOMS + k, mask=live[None, :] & (k < ATOMS), other=0.0
    )
    return tl.where((k == ATOMS) & live[None, :], 1.0, a)


@triton.jit
def _store_coefficients(pointer, x, y, z, dx, dy, dz, row, live, ATOMS: tl.constexpr):
    """Store the gradient to coefficients of a gradient (x, y, z) to poses."""
    grad = tl.dot(x, dx, input_precision="ieee")
    grad = tl.dot(y, dy, grad, input_precision="ieee")
    grad = tl.dot(z, dz, grad, input_precision="ieee")
    k = tl.arange(0, grad.shape[1])
    at = row[:, None] * ATOMS + k
    tl.store(pointer + at, grad, mask=live[:, None] & (k < ATOMS))


@triton.jit
def _store_partials(partials, sx, sy, sz, ATOMS: tl.constexpr, JOINTS: tl.constexpr):
    """Store a program's gradient to dictionary and mean: (ATOMS + 1, 3 JOINTS)."""
    k = tl.arange(0, sx.shape[0])
    first = partials + tl.program_id(0).to(tl.int64) * ((ATOMS + 1) * 3 * JOINTS)
    _store_poses(first, sx, sy, sz, k, k <= ATOMS, JOINTS)


@triton.jit
def _reprojection_kernel(
    coefficients,
    dictionary,
    mean,
    rotation_vector,
    target,
    error,
    canonical,
    camera,
    poses,
    distance,
    ATOMS: tl.constexpr,
    JOINTS: tl.constexpr,
    POSES: tl.constexpr,
    LANES: tl.constexpr,
):
    """Errors, canonical and camera-frame poses of a tile."""
    row, live, vector, inside = _tile(tl.program_id(0), poses, JOINTS, POSES, LANES)
    x, y, z = _reconstruct(coefficients, dictionary, mean, row, live, ATOMS, JOINTS, LANES)
    _store_poses(canonical, x, y, z, row, live, JOINTS)
    wx, wy, wz = load_vectors(rotation_vector, row, live)
    c, qx, qy, qz = exp_quaternion(wx, wy, wz)
    x, y, z = rotate(x, y, z, c[:, None], qx[:, None], qy[:, None], qz[:, None])
    _store_poses(camera, x, y, z, row, live, JOINTS)
    px, py = project(x, y, z, distance)
    ex = px - tl.load(target + 2 * vector, mask=inside, other=0.0)
    ey = py - tl.load(target + 2 * vector + 1, mask=inside, other=0.0)
    length = tl.where(inside, tl.sqrt(ex * ex + ey * ey), 0.0)
    tl.store(error + row, tl.sum(length, 1) / JOINTS, mask=live)


@triton.jit
def _reprojection_backward_kernel(
    grad_error,
    grad_canonical,
    grad_camera,
    coefficients,
    dictionary,
    mean,
    rotation_vector,
    target,
    grad_coefficients,
    grad_rotation_vector,
    partials,
    poses,
    distance,
    ATOMS: tl.constexpr,
    JOINTS: tl.constexpr,
    POSES: tl.constexpr,
    LANES: tl.constexpr,
    PADDED: tl.constexpr,
):
    """Gradients to coefficients and rotation vectors; partial sums of dictionary and mean."""
    dx = _load_atoms(dictionary, 0, ATOMS, JOINTS, LANES, PADDED)
    dy = _load_atoms(dictionary, 1, ATOMS, JOINTS, LANES, PADDED)
    dz = _load_atoms(dictionary, 2, ATOMS, JOINTS, LANES, PADDED)
    sx = tl.zeros([PADDED, LANES], tl.float32)
    sy, sz = tl.zeros_like(sx), tl.zeros_like(sx)
    block = tl.program_id(0)
    while block < tl.cdiv(poses, POSES):
        row, live, vector, inside = _tile(block, poses, JOINTS, POSES, LANES)
        x, y, z = _reconstruct(coefficients, dictionary, mean, row, live, ATOMS, JOINTS, LANES)
        wx, wy, wz = load_vectors(rotation_vector, row, live)
        c, qx, qy, qz = exp_quaternion(wx, wy, wz)
        c, qx, qy, qz = c[:, None], qx[:, None], qy[:, None], qz[:, None]
        gx, gy, gz = tl.zeros_like(x), tl.zeros_like(x), tl.zeros_like(x)
        if grad_camera is not None:
            gx, gy, gz = load_vectors(grad_camera, vector, inside)
        if grad_error is not None:
            cx, cy, cz = rotate(x, y, z, c, qx, qy, qz)
            px, py = project(cx, cy, cz, distance)
            ex = px - tl.load(target + 2 * vector, mask=inside, other=0.0)
            ey = py - tl.load(target + 2 * vector + 1, mask=inside, other=0.0)
            g = tl.load(grad_error + row, mask=live, other=0.0)[:, None] / JOINTS
            g = tl.where(inside, g * inverse(tl.sqrt(ex * ex + ey * ey)), 0.0)
            ex, ey, ez = project_vjp(g * ex, g * ey, cx, cy, cz, distance)
            gx, gy, gz = gx + ex, gy + ey, gz + ez
        wx, wy, wz = exp_vjp(
            wx,
            wy,
            wz,
            tl.sum(x * gx, 1),
            tl.sum(x * gy, 1),
            tl.sum(x * gz, 1),
            tl.sum(y * gx, 1),
            tl.sum(y * gy, 1),
            tl.sum(y * gz, 1),
            tl.sum(z * gx, 1),
            tl.sum(z * gy, 1),
            tl.sum(z * gz, 1),
        )
        tl.store(grad_rotation_vector + 3 * row, wx, mask=live)
        tl.store(grad_rotation_vector + 3 * row + 1, wy, mask=live)
        tl.store(grad_rotation_vector + 3 * row + 2, wz, mask=live)
        gx, gy, gz = rotate(gx, gy, gz, c, -qx, -qy, -qz)
        if grad_canonical is not None:
            ex, ey, ez = load_vectors(grad_canonical, vector, inside)
            gx, gy, gz = gx + ex, gy + ey, gz + ez
        _store_coefficients(grad_coefficients, gx, gy, gz, dx, dy, dz, row, live, ATOMS)
        a = _load_transposed(coefficients, row, live, ATOMS, PADDED)
        sx = tl.dot(a, gx, sx, input_precision="ieee")
        sy = tl.dot(a, gy, sy, input_precision="ieee")
        sz = tl.dot(a, gz, sz, input_precision="ieee")
        block += tl.num_programs(0)
    _store_partials(partials, sx, sy, sz, ATOMS, JOINTS)


@triton.jit
def _invariance_kernel(
    coefficients,
    dictionary,
    mean,
    canonical,
    out,
    poses,
    SAMPLES: tl.constexpr,
    ATOMS: tl.constexpr,
    JOINTS: tl.constexpr,
    POSES: tl.constexpr,
    LANES: tl.constexpr,
):
    """Mean joint distances of a tile's reconstructed samples to its canonical poses."""
    row, live, vector, inside = _tile(tl.program_id(0), poses, JOINTS, POSES, LANES)
    ox, oy, oz = load_vectors(canonical, vector, inside)
    for _ in range(SAMPLES):
        x, y, z = _reconstruct(coefficients, dictionary, mean, row, live, ATOMS, JOINTS, LANES)
        ex, ey, ez = x - ox, y - oy, z - oz
        length = tl.where(inside, tl.sqrt(ex * ex + ey * ey + ez * ez), 0.0)
        tl.store(out + row, tl.sum(length, 1) / JOINTS, mask=live)
        row += poses


@triton.jit
def _invariance_backward_kernel(
    grad,
    coefficients,
    dictionary,
    mean,
    canonical,
    grad_coefficients,
    grad_canonical,
    partials,
    poses,
    SAMPLES: tl.constexpr,
    ATOMS: tl.constexpr,
    JOINTS: tl.constexpr,
    POSES: tl.constexpr,
    LANES: tl.constexpr,
    PADDED: tl.constexpr,
):
    """Gradients to coefficients and canonical poses; partial sums of dictionary and mean."""
    dx = _load_atoms(dictionary, 0, ATOMS, JOINTS, LANES, PADDED)
    dy = _load_atoms(dictionary, 1, ATOMS, JOINTS, LANES, PADDED)
    dz = _load_atoms(dictionary, 2, ATOMS, JOINTS, LANES, PADDED)
    sx = tl.zeros([PADDED, LANES], tl.float32)
    sy, sz = tl.zeros_like(sx), tl.zeros_like(sx)
    block = tl.program_id(0)
    while block < tl.cdiv(poses, POSES):
        own, live, vector, inside = _tile(block, poses, JOINTS, POSES, LANES)
        ox, oy, oz = load_vectors(canonical, vector, inside)
        gx, gy, gz = tl.zeros_like(ox), tl.zeros_like(ox), tl.zeros_like(ox)
        row = own
        for _ in range(SAMPLES):
            x, y, z = _reconstruct(coefficients, dictionary, mean, row, live, ATOMS, JOINTS, LANES)
            ex, ey, ez = x - ox, y - oy, z - oz
            g = tl.load(grad + row, mask=live, other=0.0)[:, None] / JOINTS
            g = tl.where(inside, g * inverse(tl.sqrt(ex * ex + ey * ey + ez * ez)), 0.0)
            ex, ey, ez = g * ex, g * ey, g * ez
            gx, gy, gz = gx - ex, gy - ey, gz - ez
            _store_coefficients(grad_coefficients, ex, ey, ez, dx, dy, dz, row, live, ATOMS)
            a = _load_transposed(coefficients, row, live, ATOMS, PADDED)
            sx = tl.dot(a, ex, sx, input_precision="ieee")
            sy = tl.dot(a, ey, sy, input_precision="ieee")
            sz = tl.dot(a, ez, sz, input_precision="ieee")
            row += poses
        _store_poses(grad_canonical, gx, gy, gz, own, live, JOINTS)
        block += tl.num_programs(0)
    _store_partials(partials, sx, sy, sz, ATOMS, JOINTS)


def _sizes(atoms: int, joints: int) -> dict[str, int]:
    """A tile of 1024 joints: 32 poses of 17, padded to 32."""
    lanes = max(16, triton.next_power_of_2(joints))
    return dict(ATOMS=atoms, JOINTS=joints, POSES=max(16, 1024 // lanes), LANES=lanes)


def dictionary_reprojection(
    coefficients: Tensor,
    dictionary: Tensor,
    mean: Tensor,
    rotation_vector: Tensor,
    target: Tensor,
    distance: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Error (B,), canonical (B, J, 3) and camera-frame (B, J, 3) poses."""
    poses, joints, _ = target.shape
    error = target.new_empty(poses)
    canonical, camera = (target.new_empty(poses, joints, 3) for _ in range(2))
    if target.numel():
        sizes = _sizes(coefficients.shape[1], joints)
        with torch.cuda.device_of(target):
            _reprojection_kernel[(triton.cdiv(poses, sizes["POSES"]),)](
                coefficients,
                dictionary,
                mean,
                rotation_vector,
                target,
                error,
                canonical,
                camera,
                poses,
                distance,
                **sizes,
            )
    return error, canonical, camera


def dictionary_reprojection_backward(
    grad_error: Tensor | None,
    grad_canonical: Tensor | None,
    grad_camera: Tensor | None,
    coefficients: Tensor,
    dictionary: Tensor,
    mean: Tensor,
    rotation_vector: Tensor,
    target: Tensor,
    distance: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients to coefficients, dictionary, mean and rotation vector; a None gradient is 0."""
    poses, joints, _ = target.shape
    grad_coefficients = torch.empty_like(coefficients)
    grad_rotation_vector = torch.empty_like(rotation_vector)
    sizes, programs, partials = _partials(coefficients, poses, joints)
    if programs:
        with torch.cuda.device_of(target):
            _reprojection_backward_kernel[(programs,)](
                grad_error,
                grad_canonical,
                grad_camera,
                coefficients,
                dictionary,
                mean,
                rotation_vector,
                target,
                grad_coefficients,
                grad_rotation_vector,
                partials,
                poses,
                distance,
                **sizes,
            )
    return grad_coefficients, partials[:, :-1].sum(0), partials[:, -1].sum(0), grad_rotation_vector


def invariance_distance(
    coefficients: Tensor, dictionary: Tensor, mean: Tensor, canonical: Tensor
) -> Tensor:
    """Mean joint distance (n B,) of reconstructed poses to canonical ones (B, J, 3)."""
    poses, joints, _ = canonical.shape
    out = coefficients.new_empty(coefficients.shape[0])
    if out.numel():
        sizes = _sizes(coefficients.shape[1], joints)
        with torch.cuda.device_of(canonical):
            _invariance_kernel[(triton.cdiv(poses, sizes["POSES"]),)](
                coefficients,
                dictionary,
                mean,
                canonical,
                out,
                poses,
                SAMPLES=len(out) // poses,
                **sizes,
            )
    return out


def invariance_distance_backward(
    grad: Tensor, coefficients: Tensor, dictionary: Tensor, mean: Tensor, canonical: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients to coefficients, dictionary, mean and canonical poses (summed over samples)."""
    poses, joints, _ = canonical.shape
    grad_coefficients, grad_canonical = torch.empty_like(coefficients), torch.empty_like(canonical)
    sizes, programs, partials = _partials(coefficients, poses, joints)
    if programs:
        with torch.cuda.device_of(canonical):
            _invariance_backward_kernel[(programs,)](
                grad,
                coefficients,
                dictionary,
                mean,
                canonical,
                grad_coefficients,
                grad_canonical,
                partials,
                poses,
                SAMPLES=len(coefficients) // poses,
                **sizes,
            )
    return grad_coefficients, partials[:, :-1].sum(0), partials[:, -1].sum(0), grad_canonical


def _partials(coefficients: Tensor, poses: int, joints: int) -> tuple[dict[str, int], int, Tensor]:
    """Launch sizes, number of programs, and room for their sums (programs, K + 1, 3 J).

    Eight warps leave every thread enough registers for the sums.
    """
    atoms = coefficients.shape[1]
    sizes = _sizes(atoms, joints)
    programs = min(triton.cdiv(poses, sizes["POSES"]), PROGRAMS)
    partials = coefficients.new_empty(programs, atoms + 1, 3 * joints)
    sizes |= dict(PADDED=max(16, triton.next_power_of_2(atoms + 1)), num_warps=8)
    return sizes, programs, partials
