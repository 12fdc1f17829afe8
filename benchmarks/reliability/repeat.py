"""How far the results of other thread counts and instruction sets are from those of one.

    python -m benchmarks.reliability.repeat

With the same seed, thread count and processor the bits are the same. With others sums have another
order. Each way trains three stages, lifts keypoints, and exports them; the distance is the largest
over all files.
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from benchmarks.reliability.commands import COMMANDS, make_template, must, place
from benchmarks.reliability.tables import publish
from benchmarks.reliability.warm import Job, Warm, workplace
from ites.data.lifted import read_clips

COLUMNS = ("compared with 1 thread", "what", "largest distance", "stated limit")
WAYS = {
    "2 threads": Job((), "", threads=2),
    "baseline instructions": Job((), "", threads=1, environment={"ITES_SIMD": "baseline"}),
}
LIMITS = {
    "logged losses, relative": 1e-4,
    "weights after 3 steps of each stage": 2 * 3 * 1.004 * 4e-3,
    "lifted joints, mm": 0.01,
}
"""Adam moves a weight by at most 1.004 times the learning rate, the student's 0.004, in each of its
first three steps, even where the gradient is rounding alone. By Cauchy's inequality its quotient is
at most the root of the sum of w^2 / v, with the gradients' shares w and v in its two means.
The other limits are chosen."""


def distances(warm: Warm, template: Path, folder: Path, way: str) -> dict[str, float]:
    """The distances of one of `WAYS` from one thread and the widest instructions."""
    plain, other = Job((), "", threads=1), WAYS[way]
    losses, weights, joints = LIMITS
    found = dict.fromkeys(LIMITS, 0.0)
    made = {}
    for name in ("train", "lift"):
        for number, job in enumerate((plain, other)):
            at = place(COMMANDS[name], template, folder / f"{name}-{number}")
            given = {"threads": job.threads, "environment": job.environment}
            must(warm.run(Job(COMMANDS[name].words, str(at), **given)))
            made[name, number] = at
    runs = [made["train", number] / "made" for number in (0, 1)]
    for stage in ("prior", "teacher", "student"):
        one, two = (load_file(run / f"{stage}.safetensors") for run in runs)
        far = [np.abs(tensor - two[key]).max() for key, tensor in one.items() if tensor.size]
        found[weights] = max(found[weights], float(max(far)))
        one, two = (_losses(run / f"{stage}.log.csv") for run in runs)
        found[losses] = max(found[losses], float((np.abs(one - two) / np.abs(one)).max()))
    lifted = [read_clips(made["lift", number] / "made.npz").clips for number in (0, 1)]
    for mine, its in zip(*lifted, strict=True):
        far = np.abs(np.asarray(mine.positions) - np.asarray(its.positions)).max() * 1000
        found[joints] = max(found[joints], float(far))
    return found


def _losses(log: Path) -> np.ndarray:
    """The total loss of each row of a log."""
    with log.open(newline="") as file:
        return np.array([float(row["total"]) for row in csv.DictReader(file)])


def main() -> int:
    """Run the command line."""
    rows = []
    with workplace() as home, Warm() as warm:
        make_template(warm, Path(home) / "template")
        for way in WAYS:
            found = distances(warm, Path(home) / "template", Path(home) / way, way)
            for what, far in found.items():
                values = (way, what, f"{far:.1e}", f"{LIMITS[what]:g}")
                rows.append(dict(zip(COLUMNS, values, strict=True)))
                print("  ".join(values), flush=True)
    publish("repeat", COLUMNS, rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
