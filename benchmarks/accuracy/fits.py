"""Measure what a fit to one's own clips gains on a camera that it has not seen.

    python -m benchmarks.accuracy.fits CLIPS [--start RUN] [--keep FOLDER]

CLIPS is a folder as `benchmarks.accuracy.real` takes it: one performance, seen by several cameras.
Each camera in turn is left out. `ites fit` learns from the detections of the others, and the model
lifts the camera that was left out, beside the model at the start. Prints P-MPJPE of all joints and
of the twelve limb joints, and writes `benchmarks/results/fits.csv`. The truth is used by this
program alone.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from benchmarks import machine
from benchmarks.accuracy.real import measure
from ites.runs.packaged import run_or_packaged
from ites.workflows.fit import Fit, fit

ENDING = "_coco.npz"
COLUMNS = ("clip", "model", "frames", "verdict", "p_mpjpe", "limbs", "n_mpjpe", "flat")


def rows_of(clips: Path, start: Path, runs: Path) -> list[dict[str, str]]:
    """Two rows per camera: the model at the start, and the fit to the other cameras."""
    names = sorted(file.name.removesuffix(ENDING) for file in clips.glob(f"*{ENDING}"))
    rows = []
    for name in names:
        others = [clips / f"{other}{ENDING}" for other in names if other != name]
        run = runs / name
        made = fit(others, run, layout="coco17", start=start)
        with np.load(clips / f"{name}_truth.npz") as file:
            truth = file["truth"]
        for model, folder in (("start", start), ("fit", run)):
            found = measure(clips / f"{name}{ENDING}", "coco17", truth, run=folder)
            about = _about(made) if model == "fit" else {}
            rows.append({"clip": name, "model": model, **about, **found})
    for model in ("start", "fit"):
        alike = [row for row in rows if row["model"] == model]
        mean = {c: f"{np.mean([float(row[c]) for row in alike]):.1f}" for c in COLUMNS[4:]}
        rows.append({"clip": "mean", "model": model, **mean})
    return [{column: row.get(column, "") for column in COLUMNS} for row in rows]


def _about(made: Fit) -> dict[str, str]:
    return {"frames": str(made.frames[0]), "verdict": made.verdict}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("clips", type=Path, metavar="CLIPS")
    parser.add_argument("--start", type=Path, help="run folder; by default the general model")
    parser.add_argument("--keep", type=Path, help="folder for the runs, to look at")
    parser.add_argument("--out", type=Path, default=machine.RESULTS / "fits.csv")
    given = parser.parse_args(argv)
    with TemporaryDirectory() as scratch:
        runs = given.keep or Path(scratch)
        rows = rows_of(given.clips, run_or_packaged(given.start), runs)
    print(" ".join(f"{name:>13}" for name in COLUMNS))
    for row in rows:
        print(" ".join(f"{row[name][-13:]:>13}" for name in COLUMNS))
    machine.write_table(given.out, COLUMNS, rows)
    print(f"wrote {given.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
