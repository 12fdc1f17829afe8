"""Rotations: drawn from a counter, applied, projected, and compared, without storing any of them.

Rotated batches are sample-major: row `s * B + b` is sample s of pose b. Conventions (row vectors,
camera axes) are stated in `ites.pose.geometry`.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import permutations

import torch
from torch import Tensor

from ites.ops._registry import (
    define,
    differentiate,
    expect,
    expect_alike,
    expect_finite,
    expect_multiple,
    full_precision,
)
from ites.ops.backends import choose
from ites.pose import geometry

_AXES = {"x": 1, "y": 2, "z": 4}
_MASKS = {
    "".join(axes): sum(_AXES[axis] for axis in axes)
    for count in (1, 2, 3)
    for axes in permutations(_AXES, count)
}
MOST_ANGLE = 8192.0
"""The largest angle of a draw, radians: beyond it float32 loses the digits of a sine."""
MOST_NUMBERS = 1 << 27
"""Maximum size of an output that the samples multiply: half a GB in float32."""


@dataclass(frozen=True)
class RotationDraw:
    """Random rotations, each a function of a counter: none is stored.

    The axis is uniform on the unit sphere, circle or pair of points that the axes span. The angle
    is uniform in [0, max_angle). A draw depends on (seed, offset, first_pose + pose, sample) alone,
    by Philox 4x32-10, on every backend.

    Args:
        counter: int64 (3,): seed, offset (the step), first pose; on the joints' device.
        samples: n, rotations per pose.
        axes: a subset of "xyz". The teacher's is "xyz", the student's "y".
        max_angle: radians. The teacher's is pi, the student's 2 pi.

    Source: docs/method.md, 2.2; Salmon et al., SC 2011 (Philox).
    """

    counter: Tensor
    samples: int = 4
    axes: str = "xyz"
    max_angle: float = torch.pi

    def __post_init__(self) -> None:
        _expect_draw("RotationDraw", self.counter, self.samples)
        if self.axes not in _MASKS:
            raise ValueError(f"RotationDraw: axes must be a subset of 'xyz', got {self.axes!r}")
        expect_finite("RotationDraw", "max_angle", self.max_angle, 0, MOST_ANGLE)

    @property
    def mask(self) -> int:
        """The axes as bits: x 1, y 2, z 4."""
        return _MASKS[self.axes]


@dataclass(frozen=True)
class TurnDraw:
    """Random turns about the true vertical, each seen by a camera of another elevation.

    `R = Rx(e) @ Ry(a) @ Rx(-f)`: e the elevation of the camera that gave the pose, the azimuth
    a ~ U(-pi, pi), f ~ N(mean, std) the new camera's elevation. Rx and Ry are exact rotations.
    A positive elevation is a camera that looks down: `X_camera @ Rx(e)` stands upright, up being
    -y. Drawn as a `RotationDraw` is, and like it not stored; the gradient goes to e.

    Args:
        counter: int64 (3,), as of `RotationDraw`.
        elevation: (B,), e, radians.
        spread: (2,), mean and standard deviation of f, radians: a constant on the device.
        samples: n, rotations per pose.

    Source: Box and Muller, 1958 (f); Salmon et al., SC 2011 (Philox).
    """

    counter: Tensor
    elevation: Tensor
    spread: Tensor
    samples: int = 4

    def __post_init__(self) -> None:
        _expect_draw("TurnDraw", self.counter, self.samples)
        if self.elevation.ndim != 1 or tuple(self.spread.shape) != (2,):
            raise ValueError(
                "TurnDraw: elevation must be (B,) and spread (2,), "
                f"got {tuple(self.elevation.shape)} and {tuple(self.spread.shape)}"
            )
        if self.spread.requires_grad:
            raise ValueError("TurnDraw: spread is a constant and takes no gradient; detach it")


def _expect_draw(what: str, counter: Tensor, samples: int) -> None:
    if counter.dtype != torch.int64 or counter.shape != (3,):
        raise TypeError(
            f"{what}: counter must be int64 of shape (3,), "
            f"got {counter.dtype} {tuple(counter.shape)}"
        )
    _expect_count(what, "samples", samples, 1)


def _expect_count(what: str, argument: str, count: int, least: int) -> None:
    if not isinstance(count, int):
        raise TypeError(f"{what}: {argument} must be an int, got {type(count).__name__}")
    if count < least:
        raise ValueError(f"{what}: {argument} must be at least {least}, got {count}")


def _expect_rows(op: str, poses: int, samples: int, numbers: int) -> None:
    """Refuse counts that no memory holds: each of samples x poses rows has so many numbers."""
    if samples * (poses or 1) * numbers > MOST_NUMBERS:
        raise ValueError(
            f"{op}: {samples} samples of each of {poses} poses are too many: "
            f"they fill more than {MOST_NUMBERS} numbers"
        )


Rotations = Tensor | RotationDraw | TurnDraw
"""Rotations for an op: matrices (n * B, 3, 3), constants, or a draw."""


def so3_exp(rotation_vector: Tensor, backend: str | None = None) -> Tensor:
    """Rotation matrices of rotation vectors, by the paper's formula.

    See `ites.pose.geometry.so3_exp`.

    Args:
        rotation_vector: (..., 3), radians.
        backend: see `ites.ops.backends`.

    Returns:
        (..., 3, 3), to act on row vectors from the right.

    Raises:
        ValueError: the last dimension is not 3.
    """
    (w,) = full_precision(rotation_vector)
    if w.shape[-1:] != (3,):
        raise ValueError(f"so3_exp: rotation_vector must be (..., 3), got {tuple(w.shape)}")
    expect_alike("so3_exp", rotation_vector=w)
    chosen = choose("so3_exp", w.device.type, w.dtype, backend)
    if chosen == "reference":
        return geometry.so3_exp(w)
    return _so3_exp(w.reshape(-1, 3).contiguous(), chosen).view(*w.shape[:-1], 3, 3)


_so3_exp = define(
    "rotation", "so3_exp(Tensor w) -> Tensor", lambda w: w.new_empty(w.shape[0], 3, 3)
)
_so3_exp_backward = define(
    "rotation",
    "so3_exp_backward(Tensor grad, Tensor w) -> Tensor",
    lambda grad, w: w.new_empty(w.shape),
)
differentiate(
    "so3_exp",
    lambda inputs, output: ([inputs[0]], inputs[1]),
    lambda saved, backend, grad: (_so3_exp_backward(grad.contiguous(), saved[0], backend),),
)


_ROUNDS = 10
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
_LOW = 0xFFFFFFFF


def philox(counter: Tensor, poses: int, samples: int, backend: str | None = None) -> Tensor:
    """The four 32-bit words that Philox 4x32-10 gives each rotation of a draw.

    Args:
        counter: int64 (3,): seed, offset, first pose.
        poses, samples: B and n.
        backend: see `ites.ops.backends`.

    Returns:
        int64 (samples * poses, 4), each in [0, 2^32): row `s * B + b` for sample s of pose b.

    Raises:
        ValueError, TypeError, RuntimeError: the counter or a count does not fit.
    """
    chosen = choose("philox", counter.device.type, torch.float32, backend)
    if chosen == "cpp":  # checks all of this itself
        return _philox(counter.contiguous(), poses, samples, chosen)
    _expect_draw("philox", counter, samples)
    _expect_count("philox", "poses", poses, 0)
    _expect_rows("philox", poses, samples, 4)
    if chosen != "reference":
        return _philox(counter.contiguous(), poses, samples, chosen)
    seed, offset, first = counter.unbind()
    pose = (first + torch.arange(poses, device=counter.device)).repeat(samples) & _LOW
    sample = torch.arange(samples, device=counter.device).repeat_interleave(poses)
    c = [pose, sample, (offset & _LOW).expand_as(pose), ((offset >> 32) & _LOW).expand_as(pose)]
    key = [seed & _LOW, (seed >> 32) & _LOW]
    for _ in range(_ROUNDS):
        high0, low0 = _multiply(c[0], _MULTIPLIERS[0])
        high1, low1 = _multiply(c[2], _MULTIPLIERS[1])
        c = [high1 ^ c[1] ^ key[0], low1, high0 ^ c[3] ^ key[1], low0]
        key = [(k + weyl) & _LOW for k, weyl in zip(key, _WEYL, strict=True)]
    return torch.stack(c, dim=-1)


def _multiply(a: Tensor, b: int) -> tuple[Tensor, Tensor]:
    """High and low words of a 32 x 32 bit product, within int64."""
    low = a * (b & 0xFFFF)
    middle = a * (b >> 16) + (low >> 16)
    return middle >> 16, ((middle & 0xFFFF) << 16) | (low & 0xFFFF)


_philox = define(
    "rotation",
    "philox(Tensor counter, int poses, int samples) -> Tensor",
    lambda counter, poses, samples: counter.new_empty(samples * poses, 4),
)


def draw_rotations(
    draw: RotationDraw | TurnDraw, poses: int, like: Tensor, backend: str | None = None
) -> Tensor:
    """The rotation matrices of a draw, as constants.

    Args:
        draw: what to draw.
        poses: B.
        like: a tensor of the wanted dtype and device.
        backend: see `ites.ops.backends`.

    Returns:
        (samples * B, 3, 3), sample-major.

    Raises:
        ValueError, TypeError: a `TurnDraw`'s elevation or spread does not fit.
    """
    like = like.detach()
    chosen = choose("draw_rotations", like.device.type, like.dtype, backend)
    counter, elevation, spread, *kind = _drawn("draw_rotations", draw, poses, like)
    if chosen != "cpp":  # which checks these itself
        expect_alike("draw_rotations", like=like)
        _expect_count("draw_rotations", "poses", poses, 0)
    _expect_rows("draw_rotations", poses, draw.samples, 9)
    if chosen == "reference":
        return _draw_reference(draw, poses, like).detach()
    elevation = None if elevation is None else elevation.detach()
    return _draw_rotations(like, counter, elevation, spread, poses, *kind, chosen)


def _drawn(
    op: str, draw: RotationDraw | TurnDraw, poses: int, like: Tensor
) -> tuple[Tensor, Tensor | None, Tensor | None, int, int, float]:
    """(counter, elevation, spread, samples, axes, max_angle), as the kernels take a draw."""
    counter = draw.counter.contiguous()
    if isinstance(draw, RotationDraw):
        return counter, None, None, draw.samples, draw.mask, draw.max_angle
    elevation, spread = full_precision(draw.elevation, draw.spread)
    expect(op, "elevation", elevation, poses)
    expect_alike(op, poses=like, elevation=elevation, spread=spread)
    return (
        counter,
        elevation.contiguous(),
        spread.contiguous(),
        draw.samples,
        _AXES["y"],
        torch.pi,
    )


def _draw_reference(draw: RotationDraw | TurnDraw, poses: int, like: Tensor) -> Tensor:
    if draw.counter.device != like.device:  # which the kernels refuse too
        raise ValueError(f"draw: counter must be on {like.device}, got {draw.counter.device}")
    wide = torch.promote_types(like.dtype, torch.float32)  # 24 bits overflow a half type
    words = philox(draw.counter, poses, draw.samples, "reference")
    uniform = (words >> 8).to(wide) * 2.0**-24  # [nB, 4] in [0, 1)
    return _rotations_of(words, uniform, draw).to(like.dtype)


def _rotations_of(words: Tensor, uniform: Tensor, draw: RotationDraw | TurnDraw) -> Tensor:
    """Rotations (nB, 3, 3) from their random words, and those as numbers in [0, 1)."""
    if isinstance(draw, TurnDraw):
        elevation, spread = draw.elevation.to(uniform.dtype), draw.spread.to(uniform.dtype)
        normal = (-2 * (-uniform[:, 1]).log1p()).sqrt() * _radians(uniform[:, 2]).cos()
        drawn = spread[0] + spread[1] * normal
        tilted = _axis_rotation("x", elevation.repeat(draw.samples))
        turned = tilted @ _axis_rotation("y", _radians(uniform[:, 0]))
        return turned @ _axis_rotation("x", -drawn)
    angle = draw.max_angle * uniform[:, 0]
    which = ["xyz".index(axis) for axis in sorted(draw.axes)]
    axis = uniform.new_zeros(len(words), 3)
    if len(which) == 3:
        height = 2 * uniform[:, 1] - 1
        around = _radians(uniform[:, 2])
        radius = 2 * (uniform[:, 1] * (1 - uniform[:, 1])).sqrt()  # keeps its digits near the poles
        axis[:, 0], axis[:, 1], axis[:, 2] = radius * around.cos(), radius * around.sin(), height
    elif len(which) == 2:
        around = _radians(uniform[:, 1])
        axis[:, which[0]], axis[:, which[1]] = around.cos(), around.sin()
    else:
        axis[:, which[0]] = 1 - 2 * (words[:, 1] >> 31).to(uniform.dtype)
    # so3_exp(angle * axis), its angle known.
    hat, angle = geometry.hat(axis), angle[:, None, None]
    f = angle / (angle + 1e-4)
    eye = torch.eye(3, dtype=hat.dtype, device=hat.device)
    return eye + f * angle.sin() * hat + f.square() * (1 - angle.cos()) * (hat @ hat)


def _axis_rotation(axis: str, angle: Tensor) -> Tensor:
    """Exact rotations (N, 3, 3) by angles (N,) about x or y, as `so3_exp` has their sense."""
    sine, cosine = angle.sin(), angle.cos()
    zero, one = torch.zeros_like(sine), torch.ones_like(sine)
    if axis == "x":
        entries = [one, zero, zero, zero, cosine, -sine, zero, sine, cosine]
    else:
        entries = [cosine, zero, sine, zero, one, zero, -sine, zero, cosine]
    return torch.stack(entries, dim=-1).unflatten(-1, (3, 3))


def _radians(turns: Tensor) -> Tensor:
    """Turns in [0, 1) as radians in [-pi, pi), which round half as much."""
    return 2 * torch.pi * (turns - (turns >= 0.5).to(turns.dtype))


_draw_rotations = define(
    "rotation",
    "draw_rotations(Tensor like, Tensor counter, Tensor? elevation, Tensor? spread, int poses, "
    "int samples, int axes, float max_angle) -> Tensor",
    lambda like, counter, elevation, spread, poses, samples, *_: like.new_empty(
        samples * poses, 3, 3
    ),
)


def rotate_project(
    joints: Tensor,
    rotations: Rotations,
    distance: float = geometry.DISTANCE,
    with_rotated: bool = False,
    backend: str | None = None,
) -> tuple[Tensor, Tensor | None]:
    """Rotate every pose n times and project: `project(joints @ R)`, in one pass.

    A draw is repeated in the backward pass, so no rotation is stored. The gradient goes to the
    joints and to a `TurnDraw`'s elevation; other rotations are constants.

    Args:
        joints: (B, J, 3), network units, relative to the root.
        rotations: matrices (n * B, 3, 3), sample-major, a `RotationDraw` or a `TurnDraw`.
        distance: c of `ites.pose.geometry.project`.
        with_rotated: also return the rotated joints.
        backend: see `ites.ops.backends`.

    Returns:
        Points (n * B, J, 2), and the rotated joints (n * B, J, 3) or None.

    Raises:
        ValueError, TypeError: a shape or dtype does not fit.

    Source: paper, section "Invariant Teacher"; docs/method.md, 3.3 and 4.6.
    """
    (joints,) = full_precision(joints)
    _expect_poses("rotate_project", joints, distance)
    chosen = choose("rotate_project", joints.device.type, joints.dtype, backend)
    if chosen == "reference":
        rotated = _rotate(joints, _matrices("rotate_project", rotations, joints))
        points = geometry.project(rotated, distance)
        return points, rotated if with_rotated else None
    points, rotated = _rotate_project(
        joints.contiguous(),
        *_rotation_arguments("rotate_project", rotations, joints),
        distance,
        with_rotated,
        chosen,
    )
    return points, rotated if with_rotated else None


def _expect_poses(op: str, joints: Tensor, distance: float) -> None:
    expect(op, "joints", joints, "B", "J", 3)
    expect_alike(op, joints=joints)
    if not joints.numel() and not joints.shape[1]:
        raise ValueError(f"{op}: joints must hold at least one joint, got {tuple(joints.shape)}")
    expect_finite(op, "distance", distance)


def _rotate(joints: Tensor, matrices: Tensor) -> Tensor:
    return joints.repeat(len(matrices) // max(len(joints), 1), 1, 1) @ matrices  # [nB, J, 3]


def _matrices(op: str, rotations: Rotations, poses: Tensor) -> Tensor:
    if isinstance(rotations, Tensor):
        _expect_matrices(op, rotations, poses)
        return rotations
    _rotation_arguments(op, rotations, poses)
    return _draw_reference(rotations, len(poses), poses)


def _expect_matrices(op: str, matrices: Tensor, poses: Tensor) -> None:
    expect(op, "rotations", matrices, "n * B", 3, 3)
    expect_alike(op, poses=poses, rotations=matrices)
    expect_multiple(op, "rotations", matrices, len(poses))
    if matrices.requires_grad:
        raise ValueError(f"{op}: rotations are constants and take no gradient; detach them")


def _rotation_arguments(
    op: str, rotations: Rotations, poses: Tensor
) -> tuple[Tensor, Tensor | None, Tensor | None, int, int, float]:
    """(matrices or counter, elevation, spread, samples, axes, max_angle), as the kernels take them.

    Matrices have axes 0; an elevation and a spread make the draw a turn.
    """
    if not isinstance(rotations, Tensor):
        count, joints, _ = poses.shape
        _expect_rows(op, count, rotations.samples, 3 * joints if joints > 2 else 9)
        return _drawn(op, rotations, len(poses), poses)
    _expect_matrices(op, rotations, poses)
    samples = len(rotations) // len(poses) if len(poses) else 1
    return rotations.contiguous(), None, None, samples, 0, 0.0


def _elevation_gradient(elevation: Tensor | None, other: Tensor) -> Tensor:
    """An output for the gradient to the elevation, empty where there is none."""
    return other.new_empty(0 if elevation is None else elevation.shape[0])


_rotate_project = define(
    "rotation",
    "rotate_project(Tensor joints, Tensor rotations, Tensor? elevation, Tensor? spread, "
    "int samples, int axes, float max_angle, float distance, bool with_rotated) "
    "-> (Tensor, Tensor)",
    lambda joints, rotations, elevation, spread, samples, axes, angle, distance, with_rotated: (
        joints.new_empty(samples * joints.shape[0], joints.shape[1], 2),
        joints.new_empty(samples * joints.shape[0], joints.shape[1], 3)
        if with_rotated
        else joints.new_empty(0),
    ),
)
_rotate_project_backward = define(
    "rotation",
    "rotate_project_backward(Tensor grad_points, Tensor? grad_rotated, Tensor joints, "
    "Tensor rotations, Tensor? elevation, Tensor? spread, int samples, int axes, "
    "float max_angle, float distance) -> (Tensor, Tensor)",
    lambda grad_points, grad_rotated, joints, rotations, elevation, *_: (
        joints.new_empty(joints.shape),
        _elevation_gradient(elevation, joints),
    ),
)


def _rotate_project_vjp(saved, constants, grad_points, grad_rotated):
    joints, _, elevation, _ = saved
    *source, distance, with_rotated, backend = constants
    if grad_points is None:
        rows = constants[0] * joints.shape[0]
        grad_points = joints.new_zeros(rows, joints.shape[1], 2)
    if grad_rotated is not None:
        grad_rotated = grad_rotated.contiguous() if with_rotated else None
    to_joints, to_elevation = _rotate_project_backward(
        grad_points.contiguous(), grad_rotated, *saved, *source, distance, backend
    )
    return to_joints, None, None if elevation is None else to_elevation, *(None,) * 6


differentiate(
    "rotate_project", lambda inputs, output: (list(inputs[:4]), inputs[4:]), _rotate_project_vjp
)


def equivariance_distance(
    joints: Tensor,
    points: Tensor,
    depth: Tensor,
    rotations: Rotations,
    distance: float = geometry.DISTANCE,
    backend: str | None = None,
) -> Tensor:
    """Distance between lifted rotated poses and the rotated poses.

    `mean over joints of |backproject(points, depth) - joints @ R|`, the rotated poses never
    written to memory; a draw is repeated.

    Args:
        joints: (B, J, 3), the poses before rotation, network units.
        points: (n * B, J, 2), projections of the rotated poses, as `rotate_project` gives them.
        depth: (n * B, J, 1), their lifted depths, network units.
        rotations: as given to `rotate_project`.
        distance: c.
        backend: see `ites.ops.backends`.

    Returns:
        (n * B,), network units. Its mean is the equivariance loss.

    Raises:
        ValueError, TypeError: a shape or dtype does not fit.

    Source: docs/method.md, 4.6.
    """
    joints, points, depth = full_precision(joints, points, depth)
    _expect_poses("equivariance_distance", joints, distance)
    expect("equivariance_distance", "points", points, "n * B", joints.shape[1], 2)
    expect("equivariance_distance", "depth", depth, len(points), joints.shape[1], 1)
    expect_alike("equivariance_distance", joints=joints, points=points, depth=depth)
    chosen = choose("equivariance_distance", joints.device.type, joints.dtype, backend)
    arguments = _rotation_arguments("equivariance_distance", rotations, joints)
    _expect_views("equivariance_distance", points, arguments[3], len(joints))
    if chosen == "reference":
        rotated = _rotate(joints, _matrices("equivariance_distance", rotations, joints))
        lifted = geometry.backproject(points, depth, distance)
        return torch.linalg.vector_norm(lifted - rotated, dim=-1).mean(-1)
    return _equivariance_distance(
        joints.contiguous(),
        points.contiguous(),
        depth.squeeze(-1).contiguous(),
        *arguments,
        distance,
        chosen,
    )


def _expect_views(op: str, points: Tensor, samples: int, poses: int) -> None:
    if len(points) != samples * poses:
        raise ValueError(f"{op}: points must hold {samples} x {poses} poses, got {len(points)}")


_equivariance_distance = define(
    "rotation",
    "equivariance_distance(Tensor joints, Tensor points, Tensor depth, Tensor rotations, "
    "Tensor? elevation, Tensor? spread, int samples, int axes, float max_angle, "
    "float distance) -> Tensor",
    lambda joints, points, *_: points.new_empty(points.shape[0]),
)
_equivariance_distance_backward = define(
    "rotation",
    "equivariance_distance_backward(Tensor grad, Tensor joints, Tensor points, Tensor depth, "
    "Tensor rotations, Tensor? elevation, Tensor? spread, int samples, int axes, "
    "float max_angle, float distance) -> (Tensor, Tensor, Tensor, Tensor)",
    lambda grad, joints, points, depth, rotations, elevation, *_: (
        joints.new_empty(joints.shape),
        points.new_empty(points.shape),
        depth.new_empty(depth.shape),
        _elevation_gradient(elevation, joints),
    ),
)


def _equivariance_distance_vjp(saved, constants, grad):
    *grads, to_elevation = _equivariance_distance_backward(grad.contiguous(), *saved, *constants)
    return *grads, None, None if saved[4] is None else to_elevation, *(None,) * 5


differentiate(
    "equivariance_distance",
    lambda inputs, output: (list(inputs[:6]), inputs[6:]),
    _equivariance_distance_vjp,
)
