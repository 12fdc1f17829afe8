"""A long training and a long lifting: the memory they take at the start and at the end.

    python -m benchmarks.reliability.long [--steps 1000000] [--portions 1526] [--poses 100000000]

The training has the smallest teacher. The liftings read a store that is simulated: all clips have
the same keypoints. One has as many portions as 10^8 poses have, but small ones; it fits clips as
wholes and judges each pose. The other has portions of their own size, lifted frame by frame by the
smallest teacher of recipe paper. Each of its parts is written in full, then replaced by a link to
the first one, which saves half of the disk: 10^8 poses need some 45 GB.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import os
import sys
import time
from pathlib import Path
from typing import Any
from unittest.mock import patch

import h5py
from rich.console import Console
from safetensors import safe_open

import ites
from benchmarks.reliability.tables import publish
from benchmarks.reliability.warm import workplace
from ites.data.clips import Clip, Clips
from ites.data.keypoint_reader import KeypointReader
from ites.data.lifted import ClipsWriter, write_clips
from ites.data.store import PoseStore
from ites.data.synthetic.synthetic import prepare_synthetic
from ites.inference import lift as lifting
from ites.inference import portions as pipeline
from ites.runs.checkpoint import step_of
from ites.runs.folder import RunFolder
from ites.runs.settings import TeacherSettings
from ites.training import engine, loop
from ites.training.log import quiet_console

COLUMNS = ("what", "count", "MB at a quarter", "MB at the end", "growth, MB", "per second")
TINY = {"batch": 4, "width": 4, "blocks": 0, "atoms": 1, "samples": 1, "epochs": 1 << 40}
SMALLEST: dict[str, dict[str, Any]] = {
    "upright": {"batch": 32, "width": 8, "blocks": 1},
    "paper": {"only": "teacher", "batch": 4, "width": 4, "blocks": 0, "atoms": 1, "samples": 1},
}
SMALL = 80
"""Poses per portion of the lifting with many portions."""
CLIPS = 8
"""Simulated clips per portion."""


def resident() -> float:
    """Memory of this process, MB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


class Watched(io.StringIO):
    """Keeps the memory at each line that is printed, and prints both."""

    def __init__(self) -> None:
        super().__init__()
        self.memory: list[float] = []

    def write(self, text: str) -> int:
        if "\n" in text:
            self.memory.append(resident())
            print(f"{self.memory[-1]:.1f} MB  {text.strip()}", flush=True)
        return len(text)


def row(what: str, count: int, memory: list[float], seconds: float) -> dict[str, Any]:
    """A row of the table, of memory at even distances."""
    first, last = memory[len(memory) // 4], memory[-1]
    values = (what, f"{count:,}", f"{first:.1f}", f"{last:.1f}", f"{last - first:.1f}")
    return dict(zip(COLUMNS, (*values, f"{count / seconds:,.0f}"), strict=True))


def train(folder: Path, steps: int) -> dict[str, Any]:
    """Train the smallest teacher past step 2^32; its memory at each of 100 rows of the log.

    The training is resumed as if all but half of 2^32 + steps / 2 steps lay behind it. A step is a
    number of the counter that rotations are drawn from.
    """
    first, store = (1 << 32) - steps // 2, folder / "store.h5"
    prepare_synthetic(store, poses=200)
    given: dict[str, Any] = {"data": str(store), "out": str(folder / "run"), "device": "cpu"}
    given |= {"log_every": max(1, steps // 100), **TINY}
    engine.train(TeacherSettings(steps=1, **given), console=quiet_console())
    load = loop.load_state

    def far_on(*arguments: Any) -> tuple[Any, dict[str, Any]]:
        recent, counters = load(*arguments)
        return recent, {**counters, "step": first}

    settings = TeacherSettings(steps=first + steps, **given)
    watched, start = Watched(), time.perf_counter()
    with patch.object(loop, "load_state", far_on):
        result = engine.train(settings, resume=True, console=Console(file=watched))
    seconds = time.perf_counter() - start
    run = RunFolder(given["out"])
    with run.log("teacher").open(encoding="utf-8") as file:
        logged = [int(line["step"]) for line in csv.DictReader(file)]
    wanted = {s for s in range(first + 1, first + steps) if s % given["log_every"] == 0}
    steps_of_files = [step_of(run.weights("teacher")), json.loads(_counters(run))["step"]]
    assert [result.step, *steps_of_files] == [first + steps] * 3
    assert logged == [1, *sorted(wanted | {first + steps})]
    return row("steps of a training, half of them past 2^32", steps, watched.memory, seconds)


def _counters(run: RunFolder) -> str:
    with safe_open(run.state("teacher"), "pt") as file:
        return file.metadata()["counters"]


def lift(folder: Path, poses: int, portion: int, recipe: str) -> dict[str, Any]:
    """Lift a simulated store; the memory after each part, and after each that is joined.

    A portion has `CLIPS` clips. The output is written in full.
    """
    store, memory, frames = folder / "clips.h5", list[float](), portion // CLIPS
    prepare_synthetic(store, poses=max(100, 3 * frames))
    ites.train(
        store, folder / recipe, recipe=recipe, steps=2, device="cpu",
        console=Console(file=io.StringIO()), **SMALLEST[recipe],
    )  # fmt: skip
    with PoseStore(store) as held:
        points = held.keypoints("train")[:frames]

    class Simulated(KeypointReader):
        """Any number of clips, all with the same keypoints."""

        def __init__(self, *given: Any, **options: Any) -> None:
            super().__init__(*given, **options)
            self.lengths = [frames] * (CLIPS * (poses // portion))

        def read(self, chosen: slice = slice(None)) -> Clips:  # noqa: B008 - immutable
            numbers = range(*chosen.indices(len(self.lengths)))
            camera = {"focal_length": (1145.0, 1145.0), "image_size": (1000, 1000)}
            clips = [Clip(f"clip {n}", points.copy(), fps=25.0, **camera) for n in numbers]
            memory.append(resident())
            return Clips(self.skeleton, clips)

    class Watching(ClipsWriter):
        """Keeps the memory after each part that is joined."""

        def add(self, clips: Clips) -> None:
            super().add(clips)
            memory.append(resident())

    def write_and_link(path: Path, clips: Clips) -> None:
        write_clips(path, clips)
        first = folder / "first.h5"
        if first.exists():
            path.unlink()
            os.link(first, path)
        else:
            os.link(path, first)

    changes: dict[str, Any] = {"ClipsWriter": Watching}
    whole = recipe != "paper"
    if not whole:
        changes["write_clips"] = write_and_link
    start = time.perf_counter()
    with (
        patch.multiple(lifting, KeypointReader=Simulated, PORTION=portion),
        patch.multiple(pipeline, **changes),
    ):
        summary = lifting.lift(
            store, folder / "out.h5", run=folder / recipe, temporal=whole, device="cpu"
        )
    seconds, portions = time.perf_counter() - start, poses // portion
    assert summary["poses"] == portions * CLIPS * frames
    with h5py.File(folder / "out.h5") as file:
        assert file["positions"].shape[0] == summary["poses"]
    (folder / "out.h5").unlink()
    print(*(f"{value:.1f}" for value in memory[:: max(1, len(memory) // 100)]), flush=True)
    how = "clips as wholes" if whole else "frame by frame"
    what = f"poses of a lifting, {how}, in {portions:,} portions of {frames * CLIPS:,}"
    return row(what, summary["poses"], memory, seconds)


def main(argv: list[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=1_000_000)
    parser.add_argument("--poses", type=int, default=100_000_000)
    parser.add_argument("--portions", type=int, default=1526, help="as 10^8 poses have")
    given = parser.parse_args(argv)
    rows = []
    with workplace() as home:
        folder = Path(home)
        works = [
            (given.steps, lambda: train(folder, given.steps)),
            (given.portions, lambda: lift(folder, SMALL * given.portions, SMALL, "upright")),
            (given.poses, lambda: lift(folder, given.poses, lifting.PORTION, "paper")),
        ]
        for count, work in works:
            if count:
                rows.append(work())
                print("  ".join(f"{key} {value}" for key, value in rows[-1].items()), flush=True)
    if all(count for count, _ in works):
        publish("long", COLUMNS, rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
