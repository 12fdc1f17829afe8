"""Measure the general model's single frames on the CMU test split, as it is and in other worlds.

    python -m benchmarks.accuracy.general --data cmu.h5 [--run RUN]

Every eighth pose of the test split, seen by its own known camera, from other elevations, with
noise, and with joints missing. Nothing is known from other frames. Prints P-MPJPE in millimetres,
wrong signs in percent, and the mean expected error. Where a limb is missing, the figures are of the
other joints, first with the limb seen. Writes `benchmarks/results/general.csv`.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import torch

from benchmarks import machine
from benchmarks.accuracy.variants import VARIANTS, View
from ites.data.store import PoseStore
from ites.models import fold_norms
from ites.models.predict import lift_points
from ites.models.trust import body_length
from ites.pose.camera import axis_turn, turn_points
from ites.pose.metrics import p_mpjpe, pose_errors
from ites.runs.checkpoint import load_model, load_trust
from ites.runs.packaged import run_or_packaged

WORLDS = ("as it is", "level", "up30", "down30", "down45", "noise5", "noise10", "missing30")
LIMBS = {
    "right arm": (14, 15, 16),
    "left arm": (11, 12, 13),
    "right leg": (1, 2, 3),
    "left leg": (4, 5, 6),
}
COLUMNS = ("world", "poses", "p_mpjpe", "wrong_sign", "expected")
EVERY = 8


def views(data: Path, world: str) -> tuple[np.ndarray, torch.Tensor]:
    """Points (N, 17, 2) of every eighth test pose, nan where missing; positions (N, 17, 3)."""
    random = np.random.default_rng(0)
    points, positions = [], []
    with PoseStore(data) as store:
        keypoints, truth = store.keypoints("test"), store.positions("test")
        if truth is None:
            raise SystemExit(f"{data}: expected a store with 3D")
        for clip in store.sequences_of("test"):
            seen = np.ones(keypoints[clip.rows].shape[:2], np.float32)
            view = View(
                store.cameras[clip.camera], clip.split, keypoints[clip.rows], truth[clip.rows], seen
            )
            if world in VARIANTS:
                view = VARIANTS[world](view, random)
            sight = _normalised(view)
            turns = axis_turn(sight[:, 0])
            found = turn_points(sight, turns)
            points.append(np.where(view.seen[..., None] > 0, found, np.nan))
            positions.append(view.positions @ turns)
    every = slice(None, None, EVERY)
    there = np.concatenate(points)[every].astype(np.float32)
    there = there - np.nanmean(there, axis=1, keepdims=True)
    return there, torch.from_numpy(np.concatenate(positions)[every]).double()


def _normalised(view: View) -> np.ndarray:
    """Keypoints (T, 17, 2), pixels, from the principal point over the focal length."""
    camera = view.camera
    return (view.keypoints - np.asarray(camera.center)) / np.asarray(camera.focal_length)


def measure(run: Path, data: Path) -> list[dict[str, str]]:
    """A row per world and per missing limb."""
    model, metadata = load_model(run, None, torch.device("cpu"))
    model = fold_norms(model.float())
    judge = load_trust(run, "teacher")
    rows = []

    def lifted(points: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(lift_points(model.pose, points, metadata.skeleton)).double()

    def row(world: str, poses: int, **figures: float) -> None:
        rows.append({"world": world, "poses": str(poses)})
        rows[-1] |= {name: f"{value:.1f}" for name, value in figures.items()}

    for world in WORLDS:
        points, true = views(data, world)
        found = lifted(points)
        errors = pose_errors(found, true)
        figures = {
            "p_mpjpe": 1000 * float(errors["p_mpjpe"].mean()),
            "wrong_sign": 100 * float(errors["wrong_sign"].double().mean()),
        }
        if world == "as it is" and judge is not None:
            judged = judge(points - points[:, :1], found.float().numpy(), "cpu")
            if judged.expected_error is not None:
                bones = body_length(true, metadata.skeleton).numpy()
                figures["expected"] = 1000 * float(np.mean(judged.expected_error * bones))
        row(world, len(points), **figures)
    points, true = views(data, "as it is")
    whole = lifted(points)
    for name, limb in LIMBS.items():
        rest = [joint for joint in range(17) if joint not in limb]
        missing = points.copy()
        missing[:, limb] = np.nan
        for what, poses in (("seen", whole), ("missing", lifted(missing))):
            error = 1000 * float(p_mpjpe(poses[:, rest], true[:, rest]).mean())
            row(f"{name} {what}", len(points), p_mpjpe=error)
    return rows


def main(argv: list[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="pose store of CMU with 3D")
    parser.add_argument("--run", type=Path, help="by default the general model")
    parser.add_argument("--out", type=Path, default=machine.RESULTS / "general.csv")
    given = parser.parse_args(argv)
    rows = measure(run_or_packaged(given.run), given.data)
    for found in rows:
        print("  ".join(f"{name} {found.get(name, '')}" for name in COLUMNS))
    machine.write_table(given.out, COLUMNS, rows)
    print(f"wrote {given.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
