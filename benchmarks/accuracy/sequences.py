"""Measure what it gains to lift clips as wholes instead of frame by frame.

    python -m benchmarks.accuracy.sequences [RUN ...] --data cmu.h5 [noise10.h5 ...]

Lifts the test split of stores with 3D as `ites lift` does, with its cameras known; without a run by
the general model. `ites prepare cmu --test-rate 40` makes a store of another rate,
`python -m benchmarks.accuracy.variants` one with noise or with missing joints. `sign_changes`
counts the frames that would be nearer to the frame before them as their depth-flipped twins. Writes
`benchmarks/results/cmu/sequences.csv`, two lines per run and store, millimetres and percent.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import torch

from benchmarks import machine
from ites.data.store import PoseStore
from ites.evaluation.evaluate import truth
from ites.inference.lift import lift
from ites.pose.metrics import pose_errors

FIGURES = ("p_mpjpe", "n_mpjpe", "wrong_sign", "p_mpjpe_oracle")
COLUMNS = ("run", "stage", "data", "fps", "clips", "poses", "as", *FIGURES, "sign_changes")


def sign_changes(depth: torch.Tensor, lengths: list[int]) -> int:
    """Frames whose depths (N, J, 1) are nearer to those of the frame before with the other sign."""
    count = 0
    for clip in depth.split(lengths):
        kept, turned = (clip[1:] - clip[:-1]).abs(), (clip[1:] + clip[:-1]).abs()
        count += int((turned.sum((1, 2)) < kept.sum((1, 2))).sum())
    return count


def measure(run: Path | None, data: Path, stage: str | None) -> list[dict[str, str]]:
    """A row of single frames, and one of whole clips."""
    with PoseStore(data) as store:
        positions = torch.from_numpy(truth(store, "test")).double()
        sequences = store.sequences_of("test")
    lengths, rates = [one.length for one in sequences], [one.fps for one in sequences]
    rows = []
    for what, temporal in (("single frames", False), ("whole clips", True)):
        clips = lift(data, run=run, stage=stage, split="test", temporal=temporal).clips
        poses = torch.from_numpy(np.concatenate([clip.positions for clip in clips])).double()
        errors = pose_errors(poses, positions)
        unit = {name: 100 if name == "wrong_sign" else 1000 for name in FIGURES}
        found = {name: f"{unit[name] * errors[name].mean().item():.2f}" for name in FIGURES}
        found["sign_changes"] = str(sign_changes(poses[..., 2:], lengths))
        about = {
            "run": run.name if run else "general",
            "stage": stage or "",
            "data": data.stem,
            "fps": f"{sum(rates) / len(rates):.3g}",
            "clips": str(len(lengths)),
            "poses": str(len(positions)),
            "as": what,
        }
        rows.append(about | found)
    return rows


def main(argv: list[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="*", type=Path, metavar="RUN")
    parser.add_argument("--data", type=Path, nargs="+", required=True)
    parser.add_argument("--stage", choices=("teacher", "student"))
    parser.add_argument("--out", type=Path, default=machine.RESULTS / "cmu" / "sequences.csv")
    given = parser.parse_args(argv)
    rows = [
        row
        for run in given.runs or [None]
        for data in given.data
        for row in measure(run, data, given.stage)
    ]
    machine.write_table(given.out, COLUMNS, rows)
    for row in rows:
        print("  ".join(f"{key} {row[key]}" for key in COLUMNS))
    return 0


if __name__ == "__main__":
    sys.exit(main())
