"""Joint rotations of poses, for formats that hold rotations instead of positions.

The rest pose is a T-pose if all joints have known human names, else the clip's first complete
frame. Its bones have their median lengths over the clip, and all its rotations are the identity.

Joint rotations are computed from the root down:

- several children: the rotation that best aligns their rest directions with the present ones
  (Kabsch);
- one child: the parent's rotation, then the smallest rotation that takes the bone to its direction.
  A bone then never twists about itself relative to its parent;
- no child: the parent's rotation.

Vectors are columns here, as in these formats: `x = R @ rest`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ites.export.frames import Y_UP, Frame
from ites.pose.skeleton import Skeleton

Array = NDArray[np.float64]

# The direction of the bone that ends at a joint, in a T-pose: x is the person's left, y up.
_T_POSE = {
    "hip": (1, 0, 0),
    "knee": (0, -1, 0),
    "ankle": (0, -1, 0),
    "spine": (0, 1, 0),
    "thorax": (0, 1, 0),
    "neck": (0, 1, 0),
    "nose": (0, 1, 0),
    "head": (0, 1, 0),
    "shoulder": (1, 0, 0),
    "elbow": (1, 0, 0),
    "wrist": (1, 0, 0),
}


@dataclass(frozen=True)
class Rotations:
    """Poses of T frames as rotations of J joints.

    Attributes:
        rest: (J, 3) offsets of the rest pose from each joint's parent; zero for the root.
        local: (T, J, 3, 3) each joint's rotation relative to its parent's.
        offsets: (T, J, 3) each joint's position in its parent's axes; the root's position.
    """

    rest: Array
    local: Array
    offsets: Array


def find_rotations(positions: Array, skeleton: Skeleton, frame: Frame) -> Rotations:
    """Joint rotations of a clip's poses.

    Forward kinematics with `rotations.offsets` instead of the rest offsets reproduces the positions
    exactly. With the rest offsets alone it gives the poses of a body with constant bones.

    Args:
        positions: (T, J, 3), finite.
        skeleton: its parents define the hierarchy.
        frame: axes of the positions. The T-pose faces the camera in them.
    """
    rest = _rest_offsets(positions, skeleton, frame)
    frames, joints = positions.shape[:2]
    world = np.broadcast_to(np.eye(3), (frames, joints, 3, 3)).copy()
    children: dict[int, list[int]] = {joint: [] for joint in range(joints)}
    for parent, joint in skeleton.bones:
        children[parent].append(joint)
    for joint in _top_down(skeleton):
        parent, below = skeleton.parents[joint], children[joint]
        above = world[:, parent] if parent >= 0 else np.eye(3)
        if not below:
            world[:, joint] = above
            continue
        now = _unit(positions[:, below] - positions[:, joint, None])  # [T, C, 3]
        then = _unit(rest[below])  # [C, 3]
        if len(below) > 1 and np.linalg.matrix_rank(then, tol=1e-3) > 1:
            world[:, joint] = _kabsch(then, now)
        else:
            turned = np.einsum("...ij,j->...i", above, then[0])
            world[:, joint] = _shortest_turn(np.broadcast_to(turned, now[:, 0].shape), now[:, 0])
            world[:, joint] = world[:, joint] @ above
    local, offsets = world.copy(), positions.copy()
    for parent, joint in skeleton.bones:
        inverse = world[:, parent].swapaxes(-1, -2)
        local[:, joint] = inverse @ world[:, joint]
        step = positions[:, joint] - positions[:, parent]
        offsets[:, joint] = np.einsum("tij,tj->ti", inverse, step)
    return Rotations(rest, local, offsets)


def extend(
    positions: Array, skeleton: Skeleton, frame: Frame, lengths: Mapping[int, float]
) -> Array:
    """Positions (T, J, 3) in which some joints stand as in the T-pose, turned with their parents.

    Args:
        positions: finite; those of the joints to place do not count.
        skeleton: has the names that a T-pose needs.
        frame: axes of the positions.
        lengths: of the bone that ends at each joint to place, a parent before its child.
    """
    directions = t_pose(skeleton, frame)
    if directions is None or not lengths:
        return positions
    placed, found = positions.copy(), find_rotations(positions, skeleton, frame)
    world = found.local.copy()
    for joint in _top_down(skeleton):
        if skeleton.parents[joint] >= 0:
            world[:, joint] = world[:, skeleton.parents[joint]] @ found.local[:, joint]
    for joint, length in lengths.items():
        parent = skeleton.parents[joint]
        placed[:, joint] = placed[:, parent] + length * world[:, parent] @ directions[joint]
    return placed


def forward_kinematics(local: Array, offsets: Array, skeleton: Skeleton) -> Array:
    """Positions (T, J, 3) of local rotations (T, J, 3, 3) and offsets (T, J, 3)."""
    world, positions = local.copy(), offsets.copy()
    for joint in _top_down(skeleton):
        parent = skeleton.parents[joint]
        if parent >= 0:
            world[:, joint] = world[:, parent] @ local[:, joint]
            step = np.einsum("tij,tj->ti", world[:, parent], offsets[:, joint])
            positions[:, joint] = positions[:, parent] + step
    return positions


def euler_zxy(rotation: Array) -> Array:
    """Angles (T, ..., 3) in degrees about z, x and y with `R = Rz @ Rx @ Ry`, continuous in time.

    Args:
        rotation: (T, ..., 3, 3).
    """
    m = rotation
    x = np.arcsin(np.clip(m[..., 2, 1], -1, 1))
    locked = np.abs(m[..., 2, 1]) > 1 - 1e-9  # gimbal lock, z and y share one axis: y is set to 0
    y = np.where(locked, 0.0, np.arctan2(-m[..., 2, 0], m[..., 2, 2]))
    z = np.where(
        locked, np.arctan2(m[..., 1, 0], m[..., 0, 0]), np.arctan2(-m[..., 0, 1], m[..., 1, 1])
    )
    return np.degrees(np.unwrap(np.stack([z, x, y], axis=-1), axis=0))


def quaternions(rotation: Array) -> Array:
    """Unit quaternions (T, J, 4) in the order x, y, z, w, with consistent signs over time.

    Args:
        rotation: (T, J, 3, 3).
    """
    m = rotation
    trace = m[..., 0, 0] + m[..., 1, 1] + m[..., 2, 2]
    # Four forms of the quaternion, each scaled by one of its components; the largest is stable.
    ways = np.stack(
        [
            np.stack(
                [
                    1 + 2 * m[..., 0, 0] - trace,
                    m[..., 0, 1] + m[..., 1, 0],
                    m[..., 0, 2] + m[..., 2, 0],
                    m[..., 2, 1] - m[..., 1, 2],
                ],
                axis=-1,
            ),
            np.stack(
                [
                    m[..., 0, 1] + m[..., 1, 0],
                    1 + 2 * m[..., 1, 1] - trace,
                    m[..., 1, 2] + m[..., 2, 1],
                    m[..., 0, 2] - m[..., 2, 0],
                ],
                axis=-1,
            ),
            np.stack(
                [
                    m[..., 0, 2] + m[..., 2, 0],
                    m[..., 1, 2] + m[..., 2, 1],
                    1 + 2 * m[..., 2, 2] - trace,
                    m[..., 1, 0] - m[..., 0, 1],
                ],
                axis=-1,
            ),
            np.stack(
                [
                    m[..., 2, 1] - m[..., 1, 2],
                    m[..., 0, 2] - m[..., 2, 0],
                    m[..., 1, 0] - m[..., 0, 1],
                    1 + trace,
                ],
                axis=-1,
            ),
        ],
        axis=-2,
    )  # [T, J, 4, 4]
    best = np.argmax(np.einsum("...ii->...i", ways), axis=-1)
    found = np.take_along_axis(ways, best[..., None, None], axis=-2)[..., 0, :]
    found = found / np.linalg.norm(found, axis=-1, keepdims=True)
    turns = np.sign(np.sum(found[1:] * found[:-1], axis=-1, keepdims=True))
    turns[turns == 0] = 1
    found[1:] *= np.cumprod(turns, axis=0)
    return found


def _top_down(skeleton: Skeleton) -> list[int]:
    """All joints, each after its parent."""
    order = [skeleton.root]
    for joint in order:
        order += [j for p, j in skeleton.bones if p == joint]
    return order


def _rest_offsets(positions: Array, skeleton: Skeleton, frame: Frame) -> Array:
    parents, joints = np.array(skeleton.bones).T
    steps = positions[:, joints] - positions[:, parents]
    lengths = np.median(np.linalg.norm(steps, axis=-1), axis=0)
    directions = t_pose(skeleton, frame)
    if directions is None:
        directions = np.zeros((skeleton.num_joints, 3))
        directions[joints] = _unit(steps[0])
    rest = np.zeros((skeleton.num_joints, 3))
    rest[joints] = directions[joints] * lengths[:, None]
    return rest


def t_pose(skeleton: Skeleton, frame: Frame) -> Array | None:
    """Unit directions (J, 3) of the bones that end at the joints; None for unknown names."""
    directions = np.zeros((skeleton.num_joints, 3))
    for _, joint in skeleton.bones:
        name = skeleton.joints[joint].removeprefix("left_").removeprefix("right_")
        if name not in _T_POSE:
            return None
        directions[joint] = _T_POSE[name]
        if joint in skeleton.right:
            directions[joint, 0] *= -1
    # From y up through camera axes to the frame's.
    return directions @ np.array(Y_UP.matrix) @ np.array(frame.matrix).T


def _unit(vectors: Array) -> Array:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)


def _kabsch(then: Array, now: Array) -> Array:
    """The rotations (T, 3, 3) that best align vectors (C, 3) with vectors (T, C, 3)."""
    u, _, vt = np.linalg.svd(np.einsum("tci,cj->tij", now, then))
    sign = np.ones((len(now), 3))
    sign[:, 2] = np.sign(np.linalg.det(u) * np.linalg.det(vt))
    return (u * sign[:, None, :]) @ vt


def _shortest_turn(start: Array, end: Array) -> Array:
    """The smallest rotations (T, 3, 3) that take unit vectors to other unit vectors (T, 3)."""
    axis = np.cross(start, end)
    cosine = np.sum(start * end, axis=-1)
    # Opposite vectors: half a turn about any perpendicular axis.
    across = np.cross(start, np.eye(3)[np.argmin(np.abs(start), axis=-1)])
    opposite = cosine < -1 + 1e-9
    half = 2 * np.einsum("ti,tj->tij", _unit(across), _unit(across)) - np.eye(3)
    zero = np.zeros(len(axis))
    x, y, z = axis.T
    cross = np.array([[zero, -z, y], [z, zero, -x], [-y, x, zero]]).transpose(2, 0, 1)
    scale = 1 / np.where(opposite, 1.0, 1 + cosine)
    turn = np.eye(3) + cross + cross @ cross * scale[:, None, None]
    return np.where(opposite[:, None, None], half, turn)
