"""Compare the sign confidence of `ites lift` with the truth: is it calibrated?

    python -m benchmarks.accuracy.reliability RUN [RUN ...] --data cmu.h5 [--stage student]

Every pose of the test split by its own scale, all runs' together. Writes
`benchmarks/results/cmu/reliability.csv` and `.svg`: poses grouped by the confidence in their
depth's sign, with the share whose sign is right. A second grouping is by tenths of the density of
their turned views, with their error.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("svg")
import numpy as np  # noqa: E402
import torch  # noqa: E402
from matplotlib import pyplot as plt  # noqa: E402
from numpy.typing import NDArray  # noqa: E402

from benchmarks import machine  # noqa: E402
from benchmarks.ops.plot import save  # noqa: E402
from ites.data.store import PoseStore  # noqa: E402
from ites.evaluation.evaluate import truth  # noqa: E402
from ites.models import fold_norms  # noqa: E402
from ites.models.predict import lift_points  # noqa: E402
from ites.pose.metrics import pose_errors  # noqa: E402
from ites.runs.checkpoint import load_model, load_trust  # noqa: E402

EDGES = (0, 0.6, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 1)
COLUMNS = ("by", "from", "to", "poses", "confidence", "right", "p_mpjpe")

Rows = list[dict[str, Any]]


def measure(run: Path, data: Path, stage: str) -> dict[str, NDArray[np.float64]]:
    """Confidence, log density, rightness of the sign and P-MPJPE (mm) of every test pose."""
    model, metadata = load_model(run, stage)
    judge = load_trust(run, stage)
    if judge is None:
        sys.exit(f"{run}: expected a run of recipe upright with its odds")
    with PoseStore(data) as store:
        points, _ = store.points("test")
        positions = torch.from_numpy(truth(store, "test"))
    lifted = lift_points(fold_norms(model.float()).pose, points, metadata.skeleton)
    judgement = judge(points, lifted, "cpu")
    errors = pose_errors(torch.from_numpy(lifted), positions)
    return {
        "confidence": judgement.sign_confidence.astype(float),
        "density": judgement.log_density.astype(float),
        "elevation": judgement.elevation.astype(float),
        "right": 1 - errors["wrong_sign"].numpy(),
        "p_mpjpe": 1000 * errors["p_mpjpe"].numpy(),
    }


def table(poses: dict[str, NDArray[np.float64]]) -> Rows:
    """The poses by their confidence, then by tenths of their density."""
    deciles = np.quantile(poses["density"], np.linspace(0, 1, 11))
    rows = []
    for by, edges in (("confidence", EDGES), ("density", deciles)):
        which = np.clip(np.searchsorted(edges, poses[by], side="right") - 1, 0, len(edges) - 2)
        for i, (low, high) in enumerate(zip(edges[:-1], edges[1:], strict=True)):
            if not (inside := which == i).any():
                continue
            means = {key: poses[key][inside].mean() for key in ("confidence", "right", "p_mpjpe")}
            row = {"by": by, "from": low, "to": high, "poses": int(inside.sum()), **means}
            rows.append({k: f"{v:.4g}" if isinstance(v, float) else v for k, v in row.items()})
    return rows


def draw(rows: Rows, title: str, path: Path) -> None:
    """Said against found, and error against density."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 4), layout="constrained")
    sure = [row for row in rows if row["by"] == "confidence"]
    said, found = ([float(row[key]) for row in sure] for key in ("confidence", "right"))
    poses = np.array([row["poses"] for row in sure])
    low = min(0.5, *said, *found)
    left.plot([low, 1], [low, 1], color="0.6", lw=1, label="as sure as right")
    left.plot(said, found, color="tab:blue", lw=1)
    left.scatter(said, found, 10 + 250 * poses / poses.sum(), color="tab:blue", label="poses")
    left.set(xlabel="sign confidence", ylabel="share of signs that are right")
    left.legend(fontsize=8)
    dense = [row for row in rows if row["by"] == "density"]
    right.bar(range(1, len(dense) + 1), [float(row["p_mpjpe"]) for row in dense], color="tab:blue")
    right.set(xlabel="tenth of the poses, by log density", ylabel="P-MPJPE, mm")
    for axis in (left, right):
        axis.grid(alpha=0.3)
    figure.suptitle(title, fontsize=9)
    save(figure, path)


def main(argv: list[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--stage", choices=("teacher", "student"), default="student")
    parser.add_argument("--out", type=Path, default=machine.RESULTS / "cmu" / "reliability")
    given = parser.parse_args(argv)
    parts = [measure(run, given.data, given.stage) for run in given.runs]
    poses = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
    rows = table(poses)
    machine.write_table(given.out.with_suffix(".csv"), COLUMNS, rows)
    count = len(poses["right"])
    gap = sum(abs(float(r["confidence"]) - float(r["right"])) * r["poses"] for r in rows
              if r["by"] == "confidence") / count  # fmt: skip
    about = f"{given.stage}, {len(given.runs)} runs, {count:,} poses"
    draw(rows, f"{about}, commit {machine.commit()}", given.out.with_suffix(".svg"))
    for row in rows:
        print("  ".join(f"{key} {row[key]}" for key in COLUMNS))
    elevation = np.degrees(poses["elevation"])
    print(
        f"{about}: sign confidence {poses['confidence'].mean():.4f} in the mean, right "
        f"{poses['right'].mean():.4f}, expected calibration error {gap:.4f}; correlation of log "
        f"density and P-MPJPE {np.corrcoef(poses['density'], poses['p_mpjpe'])[0, 1]:.2f}; "
        f"elevation {elevation.mean():.1f} degrees, standard deviation {elevation.std():.1f}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
