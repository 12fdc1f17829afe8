"""Measure what a fit to one's own clips gains, on a camera that it has not seen and on its own.

    python -m benchmarks.accuracy.fits CLIPS [--start RUN] [--keep FOLDER]
    python -m benchmarks.accuracy.fits cmu.h5 --subject S02 [--start RUN] [--keep FOLDER]

CLIPS is a folder as `benchmarks.accuracy.real` takes it: one performance, seen by several cameras.
Each camera in turn is left out. `ites fit` learns from the detections of the others. The model and
that at the start lift the camera that was left out, and the others, frame by frame and as
sequences.

With `--subject` the data are a store of CMU's protocol (`ites prepare cmu --test-rate 12.5`). Of
one test subject, every third take and the last camera are left out; cameras count as unknown. The
models lift what was fitted to, the other takes, and the other takes seen by the other camera.

Prints P-MPJPE of all joints and of the twelve limb joints, and writes
`benchmarks/results/fits.csv`, or that with the subject's name. The truth is used by this program
alone.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from benchmarks import machine
from benchmarks.accuracy.real import figures_of, measure
from ites.data.store import PoseStore, PoseStoreWriter
from ites.data.store import Sequence as Clip
from ites.evaluation.evaluate import truth
from ites.inference.lift import lift
from ites.pose.skeleton import HUMAN36M
from ites.runs.packaged import run_or_packaged
from ites.workflows.fit import Fit, fit

ENDING = "_coco.npz"
COLUMNS = (
    "left_out", "lifted", "as", "model", "frames", "share", "verdict", "p_mpjpe", "limbs",
    "n_mpjpe", "flat",
)  # fmt: skip
FIGURES = COLUMNS[7:]
PARTS = ("fitted", "other takes", "other camera")
WAYS = {"frames": False, "sequences": True}


def rows_of(clips: Path, start: Path, runs: Path) -> list[dict[str, str]]:
    """Rows of each camera that is left out, of the others' mean, and of the means of both."""
    names = sorted(file.name.removesuffix(ENDING) for file in clips.glob(f"*{ENDING}"))
    before = {name: _lifted(clips, name, start) for name in names}
    rows = []
    for name in names:
        others = [other for other in names if other != name]
        made = fit(
            [clips / f"{other}{ENDING}" for other in others],
            runs / name,
            layout="coco17",
            start=start,
        )
        after = {each: _lifted(clips, each, runs / name) for each in names}
        for lifted, some in (("left out", [name]), ("fitted", others)):
            for way in WAYS:
                for model, found in (("start", before), ("fit", after)):
                    about = _about(made) if model == "fit" else {}
                    row = {"left_out": name, "lifted": lifted, "as": way, "model": model, **about}
                    rows.append(row | _mean([found[each][way] for each in some]))
    for lifted in ("left out", "fitted"):
        for way in WAYS:
            for model in ("start", "fit"):
                key = {"lifted": lifted, "as": way, "model": model}
                alike = [row for row in rows if key.items() <= row.items()]
                rows.append({"left_out": "mean", **key} | _mean(alike))
    return [{column: row.get(column, "") for column in COLUMNS} for row in rows]


def rows_of_subject(data: Path, subject: str, start: Path, runs: Path) -> list[dict[str, str]]:
    """Rows of what was fitted to, of other takes, and of those by another camera."""
    runs.mkdir(parents=True, exist_ok=True)
    truths = _write_parts(data, subject, runs)
    made = fit(runs / "fitted.h5", runs / "run", start=start)
    rows = []
    for part, true in truths.items():
        for way, temporal in WAYS.items():
            for model, run in (("start", start), ("fit", runs / "run")):
                clips = lift(runs / f"{part}.h5", run=run, split="train", temporal=temporal)
                lifted = torch.from_numpy(np.concatenate([c.positions for c in clips.clips]))
                about = _about(made) if model == "fit" else {}
                row = {"left_out": subject, "lifted": part, "as": way, "model": model, **about}
                rows.append(row | figures_of(lifted.double(), torch.from_numpy(true).double()))
    return [{column: row.get(column, "") for column in COLUMNS} for row in rows]


def _write_parts(data: Path, subject: str, folder: Path) -> dict[str, np.ndarray]:
    """Write a store per part of a subject's clips; the truth (N, 17, 3) of each, metres."""
    with PoseStore(data) as store:
        keypoints, positions = store.keypoints("test"), truth(store, "test")
        clips = [clip for clip in store.sequences_of("test") if clip.subject == subject]
        cameras = {clip.camera: store.cameras[clip.camera] for clip in clips}
    if not clips:
        raise SystemExit(f"{data}: expected the test subject {subject}; it holds none")
    last, takes = sorted(cameras)[-1], dict.fromkeys(cameras, 0)
    parts: dict[str, list[tuple[int, Clip]]] = {name: [] for name in PARTS}
    for clip in clips:
        take = takes[clip.camera]
        takes[clip.camera] += 1
        if take % 3 and clip.camera != last:
            parts["fitted"].append((take, clip))
        elif not take % 3:
            parts["other takes" if clip.camera != last else "other camera"].append((take, clip))
    for part, some in parts.items():
        with PoseStoreWriter(folder / f"{part}.h5", HUMAN36M, "2D keypoints") as writer:
            for name in sorted({clip.camera for _, clip in some}):
                writer.add_camera(name, replace(cameras[name], assumed=True))
            for take, clip in some:
                writer.add(
                    keypoints[clip.rows],
                    camera=clip.camera,
                    subject=f"take {take}",
                    action="keypoints",
                    split="train",
                    fps=clip.fps,
                )
    return {
        part: np.concatenate([positions[clip.rows] for _, clip in some])
        for part, some in parts.items()
    }


def _lifted(clips: Path, name: str, run: Path) -> dict[str, dict[str, str]]:
    """The errors of a camera's clip lifted by a run, frame by frame and as a sequence."""
    with np.load(clips / f"{name}_truth.npz") as file:
        truth = file["truth"]
    return {
        way: measure(clips / f"{name}{ENDING}", "coco17", truth, run=run, temporal=temporal)
        for way, temporal in WAYS.items()
    }


def _mean(rows: Sequence[Mapping[str, str]]) -> dict[str, str]:
    return {name: f"{np.mean([float(row[name]) for row in rows]):.1f}" for name in FIGURES}


def _about(made: Fit) -> dict[str, str]:
    return {
        "frames": str(made.frames[0]),
        "share": f"{made.share:g}",
        "verdict": made.verdict,
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("clips", type=Path, metavar="CLIPS")
    parser.add_argument("--subject", help="of a store of CMU's protocol")
    parser.add_argument("--start", type=Path, help="run folder; by default the general model")
    parser.add_argument("--keep", type=Path, help="folder for the runs, to look at")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args(argv)
    ending = f"-{given.subject}" if given.subject else ""
    out = given.out or machine.RESULTS / f"fits{ending}.csv"
    with TemporaryDirectory() as scratch:
        runs = given.keep or Path(scratch)
        start = run_or_packaged(given.start)
        if given.subject:
            rows = rows_of_subject(given.clips, given.subject, start, runs)
        else:
            rows = rows_of(given.clips, start, runs)
    machine.show_and_write(out, COLUMNS, rows, 13)
    return 0


if __name__ == "__main__":
    sys.exit(main())
