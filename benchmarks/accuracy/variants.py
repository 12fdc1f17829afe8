"""Pose stores with noise, missing joints or other cameras, made from one with 3D.

python -m benchmarks.accuracy.variants NAME --data cmu.h5 --out NAME.h5

A change is applied to every clip of every camera, training and test alike, from one seed.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ites.data.store import PoseStore, PoseStoreWriter
from ites.pose.camera import Camera

Random = np.random.Generator
Floats = NDArray[np.floating]


@dataclass(frozen=True)
class View:
    """A clip as one camera sees it.

    `keypoints` (T, J, 2), pixels; `positions` (T, J, 3), metres, camera frame; `seen` (T, J), 0
    where a joint is missing.
    """

    camera: Camera
    split: str
    keypoints: Floats
    positions: Floats
    seen: Floats


Change = Callable[[View, Random], View]


def noisy(pixels: float) -> Change:
    """Gaussian noise of a standard deviation on every coordinate."""

    def change(view: View, random: Random) -> View:
        noise = random.normal(0, pixels, view.keypoints.shape)
        return replace(view, keypoints=view.keypoints + noise)

    return change


def missing(share: float) -> Change:
    """So many joints of 1 not detected, each by itself; training and lifting interpolate them."""

    def change(view: View, random: Random) -> View:
        seen = random.random(view.seen.shape) >= share
        seen[0] |= ~seen.any(0)  # a joint that a clip never shows cannot be interpolated
        return replace(view, seen=seen.astype(np.float32))

    return change


def seen_from(lowest: float, highest: float) -> Change:
    """Every clip by its own camera, at an elevation in degrees above the subject's pelvis."""

    def change(view: View, random: Random) -> View:
        elevation = math.radians(random.uniform(lowest, highest))
        world = view.camera.camera_to_world(view.positions.astype(np.float64))
        subject = world[:, 0].mean(0)
        camera = orbit(view.camera, subject, elevation)
        positions = camera.world_to_camera(world)
        return replace(
            view, camera=camera, positions=positions, keypoints=camera.project(positions)
        )

    return change


def orbit(camera: Camera, centre: Floats, elevation: float) -> Camera:
    """The camera at the same azimuth and distance, looking at `centre` from an elevation."""
    offset = np.asarray(camera.translation) - centre
    distance, azimuth = np.linalg.norm(offset), math.atan2(offset[1], offset[0])
    away = np.array(
        [
            math.cos(elevation) * math.cos(azimuth),
            math.cos(elevation) * math.sin(azimuth),
            math.sin(elevation),
        ]
    )
    right = np.array([-math.sin(azimuth), math.cos(azimuth), 0.0])
    down = np.cross(-away, right)
    return replace(
        camera,
        orientation=_quaternion(np.stack([right, down, -away], axis=1)),
        translation=tuple((centre + distance * away).tolist()),
    )


def _quaternion(matrix: Floats) -> tuple[float, float, float, float]:
    """(w, x, y, z) of a rotation matrix that acts on columns."""
    # The eigenvector of the largest eigenvalue: stable at every angle.
    m = matrix
    skew = np.array([m[2, 1] - m[1, 2], m[0, 2] - m[2, 0], m[1, 0] - m[0, 1]])
    symmetric = np.empty((4, 4))
    symmetric[0, 0], symmetric[0, 1:], symmetric[1:, 0] = np.trace(m), skew, skew
    symmetric[1:, 1:] = m + m.T - np.trace(m) * np.eye(3)
    w, x, y, z = np.linalg.eigh(symmetric)[1][:, -1]
    return float(w), float(x), float(y), float(z)


def thinned(poses: int) -> Change:
    """About so many poses of a training split of 96,864, evenly over its clips."""

    def change(view: View, random: Random) -> View:
        if view.split != "train":
            return view
        count = len(view.keypoints)
        share = poses / TRAINING_POSES * count
        kept = int(share) + (random.random() < share % 1)
        rows = np.unique(np.linspace(0, count - 1, kept).round().astype(int))
        return replace(
            view,
            keypoints=view.keypoints[rows],
            positions=view.positions[rows],
            seen=view.seen[rows],
        )

    return change


def mirrored(view: View, random: Random) -> View:
    """Left-handed people: the image mirrored, every joint keeping its name."""
    positions = view.positions * (-1, 1, 1)
    return replace(view, positions=positions, keypoints=view.camera.project(positions))


TRAINING_POSES = 96_864
VARIANTS: dict[str, Change] = {
    "noise5": noisy(5),
    "noise10": noisy(10),
    "noise20": noisy(20),
    "missing10": missing(0.1),
    "missing30": missing(0.3),
    "level": seen_from(0, 0),
    "down30": seen_from(30, 30),
    "down45": seen_from(45, 45),
    "up30": seen_from(-30, -30),
    "varied": seen_from(0, 30),
    "poses2000": thinned(2_000),
    "poses10000": thinned(10_000),
    "mirrored": mirrored,
}


def write_variant(name: str, source: Path, out: Path, seed: int = 0) -> None:
    """Write a variant of a store.

    Raises:
        ItesError: the source is no pose store.
    """
    random = np.random.default_rng(seed)
    with PoseStore(source) as store:
        keypoints, positions = store.keypoints(), store.positions()
        assert positions is not None
        title = f"{store.title}, {name}"
        with PoseStoreWriter(out, store.skeleton, title, store.acknowledgement) as writer:
            for number, clip in enumerate(store.sequences):
                rows = clip.rows
                seen = np.ones(keypoints[rows].shape[:2], np.float32)
                view = View(
                    store.cameras[clip.camera],
                    clip.split,
                    keypoints[rows],
                    positions[rows],
                    seen,
                )
                view = VARIANTS[name](view, random)
                if not len(view.keypoints):
                    continue
                key = f"{clip.camera}.{number}"
                writer.add_camera(key, view.camera)
                writer.add(
                    view.keypoints,
                    camera=key,
                    subject=clip.subject,
                    action=clip.action,
                    split=clip.split,
                    fps=clip.fps,
                    positions=view.positions,
                    confidence=None if view.seen.all() else view.seen,
                )


def main(arguments: list[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.accuracy.variants", description=__doc__
    )
    parser.add_argument("name", choices=VARIANTS)
    parser.add_argument("--data", type=Path, required=True, help="pose store with 3D")
    parser.add_argument("--out", type=Path, required=True, help="store to write")
    options = parser.parse_args(arguments)
    write_variant(options.name, options.data, options.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
