"""Measure root paths and gravity of lifted clips whose cameras are known.

    python -m benchmarks.accuracy.paths CLIPS|STORE [--run RUN] [--stage student]

CLIPS is the folder of `benchmarks.accuracy.real`; its truth files also hold `root` (N, 3), metres,
camera axes, and `elevation` and `roll` of the camera, degrees. STORE is a pose store with 3D.

The people's size is unknown, so each lifted clip is scaled to the truth's bone lengths: the sum of
their medians over the clip. Prints, per clip of CLIPS or as means over STORE's frames, in
millimetres: the mean distance of path and true root, its part along the line of sight and across,
the same after one more factor per clip, and the steps per frame; and gravity's error in degrees.
Writes `benchmarks/results/paths.csv`.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from benchmarks import machine
from ites.data.clips import Clip
from ites.data.keypoint_reader import read_keypoints
from ites.data.lifted import read_clips
from ites.inference.lift import lift
from ites.pose.skeleton import HUMAN36M
from ites.runs.packaged import run_or_packaged

COLUMNS = (
    "clip", "distance", "error", "along", "across", "rescaled", "step", "true_step", "gravity",
)  # fmt: skip


def bone_lengths(positions: np.ndarray) -> float:
    """The sum of the bones' median lengths (T, J, 3)."""
    parents, joints = np.array(HUMAN36M.bones).T
    bones = np.linalg.norm(positions[:, joints] - positions[:, parents], axis=-1)
    return float(np.median(bones, axis=0).sum())


def compare(clip: Clip, truth: np.ndarray, root: np.ndarray) -> dict[str, np.ndarray]:
    """Errors per frame of a clip's path against the truth's root (T, 3), metres."""
    path = clip.root * bone_lengths(truth) / bone_lengths(clip.positions)
    ray = root / np.linalg.norm(root, axis=-1, keepdims=True)
    along = np.abs(np.sum((path - root) * ray, axis=-1))
    error = np.linalg.norm(path - root, axis=-1)
    away = np.linalg.norm(path, axis=-1)
    rescaled = path * np.median(np.linalg.norm(root, axis=-1) / away)
    return {
        "distance": np.linalg.norm(root, axis=-1),
        "error": error,
        "along": along,
        "across": np.sqrt(np.maximum(error**2 - along**2, 0)),
        "rescaled": np.linalg.norm(rescaled - root, axis=-1),
        "step": np.linalg.norm(np.diff(path, axis=0), axis=-1),
        "true_step": np.linalg.norm(np.diff(root, axis=0), axis=-1),
    }


def tilt(gravity: tuple[float, float, float] | None, truth: np.ndarray) -> float:
    """The angle between two directions of gravity, degrees."""
    return float(np.degrees(np.arccos(np.clip(np.dot(gravity or (np.nan,) * 3, truth), -1, 1))))


def of_folder(folder: Path, run: Path, stage: str | None, out: Path) -> list[dict[str, str]]:
    """A row per file with true roots."""
    rows = []
    for file in sorted(folder.glob("*_truth.npz")):
        name = file.name.removesuffix("_truth.npz")
        truth = dict(np.load(file))
        e, r = np.radians([truth["elevation"], truth["roll"]])
        for kind in ("h36m", "exact"):
            source = folder / f"{name}_{kind}.npz"
            for roll in (0.0, float(truth["roll"])):
                lift(
                    source, out, run=run, stage=stage, device="cpu", roll=roll,
                    focal_length=float(truth["focal"]),
                )  # fmt: skip
                (clip,) = read_clips(out).clips
                figures = compare(clip, truth["truth"], truth["root"])
                down = np.array([np.cos(e) * np.sin(r), np.cos(e) * np.cos(r), np.sin(e)])
                label = f"{name} {kind}" + (f", roll {roll:.0f} given" if roll else "")
                rows.append(_row(label, figures, tilt(clip.gravity, down)))
    return rows


def of_store(store: Path, run: Path, stage: str | None, out: Path) -> list[dict[str, str]]:
    """One row: means over the frames of the test split."""
    lift(store, out, run=run, stage=stage, device="cpu")
    found, gravity = [], []
    for lifted, given in zip(read_clips(out).clips, read_keypoints(store).clips, strict=True):
        found.append(compare(lifted, given.truth, given.root))
        if given.gravity is not None:
            gravity.append(tilt(lifted.gravity, np.array(given.gravity)))
    figures = {name: np.concatenate([one[name] for one in found]) for name in found[0]}
    return [_row(store.stem, figures, float(np.mean(gravity)) if gravity else float("nan"))]


def _row(name: str, figures: dict[str, np.ndarray], degrees: float) -> dict[str, str]:
    numbers = {key: f"{1000 * float(np.mean(value)):.0f}" for key, value in figures.items()}
    return {"clip": name, **numbers, "gravity": f"{degrees:.1f}"}


def main(argv: list[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", type=Path, metavar="CLIPS|STORE")
    parser.add_argument("--run", type=Path, help="by default the general model")
    parser.add_argument("--stage", choices=("teacher", "student"))
    parser.add_argument("--out", type=Path, default=machine.RESULTS / "paths.csv")
    given = parser.parse_args(argv)
    run = run_or_packaged(given.run)
    with TemporaryDirectory() as folder:
        measure = of_folder if given.source.is_dir() else of_store
        rows = measure(given.source, run, given.stage, Path(folder, "lifted.npz"))
    machine.show_and_write(given.out, COLUMNS, rows, 9)
    return 0


if __name__ == "__main__":
    sys.exit(main())
