"""Measure what it gains to take clips as wholes: `ites lift --temporal` against single frames.

    python -m benchmarks.accuracy.sequences RUN [RUN ...] --data cmu.h5 [--stage student]

Every pose of the test split by its own scale. `sign_changes` counts the frames that would be
nearer to the frame before them as their depth-flipped twins. Writes
`benchmarks/results/cmu/sequences.csv`, two lines a run, millimetres and percent; `--data` may hold
the test subjects at another rate (`ites prepare cmu --test-rate 40`).
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import torch

from benchmarks import machine
from ites.data.clips import Clip, Clips
from ites.data.store import PoseStore
from ites.evaluation.evaluate import truth
from ites.inference.lift import make_consistent, views_of
from ites.models import GeneralTeacher, fold_norms
from ites.models.predict import cleaned, lift_points
from ites.pose.metrics import pose_errors
from ites.runs.checkpoint import load_model, load_prior
from ites.runs.folder import RunFolder

FIGURES = ("p_mpjpe", "n_mpjpe", "wrong_sign", "p_mpjpe_oracle")
COLUMNS = ("run", "stage", "fps", "clips", "poses", "as", *FIGURES, "sign_changes")


def sign_changes(depth: torch.Tensor, lengths: list[int]) -> int:
    """Frames whose depths (N, J, 1) are nearer to those of the frame before with the other sign."""
    count = 0
    for clip in depth.split(lengths):
        kept, turned = (clip[1:] - clip[:-1]).abs(), (clip[1:] + clip[:-1]).abs()
        count += int((turned.sum((1, 2)) < kept.sum((1, 2))).sum())
    return count


def measure(run: Path, data: Path, stage: str) -> list[dict[str, Any]]:
    """A row of single frames, and one of whole clips."""
    model, metadata = load_model(run, stage)
    with PoseStore(data) as store:
        points, _ = store.points("test")
        positions = torch.from_numpy(truth(store, "test"))
        sequences = store.sequences_of("test")
    lengths, rates = [one.length for one in sequences], [one.fps for one in sequences]
    clips = Clips(
        metadata.skeleton, [Clip(str(one), points[one.rows], one.fps) for one in sequences]
    )
    folded = fold_norms(model.float())
    lifted = lift_points(folded.pose, points, metadata.skeleton)
    flat, views = cleaned(folded.clean, points, "cpu"), None
    if isinstance(folded, GeneralTeacher) and RunFolder(run).weights("prior").is_file():
        elevation = cleaned(folded.elevation, points, "cpu")
        views = views_of(clips, elevation, load_prior(run))
    whole = make_consistent(clips, points, flat, lifted, masked=model.masks, views=views)
    rows = []
    for what, poses in (
        ("single frames", torch.from_numpy(lifted)),
        ("whole clips", torch.from_numpy(whole)),
    ):
        errors = pose_errors(poses, positions)
        unit = {name: 100 if name == "wrong_sign" else 1000 for name in FIGURES}
        found = {name: f"{unit[name] * errors[name].mean().item():.2f}" for name in FIGURES}
        about = {"run": run.name, "stage": stage, "fps": f"{sum(rates) / len(rates):.3g}"}
        counts = {"clips": len(lengths), "poses": len(points)}
        found["sign_changes"] = str(sign_changes(poses[..., 2:], lengths))
        rows.append({**about, **counts, "as": what, **found})
    return rows


def main(argv: list[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--stage", choices=("teacher", "student"), default="student")
    parser.add_argument("--out", type=Path, default=machine.RESULTS / "cmu" / "sequences.csv")
    given = parser.parse_args(argv)
    rows = [row for run in given.runs for row in measure(run, given.data, given.stage)]
    machine.write_table(given.out, COLUMNS, rows)
    for row in rows:
        print("  ".join(f"{key} {row[key]}" for key in COLUMNS))
    return 0


if __name__ == "__main__":
    sys.exit(main())
