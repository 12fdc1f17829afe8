"""Variety: single postures that motion capture lacks, other bodies, and detectors' joints.

All functions work on poses (N, 17, 3) of Human3.6M's joints, metres, z up. They draw from a
generator, so equal seeds give equal bits.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.random import Generator

from ites.data.synthetic.motion import SIDE, Array, Body, Motion, draw_body, joint_positions
from ites.data.synthetic.posture import ARMS
from ites.pose.skeleton import HUMAN36M

PER_BODY = 64
"""Postures per drawn body."""
POSTURES = {
    "stand": 0.2,
    "crouch": 0.2,
    "balance": 0.14,
    "lunge": 0.15,
    "floor": 0.1,
    "chair": 0.07,
    "kneel": 0.05,
    "lie": 0.06,
    "invert": 0.03,
}
"""Kinds of posture and their shares."""
CHILDREN = 0.2
"""Share of people with a child's proportions, to some degree."""
BUILD = (0.06, 0.06, 0.09, 0.1)
"""Standard deviation of the logarithm of the length of legs and arms, of breadth, and of hips."""
OWN = 0.03
"""The same of each bone by itself."""
_PARENTS = np.array(HUMAN36M.parents)
_MASSES = (
    [0, 1, 4, 2, 5, 3, 6, 7, 8, 10, 12, 15, 13, 16],
    [0.12, 0.05, 0.05, 0.1, 0.1, 0.05, 0.05, 0.16, 0.14, 0.08, 0.03, 0.03, 0.02, 0.02],
)
"""Joints and shares of the body's mass near them, about as anthropometry has them."""
_ARMS = ((14, 15, 16), (11, 12, 13))  # shoulder, elbow, wrist


def draw_postures(rng: Generator, count: int) -> Array:
    """Draw unrelated postures of many bodies: (count, 17, 3), metres, facing +x."""
    poses = [posture(rng, draw_body(rng), PER_BODY) for _ in range(-(-count // PER_BODY))]
    return np.concatenate(poses)[:count]


def posture(rng: Generator, body: Body, count: int) -> Array:
    """Draw unrelated postures of one body.

    Each joint angle is drawn by itself, within human limits. The arms hang, stretch out, mirror
    each other, or point anywhere.

    Args:
        rng: source of the draws.
        body: the person.
        count: T, number of postures.

    Returns:
        (T, 17, 3), metres.
    """
    kind = rng.choice(list(POSTURES), count, p=list(POSTURES.values()))
    of = {name: kind == name for name in POSTURES}
    lower = _standing(rng, body, count)
    _crouch(rng, body, lower, np.flatnonzero(of["crouch"]))
    lifted = rng.integers(0, 2, count)  # the leg of those who balance
    _balance(rng, body, lower, np.flatnonzero(of["balance"]), lifted)
    _lunge(rng, body, lower, np.flatnonzero(of["lunge"]))
    _sit_on_the_floor(rng, body, lower, np.flatnonzero(of["floor"]))
    _sit_on_a_chair(rng, body, lower, np.flatnonzero(of["chair"]))
    _kneel(rng, body, lower, np.flatnonzero(of["kneel"]), lifted)
    motion = Motion(
        position=np.column_stack([np.zeros((count, 2)), lower.height]),
        pelvis=lower.pelvis,
        spine=lower.spine,
        head=draw_heads(rng, count),
        shrug=rng.normal(0, 6, (count, 2)),
        arms=draw_arms(rng, count),
        ankles=lower.ankles,
        toes=SIDE * rng.normal(10, 14, (count, 2)),
        splay=lower.splay,
    )
    poses = joint_positions(body, motion)
    poses = balanced(rng, poses - poses[:, :1], on_feet=of["stand"] | of["balance"] | of["lunge"])
    lying = of["lie"]
    tilt = np.where(lying, rng.choice([-90, 90], count) + rng.normal(0, 10, count), 0)
    about = np.where(lying, rng.uniform(-180, 180, count), 0)  # on the back, a side, the front
    tilt = np.where(of["invert"], rng.uniform(-180, 180, count), tilt)
    return turned(turned(poses, about, 2), tilt, 1)


@dataclass
class _Lower:
    """Trunk and legs of T postures; the kinds of posture change their rows of it.

    Args:
        height: (T,) of the pelvis, metres.
        pelvis, spine: (T, 3) angles, degrees.
        ankles: (T, 2, 3), metres: left and right.
        splay: (T, 2) the knees swung outward, degrees.
    """

    height: Array
    pelvis: Array
    spine: Array
    ankles: Array
    splay: Array


def _standing(rng: Generator, body: Body, count: int) -> _Lower:
    """Draw people who stand, with which every kind of posture begins."""
    lively = rng.uniform(0.2, 1, (count, 1))
    pelvis = lively * rng.normal(0, [0, 12, 7], (count, 3))
    spine = lively * rng.normal(0, [22, 20, 14], (count, 3)) + [0, 5, 0]
    width = rng.uniform(0.02, 0.2, (count, 2))
    ankles = np.zeros((count, 2, 3))
    ankles[..., 0] = rng.normal(0, 0.08, (count, 2))
    ankles[..., 1] = SIDE * width
    ankles[..., 2] = body.ankle
    height = body.standing * rng.uniform(0.93, 1.0, count)
    return _Lower(height, pelvis, spine, ankles, rng.normal(4, 8, (count, 2)))


def _crouch(rng: Generator, body: Body, lower: _Lower, rows: np.ndarray) -> None:
    bent = rng.uniform(0, 1, len(rows))
    lower.height[rows] = body.standing * (1 - 0.3 * bent)
    lower.ankles[rows, :, 0] = body.leg * (0.25 * bent * rng.uniform(0, 1, len(rows)))[:, None]
    lower.ankles[rows, :, 0] += rng.normal(0, 0.06, (len(rows), 2))
    lower.ankles[rows, :, 1] = SIDE * rng.uniform(0.03, 0.35, (len(rows), 2))
    lower.pelvis[rows, 1] += bent * rng.uniform(-15, 50, len(rows))
    lower.splay[rows] += rng.uniform(-8, 25, (len(rows), 2))


def _balance(
    rng: Generator, body: Body, lower: _Lower, rows: np.ndarray, lifted: np.ndarray
) -> None:
    """On one leg; `lifted` (T,) is the other, 0 or 1."""
    leg = lifted[rows]
    lower.ankles[rows, 1 - leg, 1] *= 0.3
    ankle = rng.uniform([-0.75, -0.15, 0.1], [0.75, 0.7, 1.0], (len(rows), 3)) * body.leg
    ankle[:, 1] *= SIDE[leg]
    lower.ankles[rows, leg] = ankle
    lower.splay[rows, leg] += rng.uniform(0, 60, len(rows))
    lower.pelvis[rows, 1] += rng.normal(0, 18, len(rows)) * (rng.random(len(rows)) < 0.4)


def _lunge(rng: Generator, body: Body, lower: _Lower, rows: np.ndarray) -> None:
    lower.height[rows] = body.leg * rng.uniform(0.35, 0.98, len(rows))
    lower.ankles[rows, :, 0] = rng.normal(0, 0.32 * body.leg, (len(rows), 2))
    lower.ankles[rows, :, 1] = SIDE * np.abs(rng.normal(0.12, 0.2 * body.leg, (len(rows), 2)))
    lower.pelvis[rows, 1] += rng.uniform(-5, 60, len(rows)) * (rng.random(len(rows)) < 0.6)
    lower.splay[rows] += rng.uniform(-5, 35, (len(rows), 2))


def _sit_on_the_floor(rng: Generator, body: Body, lower: _Lower, rows: np.ndarray) -> None:
    lower.height[rows] = rng.uniform(0.08, 0.2, len(rows))
    lower.ankles[rows, :, 0] = body.leg * rng.uniform(0.25, 0.97, (len(rows), 2))
    lower.ankles[rows, :, 1] = SIDE * body.leg * rng.uniform(-0.2, 0.6, (len(rows), 2))
    lower.ankles[rows, :, 2] = rng.uniform(0.04, 0.12, (len(rows), 2))
    lower.pelvis[rows, 1] += rng.uniform(-35, 25, len(rows))
    lower.splay[rows] += rng.uniform(-10, 75, (len(rows), 2))


def _sit_on_a_chair(rng: Generator, body: Body, lower: _Lower, rows: np.ndarray) -> None:
    lower.height[rows] = rng.uniform(0.38, 0.65, len(rows))
    lower.ankles[rows, :, 0] = body.leg * rng.uniform(0.15, 0.8, (len(rows), 2))
    lower.ankles[rows, :, 1] = SIDE * rng.uniform(-0.1, 0.3, (len(rows), 2))
    lower.ankles[rows, :, 2] = rng.uniform(0.06, 0.2, (len(rows), 2))
    lower.pelvis[rows, 1] += rng.uniform(-20, 30, len(rows))
    lower.splay[rows] += rng.uniform(-5, 35, (len(rows), 2))


def _kneel(rng: Generator, body: Body, lower: _Lower, rows: np.ndarray, ahead: np.ndarray) -> None:
    """On both knees, or on one; the foot `ahead` (T,), 0 or 1, is then in front."""
    lower.height[rows] = body.thigh * rng.uniform(0.45, 1.05, len(rows))
    lower.ankles[rows, :, 0] = -body.leg * rng.uniform(0.2, 0.5, (len(rows), 2))
    lower.ankles[rows, :, 2] = rng.uniform(0.04, 0.15, (len(rows), 2))
    one = rows[rng.random(len(rows)) < 0.4]
    lower.ankles[one, ahead[one], 0] = body.leg * rng.uniform(0.15, 0.5, len(one))


def balanced(rng: Generator, poses: Array, on_feet: np.ndarray) -> Array:
    """Tilt the poses (N, 17, 3) that stand `on_feet` (N,) until their feet bear them.

    The centre of mass comes above a point between the feet, or above the lower foot if the other is
    well above it, up to a few degrees: people move.
    """
    centre = poses[:, _MASSES[0]].transpose(0, 2, 1) @ np.array(_MASSES[1])
    feet = poses[:, [3, 6]]
    lower = feet[..., 2].argmin(1)
    between = np.clip(rng.normal(0.5, 0.2, len(poses)), 0, 1)
    one = np.abs(feet[:, 0, 2] - feet[:, 1, 2]) > 0.08
    share = np.where(one, lower, between)[:, None]
    support = (1 - share) * feet[:, 0] + share * feet[:, 1]
    support[:, 0] += 0.05  # the middle of the foot lies before the ankle
    line = centre - support
    for axis, ahead, sign in ((1, 0, -1), (0, 1, 1)):
        tilt = np.degrees(np.arctan2(line[:, ahead], line[:, 2]))
        tilt = np.where(on_feet, tilt + rng.normal(0, 3, len(poses)), 0)
        poses, line = (
            turned(poses, sign * tilt, axis),
            turned(line[:, None], sign * tilt, axis)[:, 0],
        )
    return poses


def draw_arms(rng: Generator, count: int) -> Array:
    """Draw (count, 2, 4) angles of both arms for `Motion.arms`, degrees."""
    named = np.stack(list(ARMS.values()))
    known = named[rng.integers(len(named), size=(count, 2))] + rng.normal(0, 14, (count, 2, 4))
    anyhow = rng.uniform([-50, -20, -60, 4], [175, 150, 100, 130], (count, 2, 4))
    straight = rng.random((count, 2)) < 0.5
    anyhow[..., 3] = np.where(straight, rng.uniform(4, 35, (count, 2)), anyhow[..., 3])
    out = rng.normal([10, 75, 0, 15], [22, 25, 30, 15], (count, 2, 4))
    which = rng.choice(3, (count, 1, 1), p=[0.35, 0.35, 0.3])
    arms = np.where(which == 0, known, np.where(which == 1, anyhow, out))
    alike = rng.random(count) < 0.35
    arms[alike, 1] = arms[alike, 0] + rng.normal(0, 8, (int(alike.sum()), 4))
    return arms


def draw_heads(rng: Generator, count: int) -> Array:
    """Draw (count, 3) angles of the head for `Motion.head`, degrees.

    Two in five look down: at their feet, hands or a phone.
    """
    head = rng.normal(0, [32, 20, 12], (count, 3))
    down = rng.random(count) < 0.4
    head[:, 1] = np.where(down, rng.uniform(5, 65, count), head[:, 1])
    return head


def turned(poses: Array, degrees: Array, axis: int) -> Array:
    """Turn poses (N, J, 3) about a world axis by angles (N,), degrees."""
    angle = np.radians(degrees).astype(poses.dtype)
    c, s = np.cos(angle)[:, None], np.sin(angle)[:, None]
    first, second = (axis + 1) % 3, (axis + 2) % 3
    found = poses.copy()
    found[..., first] = c * poses[..., first] - s * poses[..., second]
    found[..., second] = s * poses[..., first] + c * poses[..., second]
    return found


def other_arms(poses: Array, donors: Array) -> Array:
    """Poses (N, 17, 3) with the directions of the donors' arms, relative to the chest."""
    found = poses.copy()
    for chain in _ARMS:
        _with_chain(found, poses, donors, chain)
    return found


def other_heads(poses: Array, donors: Array) -> Array:
    """Poses (N, 17, 3) with the directions of the donors' necks and heads, relative to the
    chest."""
    return _with_chain(poses.copy(), poses, donors, (8, 9, 10))


def _with_chain(found: Array, poses: Array, donors: Array, chain: tuple[int, ...]) -> Array:
    """Change the directions of a chain of bones in `found` to the donors', from the first joint."""
    mine, theirs = _chest(poses), _chest(donors)
    place = found[:, chain[0]]
    for parent, joint in pairwise(chain):
        bone = donors[:, joint] - donors[:, parent]
        length = np.linalg.norm(poses[:, joint] - poses[:, parent], axis=-1)
        length = length / np.maximum(np.linalg.norm(bone, axis=-1), 1e-6)
        local = np.einsum("nij,nj->ni", theirs, bone) * length[:, None]
        place = place + np.einsum("nij,ni->nj", mine, local)
        found[:, joint] = place
    return found


def _chest(poses: Array) -> Array:
    """Axes of the chest (N, 3, 3), one per row: left, up, forward."""
    left = poses[:, 11] - poses[:, 14]
    left = left / np.maximum(np.linalg.norm(left, axis=-1, keepdims=True), 1e-6)
    up = poses[:, 8] - poses[:, 7]
    up = up - (up * left).sum(-1, keepdims=True) * left
    up = up / np.maximum(np.linalg.norm(up, axis=-1, keepdims=True), 1e-6)
    return np.stack([left, up, np.cross(left, up)], 1)


def other_bodies(rng: Generator, poses: Array) -> Array:
    """Scale the bones of poses (N, 17, 3): children to tall adults, root-relative."""
    count = len(poses)
    child = np.where(rng.random(count) < CHILDREN, rng.uniform(0.3, 1, count), 0)
    legs, arms, breadth, hips = rng.normal(0, BUILD, (count, 4)).T
    own = rng.normal(0, OWN, (count, 17))
    factor = np.ones((count, 17))
    for joints, log in (
        ((1, 4), breadth + hips),
        ((2, 3, 5, 6), legs - 0.16 * child),
        ((7, 8), -0.5 * legs),
        ((9, 10), 0.35 * child),
        ((11, 14), breadth - hips),
        ((12, 13, 15, 16), arms - 0.1 * child),
    ):
        factor[:, joints] = np.exp(log)[:, None]
    mirror = np.array(HUMAN36M.mirror)
    factor *= np.exp((own + own[:, mirror]) / 2)
    stature = np.exp(rng.normal(0, 0.06, count)) * (1 - 0.35 * child)
    bones = (poses - poses[:, _PARENTS]) * (factor * stature[:, None])[..., None]
    return grown(bones)


def grown(bones: Array) -> Array:
    """Poses (N, 17, 3), root-relative, of bone vectors (N, 17, 3) from each joint's parent."""
    poses = np.zeros_like(bones)
    for joint, parent in enumerate(_PARENTS):
        if parent >= 0:
            poses[:, joint] = poses[:, parent] + bones[:, joint]
    return poses


def as_detected(rng: Generator, poses: Array) -> Array:
    """Poses (N, 17, 3) with joints where detectors of COCO's keypoints place them.

    The hips lie wider or narrower and higher than the hip joints, and the pelvis between them. The
    thorax is the middle of the shoulders, the spine the middle of thorax and pelvis. The neck is
    halfway from the shoulders' middle to the nose, which lies ahead in the head's direction.
    """
    poses = poses.copy()
    count = len(poses)
    up = poses[:, 8] - poses[:, 0]
    up = up / np.maximum(np.linalg.norm(up, axis=-1, keepdims=True), 1e-6)
    size = np.linalg.norm(poses[:, 8] - poses[:, 0], axis=-1)
    rise, wide = rng.uniform(-0.12, 0.06, count) * size, rng.uniform(0.75, 1.3, count)
    for hip in (1, 4):
        poses[:, hip] = wide[:, None] * poses[:, hip] + rise[:, None] * up
    lift, narrow = rng.uniform(-0.05, 0.11, count) * size, rng.uniform(0.85, 1.15, count)
    middle = (poses[:, 11] + poses[:, 14]) / 2
    for arm in _ARMS:
        move = (narrow[:, None] - 1) * (poses[:, arm[0]] - middle) + lift[:, None] * up
        poses[:, arm[0]] += move
    poses[:, 0] = (poses[:, 1] + poses[:, 4]) / 2
    poses[:, 8] = (poses[:, 11] + poses[:, 14]) / 2
    poses[:, 7] = (poses[:, 0] + poses[:, 8]) / 2
    crown = poses[:, 10] - poses[:, 9]
    crown = crown / np.maximum(np.linalg.norm(crown, axis=-1, keepdims=True), 1e-6)
    ahead = _chest(poses)[:, 2]  # of the chest; then of the head, at right angles to its axis
    ahead = ahead - (ahead * crown).sum(-1, keepdims=True) * crown
    ahead = ahead / np.maximum(np.linalg.norm(ahead, axis=-1, keepdims=True), 1e-6)
    nose = poses[:, 9] + ahead * (rng.uniform(0.0, 0.3, count) * size)[:, None]
    longer = rng.uniform(0.9, 1.35, count)[:, None]
    poses[:, 10] = poses[:, 9] + longer * (poses[:, 10] - poses[:, 9])
    poses[:, 9] = (poses[:, 8] + nose) / 2
    return poses - poses[:, :1]
