"""Articulated human motion: curves over time, a body, kinematics.

A motion is a set of smooth curves sampled at times `t` in seconds: the desired pelvis position, the
joint angles in degrees, and the ankle positions. `joint_positions` converts them to Human3.6M's 17
joints for a given `Body`. The upper body follows its joint angles. Two-bone inverse kinematics
places the legs, so a planted foot does not move.

Axes: x forward, y left, z up, metres, ground at z = 0. Vectors are rows, `X' = X @ R`. In pairs of
sides the left comes first. Curves are functions of time alone, so the motion is independent of the
frame rate.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

SIDE = np.array([1.0, -1.0])  # the sign of y: left, right
ARM_LIMITS = np.array([[-60, 180], [-40, 175], [-70, 110], [4, 150]])  # as Motion.arms, degrees
KNEE_LIMIT = 155.0  # degrees of flexion
REACH = 0.995  # longest distance from hip to ankle, of the leg's length: knees never lock
# Directions of the spine's four segments in a person standing upright: forward, left, up.
UPRIGHT = np.array([[-0.03, 0, 1], [0.06, 0, 1], [0.43, 0, 1], [-0.12, 0, 1]])
UPRIGHT /= np.linalg.norm(UPRIGHT, axis=1, keepdims=True)


def ease(x: ArrayLike) -> Array:
    """The minimum-jerk step, `10 x^3 - 15 x^4 + 6 x^5`, 0 before x = 0 and 1 after x = 1.

    The velocity profile of human point-to-point movement (Flash and Hogan 1985).
    """
    x = np.clip(x, 0, 1)
    return x * x * x * (10 + x * (6 * x - 15))


def bump(x: ArrayLike, peak: float = 0.5) -> Array:
    """A smooth hill over 0 < x < 1 with its top, 1, at `peak`."""
    x = np.clip(x, 0, 1)
    return ease(x / peak) * ease((1 - x) / (1 - peak))


def plateau(t: Array, start: float, stop: float, rise: float) -> Array:
    """A plateau: 0 before `start`, 1 from `start + rise` to `stop - rise`, 0 after `stop`."""
    return ease((t - start) / rise) - ease((t - stop + rise) / rise)


def follow(t: Array, starts: ArrayLike, durations: ArrayLike, keys: ArrayLike) -> Array:
    """Move from key to key by minimum-jerk steps.

    `keys[0] + sum_k (keys[k] - keys[k-1]) ease((t - starts[k]) / durations[k])`

    Args:
        t: (T,) times, seconds.
        starts: (K,) when each movement begins, seconds.
        durations: (K,) or scalar, seconds.
        keys: (K + 1, ...) the rest values.

    Returns:
        (T, ...) values.
    """
    keys = np.asarray(keys, float)
    step = ease((t[:, None] - np.asarray(starts)) / np.asarray(durations))  # [T, K]
    return keys[0] + np.tensordot(step, np.diff(keys, axis=0), 1)


def wander(t: Array, rng: np.random.Generator, amplitude: ArrayLike, period: float = 4.0) -> Array:
    """Drift smoothly and aimlessly: a sum of six sinusoids with random phases.

    Args:
        t: (T,) times, seconds.
        rng: source of periods and phases.
        amplitude: (...) standard deviation of each curve.
        period: typical period, seconds; periods range from a third to three times this value.

    Returns:
        (T, ...) values.
    """
    amplitude = np.asarray(amplitude, float)
    shape = (6, *amplitude.shape)
    rate = 3.0 ** rng.uniform(-1, 1, shape)  # cycles per period
    weight = 1 / rate
    weight *= np.sqrt(2 / (weight**2).sum(0)) * amplitude
    phase = rng.uniform(0, 2 * np.pi, shape)
    time = (2 * np.pi / period) * t.reshape(-1, *[1] * amplitude.ndim)
    return sum(w * np.sin(r * time + p) for w, r, p in zip(weight, rate, phase, strict=True))


def times(
    rng: np.random.Generator, end: float, hold: tuple[float, float], move: tuple[float, float]
) -> tuple[Array, Array]:
    """Draw when movements start and how long they take: rest, move, rest, ... until `end`.

    Args:
        rng: source of the draws.
        end: seconds to fill.
        hold: shortest and longest rest, seconds.
        move: shortest and longest movement, seconds.

    Returns:
        starts (K,), durations (K,), seconds.
    """
    count = int(end / (hold[0] + move[0])) + 1
    durations = rng.uniform(*move, count)
    rests = rng.uniform(*hold, count)
    starts = np.cumsum(rests) + np.cumsum(durations) - durations
    keep = starts < end
    return starts[keep], durations[keep]


@dataclass(frozen=True)
class Body:
    """Segment lengths of one person, metres; left and right are alike."""

    hip: float  # half the distance between the hip joints
    thigh: float
    shin: float
    ankle: float  # height of the ankle joint above the ground
    foot: float  # ankle to ball of the foot
    lumbar: float  # pelvis to spine
    thoracic: float  # spine to thorax
    neck: float  # thorax to neck/nose
    head: float  # neck/nose to head
    shoulder: float  # thorax to shoulder joint
    upper_arm: float
    forearm: float

    @property
    def leg(self) -> float:
        """Hip to ankle with a straight knee."""
        return self.thigh + self.shin

    @property
    def standing(self) -> float:
        """Height of the pelvis when standing upright."""
        return self.leg * REACH + self.ankle


def draw_body(rng: np.random.Generator) -> Body:
    """Draw an adult's proportions.

    Stature is normal, 1.71 +- 0.09 m. Segments are fractions of it, near those of Human3.6M's
    subjects. Common factors vary them: long legs go with long arms and a short trunk, broad hips
    with broad shoulders. Each segment also varies independently by 1.5%.
    """
    stature = 1.71 + 0.09 * np.clip(rng.standard_normal(), -2.2, 2.2)
    legs, breadth, own = rng.normal(0, 0.03), rng.normal(0, 0.05), rng.normal(0, 0.015, 12)
    arms = 0.6 * legs + rng.normal(0, 0.025)
    hips = rng.normal(0, 0.05)
    fraction = {
        "hip": 0.074 * (1 + breadth + hips),
        "thigh": 0.250 * (1 + legs),
        "shin": 0.250 * (1 + legs),
        "ankle": 0.046,
        "foot": 0.078,
        "lumbar": 0.136 * (1 - legs),
        "thoracic": 0.142 * (1 - legs),
        "neck": 0.070,
        "head": 0.066,
        "shoulder": 0.087 * (1 + breadth - hips),
        "upper_arm": 0.160 * (1 + arms),
        "forearm": 0.142 * (1 + arms),
    }
    return Body(
        **{name: stature * f * (1 + e) for (name, f), e in zip(fraction.items(), own, strict=True)}
    )


@dataclass
class Motion:
    """Curves that describe a motion, T samples each; angles in degrees.

    A (turn, bend, lean) triple turns to the left, bends forward and leans to the left, against the
    segment it grows from.
    """

    position: Array  # (T, 3) the pelvis, m; lowered where a leg would not reach its ankle
    pelvis: Array  # (T, 3) turn (heading in the world), bend, lean
    spine: Array  # (T, 3) turn, bend, lean of the thorax against the pelvis
    head: Array  # (T, 3) turn, bend, lean of the head against the thorax
    shrug: Array  # (T, 2) the shoulder raised
    arms: Array  # (T, 2, 4) shoulder flexion, abduction, internal rotation; elbow flexion
    ankles: Array  # (T, 2, 3) m
    toes: Array  # (T, 2) heading of the feet in the world
    splay: Array  # (T, 2) the knee swung outward about the line from hip to ankle


def frames(angles: Array) -> Array:
    """Axes of segments that turn left, bend forward and lean left.

    Args:
        angles: (..., 3) turn, bend, lean, degrees.

    Returns:
        (..., 3, 3); the rows are the segment's forward, left and up in its parent's axes.
    """
    turn, bend, lean = np.moveaxis(np.radians(angles), -1, 0)
    ct, st, cb, sb, cl, sl = (f(a) for a in (turn, bend, lean) for f in (np.cos, np.sin))
    rows = [
        [cb * ct, cb * st, -sb],
        [-sl * sb * ct - cl * st, cl * ct - sl * sb * st, -sl * cb],
        [cl * sb * ct - sl * st, cl * sb * st + sl * ct, cl * cb],
    ]
    return np.stack([np.stack(row, -1) for row in rows], -2)


def arm_directions(arms: Array) -> tuple[Array, Array]:
    """Directions of upper arm and forearm in the thorax's axes.

    With flexion f, abduction a, internal rotation r and elbow flexion e, for the left arm:
    `upper = (cos a sin f, sin a, -cos a cos f)`,
    `forearm = upper cos e + (n cos r - m sin r) sin e`. The vectors n and m are the thorax's
    forward and left axes, rotated with the shoulder.

    Args:
        arms: (T, 2, 4), degrees, as `Motion.arms`.

    Returns:
        Two (T, 2, 3) arrays of unit vectors.
    """
    f, a, r, e = np.moveaxis(np.radians(np.clip(arms, *ARM_LIMITS.T)), -1, 0)
    cf, sf, ca, sa = np.cos(f), np.sin(f), np.cos(a), np.sin(a)
    upper = np.stack([ca * sf, SIDE * sa, -ca * cf], -1)
    forward = np.stack([cf, 0 * f, sf], -1)
    outward = np.stack([-sa * sf, SIDE * ca, sa * cf], -1)
    hinge = forward * np.cos(r)[..., None] - outward * np.sin(r)[..., None]
    return upper, upper * np.cos(e)[..., None] + hinge * np.sin(e)[..., None]


def pelvis_height(body: Body, wanted: Array, hips: Array, ankles: Array) -> Array:
    """Lower the pelvis smoothly until both legs reach their ankles.

    Args:
        body: the person.
        wanted: (T,) height aimed at, metres.
        hips: (T, 2, 3) hip joints if the pelvis were at height 0.
        ankles: (T, 2, 3) the ankles.

    Returns:
        (T,) heights, not above `wanted`: a soft minimum of it and of what each leg allows.
    """
    softness = 0.016  # metres
    apart = np.square(ankles[..., :2] - hips[..., :2]).sum(-1)
    drop = np.sqrt(np.maximum((REACH * body.leg) ** 2 - apart, 0.01))
    bounds = np.column_stack([wanted, ankles[..., 2] + drop - hips[..., 2]])  # [T, 3]
    lowest = bounds.min(1)
    return lowest - softness * np.log(np.exp((lowest[:, None] - bounds) / softness).sum(1))


def bend_knees(
    body: Body, hips: Array, ankles: Array, toes: Array, splay: Array
) -> tuple[Array, Array]:
    """Place the knees by two-bone inverse kinematics.

    The knee's hinge lies across the foot. With l from hip to ankle and a to the foot's left, the
    knee moves along `l x a`, then rotates about l by the splay.

    Args:
        body: the person.
        hips: (T, 2, 3) hip joints.
        ankles: (T, 2, 3) the ankles aimed at.
        toes: (T, 2) heading of the feet, degrees.
        splay: (T, 2) outward swing of the knees, degrees.

    Returns:
        knees and ankles, both (T, 2, 3). An ankle moves if the knee cannot bend further.
    """
    shortest = np.sqrt(
        body.thigh**2 + body.shin**2 + 2 * body.thigh * body.shin * np.cos(np.radians(KNEE_LIMIT))
    )
    line = ankles - hips
    length = np.linalg.norm(line, axis=-1, keepdims=True)
    line = line / length
    length = np.clip(length, shortest, 0.999 * body.leg)
    h, s = np.radians(toes), np.radians(SIDE * splay)[..., None]
    ahead = np.cross(line, np.stack([-np.sin(h), np.cos(h), 0 * h], -1))
    ahead /= np.linalg.norm(ahead, axis=-1, keepdims=True)
    pole = ahead * np.cos(s) - np.cross(line, ahead) * np.sin(s)
    along = (body.thigh**2 - body.shin**2 + length**2) / (2 * length)
    aside = np.sqrt(body.thigh**2 - along**2)
    return hips + along * line + aside * pole, hips + length * line


def joint_positions(body: Body, motion: Motion) -> Array:
    """Human3.6M's 17 joints of a body in motion.

    Args:
        body: the person.
        motion: curves of T samples.

    Returns:
        (T, 17, 3) positions, metres, world frame.
    """
    pelvis = frames(motion.pelvis)
    lumbar = frames(0.45 * motion.spine) @ pelvis
    thorax = frames(0.55 * motion.spine) @ lumbar
    neck = frames(0.5 * motion.head) @ thorax
    head = frames(0.5 * motion.head) @ neck

    across = SIDE[:, None] * pelvis[:, None, 1]  # [T, 2, 3]
    root = motion.position.copy()
    root[:, 2] = 0
    hips = root[:, None] + body.hip * across
    root[:, 2] = pelvis_height(body, motion.position[:, 2], hips, motion.ankles)
    hips[..., 2] += root[:, None, 2]
    knees, ankles = bend_knees(body, hips, motion.ankles, motion.toes, motion.splay)

    spine = root + body.lumbar * UPRIGHT[0] @ lumbar
    chest = spine + body.thoracic * UPRIGHT[1] @ thorax
    nose = chest + body.neck * UPRIGHT[2] @ neck
    crown = nose + body.head * UPRIGHT[3] @ head
    lift = np.radians(motion.shrug - 12)
    socket = np.stack([0 * lift, SIDE * np.cos(lift), np.sin(lift)], -1)
    shoulders = chest[:, None] + body.shoulder * socket @ thorax
    upper, fore = arm_directions(motion.arms)
    elbows = shoulders + body.upper_arm * upper @ thorax
    wrists = elbows + body.forearm * fore @ thorax

    legs = np.stack([hips, knees, ankles], 2)  # [T, side, 3 joints, 3]
    arms = np.stack([shoulders, elbows, wrists], 2)
    trunk = np.stack([spine, chest, nose, crown], 1)
    joints = [root[:, None], legs[:, 1], legs[:, 0], trunk, arms[:, 0], arms[:, 1]]
    return np.concatenate(joints, 1)
