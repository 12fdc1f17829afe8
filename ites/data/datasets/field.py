"""People of every build in every posture, seen by any reasonable camera.

The poses come from CMU motion capture, the synthetic actions and single synthetic postures. Each is
seen by two cameras drawn at random. The store holds exact 2D keypoints and, for each, the elevation
and roll of the line of sight. It holds no 3D, and nothing about the positions of the cameras
relative to each other.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from ites.data.datasets.cmu import ACKNOWLEDGEMENT, TEST_SUBJECTS, takes_of, thinned
from ites.data.datasets.plausible import Say, sound_frames
from ites.data.store import PAIRS, PoseStore, PoseStoreWriter, second_view
from ites.data.synthetic.actions import ACTIONS
from ites.data.synthetic.motion import Array
from ites.data.synthetic.synthetic import Performance, perform
from ites.data.synthetic.variety import (
    as_detected,
    draw_postures,
    other_arms,
    other_bodies,
    other_heads,
    turned,
)
from ites.errors import ItesError
from ites.pose.camera import Camera, focal_length_of
from ites.pose.missing import impossible
from ites.pose.skeleton import HUMAN36M

SHARES = {"mocap": 0.45, "action": 0.15, "posture": 0.4}
"""Shares of poses by where they come from: motion capture, a synthetic action, a single synthetic
posture. Without motion capture the others share its part."""
OTHER_ARMS = 0.25
"""Share of the poses of motion capture and actions whose arms are those of a posture."""
OTHER_HEADS = 0.35
"""Share of the same whose neck and head are those of a posture."""
DETECTED = 0.8
"""Share of the poses whose joints lie where detectors place them."""
FIELDS_OF_VIEW = (20, 30, 42, 55, 65, 75)
"""Horizontal fields of view, degrees, of the longer side of the image: telephoto to phone."""
SIZES = ((1920, 1080), (1080, 1920))
ELEVATIONS = (-38.0, 58.0)
"""Range of the elevations of half of the lines of sight, degrees; the others are drawn from
N(12, 13)."""
ROLL = 8.0, 25.0
"""Standard deviation and limit of the cameras' roll, degrees."""
SENSOR = 2.0
"""Standard deviation of the error with which the roll is known, degrees."""
DISTANCES = 1.8, 14.0
"""Nearest and farthest person, metres."""
PARTNERS = 6
"""Other cameras that each camera is paired with, drawn at random."""
ONE_OF = 1000
"""One of so many people per camera is in the pairs of views that calibrate the expected error."""
FRAMES = 60
"""Frames of a synthetic action, 5 per second."""


def prepare_field(
    source: str | os.PathLike[str] | None,
    out: str | os.PathLike[str],
    *,
    people: int = 600_000,
    views: int = 2,
    seed: int = 0,
    rate: float = 12.5,
    test_subjects: Sequence[str] = TEST_SUBJECTS,
    say: Say = print,
) -> dict[str, Any]:
    """Write a pose store of people in the field.

    The splits "train" and "train-second-view" hold the same people row by row, seen by unrelated
    cameras. So do "first-view" and "second-view". They calibrate the expected error; nothing is
    trained on them. The same arguments give the same bits.

    Args:
        source: CMU motion as `ites.data.datasets.cmu` reads it; None: synthetic people alone.
        out: the store to write.
        people: number of poses.
        views: of each pose, in the mean; a pose has two views at a time.
        seed: of all random draws.
        rate: frames per second that are taken of motion capture.
        test_subjects: subjects of the motion capture that are left out.
        say: prints a line.

    Returns:
        `PoseStore.summary` of the written store.

    Raises:
        ItesError: an argument is out of range, or the source cannot be read.
    """
    for name, value, least in (("people", people, 100), ("views", views, 1), ("seed", seed, 0)):
        if value < least:
            raise ItesError(f"prepare_field: {name} must be at least {least}, got {value}")
    rng = np.random.default_rng(seed)
    poses = draw_people(rng, source, people, seed, rate, test_subjects, say)
    credit = ACKNOWLEDGEMENT if source is not None else ""
    with PoseStoreWriter(out, HUMAN36M, f"People in the field, seed {seed}", credit) as writer:
        cameras = _cameras()
        for camera in cameras:
            writer.add_camera(camera.id, camera)
        training = max(1, people * views // (2 * PARTNERS * len(cameras)))
        for splits, count, partners in (
            (("train", second_view("train")), training, PARTNERS),
            (PAIRS, max(1, people // ONE_OF), 1),
        ):
            found = [
                (pair, _see_twice(rng, poses, count, pair))
                for camera in cameras
                for pair in _pairs(rng, cameras, camera, partners)
            ]
            for place, split in enumerate(splits):
                for pair, seen in found:
                    _add(writer, pair[place], split, *seen[place])
    with PoseStore(out) as store:
        return store.summary()


def _pairs(
    rng: Generator, cameras: list[Camera], camera: Camera, count: int
) -> list[tuple[Camera, Camera]]:
    """A camera with each of `count` others, drawn at random."""
    others = [other for other in cameras if other is not camera]
    return [(camera, others[i]) for i in rng.choice(len(others), count, replace=False)]


def _see_twice(
    rng: Generator, poses: Array, count: int, pair: tuple[Camera, Camera]
) -> list[tuple[Array, Array]]:
    """What two cameras see of `count` poses drawn at random: `see` of each, without the poses whose
    joints a detector could not see in both."""
    chosen = poses[rng.integers(len(poses), size=count)]
    found = [see(rng, chosen, camera) for camera in pair]
    sound = np.ones(count, bool)
    for (keypoints, _), camera in zip(found, pair, strict=True):
        sound &= _sound(keypoints, camera)
    return [(keypoints[sound], gravity[sound]) for keypoints, gravity in found]


def _sound(keypoints: Array, camera: Camera) -> NDArray[np.bool_]:
    """Which poses (N, J, 2) have all their joints at places where a detector could see them."""
    return np.asarray(~impossible(keypoints, None, (camera.width, camera.height)).any(1))


def _add(
    writer: PoseStoreWriter, camera: Camera, split: str, keypoints: Array, gravity: Array
) -> None:
    if not len(keypoints):
        return
    writer.add(
        keypoints,
        camera=camera.id,
        subject="everybody",
        action="anything",
        split=split,
        fps=float("nan"),
        gravity=gravity,
    )


def draw_people(
    rng: Generator,
    source: str | os.PathLike[str] | None,
    count: int,
    seed: int,
    rate: float = 12.5,
    test_subjects: Sequence[str] = TEST_SUBJECTS,
    say: Say = print,
) -> Array:
    """Draw (count, 17, 3) poses, metres, z up, root-relative, of other builds and with other arms.

    Args: see `prepare_field`; `seed` is that of the actions.
    """
    shares = dict(SHARES)
    if source is None:
        shares["mocap"] = 0.0
    total = sum(shares.values())
    numbers = {kind: int(count * share / total) for kind, share in shares.items()}
    numbers["posture"] += count - sum(numbers.values())
    postures = draw_postures(rng, max(numbers["posture"], 64))
    parts = [postures[: numbers["posture"]]]
    if source is not None:
        captured = _mocap(Path(source), rate, test_subjects, say)
        parts.append(captured[rng.integers(len(captured), size=numbers["mocap"])])
    acted = _actions(seed, max(len(ACTIONS), numbers["action"] // (6 * FRAMES)))
    parts.append(acted[rng.integers(len(acted), size=numbers["action"])])
    moving = np.arange(count) >= numbers["posture"]
    poses = np.concatenate(parts)
    other = np.flatnonzero(moving & (rng.random(count) < OTHER_ARMS))
    donors = postures[rng.integers(len(postures), size=len(other))]
    poses[other] = other_arms(poses[other], donors)
    other = np.flatnonzero(moving & (rng.random(count) < OTHER_HEADS))
    donors = postures[rng.integers(len(postures), size=len(other))]
    poses[other] = other_heads(poses[other], donors)
    poses = other_bodies(rng, poses)
    found = np.flatnonzero(rng.random(count) < DETECTED)
    poses[found] = as_detected(rng, poses[found])
    return poses


def _mocap(source: Path, rate: float, test_subjects: Sequence[str], say: Say) -> Array:
    parts = []
    for take in takes_of(source):
        if take.subject in test_subjects:
            continue
        sound = sound_frames(take.where, take.positions, say=say, first=take.first)
        frames = take.positions[thinned(sound, max(1, round(take.fps / rate)))]
        parts.append((frames - frames[:, :1]).astype(np.float64))
    if not sum(map(len, parts)):
        raise ItesError(f"{source}: expected sound frames of subjects other than the test's")
    return np.concatenate(parts)


def _actions(seed: int, takes: int) -> Array:
    names = list(ACTIONS)
    parts = []
    for number in range(takes):
        world = perform(Performance(number, names[number % len(names)], 0), seed, 5.0, FRAMES / 5)
        parts.append((world - world[:, :1]).astype(np.float64))
    return np.concatenate(parts)


def _cameras() -> list[Camera]:
    cameras = []
    for width, height in SIZES:
        for degrees in FIELDS_OF_VIEW:
            focal = focal_length_of(degrees, max(width, height))
            cameras.append(
                Camera(
                    id=f"{degrees}-degrees-{width}x{height}",
                    focal_length=(focal, focal),
                    center=(width / 2, height / 2),
                    width=width,
                    height=height,
                )
            )
    return cameras


def draw_elevations(rng: Generator, count: int) -> Array:
    """Elevations (count,) of lines of sight, degrees; positive looks down."""
    usual = np.clip(rng.normal(12, 13, count), *ELEVATIONS)
    return np.where(rng.random(count) < 0.5, usual, rng.uniform(*ELEVATIONS, count))


def see(rng: Generator, poses: Array, camera: Camera) -> tuple[Array, Array]:
    """See each pose by a camera of the given kind, placed at random.

    The person turns to any side and stands anywhere in the middle third of the image. The distance
    makes the person fill 25% to 90% of it. The camera is rolled.

    Args:
        rng: source of the draws.
        poses: (N, 17, 3), metres, z up, root-relative.
        camera: its intrinsics.

    Returns:
        keypoints (N, 17, 2), pixels; gravity (N, 2): elevation and roll of the line of sight,
        degrees, as known by a sensor; the roll is the camera's, clockwise.
    """
    count, focal = len(poses), camera.focal_length[0]
    body = turned(poses, rng.uniform(-180, 180, count), 2)
    body = np.stack([body[..., 0], -body[..., 2], body[..., 1]], -1)  # x right, y down, z forward
    elevation, roll = (
        draw_elevations(rng, count),
        np.clip(rng.normal(0, ROLL[0], count), -ROLL[1], ROLL[1]),
    )
    body = turned(body, elevation, 0)
    filled = rng.uniform(0.25, 0.9, count) * min(camera.height, 1.4 * camera.width)
    distance = np.clip(1.7 * focal / filled, *DISTANCES)
    extent = np.array([camera.width, camera.height])
    place = rng.uniform(-1 / 3, 1 / 3, (count, 2)) * extent / focal  # tangents off the axis
    root = np.zeros((count, 1, 3))
    root[..., 2] = distance[:, None]
    points = np.concatenate([body + root, root], 1)
    points = turned(points, np.degrees(np.arctan(place[:, 1])), 0)
    points = turned(points, np.degrees(np.arctan(place[:, 0])), 1)
    points = turned(points, roll, 2)
    seen = points[..., :2] / np.maximum(points[..., 2:], 0.2)
    keypoints = seen[:, :-1] * focal + camera.center
    known = roll + SENSOR * rng.standard_normal(count)
    return keypoints, np.stack([elevation, -known], 1)  # the camera turns against its picture
