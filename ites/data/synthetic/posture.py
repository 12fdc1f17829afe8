"""What actions are made of: posture, gestures of the arms, steps, paths and gaits.

Axes, units and curves are those of `ites.data.synthetic.motion`; angles are degrees. `t` holds
times in seconds, the last of which is the motion's end.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.random import Generator

from ites.data.synthetic.motion import SIDE, Array, Body, Motion, bump, ease, follow, times, wander

Path = Callable[[Array], Array]  # times (N,) to (N, 3): x, y in metres, heading in degrees
Span = tuple[float, float]  # shortest, longest

ARMS = {
    name: np.array(angles, float)
    for name, angles in {
        "hang": (0, 7, 15, 18),
        "down": (5, 4, 20, 8),
        "front": (15, 12, 40, 75),
        "open": (15, 25, 5, 75),
        "talk": (30, 15, 35, 100),
        "wide": (25, 55, 0, 45),
        "point": (85, 5, 20, 10),
        "aside": (15, 85, 0, 15),
        "raised": (160, 12, 0, 20),
        "high": (120, 25, 10, 30),
        "reach": (105, 10, 10, 15),
        "low": (35, 15, 10, 20),
        "chin": (60, 5, 46, 134),
        "head": (136, 26, 44, 122),
        "phone": (78, 25, 28, 146),
        "hip": (-22, 34, 46, 86),
        "pocket": (-15, 14, 25, 45),
        "back": (-16, 12, 104, 72),
        "cross": (30, 2, 66, 84),
        "carry": (25, 6, 12, 80),
        "lap": (22, 8, 30, 58),
        "knee": (38, 8, 15, 32),
        "prop": (-35, 20, 0, 20),
        "guard": (40, 12, 25, 125),
    }.items()
}
"""Poses of one arm, degrees, in the order of `Motion.arms`."""


def gestures(
    t: Array,
    rng: Generator,
    poses: Sequence[str] | np.ndarray,
    hold: Span = (0.3, 2.0),
    move: Span = (0.5, 1.1),
    together: float = 0.4,
    spread: float = 9.0,
) -> Array:
    """Move both arms among named poses.

    Args:
        t: (T,) times, seconds.
        rng: source of the draws.
        poses: names in `ARMS`; repeat one to make it likelier.
        hold: shortest and longest rest, seconds.
        move: shortest and longest movement, seconds.
        together: the chance that the right arm does as the left.
        spread: standard deviation of each angle about the named pose, degrees.

    Returns:
        (T, 2, 4) curves for `Motion.arms`.
    """
    library = np.stack([ARMS[name] for name in poses])

    def draw() -> tuple[Array, Array, Array]:
        starts, durations = times(rng, t[-1] + 2, hold, move)
        return starts, durations, library[rng.integers(len(poses), size=len(starts) + 1)]

    left = draw()
    right = left if rng.random() < together else draw()
    arms = []
    for starts, durations, keys in (left, right):
        noise = spread * np.clip(rng.standard_normal(keys.shape), -2, 2)
        arms.append(follow(t, starts + rng.normal(0, 0.04), durations, keys + noise))
    return np.stack(arms, 1) + wander(t, rng, np.full((2, 4), 2.5), 2.5)


def across(heading: Array, forward: Array | float, left: Array | float) -> Array:
    """Steps of `forward` and `left` metres by someone facing `heading` degrees: (N, 2), x and y."""
    h = np.radians(heading)
    c, s = np.cos(h), np.sin(h)
    return np.stack([forward * c - left * s, forward * s + left * c], -1)


def footsteps(
    t: Array,
    body: Body,
    path: Path,
    starts: tuple[Array, Array],
    swing: float,
    stance: float,
    width: float = 0.11,
    toe_out: float = 9.0,
    clearance: float = 0.045,
    heel: float = 58.0,
) -> tuple[Array, Array]:
    """Let the feet step after a path.

    A foot rests where the body will be a little before the middle of its stance, and never slides.
    Before each step the heel rises, turning about the ball of the foot.

    Args:
        t: (T,) times, seconds.
        body: the person.
        path: where the body goes.
        starts: for the left and the right foot, (K,) when it leaves the ground, seconds.
        swing: time in the air, seconds.
        stance: time on the ground that the landing place is chosen for, seconds.
        width: half the distance between the feet, metres.
        toe_out: degrees.
        clearance: how high the foot is lifted, metres.
        heel: how far the heel turns up when the foot leaves, degrees.

    Returns:
        ankles (T, 2, 3), metres, and headings of the feet (T, 2), degrees.
    """
    ankles, toes = [], []
    for side, lifted in zip(SIDE, starts, strict=True):
        landed = np.append(lifted[:1] - stance if len(lifted) else 0.0, lifted + swing)
        keys = path(landed + 0.42 * stance)
        keys[:, :2] += across(keys[:, 2], 0, side * width)
        flat = follow(t, lifted, swing, keys)
        x = (t[:, None] - lifted) / swing  # 0 to 1 in the air
        pitch = np.radians(heel) * (ease((x + 0.7) / 0.85) - ease((x - 0.15) / 0.8)).sum(1)
        roll = body.foot * (1 - np.cos(pitch)) + body.ankle * np.sin(pitch)
        rise = body.foot * np.sin(pitch) + body.ankle * np.cos(pitch)
        heading = flat[:, 2] + side * toe_out
        place = flat[:, :2] + across(heading, roll, 0)
        ankles.append(np.column_stack([place, rise + clearance * bump(x, 0.4).sum(1)]))
        toes.append(heading)
    return np.stack(ankles, 1), np.stack(toes, 1)


def stand(t: Array, rng: Generator, body: Body, path: Path | None = None) -> Motion:
    """Stand, shifting weight from foot to foot.

    Args:
        t: (T,) times, seconds.
        rng: source of the draws.
        body: the person.
        path: where to turn and step to, such as `shuffle` draws; None keeps both feet in place.
    """
    path = path or shuffle(rng, t[-1], 0.0)
    motion = idle(t, rng, body)
    width, beat = rng.uniform(0.08, 0.15), rng.uniform(0.7, 0.85)
    lifts = np.arange(-1.0, t[-1] + 1, beat)
    change = np.abs(path(lifts + 1.2 * beat) - path(lifts)) / [0.03, 0.03, 8]
    lifts = lifts[change.max(1) > 1]  # no step without a reason
    look = {"width": width, "toe_out": rng.uniform(3, 16), "clearance": 0.02, "heel": 25}
    motion.ankles, motion.toes = footsteps(
        t, body, path, (lifts, lifts + beat / 2), 0.45 * beat, 0.55 * beat, **look
    )
    motion.ankles[..., 0] += SIDE * rng.normal(0, 0.04)
    starts, durations = times(rng, t[-1], (1.0, 4.5), (0.7, 1.5))
    weight = follow(t, starts, durations, rng.uniform(-1, 1, len(starts) + 1))  # 1: left foot
    at = path(t)
    motion.position[:, :2] += at[:, :2] + across(at[:, 2], 0, 0.55 * width * weight)
    motion.pelvis[:, 0] += at[:, 2]
    motion.pelvis[:, 2] -= 5 * weight
    motion.spine[:, 2] += 6 * weight
    return motion


def shuffle(rng: Generator, seconds: float, roam: float) -> Path:
    """Draw where someone turns and moves to while standing about.

    Args:
        rng: source of the draws.
        seconds: how long.
        roam: how far at a time; 1 turns by about 60 degrees and moves by about 0.15 m.
    """
    starts, durations = times(rng, seconds, (0.6, 3.5), (1.2, 2.4))
    steps = rng.normal(0, [0.12, 0.12, 60], (len(starts) + 1, 3))
    keys = roam * np.cumsum(steps, 0)
    keys[:, :2] = 0.5 * np.sin(keys[:, :2] / 0.5)  # never far from where they began

    def path(moments: Array) -> Array:
        return follow(moments, starts, durations, keys - keys[0])

    return path


def idle(t: Array, rng: Generator, body: Body) -> Motion:
    """Hold a personal upright posture, never quite still; the legs are left to the caller."""
    slouch = rng.normal(0, 1)
    position = np.zeros((len(t), 3)) + [0, 0, body.standing]
    position += wander(t, rng, [0.018, 0.018, 0.004], 4)
    starts, durations = times(rng, t[-1], (0.5, 3), (0.4, 1.0))
    look = follow(t, starts, durations, rng.normal(0, [28, 12, 8], (len(starts) + 1, 3)))
    return Motion(
        position=position,
        pelvis=wander(t, rng, [2.5, 1.5, 1.0], 5) + [0, 1 + 1.5 * slouch, 0],
        spine=wander(t, rng, [5, 4, 2.5], 5) + [0, 2 + 4 * slouch, rng.normal(0, 1.5)],
        head=wander(t, rng, [3, 3, 2], 3) + look + [0, 2 - 4 * slouch, 0],
        shrug=wander(t, rng, [2.0, 2.0], 4) + rng.normal(0, 3),
        arms=gestures(t, rng, ("hang",), spread=5),
        ankles=np.zeros((len(t), 2, 3)),
        toes=np.zeros((len(t), 2)),
        splay=np.zeros((len(t), 2)),
    )


def loop(rng: Generator, speed: float, size: float, eights: float = 0.35) -> Path:
    """Draw a closed path about the origin, an oval or a figure of eight, slower in its bends.

    Speed falls with curvature k as (1 + k)^(-1/2), near the power law of human movement.

    Args:
        rng: source of the draws.
        speed: mean speed, metres per second.
        size: the longer half-axis, metres.
        eights: the chance of a figure of eight.
    """
    u = np.linspace(0, 2 * np.pi, 721)
    wide = size * rng.uniform(0.78, 1.0)
    eight = rng.random() < eights
    x, y = size * np.cos(u), wide * (0.5 * np.sin(2 * u) if eight else np.sin(u))
    direction = np.unwrap(np.arctan2(np.gradient(y, edge_order=2), np.gradient(x, edge_order=2)))
    length = np.hypot(np.diff(x), np.diff(y))
    slowness = np.sqrt(1 + np.abs(np.diff(direction)) / length)
    clock = np.concatenate([[0], np.cumsum(length * slowness)])
    clock *= length.sum() / speed / clock[-1]
    heading = np.degrees(direction)
    lap, lap_turn = clock[-1], heading[-1] - heading[0]
    mirror, begin = rng.choice([-1, 1]), rng.uniform(0, lap)
    surge, rate, phase = rng.uniform(0.0, 0.2), rng.uniform(0.6, 1.5), rng.uniform(0, 2 * np.pi)

    def path(moments: Array) -> Array:
        surged = moments + surge / rate * np.sin(rate * moments + phase)
        laps, along = np.divmod(begin + surged, lap)
        place = [np.interp(along, clock, x), np.interp(along, clock, y)]
        turned = np.interp(along, clock, heading) + laps * lap_turn
        return np.stack([*place, turned], 1) * [1, mirror, mirror]

    return path


def gait(
    t: Array,
    rng: Generator,
    body: Body,
    path: Path,
    cycle: float,
    duty: float,
    swing_arms: float,
    **steps: float,
) -> Motion:
    """Walk or run after a path.

    With the gait's phase q, a whole number in the left foot's mid-stance, pelvis and shoulders turn
    against each other as sin 2 pi q, the pelvis sways as cos 2 pi q, each arm swings with the other
    leg.

    Args:
        t: (T,) times, seconds.
        rng: source of the draws.
        body: the person.
        path: where to go.
        cycle: two steps, seconds.
        duty: the fraction of the cycle a foot is on the ground.
        swing_arms: amplitude, degrees.
        steps: more for `footsteps`.
    """
    begin = rng.uniform(0, cycle)
    lifts = begin + cycle * (np.arange(-3, t[-1] / cycle + 2) + duty / 2)
    motion = idle(t, rng, body)
    motion.ankles, motion.toes = footsteps(
        t, body, path, (lifts, lifts + cycle / 2), cycle * (1 - duty), cycle * duty, **steps
    )
    at, q = path(t), 2 * np.pi * (t - begin) / cycle
    sway = rng.uniform(0.012, 0.03) * np.cos(q)
    motion.position[:, :2] += at[:, :2] + across(at[:, 2], 0, sway)
    motion.position[:, 2] -= rng.uniform(0.01, 0.035)
    twist, drop = rng.uniform(3, 8) * np.sin(q), rng.uniform(2, 5) * np.cos(q)
    motion.pelvis += np.stack([at[:, 2] + twist, 0 * q, -drop], 1)
    motion.spine += np.stack([-rng.uniform(1.8, 2.4) * twist, 0 * q, drop], 1)
    back_and_forth = SIDE * np.sin(q - 0.2)[:, None]  # [T, 2]
    motion.arms[..., 0] += swing_arms * (back_and_forth - 0.2)
    motion.arms[..., 3] += 0.55 * swing_arms * (back_and_forth + 1)
    return motion


def step_time(body: Body, speed: float) -> float:
    """Duration of a step, s, at a speed in m/s; people keep step length over cadence constant."""
    length = np.sqrt(0.39 * speed) * body.leg / 0.86
    return float(length / speed)
