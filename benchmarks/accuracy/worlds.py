"""Draw the errors of recipe upright's teacher with noise, missing joints and other cameras.

    python -m benchmarks.accuracy.recipes teacher-short noise5 noise10 ... --data cmu.h5
    python -m benchmarks.accuracy.worlds

Reads `benchmarks/results/cmu/ROW.csv` of each world and writes `worlds.svg` there: the strict
P-MPJPE, mean over the seeds, and the share of poses of the wrong depth sign.
"""

from __future__ import annotations

import csv
import sys

import matplotlib

matplotlib.use("svg")
from matplotlib import pyplot as plt  # noqa: E402

from benchmarks.accuracy.recipes import RESULTS  # noqa: E402
from benchmarks.ops.plot import save  # noqa: E402

WORLDS = {
    "teacher-short": "unchanged: 96,864 poses",
    "poses10000": "10,000 poses",
    "poses2000": "2,000 poses",
    "noise5": "noise of 5 px",
    "noise10": "noise of 10 px",
    "noise20": "noise of 20 px",
    "missing10": "10% of joints missing",
    "missing30": "30% of joints missing",
    "level": "a level camera",
    "down30": "down by 30°",
    "down30-level": "the same, without pilots",
    "down45": "down by 45°",
    "up30": "up by 30°",
    "varied": "0 to 30°, by sequence",
    "mirrored": "mirrored",
}
FLAT = 106.0  # mm: P-MPJPE of depth 0 on exact 2D


def figures(row: str) -> tuple[float, float]:
    """P-MPJPE in millimetres and wrong signs in percent, mean over the seeds."""
    with (RESULTS / f"{row}.csv").open(newline="", encoding="utf-8") as file:
        lines = [line for line in csv.DictReader(file) if line["stage"] == "teacher"]
    errors, wrong = ([float(line[name]) for line in lines] for name in ("p_mpjpe", "wrong_sign"))
    return sum(errors) / len(errors), sum(wrong) / len(wrong)


def main() -> int:
    """Draw the worlds that have been measured."""
    rows = {row: words for row, words in WORLDS.items() if (RESULTS / f"{row}.csv").exists()}
    errors, wrong = zip(*map(figures, rows), strict=True)
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(9, 4), sharey=True, layout="constrained", width_ratios=(2, 1)
    )
    for axis, values, label in ((left, errors, "P-MPJPE, mm"), (right, wrong, "wrong sign, %")):
        bars = axis.barh(list(rows.values()), values, color="tab:blue")
        axis.bar_label(bars, fmt="%.1f", padding=3, fontsize=8)
        axis.set_xlabel(label)
        axis.margins(x=0.15)
    left.axvline(FLAT, color="0.5", linestyle=":")
    left.text(FLAT, -0.7, "depth 0", color="0.4", ha="right", fontsize=8)
    left.invert_yaxis()
    save(figure, RESULTS / "worlds.svg")
    return 0


if __name__ == "__main__":
    sys.exit(main())
