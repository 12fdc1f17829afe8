"""What the synthetic people do: each action draws one person's motion.

An action is a function `(t, rng, body) -> Motion` of times (T,) in seconds, the last of which is the
end, a random generator and a body. Axes, units and curves are those of `ites.data.motion`, angles
are degrees. People act about the origin and face +x at first; who uses the motion puts it elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.random import Generator

from ites.data.motion import SIDE, Array, Body, Motion, bump, ease, follow, times, wander

Action = Callable[[Array, Generator, Body], Motion]
Path = Callable[[Array], Array]  # times (N,) to (N, 3): x, y in metres, heading in degrees
Span = tuple[float, float]

# Shoulder flexion, abduction, internal rotation; elbow flexion.
ARMS = {
    "hang": (0, 7, 15, 18),
    "front": (15, 12, 40, 75),
    "open": (15, 25, 5, 75),
    "talk": (30, 15, 35, 100),
    "wide": (25, 55, 0, 45),
    "point": (85, 5, 20, 10),
    "aside": (15, 85, 0, 15),
    "raised": (160, 12, 0, 20),
    "high": (120, 25, 10, 30),
    "chin": (45, 2, 60, 140),
    "head": (95, 45, 20, 130),
    "phone": (40, 20, 25, 143),
    "hip": (-20, 45, 75, 95),
    "pocket": (-15, 14, 25, 45),
    "back": (-28, 14, 95, 70),
    "cross": (28, 4, 72, 100),
    "carry": (25, 6, 12, 80),
    "lap": (22, 8, 30, 58),
    "knee": (38, 8, 15, 32),
    "prop": (-35, 20, 0, 20),
    "guard": (40, 12, 25, 125),
    "reach": (105, 10, 10, 15),
    "low": (35, 15, 10, 20),
    "down": (5, 4, 20, 8),
}
TALKING = ("hang", "front", "front", "talk", "talk", "open", "wide", "point", "high", "chin")
IDLE = ("hang", "hang", "hip", "pocket", "back", "cross", "chin", "front")


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
    library = np.array([ARMS[name] for name in poses], float)

    def draw(count: int) -> tuple[Array, Array, Array]:
        starts, durations = times(rng, t[-1] + 2, hold, move)
        keys = library[rng.integers(len(poses), size=len(starts) + 1)]
        return starts, durations, keys

    left = draw(0)
    right = left if rng.random() < together else draw(0)
    arms = []
    for starts, durations, keys in (left, right):
        noise = spread * np.clip(rng.standard_normal(keys.shape), -2, 2)
        arms.append(follow(t, starts + rng.normal(0, 0.04), durations, keys + noise))
    return np.stack(arms, 1) + wander(t, rng, np.full((2, 4), 2.5), 2.5)


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
    ankles, headings = [], []
    for side, lifted in zip(SIDE, starts, strict=True):
        landed = np.concatenate([lifted[:1] - stance if len(lifted) else [0.0], lifted + swing])
        keys = path(landed + 0.42 * stance)
        turn = np.radians(keys[:, 2])
        keys[:, :2] += side * width * np.stack([-np.sin(turn), np.cos(turn)], 1)
        flat = follow(t, lifted, swing, keys)
        x = (t[:, None] - lifted) / swing
        pitch = np.radians(heel) * (ease((x + 0.7) / 0.85) - ease((x - 0.15) / 0.8)).sum(1)
        heading = flat[:, 2] + side * toe_out
        forward = body.foot * (1 - np.cos(pitch)) + body.ankle * np.sin(pitch)
        up = body.foot * np.sin(pitch) + body.ankle * np.cos(pitch)
        h = np.radians(heading)
        lift = up + clearance * bump(x, 0.4).sum(1)
        ankles.append(
            np.stack([flat[:, 0] + forward * np.cos(h), flat[:, 1] + forward * np.sin(h), lift], 1)
        )
        headings.append(heading)
    return np.stack(ankles, 1), np.stack(headings, 1)


def stand(t: Array, rng: Generator, body: Body, path: Path | None = None) -> Motion:
    """Stand, shifting weight from foot to foot.

    Args:
        t: (T,) times, seconds.
        rng: source of the draws.
        body: the person.
        path: where to turn and step to, such as `shuffle` draws; None keeps both feet in place.
    """
    path = path or shuffle(rng, t[-1], 0.0)
    width = rng.uniform(0.08, 0.15)
    beat = rng.uniform(0.7, 0.85)
    lifts = np.arange(-1.0, t[-1] + 1, beat)
    change = np.abs(path(lifts + 1.2 * beat) - path(lifts)) / [0.03, 0.03, 8]
    lifts = lifts[change.max(1) > 1]
    motion = idle(t, rng, body)
    motion.ankles, motion.toes = footsteps(
        t,
        body,
        path,
        (lifts, lifts + beat / 2),
        swing=0.45 * beat,
        stance=0.55 * beat,
        width=width,
        toe_out=rng.uniform(3, 16),
        clearance=0.02,
        heel=25,
    )
    motion.ankles[..., 0] += SIDE * rng.normal(0, 0.04)
    starts, durations = times(rng, t[-1], (1.0, 4.5), (0.7, 1.5))
    weight = follow(
        t, starts, durations, rng.uniform(-1, 1, len(starts) + 1)
    )  # +1: on the left foot
    at = path(t)
    h, shift = np.radians(at[:, 2]), 0.55 * width * weight
    motion.position[:, 0] += at[:, 0] - shift * np.sin(h)
    motion.position[:, 1] += at[:, 1] + shift * np.cos(h)
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
        speed: mean speed, metres a second.
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
        laps, along = np.divmod(
            begin + moments + surge / rate * np.sin(rate * moments + phase), lap
        )
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
    motion.position[:, 2] -= rng.uniform(0.01, 0.035)
    q = 2 * np.pi * (t - begin) / cycle
    at = path(t)
    h = np.radians(at[:, 2])
    sway = rng.uniform(0.012, 0.03) * np.cos(q)
    motion.position[:, 0] += at[:, 0] - sway * np.sin(h)
    motion.position[:, 1] += at[:, 1] + sway * np.cos(h)
    twist, drop, shoulders = rng.uniform(3, 8), rng.uniform(2, 5), rng.uniform(0.8, 1.4)
    motion.pelvis += np.stack([at[:, 2] + twist * np.sin(q), 0 * q, -drop * np.cos(q)], 1)
    motion.spine += np.stack([-(1 + shoulders) * twist * np.sin(q), 0 * q, drop * np.cos(q)], 1)
    for side in (0, 1):
        back_and_forth = SIDE[side] * np.sin(q - 0.2)
        motion.arms[:, side, 0] += swing_arms * back_and_forth - 0.2 * swing_arms
        motion.arms[:, side, 3] += 0.55 * swing_arms * (1 + back_and_forth)
    return motion


def step_time(body: Body, speed: float) -> float:
    """Seconds that a step takes: people keep step length over cadence constant ('walk ratio')."""
    length = np.sqrt(0.39 * speed) * body.leg / 0.86
    return float(length / speed)


def walking(t: Array, rng: Generator, body: Body) -> Motion:
    """Walk in loops, now and then with busy hands."""
    speed = rng.uniform(0.6, 1.5)
    path = loop(rng, speed, rng.uniform(1.1, 1.5))
    duty = 0.68 - 0.05 * speed
    motion = gait(
        t,
        rng,
        body,
        path,
        2 * step_time(body, speed),
        duty,
        6 + 14 * speed * rng.uniform(0.6, 1.2),
        width=0.06,
    )
    if rng.random() < 0.25:
        side = rng.integers(2)
        motion.arms[:, side] = gestures(t, rng, ("phone", "talk", "pocket", "open"), (1, 4))[
            :, side
        ]
    return motion


def running(t: Array, rng: Generator, body: Body) -> Motion:
    """Jog in loops, leaning into the bends."""
    speed = rng.uniform(1.7, 2.4)
    path = loop(rng, speed, rng.uniform(1.4, 1.7), eights=0)
    cycle = 60 / rng.uniform(74, 84)
    motion = gait(
        t,
        rng,
        body,
        path,
        cycle,
        0.35,
        30.0,
        width=0.04,
        clearance=rng.uniform(0.16, 0.3),
        heel=65.0,
    )
    rate = (path(t + 0.2) - path(t - 0.2))[:, 2] / 0.4  # degrees a second
    motion.pelvis[:, 2] += np.clip(0.6 * rate * speed / 9.8, -15, 15)
    motion.pelvis[:, 1] += rng.uniform(1, 6)
    motion.arms[..., 3] += rng.uniform(55, 75)
    motion.arms[..., 2] += 15
    return motion


def carrying(t: Array, rng: Generator, body: Body) -> Motion:
    """Walk with a box in both hands."""
    speed = rng.uniform(0.5, 1.1)
    path = loop(rng, speed, rng.uniform(1.0, 1.4))
    motion = gait(t, rng, body, path, 2 * step_time(body, speed), 0.65, 0.0, width=0.07)
    motion.arms = gestures(t, rng, ("carry", "carry", "front"), (2, 5), together=1.0, spread=6)
    motion.arms += np.array([rng.uniform(-10, 25), rng.uniform(-4, 6), 0, rng.uniform(-15, 20)])
    motion.pelvis[:, 1] -= 3
    return motion


def turning(t: Array, rng: Generator, body: Body) -> Motion:
    """Turn on the spot by small steps, look ahead, point the way."""
    path = shuffle(rng, t[-1], 1.6)
    motion = stand(t, rng, body, path)
    ahead = path(t + 0.4)[:, 2] - path(t)[:, 2]
    motion.head[:, 0] += np.clip(0.8 * ahead, -40, 40)
    motion.spine[:, 0] += np.clip(0.3 * ahead, -20, 20)
    motion.arms = gestures(
        t, rng, ("hang", "hang", "hang", "point", "open", "aside", "front"), (0.6, 2.5)
    )
    return motion


def talking(t: Array, rng: Generator, body: Body) -> Motion:
    """Stand and talk with both hands."""
    motion = stand(t, rng, body, shuffle(rng, t[-1], 0.5))
    motion.arms = gestures(t, rng, TALKING, (0.1, 1.2), (0.4, 0.9))
    motion.spine += wander(t, rng, [6, 4, 3], 3)
    return motion


def waiting(t: Array, rng: Generator, body: Body) -> Motion:
    """Stand with arms crossed, on the hips, in the pockets or behind the back."""
    motion = stand(t, rng, body, shuffle(rng, t[-1], 0.5))
    motion.arms = gestures(t, rng, IDLE, (2, 5), (0.8, 1.4), together=0.75, spread=6)
    return motion


def phoning(t: Array, rng: Generator, body: Body) -> Motion:
    """Hold a telephone to the ear, standing or pacing."""
    if rng.random() < 0.4:
        speed = rng.uniform(0.4, 0.8)
        path = loop(rng, speed, 1.0)
        motion = gait(t, rng, body, path, 2 * step_time(body, speed), 0.66, 10.0, width=0.07)
    else:
        motion = stand(t, rng, body, shuffle(rng, t[-1], 0.7))
    side = rng.integers(2)
    motion.arms[:, side] = gestures(t, rng, ("phone",), spread=5)[:, side]
    other = gestures(t, rng, ("hang", "hang", "pocket", "hip", "front", "open", "cross"), (1, 4))
    motion.arms[:, 1 - side] = other[:, 1 - side]
    motion.head[:, 2] += 8 * SIDE[side]
    return motion


def waving(t: Array, rng: Generator, body: Body) -> Motion:
    """Greet: raise one arm or both and wave."""
    motion = stand(t, rng, body, shuffle(rng, t[-1], 0.5))
    sides = [0, 1] if rng.random() < 0.2 else [rng.integers(2)]
    starts, durations = times(rng, t[-1], (0.3, 1.5), (2.0, 4.5))
    rate = rng.uniform(1.3, 2.4)
    raised = np.array([rng.uniform(10, 60), rng.uniform(70, 110), -60, rng.uniform(50, 95)])
    for start, duration in zip(starts, durations, strict=True):
        x = (t - start) / 0.7
        up = (ease(x) - ease(x - duration / 0.7 + 1))[:, None]
        wave = np.sin(2 * np.pi * rate * (t - start))[:, None] * up
        goal = raised + rng.normal(0, 8, 4)
        for side in sides:
            motion.arms[:, side] += up * (goal - motion.arms[:, side]) + wave * [6, 4, 24, 14]
        motion.spine[:, 2] -= 3 * SIDE[sides[0]] * up[:, 0]
    return motion


def reaching(t: Array, rng: Generator, body: Body) -> Motion:
    """Reach for things high and low, near and far, with one hand or both."""
    motion = stand(t, rng, body)
    starts, durations = times(rng, t[-1], (0.4, 1.2), (1.6, 3.0))
    for start, duration in zip(starts, durations, strict=True):
        x = (t - start) / (0.42 * duration)
        out = (ease(x) - ease(x - 1.38))[:, None]
        height, aside = rng.uniform(15, 165), rng.uniform(-35, 70)
        goal = np.array([height, 0.8 * aside, 10, rng.uniform(4, 35)])
        chosen = [0, 1] if rng.random() < 0.25 else [rng.integers(2)]
        for side in chosen:
            motion.arms[:, side] += out * (goal - motion.arms[:, side])
            motion.shrug[:, side] += 12 * out[:, 0]
        side = SIDE[chosen[0]] if len(chosen) == 1 else 0
        lean = rng.uniform(0, 35) if height < 110 else rng.uniform(-8, 6)
        motion.pelvis += out * [side * 0.2 * aside, 0.5 * lean, 0]
        motion.spine += out * [side * (0.4 * aside - 12), 0.5 * lean, side * rng.uniform(-4, 10)]
        motion.head += out * [side * 0.3 * aside, 0.3 * (90 - height) - 0.5 * lean, 0]
        motion.position[:, 0] -= 0.1 * np.sin(np.radians(lean)) * out[:, 0]
        motion.position[:, 2] -= max(0, 60 - height) / 60 * rng.uniform(0, 0.2) * out[:, 0]
    return motion


def crouch(motion: Motion, body: Body, amount: Array, bend: float, depth: float) -> None:
    """Go down in place: knees bend, the seat moves back, the trunk forward.

    Args:
        motion: changed in place.
        body: the person.
        amount: (T,) 0 upright, 1 all the way down.
        bend: forward bend of the trunk, degrees.
        depth: lowering of the pelvis, fraction of the leg.
    """
    motion.position[:, 2] -= depth * body.leg * amount
    motion.position[:, 0] -= (0.16 * np.sin(np.radians(bend)) + 0.12 * depth) * amount
    motion.pelvis[:, 1] += 0.55 * bend * amount
    motion.spine[:, 1] += 0.45 * bend * amount
    motion.head[:, 1] -= 0.35 * bend * amount
    motion.arms[..., 0] += (0.8 * bend * amount)[:, None]


def picking(t: Array, rng: Generator, body: Body) -> Motion:
    """Pick things up from the ground and put them away higher."""
    motion = stand(t, rng, body)
    starts, durations = times(rng, t[-1], (0.3, 1.2), (2.4, 4.2))
    for start, duration in zip(starts, durations, strict=True):
        x = (t - start) / (0.4 * duration)
        down, hold = ease(x) - ease(x - 1.15), (ease(x - 1.2) - ease(x - 2.2))[:, None]
        bend = rng.uniform(45, 105)
        depth = rng.uniform(0.1, 0.3) + 0.3 * (105 - bend) / 60
        crouch(motion, body, down, bend, depth)
        grip = np.array([0.75 * bend + rng.uniform(0, 15), rng.uniform(-4, 10), 10, 12])
        place = np.array(
            ARMS[rng.choice(["carry", "front", "reach", "point", "high"])]
        ) + rng.normal(0, 8, 4)
        for side in (0, 1) if rng.random() < 0.6 else (rng.integers(2),):
            arm = motion.arms[:, side]
            arm += down[:, None] * (grip - arm)
            arm += hold * (place - arm)
        motion.spine += down[:, None] * [rng.normal(0, 14), 0, rng.normal(0, 6)]
    return motion


def squatting(t: Array, rng: Generator, body: Body) -> Motion:
    """Squat, shallow or deep, arms forward for balance or on the knees."""
    motion = stand(t, rng, body)
    motion.splay += rng.uniform(5, 30)
    starts, durations = times(rng, t[-1], (0.3, 1.5), (2.0, 4.5))
    style = np.array(ARMS[rng.choice(["point", "reach", "cross", "low", "talk"])])
    for start, duration in zip(starts, durations, strict=True):
        pace = rng.uniform(0.7, 1.2)
        down = ease((t - start) / pace) - ease((t - start - duration + pace) / pace)
        depth = rng.uniform(0.2, 0.62)
        crouch(motion, body, down, rng.uniform(15, 55), depth)
        goal = style + rng.normal(0, 8, 4)
        motion.arms += down[:, None, None] * (goal - motion.arms)
    return motion


def sitting(t: Array, rng: Generator, body: Body) -> Motion:
    """Sit on a chair, gesture, lean, move the feet; some sit down first, some get up at the end."""
    seat = rng.uniform(0.40, 0.50) + 0.09
    begin = rng.uniform(0.5, 1.5) if rng.random() < 0.35 else -9.0
    end = t[-1] - rng.uniform(1.8, 2.5) if rng.random() < 0.25 else t[-1] + 9
    sit = ease((t - begin) / 1.5) - ease((t - end) / 1.5)
    stoop = bump((t - begin) / 1.6) + bump((t - end) / 1.6)
    motion = stand(t, rng, body)
    back = 0.9 * body.thigh
    motion.position[:, 0] -= back * sit
    motion.position[:, 2] += sit * (seat - body.standing)
    starts, durations = times(rng, t[-1], (1.0, 4.0), (0.8, 1.6))
    lean = follow(t, starts, durations, rng.uniform(-18, 28, len(starts) + 1))
    motion.pelvis[:, 1] += sit * (0.5 * lean - 9) + 26 * stoop
    motion.spine[:, 1] += sit * (0.5 * lean + 9) + 12 * stoop
    starts, durations = times(rng, t[-1], (1.5, 5.0), (0.5, 1.0))
    for side in (0, 1):
        forward = follow(
            t, starts, durations, rng.choice([-0.18, -0.05, 0, 0.1, 0.3], len(starts) + 1)
        )
        lifting = bump((t[:, None] - starts) / durations).sum(1) * sit
        motion.ankles[:, side, 0] += forward * sit
        motion.ankles[:, side, 1] += SIDE[side] * rng.uniform(-0.03, 0.08) * sit
        motion.ankles[:, side, 2] += 0.03 * lifting + np.maximum(-forward, 0) * 0.4 * sit
        motion.splay[:, side] += rng.uniform(-2, 14) * sit
    if rng.random() < 0.25:
        cross_legs(t, rng, body, motion, sit, seat)
    poses = (
        "lap",
        "lap",
        "knee",
        "knee",
        *rng.choice(TALKING[1:], 3),
        rng.choice(["cross", "phone", "chin", "head"]),
    )
    seated = gestures(t, rng, poses, (0.5, 3.0))
    motion.arms += sit[:, None, None] * (seated - motion.arms)
    return motion


def cross_legs(
    t: Array, rng: Generator, body: Body, motion: Motion, sit: Array, seat: float
) -> None:
    """Lay one leg over the other, while seated, in place."""
    side = rng.integers(2)
    start, stop = rng.uniform(1, 0.4 * t[-1] + 1), rng.uniform(0.6, 1.2) * t[-1]
    over = (ease((t - start) / 1.2) - ease((t - stop) / 1.2)) * sit
    ankle = [0.06, -SIDE[side] * 0.10, seat - 0.22]
    motion.ankles[:, side] += over[:, None] * (ankle - motion.ankles[:, side])
    motion.splay[:, side] += 8 * over


def lounging(t: Array, rng: Generator, body: Body) -> Motion:
    """Sit on the ground: legs stretched, drawn up or crossed."""
    motion = stand(t, rng, body)
    motion.position[:, 2] = 0.11 + wander(t, rng, 0.004)
    propped = rng.random() < 0.4
    recline = rng.uniform(12, 28) if propped else rng.uniform(-12, 6)
    motion.pelvis[:, 1] -= 8 + 0.6 * recline
    motion.spine[:, 1] += 8 - 0.4 * recline
    starts, durations = times(rng, t[-1], (1.5, 5.0), (0.8, 1.6))
    crossed = rng.random() < 0.35
    for side in (0, 1):
        reach = rng.uniform(0.45, 0.95, len(starts) + 1) * body.leg
        forward = follow(
            t, starts, durations, np.full_like(reach, 0.33 * body.leg) if crossed else reach
        )
        motion.ankles[:, side, 0] = motion.position[:, 0] + forward
        motion.ankles[:, side, 1] = SIDE[side] * (-0.07 if crossed else rng.uniform(0.06, 0.2))
        motion.ankles[:, side, 2] = 0.07
        motion.splay[:, side] += 65 if crossed else rng.uniform(0, 12)
    rest = ("prop",) * 6 if propped else ("lap", "knee", "knee", "front")
    motion.arms = gestures(t, rng, (*rest, *rng.choice(TALKING[1:], 3)), (0.8, 3.5))
    return motion


def kneeling(t: Array, rng: Generator, body: Body) -> Motion:
    """Go down on one knee, work with the hands, get up again."""
    motion = stand(t, rng, body)
    side = rng.integers(2)
    starts, durations = times(rng, t[-1], (0.5, 1.5), (4.0, 8.0))
    knee_height, half = 0.06, 0.38 * body.leg
    for start, duration in zip(starts, durations, strict=True):
        step = ease((t - start) / 0.7) - ease((t - start - duration) / 0.7)
        hop = bump((t - start) / 0.7) + bump((t - start - duration) / 0.7)
        down = ease((t - start - 0.4) / 1.1) - ease((t - start - duration + 1.0) / 1.1)
        motion.ankles[:, side, 0] -= 1.15 * half * step
        motion.ankles[:, side, 2] += 0.06 * hop + 0.05 * step
        motion.ankles[:, 1 - side, 0] += 0.12 * step
        motion.position[:, 0] -= 0.28 * half * down
        motion.position[:, 2] += down * (body.thigh + knee_height - 0.02 - body.standing)
        lean = rng.uniform(0, 40)
        motion.pelvis[:, 1] += 0.4 * lean * down
        motion.spine[:, 1] += 0.6 * lean * down
        motion.head[:, 1] += 10 * down
    motion.arms = gestures(
        t, rng, ("front", "talk", "point", "low", "knee", "carry", "hang"), (0.3, 1.5)
    )
    return motion


def stretching(t: Array, rng: Generator, body: Body) -> Motion:
    """Stretch: arms up, bend to the side, twist, touch the toes."""
    motion = stand(t, rng, body)
    motion.ankles[:, :, 1] += SIDE * rng.uniform(0, 0.15)
    starts, durations = times(rng, t[-1], (0.2, 1.0), (2.5, 4.5))
    for start, duration in zip(starts, durations, strict=True):
        pace = rng.uniform(0.9, 1.4)
        on = ease((t - start) / pace) - ease((t - start - duration + pace) / pace)
        side = rng.choice([-1, 1])
        kind = rng.integers(5)
        arms = np.array(
            [
                ARMS[name]
                for name in (
                    (
                        ("raised",) * 2,
                        ("raised", "hip"),
                        ("aside",) * 2,
                        ("low",) * 2,
                        ("head",) * 2,
                    )[kind]
                )
            ],
            float,
        )
        if side < 0:
            arms = arms[::-1]
        bend = rng.uniform(70, 105) if kind == 3 else rng.uniform(-12, 4)
        motion.pelvis[:, 1] += 0.55 * bend * on
        motion.position[:, 0] -= 0.14 * np.sin(np.radians(bend)) * on
        twist, lean = (
            (0, 30) if kind == 1 else (rng.uniform(20, 45), 0) if kind in (2, 4) else (0, 0)
        )
        motion.spine += on[:, None] * np.array([side * twist, 0.45 * bend, -side * lean])
        motion.pelvis[:, 0] += 0.3 * side * twist * on
        arms[:, 0] += 0.55 * bend if kind == 3 else 0
        motion.arms += on[:, None, None] * (arms + rng.normal(0, 7, (2, 4)) - motion.arms)
    return motion


def exercising(t: Array, rng: Generator, body: Body) -> Motion:
    """Do jumping jacks or march on the spot with high knees."""
    motion = stand(t, rng, body)
    rate = rng.uniform(0.75, 1.15)
    phase = 2 * np.pi * rate * t + rng.uniform(0, 2 * np.pi)
    if rng.random() < 0.5:
        open_ = (1 - np.cos(phase)) / 2
        hop = 0.07 * np.sin(phase) ** 2
        top = rng.uniform(120, 170)
        motion.ankles[:, :, 1] += SIDE * (0.26 * open_)[:, None]
        motion.ankles[..., 2] += (0.8 * hop + 0.02)[:, None]
        motion.position[:, 2] += hop - 0.05
        motion.arms += open_[:, None, None] * ([8, top, 0, 14] - motion.arms)
        return motion
    pump = rng.uniform(25, 45)
    for side in (0, 1):
        wave = np.sin(phase + np.pi * side)
        up = np.maximum(wave, 0) ** 2
        motion.ankles[:, side, 2] += rng.uniform(0.28, 0.42) * up
        motion.ankles[:, side, 0] += 0.08 * up
        motion.arms[:, side] += np.stack([-pump * wave, 0 * wave, 0 * wave + 10, 65 - 15 * wave], 1)
        motion.position[:, 1] -= 0.04 * SIDE[side] * up
    return motion


def boxing(t: Array, rng: Generator, body: Body) -> Motion:
    """Box at the air from a staggered stance."""
    motion = stand(t, rng, body)
    lead = rng.choice([-1, 1])
    motion.ankles[:, :, 0] += lead * SIDE * 0.17
    motion.ankles[:, :, 1] += SIDE * 0.05
    motion.position[:, 2] -= rng.uniform(0.04, 0.1) - 0.015 * np.sin(2 * np.pi * 1.6 * t)
    motion.pelvis[:, 0] -= lead * 25
    motion.spine[:, :2] += [lead * 5, 8]
    motion.arms = gestures(t, rng, ("guard",), spread=7)
    starts, durations = times(rng, t[-1], (0.15, 1.2), (0.45, 0.7))
    for start, duration in zip(starts, durations, strict=True):
        out = bump((t - start) / duration, 0.42)
        side = rng.integers(2)
        goal = np.array(
            [
                rng.uniform(70, 110),
                rng.uniform(-12, 20),
                rng.uniform(20, 60),
                rng.choice([8, 8, 85]),
            ]
        )
        motion.arms[:, side] += out[:, None] * (goal - motion.arms[:, side])
        motion.spine[:, 0] -= SIDE[side] * 22 * out
        motion.pelvis[:, 0] -= SIDE[side] * 10 * out
    return motion


def dancing(t: Array, rng: Generator, body: Body) -> Motion:
    """Dance: step to a beat, sway the hips, turn, swing the arms."""
    beat = 60 / rng.uniform(85, 125)
    clock = np.arange(-2, t[-1] + 3, 0.02)
    way = wander(clock, rng, [0.28, 0.28, rng.uniform(20, 90)], 5)

    def path(moments: Array) -> Array:
        return np.stack([np.interp(moments, clock, column) for column in way.T], 1)

    steps = np.arange(-2 * beat, t[-1] + 1, 2 * beat)
    motion = idle(t, rng, body)
    motion.ankles, motion.toes = footsteps(
        t,
        body,
        path,
        (steps, steps + beat),
        0.8 * beat,
        1.2 * beat,
        rng.uniform(0.08, 0.16),
        clearance=rng.uniform(0.02, 0.12),
        heel=40,
    )
    at = path(t)
    q = np.pi * t / beat
    groove = rng.uniform(0.3, 1.0)
    motion.position[:, :2] += at[:, :2]
    motion.position[:, 2] -= 0.06 * groove * (1 - np.cos(2 * q)) / 2 + rng.uniform(0, 0.06)
    motion.pelvis += np.stack(
        [at[:, 2] + 10 * groove * np.sin(q), 0 * q, 10 * groove * np.cos(q)], 1
    )
    motion.spine += np.stack([-14 * groove * np.sin(q), 0 * q, -11 * groove * np.cos(q)], 1)
    motion.spine += wander(t, rng, [9, 8, 6], 3)
    poses = rng.choice(
        [
            "front",
            "open",
            "wide",
            "aside",
            "raised",
            "high",
            "head",
            "hip",
            "talk",
            "hang",
            "low",
            "guard",
        ],
        6,
    )
    motion.arms = gestures(
        t, rng, poses, (0.0, 0.6), (0.7 * beat, 2 * beat), together=0.5, spread=14
    )
    motion.arms += wander(t, rng, np.full((2, 4), 7.0), 2)
    return motion


ACTIONS: dict[str, Action] = {
    "Walking": walking,
    "Running": running,
    "Carrying": carrying,
    "Turning": turning,
    "Talking": talking,
    "Waiting": waiting,
    "Phoning": phoning,
    "Waving": waving,
    "Reaching": reaching,
    "Picking": picking,
    "Squatting": squatting,
    "Sitting": sitting,
    "Lounging": lounging,
    "Kneeling": kneeling,
    "Stretching": stretching,
    "Exercising": exercising,
    "Boxing": boxing,
    "Dancing": dancing,
}
"""Every action by name, in the order in which subjects perform them."""
