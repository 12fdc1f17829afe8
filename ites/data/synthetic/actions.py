"""What the synthetic people do: each action draws one person's motion.

An action is a function `(t, rng, body) -> Motion` of times (T,) in seconds, the last of which is
the end, a random generator and a body. Axes, units and curves are those of
`ites.data.synthetic.motion`, angles are degrees. People act about the origin;
those who stay in place face +x.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.random import Generator

from ites.data.synthetic.motion import (
    SIDE,
    Array,
    Body,
    Motion,
    bump,
    follow,
    plateau,
    times,
    wander,
)
from ites.data.synthetic.posture import (
    ARMS,
    footsteps,
    gait,
    gestures,
    idle,
    loop,
    shuffle,
    stand,
    step_time,
)

Action = Callable[[Array, Generator, Body], Motion]

TALKING = ("hang", "front", "front", "talk", "talk", "open", "wide", "point", "high", "chin")
WAITING = ("hang", "hang", "hip", "pocket", "back", "cross", "chin", "front")
DANCING = (
    *("front", "open", "wide", "aside", "raised", "high"),
    *("head", "hip", "talk", "hang", "low", "guard"),
)


def blend(curve: Array, amount: Array, goal: Array | list[float]) -> None:
    """Move a curve (T, ...) towards a goal in place: not at all where `amount` (T,) is 0."""
    curve += amount.reshape(-1, *[1] * (curve.ndim - 1)) * (goal - curve)


def sides(rng: Generator, both: float) -> list[int]:
    """One side at random, or both with the given chance."""
    return [0, 1] if rng.random() < both else [int(rng.integers(2))]


def crouch(motion: Motion, body: Body, amount: Array, bend: float, depth: float = 0.0) -> None:
    """Bend forward and go down in place, the seat moving back for balance, the arms hanging.

    Args:
        motion: of someone facing +x; changed in place.
        body: the person.
        amount: (T,) 0 upright, 1 all the way.
        bend: of the trunk, degrees.
        depth: how far the pelvis goes down, as a fraction of the leg.
    """
    motion.position[:, 2] -= depth * body.leg * amount
    motion.position[:, 0] -= (0.16 * np.sin(np.radians(bend)) + 0.12 * depth) * amount
    motion.pelvis[:, 1] += 0.55 * bend * amount
    motion.spine[:, 1] += 0.45 * bend * amount
    motion.head[:, 1] -= 0.35 * bend * amount
    motion.arms[..., 0] += 0.8 * bend * amount[:, None]


def walking(t: Array, rng: Generator, body: Body) -> Motion:
    """Walk in loops, now and then with a busy hand."""
    speed = rng.uniform(0.6, 1.5)
    path = loop(rng, speed, rng.uniform(1.1, 1.5))
    swing = 6 + 14 * speed * rng.uniform(0.6, 1.2)
    cycle, duty = 2 * step_time(body, speed), 0.68 - 0.05 * speed
    motion = gait(t, rng, body, path, cycle, duty, swing, width=0.06)
    if rng.random() < 0.25:
        busy = gestures(t, rng, ("phone", "talk", "pocket", "open"), (1, 4))
        side = rng.integers(2)
        motion.arms[:, side] = busy[:, side]
    return motion


def running(t: Array, rng: Generator, body: Body) -> Motion:
    """Jog in loops, leaning into the bends."""
    speed, cycle = rng.uniform(1.7, 2.4), rng.uniform(0.71, 0.81)
    path = loop(rng, speed, rng.uniform(1.4, 1.7), eights=0)
    lift = rng.uniform(0.16, 0.3)
    motion = gait(t, rng, body, path, cycle, 0.35, 30, width=0.04, clearance=lift, heel=65)
    rate = (path(t + 0.2) - path(t - 0.2))[:, 2] / 0.4  # degrees per second
    motion.pelvis[:, 2] += np.clip(0.6 * rate * speed / 9.8, -15, 15)
    motion.pelvis[:, 1] += rng.uniform(1, 6)
    motion.arms[..., 3] += rng.uniform(55, 75)
    motion.arms[..., 2] += 15
    return motion


def carrying(t: Array, rng: Generator, body: Body) -> Motion:
    """Walk with a box in both hands."""
    speed = rng.uniform(0.5, 1.1)
    path = loop(rng, speed, rng.uniform(1.0, 1.4))
    motion = gait(t, rng, body, path, 2 * step_time(body, speed), 0.65, 0, width=0.07)
    motion.arms = gestures(t, rng, ("carry", "carry", "front"), (2, 5), together=1, spread=6)
    motion.arms += [rng.uniform(-10, 25), rng.uniform(-4, 6), 0, rng.uniform(-15, 20)]
    motion.pelvis[:, 1] -= 3
    return motion


def turning(t: Array, rng: Generator, body: Body) -> Motion:
    """Turn on the spot by small steps, head first, and point the way."""
    path = shuffle(rng, t[-1], 1.6)
    motion = stand(t, rng, body, path)
    ahead = path(t + 0.4)[:, 2] - path(t)[:, 2]
    motion.head[:, 0] += np.clip(0.8 * ahead, -40, 40)
    motion.spine[:, 0] += np.clip(0.3 * ahead, -20, 20)
    poses = ("hang", "hang", "hang", "point", "open", "aside", "front")
    motion.arms = gestures(t, rng, poses, (0.6, 2.5))
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
    motion.arms = gestures(t, rng, WAITING, (2, 5), (0.8, 1.4), together=0.75, spread=6)
    return motion


def phoning(t: Array, rng: Generator, body: Body) -> Motion:
    """Hold a telephone to the ear, standing or pacing."""
    if rng.random() < 0.4:
        speed = rng.uniform(0.4, 0.8)
        path = loop(rng, speed, 1.0)
        motion = gait(t, rng, body, path, 2 * step_time(body, speed), 0.66, 10, width=0.07)
    else:
        motion = stand(t, rng, body, shuffle(rng, t[-1], 0.7))
    motion.arms = gestures(t, rng, WAITING, (1, 4))
    side = rng.integers(2)
    motion.arms[:, side] = gestures(t, rng, ("phone",), spread=5)[:, side]
    motion.head[:, 2] += 8 * SIDE[side]
    return motion


def waving(t: Array, rng: Generator, body: Body) -> Motion:
    """Greet: raise one arm or both and wave."""
    motion = stand(t, rng, body, shuffle(rng, t[-1], 0.5))
    greeting, rate = sides(rng, both=0.2), rng.uniform(1.3, 2.4)
    raised = [rng.uniform(10, 60), rng.uniform(70, 110), -60, rng.uniform(50, 95)]
    for start, duration in zip(*times(rng, t[-1], (0.3, 1.5), (2.0, 4.5)), strict=True):
        up = plateau(t, start, start + duration, 0.7)
        wave = up * np.sin(2 * np.pi * rate * (t - start))
        goal = raised + rng.normal(0, 8, 4)
        for side in greeting:
            blend(motion.arms[:, side], up, goal)
            motion.arms[:, side] += wave[:, None] * [6, 4, 24, 14]
        motion.spine[:, 2] -= 3 * SIDE[greeting[0]] * up
    return motion


def reaching(t: Array, rng: Generator, body: Body) -> Motion:
    """Reach for things high and low, near and far, with one hand or both."""
    motion = stand(t, rng, body)
    for start, duration in zip(*times(rng, t[-1], (0.4, 1.2), (1.6, 3.0)), strict=True):
        out = plateau(t, start, start + duration, 0.42 * duration)
        height, aside = rng.uniform(15, 165), rng.uniform(-35, 70)
        hands = sides(rng, both=0.25)
        side = SIDE[hands[0]] if len(hands) == 1 else 0
        low = max(0, 60 - height) / 60
        bend = rng.uniform(0, 35) if height < 110 else rng.uniform(-8, 6)
        crouch(motion, body, out, bend, low * rng.uniform(0, 0.25))
        turns = [0.6 * side * aside - 12 * side, 0, side * rng.uniform(-4, 10)]
        motion.spine += out[:, None] * turns
        motion.head += out[:, None] * [0.3 * side * aside, 0.3 * (90 - height), 0]
        goal = [height, 0.8 * aside, 10, rng.uniform(4, 35)]
        for hand in hands:
            blend(motion.arms[:, hand], out, goal)
            motion.shrug[:, hand] += 12 * out
    return motion


def picking(t: Array, rng: Generator, body: Body) -> Motion:
    """Pick things up from the ground and put them away higher."""
    motion = stand(t, rng, body)
    for start, duration in zip(*times(rng, t[-1], (0.3, 1.2), (2.4, 4.2)), strict=True):
        pace = 0.4 * duration
        down = plateau(t, start, start + 2.15 * pace, pace)
        away = plateau(t, start + 1.2 * pace, start + 3.2 * pace, pace)
        bend = rng.uniform(45, 105)
        crouch(motion, body, down, bend, rng.uniform(0.1, 0.3) + 0.3 * (105 - bend) / 60)
        motion.spine += down[:, None] * [rng.normal(0, 14), 0, rng.normal(0, 6)]
        grip = [0.75 * bend + rng.uniform(0, 15), rng.uniform(-4, 10), 10, 12]
        place = ARMS[rng.choice(["carry", "front", "reach", "point", "high"])]
        place = place + rng.normal(0, 8, 4)
        for side in sides(rng, both=0.6):
            blend(motion.arms[:, side], down, grip)
            blend(motion.arms[:, side], away, place)
    return motion


def squatting(t: Array, rng: Generator, body: Body) -> Motion:
    """Squat, shallow or deep, the arms out for balance or on the knees."""
    motion = stand(t, rng, body)
    motion.splay += rng.uniform(5, 30)
    style = ARMS[rng.choice(["point", "reach", "cross", "low", "talk"])]
    for start, duration in zip(*times(rng, t[-1], (0.3, 1.5), (2.0, 4.5)), strict=True):
        down = plateau(t, start, start + duration, rng.uniform(0.7, 1.0))
        crouch(motion, body, down, rng.uniform(15, 55), rng.uniform(0.2, 0.62))
        blend(motion.arms, down, style + rng.normal(0, 8, 4))
    return motion


def sitting(t: Array, rng: Generator, body: Body) -> Motion:
    """Sit on a chair, gesture, lean, move the feet; some sit down first or get up at the end."""
    end = t[-1]
    begin = rng.uniform(0.5, 1.5) if rng.random() < 0.35 else -9
    rise = end - rng.uniform(0.3, 1.0) if rng.random() < 0.25 else end + 9
    sit = plateau(t, begin, rise, 1.5)
    stoop = bump((t - begin) / 1.6) + bump((t - rise + 1.5) / 1.6)
    seat = rng.uniform(0.49, 0.59)  # the pelvis is some 9 cm above the chair
    motion = stand(t, rng, body)
    motion.position[:, 0] -= 0.9 * body.thigh * sit
    motion.position[:, 2] += (seat - body.standing) * sit
    starts, durations = times(rng, end, (1.0, 4.0), (0.8, 1.6))
    lean = follow(t, starts, durations, rng.uniform(-18, 28, len(starts) + 1))
    motion.pelvis[:, 1] += sit * (0.5 * lean - 9) + 26 * stoop
    motion.spine[:, 1] += sit * (0.5 * lean + 9) + 12 * stoop
    starts, durations = times(rng, end, (1.5, 5.0), (0.5, 1.0))
    lifted = bump((t[:, None] - starts) / durations).sum(1)
    for side in (0, 1):
        places = rng.choice([-0.18, -0.05, 0, 0.1, 0.3], len(starts) + 1)
        forward = follow(t, starts, durations, places)
        aside = SIDE[side] * rng.uniform(-0.03, 0.08)
        height = 0.03 * lifted + 0.4 * np.maximum(-forward, 0)  # on the toes when drawn back
        motion.ankles[:, side] += np.stack([forward, aside + 0 * t, height], 1) * sit[:, None]
        motion.splay[:, side] += rng.uniform(-2, 14) * sit
    if rng.random() < 0.25:
        cross_legs(t, rng, motion, sit, seat)
    poses = [*("lap", "lap", "knee", "knee"), *rng.choice(TALKING[1:], 3)]
    poses.append(rng.choice(["cross", "phone", "chin", "head"]))
    blend(motion.arms, sit, gestures(t, rng, poses, (0.5, 3.0)))
    return motion


def cross_legs(t: Array, rng: Generator, motion: Motion, sit: Array, seat: float) -> None:
    """Lay one leg over the other for a while, in place.

    Args:
        t: (T,) times, seconds.
        rng: source of the draws.
        motion: of someone seated at x < 0, facing +x.
        sit: (T,) 1 while seated.
        seat: height of the pelvis, metres.
    """
    start, stop = rng.uniform(1, 0.4 * t[-1] + 1), rng.uniform(0.7, 1.3) * t[-1]
    over = plateau(t, start, stop, 1.2) * sit
    side = rng.integers(2)
    blend(motion.ankles[:, side], over, [0.06, -0.1 * SIDE[side], seat - 0.22])
    motion.splay[:, side] += 8 * over


def lounging(t: Array, rng: Generator, body: Body) -> Motion:
    """Sit on the ground, the legs stretched, drawn up or crossed, perhaps propped on the hands."""
    motion = stand(t, rng, body)
    motion.position[:, 2] = 0.11 + wander(t, rng, 0.004)
    propped, crossed = rng.random() < 0.4, rng.random() < 0.35
    recline = rng.uniform(12, 28) if propped else rng.uniform(-12, 6)
    motion.pelvis[:, 1] -= 8 + 0.6 * recline
    motion.spine[:, 1] += 8 - 0.4 * recline
    starts, durations = times(rng, t[-1], (1.5, 5.0), (0.8, 1.6))
    for side in (0, 1):
        reach = rng.uniform(0.45, 0.95, len(starts) + 1) * (0 if crossed else 1)
        reach = np.maximum(reach, 0.33) * body.leg
        motion.ankles[:, side, 0] = motion.position[:, 0] + follow(t, starts, durations, reach)
        motion.ankles[:, side, 1] = SIDE[side] * (-0.07 if crossed else rng.uniform(0.06, 0.2))
        motion.ankles[:, side, 2] = 0.07
        motion.splay[:, side] += 65 if crossed else rng.uniform(0, 12)
    rest = ("prop",) * 6 if propped else ("lap", "knee", "knee", "front")
    motion.arms = gestures(t, rng, [*rest, *rng.choice(TALKING[1:], 3)], (0.8, 3.5))
    return motion


def kneeling(t: Array, rng: Generator, body: Body) -> Motion:
    """Go down on one knee, work with the hands, get up again."""
    motion = stand(t, rng, body)
    back = rng.integers(2)
    for start, duration in zip(*times(rng, t[-1], (0.5, 1.5), (4.0, 8.0)), strict=True):
        stop = start + duration
        step = plateau(t, start, stop + 0.7, 0.7)
        swing = bump((t - start) / 0.7) + bump((t - stop) / 0.7)
        down = plateau(t, start + 0.4, stop + 0.1, 1.1)
        motion.ankles[:, back, 0] -= 0.44 * body.leg * step
        motion.ankles[:, back, 2] += 0.06 * swing + 0.05 * step
        motion.ankles[:, 1 - back, 0] += 0.12 * step
        motion.position[:, 0] -= 0.11 * body.leg * down
        motion.position[:, 2] += (body.thigh + 0.04 - body.standing) * down
        lean = rng.uniform(0, 40)
        motion.pelvis[:, 1] += 0.4 * lean * down
        motion.spine[:, 1] += 0.6 * lean * down
        motion.head[:, 1] += 10 * down
    poses = ("front", "talk", "point", "low", "knee", "carry", "hang")
    motion.arms = gestures(t, rng, poses, (0.3, 1.5))
    return motion


def stretching(t: Array, rng: Generator, body: Body) -> Motion:
    """Stretch: both arms up, bend to the side, twist, touch the toes."""
    motion = stand(t, rng, body)
    motion.ankles[:, :, 1] += SIDE * rng.uniform(0, 0.15)
    for start, duration in zip(*times(rng, t[-1], (0.2, 1.0), (2.5, 4.5)), strict=True):
        on = plateau(t, start, start + duration, rng.uniform(0.9, 1.2))
        side = int(rng.integers(2))
        names, bend, twist, lean = (
            (("raised", "raised"), rng.uniform(-12, 4), 0, 0),
            (("raised", "hip"), 0, 0, 30),
            (("aside", "aside"), 0, rng.uniform(20, 45), 0),
            (("head", "head"), 0, rng.uniform(20, 45), 0),
            (("down", "down"), rng.uniform(70, 105), 0, 0),
        )[rng.integers(5)]
        crouch(motion, body, on, bend)
        motion.pelvis[:, 0] += 0.3 * SIDE[side] * twist * on
        motion.spine += on[:, None] * [SIDE[side] * twist, 0, -SIDE[side] * lean]
        goal = np.array([ARMS[name] for name in names]) + rng.normal(0, 7, (2, 4))
        goal[:, 0] += 0.8 * max(bend, 0)
        blend(motion.arms, on, goal[::-1] if side else goal)
    return motion


def exercising(t: Array, rng: Generator, body: Body) -> Motion:
    """Do jumping jacks, or march on the spot with high knees."""
    motion = stand(t, rng, body)
    phase = 2 * np.pi * rng.uniform(0.75, 1.15) * t + rng.uniform(0, 2 * np.pi)
    if rng.random() < 0.5:
        apart, hop = (1 - np.cos(phase)) / 2, 0.07 * np.sin(phase) ** 2
        motion.ankles[:, :, 1] += 0.26 * SIDE * apart[:, None]
        motion.ankles[:, :, 2] += (0.8 * hop + 0.02)[:, None]
        motion.position[:, 2] += hop - 0.05
        blend(motion.arms, apart, [8, rng.uniform(120, 170), 0, 14])
        return motion
    pump, height = rng.uniform(25, 45), rng.uniform(0.28, 0.42)
    for side in (0, 1):
        wave = np.sin(phase + np.pi * side)
        up = np.maximum(wave, 0) ** 2
        motion.ankles[:, side] += up[:, None] * [0.08, 0, height]
        motion.position[:, 1] -= 0.04 * SIDE[side] * up
        motion.arms[:, side] += [0, 0, 10, 65] - wave[:, None] * [pump, 0, 0, 15]
    return motion


def boxing(t: Array, rng: Generator, body: Body) -> Motion:
    """Box at the air, one foot forward."""
    motion = stand(t, rng, body)
    lead = rng.choice([-1, 1])  # +1: left foot forward
    motion.ankles[:, :, 0] += 0.17 * lead * SIDE
    motion.ankles[:, :, 1] += 0.05 * SIDE
    motion.position[:, 2] -= rng.uniform(0.04, 0.1) - 0.015 * np.sin(10 * t)
    motion.pelvis[:, 0] -= 25 * lead
    motion.spine[:, :2] += [5 * lead, 8]
    motion.arms = gestures(t, rng, ("guard",), spread=7)
    for start, duration in zip(*times(rng, t[-1], (0.15, 1.2), (0.45, 0.7)), strict=True):
        out, side = bump((t - start) / duration, 0.42), int(rng.integers(2))
        elbow = rng.choice([8, 8, 85])  # a straight punch or a hook
        goal = [rng.uniform(70, 110), rng.uniform(-12, 20), rng.uniform(20, 60), elbow]
        blend(motion.arms[:, side], out, goal)
        motion.spine[:, 0] -= 22 * SIDE[side] * out
        motion.pelvis[:, 0] -= 10 * SIDE[side] * out
    return motion


def dancing(t: Array, rng: Generator, body: Body) -> Motion:
    """Dance: step to a beat, sway the hips, turn, swing the arms."""
    beat, groove = 60 / rng.uniform(85, 125), rng.uniform(0.3, 1.0)
    clock = np.arange(-2, t[-1] + 3, 0.02)
    way = wander(clock, rng, [0.28, 0.28, rng.uniform(20, 90)], 5)

    def path(moments: Array) -> Array:
        return np.stack([np.interp(moments, clock, column) for column in way.T], 1)

    motion = idle(t, rng, body)
    steps = np.arange(-2 * beat, t[-1] + 1, 2 * beat)
    look = {"width": rng.uniform(0.08, 0.16), "clearance": rng.uniform(0.02, 0.12), "heel": 40}
    motion.ankles, motion.toes = footsteps(
        t, body, path, (steps, steps + beat), 0.8 * beat, 1.2 * beat, **look
    )
    at, q = path(t), np.pi * t / beat
    motion.position[:, :2] += at[:, :2]
    motion.position[:, 2] -= 0.06 * groove * np.sin(q) ** 2 + rng.uniform(0, 0.06)
    sway = groove * np.stack([np.sin(q), 0 * q, np.cos(q)], 1)
    motion.pelvis += sway * [10, 0, 10]
    motion.pelvis[:, 0] += at[:, 2]
    motion.spine += wander(t, rng, [9, 8, 6], 3) - sway * [14, 0, 11]
    poses, move = rng.choice(DANCING, 6), (0.7 * beat, 2 * beat)
    motion.arms = gestures(t, rng, poses, (0.0, 0.6), move, together=0.5, spread=14)
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
"""Every action by name."""
