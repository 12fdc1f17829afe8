"""Measure lifts of real detections against triangulated 3D.

    python -m benchmarks.accuracy.real CLIPS [--run RUN] [--stage student]
    python -m benchmarks.accuracy.real CLIPS --film NAME docs/clip.gif

CLIPS is a folder of clips, each as files of one NAME:

| file | content |
|---|---|
| `NAME_coco.npz` | detections: `keypoints` (N, 17, 3), pixels and confidence, COCO's order |
| `NAME_upright.npz` | the same in Human3.6M's order, turned so that gravity points down; optional |
| `NAME_exact.npz` | the truth's projection in Human3.6M's order; optional |
| `NAME_truth.npz` | `truth` (N, 17, 3), metres, camera axes; `truth_upright`; `focal`, pixels |

Prints, for each file, P-MPJPE of all joints and of the twelve limb joints, N-MPJPE and P-MPJPE of
a flat pose in millimetres, wrong signs in percent. Writes `benchmarks/results/real.csv`. With
`--film` it draws one clip instead: its detections, and its lift over the truth in grey.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import machine
from ites.inference.lift import lift
from ites.pose.metrics import p_mpjpe, pose_errors
from ites.runs.packaged import run_or_packaged
from ites.show.render import film
from ites.show.scene import to_truth

LIMBS = [1, 2, 3, 4, 5, 6, 11, 12, 13, 14, 15, 16]
"""Hips, knees, ankles, shoulders, elbows, wrists."""
KINDS = {"coco": ("coco17", "truth"), "upright": (None, "truth_upright"), "exact": (None, "truth")}
"""By the ending of a file's name: its layout, and the key of its truth."""
COLUMNS = ("clip", "input", "camera", "p_mpjpe", "limbs", "n_mpjpe", "flat", "wrong_sign")


def measure(file: Path, layout: str | None, truth: np.ndarray, **camera: Any) -> dict[str, str]:
    """The errors of one lifted file."""
    clips = lift(file, layout=layout, **camera)
    lifted, true = (torch.from_numpy(a).double() for a in (clips.clips[0].positions, truth))
    found = torch.isfinite(lifted).all(-1)
    if not found.all():
        raise SystemExit(f"{file}: {int((~found).sum())} joints are unknown")
    return figures_of(lifted, true)


def figures_of(lifted: torch.Tensor, true: torch.Tensor) -> dict[str, str]:
    """The mean errors of lifted poses (N, 17, 3), metres."""
    errors = pose_errors(lifted, true)
    flat = lifted * torch.tensor([1.0, 1.0, 0.0])
    figures = {
        "p_mpjpe": errors["p_mpjpe"].mean(),
        "limbs": p_mpjpe(lifted[:, LIMBS], true[:, LIMBS]).mean(),
        "n_mpjpe": errors["n_mpjpe"].mean(),
        "flat": p_mpjpe(flat, true).mean(),
        "wrong_sign": errors["wrong_sign"].double().mean() / 10,
    }
    return {name: f"{1000 * float(value):.1f}" for name, value in figures.items()}


def rows_of(folder: Path, run: Path, stage: str | None) -> list[dict[str, str]]:
    """A row per file and knowledge of the camera, and their means over the clips."""
    rows = []
    for file in sorted(folder.glob("*_truth.npz")):
        name = file.name.removesuffix("_truth.npz")
        with np.load(file) as truth:
            for kind, (layout, key) in KINDS.items():
                source = folder / f"{name}_{kind}.npz"
                cameras = {"unknown": {}, "known": {"focal_length": float(truth["focal"])}}
                for knows, camera in cameras.items() if source.is_file() else ():
                    found = measure(source, layout, truth[key], run=run, stage=stage, **camera)
                    rows.append({"clip": name, "input": kind, "camera": knows, **found})
    means = []
    for kind in KINDS:
        for knows in ("unknown", "known"):
            alike = [row for row in rows if (row["input"], row["camera"]) == (kind, knows)]
            if alike:
                mean = {c: f"{np.mean([float(r[c]) for r in alike]):.1f}" for c in COLUMNS[3:]}
                means.append({"clip": "mean", "input": kind, "camera": knows, **mean})
    return rows + means


def draw(folder: Path, name: str, out: Path, run: Path, stage: str | None) -> None:
    """A film of a lifted clip, each pose turned to the triangulated truth, which is grey."""
    clips = lift(folder / f"{name}_coco.npz", layout="coco17", run=run, stage=stage)
    with np.load(folder / f"{name}_truth.npz") as file:
        clip = replace(clips.clips[0], truth=file["truth"].astype(np.float32))
    film(to_truth(clip), clips.skeleton, out)
    print(f"{out}: {out.stat().st_size / 1000:.0f} kB")


def main(argv: list[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("clips", type=Path, metavar="CLIPS")
    parser.add_argument("--run", type=Path, help="by default the general model")
    parser.add_argument("--stage", choices=("teacher", "student"))
    parser.add_argument("--out", type=Path, default=machine.RESULTS / "real.csv")
    parser.add_argument("--film", nargs=2, metavar=("NAME", "OUT"))
    given = parser.parse_args(argv)
    run = run_or_packaged(given.run)
    if given.film:
        draw(given.clips, given.film[0], Path(given.film[1]), run, given.stage)
        return 0
    rows = rows_of(given.clips, run, given.stage)
    if not rows:
        raise SystemExit(f"{given.clips}: expected files NAME_truth.npz, it holds none")
    machine.show_and_write(given.out, COLUMNS, rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
