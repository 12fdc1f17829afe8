"""Measure how often the checks of keypoints are right, by geometry alone and with a prior.

    python -m benchmarks.accuracy.checks cmu.h5 [--run RUN] [--every 12]

Every so many clips of a store with 3D, its keypoints with 2 px of noise and one fault each. Faults
of time: every so many frames without a rate, and another subject from the middle on. Prints
the share of clips with a warning or an error by geometry alone, the same with the prior of a run
(the general model's by default), and the share of clips whose log density alone is below the
limit. Where there is no fault, these are false alarms. Writes `benchmarks/results/checks.csv`.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.random import Generator

from benchmarks import machine
from ites.data.checks import DENSITY_FLOOR, FEW, Density, check
from ites.data.clips import Clip
from ites.data.store import PoseStore
from ites.inference.likely import density_of
from ites.pose.skeleton import HUMAN36M, Skeleton

NOISE = 2.0
"""Standard deviation of the keypoints' error, pixels."""
ENOUGH = 12
"""Least frames of a clip with a fault of time."""
COLUMNS = ("fault", "clips", "geometry", "with_prior", "density_alone", "seconds")
Points = np.ndarray
J = {name: index for index, name in enumerate(HUMAN36M.joints)}


def exchanged(*pairs: tuple[str, str]) -> Callable[[Points, Generator], Points]:
    """Exchanges joints in all frames."""

    def fault(points: Points, _: Generator) -> Points:
        order = np.arange(points.shape[1])
        for one, other in pairs:
            order[[J[one], J[other]]] = order[[J[other], J[one]]]
        return points[:, order]

    return fault


def slow(rate: float) -> Callable[[Sequence[Clip], Generator], list[Clip]]:
    """About so many frames per second, and a rate that is not stated."""

    def fault(clips: Sequence[Clip], _: Generator) -> list[Clip]:
        steps = [max(1, round(clip.fps / rate)) for clip in clips]
        thinned = [
            replace(clip, keypoints=clip.keypoints[::step], fps=float("nan"))
            for clip, step in zip(clips, steps, strict=True)
        ]
        return [clip for clip in thinned if len(clip) >= ENOUGH]

    return fault


def another(rate: float) -> Callable[[Sequence[Clip], Generator], list[Clip]]:
    """Another subject from the middle on, whose root is where the first one's was."""

    def fault(clips: Sequence[Clip], rng: Generator) -> list[Clip]:
        changed = []
        for clip in clips:
            others = [one for one in clips if _subject(one) != _subject(clip)]
            other = others[rng.integers(len(others))]
            step = max(1, round(clip.fps / rate))
            first, second = (one.keypoints[::step] for one in (clip, other))
            cut = min(len(first), len(second)) // 2
            follows = second[cut:] - second[cut, 0] + first[cut - 1, 0]
            keypoints = np.concatenate([first[:cut], follows])
            if len(keypoints) >= ENOUGH:
                changed.append(replace(clip, keypoints=keypoints, fps=clip.fps / step))
        return changed

    return fault


def _subject(clip: Clip) -> str:
    return clip.name.split()[1].split("/")[0]


def stretched(points: Points, _: Generator) -> Points:
    """x at three quarters of its scale."""
    return points * [0.75, 1.0]


FAULTS: dict[str, Callable[[Points, Generator], Points]] = {
    "none": lambda points, _: points,
    "none, 10 px of noise": lambda points, rng: points + 10 * rng.standard_normal(points.shape),
    "y upwards": lambda points, _: points * [1, -1] + [0, 1000],
    "turned by 90 degrees": lambda points, _: points[..., ::-1] * [-1, 1] + [1000, 0],
    "turned by 180 degrees": lambda points, _: 1000 - points,
    "turned by 45 degrees": lambda points, _: points @ np.array([[0.71, 0.71], [-0.71, 0.71]]),
    "joints in a random order": lambda points, rng: points[:, rng.permutation(points.shape[1])],
    "knees and ankles exchanged": exchanged(
        ("left_knee", "left_ankle"), ("right_knee", "right_ankle")
    ),
    "elbows and wrists exchanged": exchanged(
        ("left_elbow", "left_wrist"), ("right_elbow", "right_wrist")
    ),
    "arms and legs exchanged": exchanged(
        ("left_elbow", "left_knee"), ("left_wrist", "left_ankle"),
        ("right_elbow", "right_knee"), ("right_wrist", "right_ankle"),
    ),
    "sides of the legs exchanged": exchanged(
        ("left_hip", "right_hip"), ("left_knee", "right_knee"), ("left_ankle", "right_ankle")
    ),
    "x and y exchanged": lambda points, _: points[..., ::-1].copy(),
    "x at 75% of its scale": stretched,
}  # fmt: skip
FAULTS_OF_TIME: dict[str, Callable[[Sequence[Clip], Generator], list[Clip]]] = {
    "none, about 6 frames per second, rate unknown": slow(6.0),
    "none, about 4 frames per second, rate unknown": slow(4.0),
    "another person at the same place, about 12 frames per second": another(12.5),
    "another person at the same place, about 6 frames per second": another(6.0),
}


def clips_of(data: Path, every: int) -> tuple[list[Clip], Skeleton]:
    """Every so many clips of all splits that a check can warn of."""
    with PoseStore(data) as store:
        keypoints = store.keypoints()
        clips = [
            Clip(
                f"{number} {sequence}",
                keypoints[sequence.rows],
                sequence.fps,
                image_size=(camera.width, camera.height) if camera.width else None,
            )
            for number, sequence in enumerate(store.sequences)
            if sequence.length >= FEW and (camera := store.cameras[sequence.camera])
        ]
        return clips[::every], store.skeleton


def measure(clips: Sequence[Clip], skeleton: Skeleton, prior: Density) -> list[dict[str, str]]:
    """A row per fault."""
    rows = []
    for name in (*FAULTS, *FAULTS_OF_TIME):
        rng = np.random.default_rng(0)
        broken = []
        for clip in clips:
            points = clip.keypoints + NOISE * rng.standard_normal(clip.keypoints.shape)
            if name in FAULTS:
                points = FAULTS[name](points, rng)
            broken.append(replace(clip, keypoints=np.ascontiguousarray(points, np.float32)))
        if name in FAULTS_OF_TIME:
            broken = FAULTS_OF_TIME[name](broken, rng)
        started = time.perf_counter()
        shares = [_told(broken, skeleton, None), _told(broken, skeleton, prior)]
        spent = time.perf_counter() - started
        shares.append(sum(_unlikely(clip, skeleton, prior) for clip in broken) / len(broken))
        values = [f"{100 * share:.1f}" for share in shares]
        rows.append(
            dict(zip(COLUMNS, (name, str(len(broken)), *values, f"{spent:.1f}"), strict=True))
        )
        print("  ".join(rows[-1].values()), flush=True)
    return rows


def _told(clips: Sequence[Clip], skeleton: Skeleton, prior: Density | None) -> float:
    """The share of clips with a warning or an error."""
    found = check(clips, skeleton, prior=prior)
    return len({one.clip for one in found if one.severity != "note"}) / len(clips)


def _unlikely(clip: Clip, skeleton: Skeleton, prior: Density) -> bool:
    points = clip.keypoints - clip.keypoints[:, [skeleton.root]]
    floor: float = getattr(prior, "floor", DENSITY_FLOOR)
    heads = np.linalg.norm(points[:, skeleton.head], axis=-1).mean()
    return bool(np.median(prior((points * (0.2 / heads)).astype(np.float32))) < floor)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, metavar="STORE")
    parser.add_argument("--run", type=Path, help="by default the general model")
    parser.add_argument("--every", type=int, default=12)
    parser.add_argument("--out", type=Path, default=machine.RESULTS / "checks.csv")
    given = parser.parse_args(argv)
    clips, skeleton = clips_of(given.data, given.every)
    prior = density_of(given.run, skeleton)
    if prior is None:
        raise SystemExit("checks: this installation contains no model; name a run")
    rows = measure(clips, skeleton, prior)
    machine.write_table(given.out, COLUMNS, rows)
    print(f"wrote {given.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
