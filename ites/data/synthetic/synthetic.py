"""Synthetic motion capture: people of varied build act before calibrated cameras.

`ites.data.synthetic.motion` defines bodies and kinematics, `ites.data.synthetic.actions` the
actions. The cameras are Human3.6M's, with lens distortion, or a ring of ideal ones. Noise and
missing joints are optional.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from math import ceil, cos, pi, radians, sin
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ites.data.store import PoseStore, PoseStoreWriter
from ites.data.synthetic.actions import ACTIONS
from ites.data.synthetic.motion import draw_body, joint_positions
from ites.errors import ItesError
from ites.pose.camera import Camera, human36m_cameras
from ites.pose.skeleton import HUMAN36M

RIGS = ("human36m", "ring")
HUMAN36M_RIGS = {"train": ("S1", "S5", "S6", "S7", "S8"), "test": ("S9", "S11")}
PLACE = 0.35  # metres: standard deviation of people's distance from the rig's centre


@dataclass(frozen=True)
class Performance:
    """One performance: the same numbers give the same motion, independent of the store's rest."""

    person: int
    action: str
    number: int

    @property
    def key(self) -> tuple[int, int, int]:
        """The motion's seed, beside the store's."""
        return self.person, list(ACTIONS).index(self.action), self.number


def prepare_synthetic(
    out: str | os.PathLike[str],
    poses: int = 1_560_000,
    seed: int = 0,
    subjects: int = 20,
    test_subjects: int = 5,
    fps: float = 50.0,
    seconds: float = 12.0,
    rig: str = "human36m",
    cameras: int | None = None,
    elevation: float | None = None,
    noise_px: float = 0.0,
    drop: float = 0.0,
) -> dict[str, Any]:
    """Write a pose store of synthetic motion, splits "train" and "test".

    All subjects take turns at all actions. The same arguments give the same bits; with other
    `poses` or `fps` the people, their motions and the cameras stay the same.

    Args:
        out: the store to write.
        poses: their number over all cameras; rounded down to whole frames.
        seed: of all random draws.
        subjects: people of the training split; they get their share of the poses.
        test_subjects: people of the test split; 0 omits the split.
        fps: frames per second.
        seconds: maximum duration of a sequence; shorter if the poses do not suffice for every
            action.
        rig: "human36m": its four cameras, as for S1 and S5 to S8 (training) or S9 and S11 (test).
            "ring": ideal cameras around the scene; those of the test split stand between those of
            training.
        cameras: number of cameras in the ring; None: 4.
        elevation: angle at which the ring looks down, degrees; None: 10.
        noise_px: standard deviation of the error in each keypoint's x and in its y, pixels.
        drop: the probability that a joint is missing: a NaN with confidence 0.

    Returns:
        `PoseStore.summary` of the written store.

    Raises:
        ItesError: an argument is out of range.
    """
    if rig not in RIGS:
        raise ItesError(f"prepare_synthetic: rig must be one of {', '.join(RIGS)}, got {rig!r}")
    of_ring = {"cameras": cameras, "elevation": elevation}
    cameras = 4 if cameras is None else cameras
    elevation = 10.0 if elevation is None else elevation
    views = 4 if rig == "human36m" else cameras
    for name, value, fits, expected in (
        ("cameras", cameras, cameras >= 1, "at least 1"),
        ("poses", poses, poses >= views, f"at least {views}, one a camera"),
        ("seed", seed, seed >= 0, "0 or more"),
        ("subjects", subjects, subjects >= 1, "at least 1"),
        ("test_subjects", test_subjects, test_subjects >= 0, "0 or more"),
        ("fps", fps, 1 <= fps <= 1000, "in [1, 1000]"),
        ("seconds", seconds, 1 <= seconds <= 600, "in [1, 600]"),
        ("elevation", elevation, -10 <= elevation <= 85, "in [-10, 85] degrees"),
        ("noise_px", noise_px, 0 <= noise_px < float("inf"), "0 or more"),
        ("drop", drop, 0 <= drop < 1, "in [0, 1)"),
    ):
        if not fits:
            raise ItesError(f"prepare_synthetic: {name} must be {expected}, got {value}")
    for name, given in of_ring.items():
        if given is not None and rig != "ring":
            raise ItesError(f"prepare_synthetic: {name} is of the rig ring, got rig {rig!r}")

    frames = poses // views
    tested = frames * test_subjects // (subjects + test_subjects)
    crews = {"train": (0, subjects, frames - tested), "test": (subjects, test_subjects, tested)}
    with PoseStoreWriter(out, HUMAN36M, f"Synthetic motion, seed {seed}") as writer:
        for split, (first, people, share) in crews.items():
            rigs = _rigs(split, rig, cameras, elevation)
            for name, camera in ((n, c) for n in rigs if share for c in rigs[n]):
                writer.add_camera(f"{name}.{camera.id}", camera)
            for take, length in schedule(first, people, share, fps, seconds):
                world = perform(take, seed, fps, seconds)[:length]
                name = list(rigs)[(take.person - first) % len(rigs)]
                for index, camera in enumerate(rigs[name]):
                    positions = camera.world_to_camera(world)
                    rng = np.random.default_rng([seed, *take.key, 1 + index])
                    keypoints, seen = observe(camera.project(positions), rng, noise_px, drop)
                    writer.add(
                        keypoints,
                        camera=f"{name}.{camera.id}",
                        subject=f"P{take.person + 1:02d}",
                        action=take.action,
                        split=split,
                        fps=fps,
                        positions=positions,
                        confidence=seen,
                    )
    with PoseStore(out) as store:
        return store.summary()


def schedule(
    first: int, people: int, frames: int, fps: float, seconds: float
) -> list[tuple[Performance, int]]:
    """Share frames out among people and actions.

    Each round has every action once; the person for an action changes every round.

    Args:
        first: number of the first person.
        people: number of people.
        frames: number of frames to fill.
        fps: frames per second.
        seconds: longest duration of a take.

    Returns:
        takes and their lengths in frames, ordered by person, action and number.
    """
    if not frames:
        return []
    names = list(ACTIONS)
    length = max(1, min(round(fps * seconds), ceil(frames / len(names))))
    takes = []
    for index in range(ceil(frames / length)):
        turn, action = divmod(index, len(names))
        take = Performance(first + (turn + action) % people, names[action], turn // people)
        takes.append((take, min(length, frames - index * length)))
    return sorted(takes, key=lambda entry: entry[0].key)


def perform(take: Performance, seed: int, fps: float, seconds: float) -> NDArray[np.float32]:
    """The joints of one take: (round(fps * seconds), 17, 3) float32, metres, world axes."""
    body = draw_body(np.random.default_rng([seed, take.person]))
    rng = np.random.default_rng([seed, *take.key, 0])
    frames = np.arange(round(fps * seconds))
    times = np.append(frames / fps, seconds)  # an end independent of the rate
    joints = joint_positions(body, ACTIONS[take.action](times, rng, body))[:-1]
    turn = rng.uniform(0, 2 * pi)
    c, s = cos(turn), sin(turn)
    place = [*(PLACE * np.clip(rng.standard_normal(2), -2, 2)), 0]
    return (joints @ np.array([[c, s, 0], [-s, c, 0], [0, 0, 1]]) + place).astype(np.float32)


def observe(
    keypoints: NDArray[np.float32], rng: np.random.Generator, noise_px: float, drop: float
) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
    """Disturb keypoints as a detector would.

    Args:
        keypoints: (T, J, 2), pixels.
        rng: source of the disturbance.
        noise_px: standard deviation of the error in x and in y, pixels.
        drop: the probability that a joint is missing.

    Returns:
        keypoints (T, J, 2), NaN where missing; confidence (T, J), 0 or 1, or None if `drop` is 0.
    """
    if noise_px:
        error = rng.standard_normal(keypoints.shape, np.float32)
        keypoints = keypoints + np.float32(noise_px) * error
    if not drop:
        return keypoints, None
    seen = rng.random(keypoints.shape[:2], np.float32) >= drop
    return np.where(seen[..., None], keypoints, np.float32(np.nan)), seen.astype(np.float32)


def ring_cameras(
    count: int, elevation: float, azimuth: float = 0.0, radius: float = 5.0, target: float = 0.9
) -> tuple[Camera, ...]:
    """Place ideal cameras evenly around the origin.

    Args:
        count: number of cameras.
        elevation: downward angle of the cameras, degrees; negative looks up.
        azimuth: of the first camera, from +x to +y, degrees.
        radius: distance from the point looked at, metres.
        target: height of that point above the ground, metres.

    Returns:
        cameras of 1000 x 1000 pixels, focal length 1145 pixels, without distortion.
    """
    look, away = radians(elevation), radius * cos(radians(elevation))
    cx, sx = cos(pi / 4 + look / 2), -sin(pi / 4 + look / 2)  # pitched about x, then turned about z
    rig = []
    for index in range(count):
        a = radians(azimuth) + 2 * pi * index / count
        cz, sz = cos(pi / 4 + a / 2), sin(pi / 4 + a / 2)
        rig.append(
            Camera(
                id=f"{index + 1}",
                focal_length=(1145.0, 1145.0),
                center=(500.0, 500.0),
                orientation=(cz * cx, cz * sx, sz * sx, sz * cx),
                translation=(away * cos(a), away * sin(a), target + radius * sin(look)),
                width=1000,
                height=1000,
            )
        )
    return tuple(rig)


def _rigs(split: str, rig: str, count: int, elevation: float) -> dict[str, tuple[Camera, ...]]:
    if rig == "human36m":
        return {subject: human36m_cameras(subject) for subject in HUMAN36M_RIGS[split]}
    azimuth = 45.0 if split == "train" else 45.0 + 180.0 / count
    return {f"ring-{split}": ring_cameras(count, elevation, azimuth)}
