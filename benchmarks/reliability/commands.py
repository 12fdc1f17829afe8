"""The commands that are put under faults: their inputs, and how their files are compared."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import pickle
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from safetensors import safe_open

from benchmarks.reliability.warm import Ended, Job, Warm
from ites.data.lifted import read_clips
from ites.data.store import PoseStore

SIZES = ("width=8", "blocks=1", "batch=32", "log_every=2", "checkpoint_every=2")
SMALL = tuple(word for size in SIZES for word in ("--set", size))
CLOCK = ("seconds", "lifting_seconds", "metrics_seconds", "poses_per_second", "commit")
"""Entries of a file that depend on the clock; git may be too slow to tell the commit."""
CHANGING = re.compile(
    rb"(?<![\d,.:])[\d,.:]+ (poses/s|s|min|h)\b"
    rb"|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"
    rb"|<td>[0-9a-f]{40}(-dirty)?</td>"
)
"""Times and the commit in a report, and the random names of its graphs."""
GROWING = ".csv"
"""Logs grow row by row: a process that dies may leave part of a row."""


@dataclass(frozen=True)
class Command:
    """A command and its inputs.

    Args:
        words: after `ites`.
        inputs: files and folders of the template that it reads.
        again: words that continue after a crash, where they differ.
    """

    words: tuple[str, ...]
    inputs: tuple[str, ...]
    again: tuple[str, ...] = ()


TRAIN = ("train", "--data", "store.h5", "--out", "made", "--recipe", "upright", *SMALL)
LIFT = ("lift", "run", "keypoints.npy", "-o", "made.npz")
FIT = ("fit", "own.h5", "-o", "made", "--start", "run", "--steps", "2", "--device", "cpu")
COMMANDS = {
    "prepare synthetic": Command(
        ("prepare", "synthetic", "--poses", "80", "--fps", "5", "--subjects", "1")
        + ("--test-subjects", "1", "--rig", "ring", "--cameras", "2", "-o", "made.h5"),
        (),
    ),
    "prepare keypoints": Command(
        ("prepare", "keypoints", "keypoints.npy", "-o", "made.h5"), ("keypoints.npy",)
    ),
    "train": Command((*TRAIN, "--steps", "3"), ("store.h5",), ("train", "--resume", "made")),
    "lift": Command(LIFT, ("run", "keypoints.npy"), (*LIFT, "--resume")),
    "evaluate": Command(("evaluate", "run", "--data", "store.h5"), ("run", "store.h5")),
    "export": Command(("export", "lifted.npz", "-o", "made.bvh"), ("lifted.npz",)),
    "view": Command(("view", "lifted.npz", "-o", "made.html"), ("lifted.npz",)),
    "fit": Command(FIT, ("own.h5", "run"), (*FIT, "--resume")),
}


def make_template(warm: Warm, folder: Path) -> None:
    """Make every input: two stores, a run of three stages, keypoints, and their lifted poses."""
    folder.mkdir(parents=True)
    synthetic = ("prepare", "synthetic", "--fps", "5", "--test-subjects", "1")
    several = (*synthetic, "--poses", "200", "--subjects", "2", "-o", "store.h5")
    own = (*synthetic, "--poses", "240", "--subjects", "1", "--rig", "ring", "--cameras", "1")
    train = ("train", "--data", "store.h5", "--out", "run", "--recipe", "upright", *SMALL)
    lift = ("lift", "run", "keypoints.npy", "-o", "lifted.npz")
    for words in (several, (*own, "-o", "own.h5")):
        must(warm.run(Job(words, str(folder))))
    with PoseStore(folder / "store.h5") as store:
        np.save(folder / "keypoints.npy", store.keypoints("test")[:12])
    for words in ((*train, "--steps", "2"), lift):
        must(warm.run(Job(words, str(folder))))


def must(ended: Ended) -> Ended:
    """The end of a job that must succeed."""
    if ended.code:
        raise RuntimeError(f"exit code {ended.code}: {ended.error}")
    return ended


def place(command: Command, template: Path, folder: Path) -> Path:
    """Make a folder anew with a command's inputs."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name in command.inputs:
        copy = shutil.copytree if (template / name).is_dir() else shutil.copy2
        copy(template / name, folder / name)
    return folder


class Trial:
    """A command that is run again and again, each time in a folder made anew.

    At first it is run without a fault, where it will be disturbed: files may name their inputs by
    whole paths, which must be the same in all runs. What this made is moved to `clean`.

    Args:
        warm: runs the jobs.
        command: to run.
        template: the inputs.
        folder: to work in.
    """

    def __init__(self, warm: Warm, command: Command, template: Path, folder: Path) -> None:
        self.warm, self.command, self.template = warm, command, template
        self.clean, self.work = folder / "clean", folder / "work"
        self.job = Job(command.words, str(self.work))
        self.place()
        ended = must(warm.run(self.job))
        self.calls, self.seconds = ended.calls, ended.seconds
        self.work.rename(self.clean)
        self.continued: set[str] = set()
        """States, by `state_of`, that a next call has continued to the same result."""

    def place(self) -> Path:
        """The folder of the run, made anew with the inputs."""
        return place(self.command, self.template, self.work)

    def again(self) -> Ended:
        """Call again: to continue, or from the start where there is nothing to continue."""
        if self.command.again:
            ended = self.warm.run(replace(self.job, words=self.command.again))
            if ended.code != 2:
                return ended
        return self.warm.run(self.job)


def files_of(folder: Path) -> dict[str, Path]:
    """The files in a folder by their names, but for TensorBoard's, which begin anew."""
    found = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {
        str(path.relative_to(folder)): path for path in found if "tensorboard" not in path.parts
    }


def orphans(folder: Path) -> list[str]:
    """What no command may leave: incomplete files, parts, locks, marks of unfinished work."""
    return [
        str(path.relative_to(folder))
        for path in sorted(folder.rglob("*"))
        if path.suffix in (".tmp", ".parts", ".lock") or path.name.endswith(".unfinished.json")
    ]


def content(path: Path) -> Any:
    """What a file holds, without what depends on the clock; fails where it is not whole."""
    state = path.stat()
    return _content(path, state.st_ino, state.st_mtime_ns, state.st_size)


@lru_cache(64)
def _content(path: Path, *state: int) -> Any:
    """`content` of a file in one state: reading a report takes long, and comes several times."""
    if path.suffix == ".safetensors":
        with safe_open(path, "numpy") as file:
            tensors = {name: file.get_tensor(name).tobytes() for name in sorted(file.keys())}
            text = dict(file.metadata())
        counters = without_clock(json.loads(text.get("counters", "{}")))
        step = text.get("step"), text.get("kind"), counters
        return tensors, step
    if path.suffix == ".npz":
        clips = read_clips(path)
        arrays = [
            {name: np.asarray(value).tobytes() for name, value in vars(clip).items()}
            for clip in clips.clips
        ]
        return arrays, without_clock(clips.settings)
    if path.suffix == ".h5":
        with PoseStore(path):
            pass
        return list(_datasets(path))
    if path.suffix == ".json":
        return without_clock(json.loads(path.read_text(encoding="utf-8")))
    if path.suffix == ".csv":
        return [without_clock(row) for row in csv.DictReader(io.StringIO(path.read_text()))]
    data = path.read_bytes()
    return CHANGING.sub(b"", data) if path.name == "report.html" else data


def _datasets(path: Path) -> Iterator[tuple[str, object]]:
    names: list[str] = []
    with h5py.File(path) as file:
        file.visit(names.append)
        for name in names:
            if isinstance(file[name], h5py.Dataset):
                value = np.asarray(file[name][()])
                yield name, value.tolist() if value.dtype.kind == "O" else value.tobytes()


def without_clock(value: Any) -> Any:
    """A JSON value without what depends on the clock; a file's stamp becomes its name and size."""
    if isinstance(value, dict):
        return {name: without_clock(item) for name, item in value.items() if name not in CLOCK}
    if isinstance(value, list):
        if [type(item) for item in value] == [str, int, int]:  # path, bytes, time of change
            return [Path(value[0]).name, value[1]]
        return [without_clock(item) for item in value]
    return value


def broken(folder: Path, given: dict[str, Path] | None = None) -> list[str]:
    """Files of a folder that are neither absent nor whole.

    Args:
        folder: where a command died or failed.
        given: files of a complete run; files that are not logs must be equal to theirs. None: they
            must be readable.
    """
    found = []
    for name, path in files_of(folder).items():
        if path.name.startswith(".") or ".parts/" in name:
            continue
        if path.suffix == GROWING and "log" in path.name:
            continue
        try:
            mine = content(path)
            if given is not None and mine != content(given[name]):
                found.append(name)
        except Exception as error:
            found.append(f"{name} ({type(error).__name__}: {error})")
    return found


def state_of(folder: Path) -> str:
    """A digest of what a next call finds in a folder: names, folders, and what whole files hold.

    Temporary files and locks count by their names alone, without the process's number.
    """
    digest = hashlib.sha256()
    files = files_of(folder).values()
    for path in sorted({*files, *(path for path in folder.rglob("*") if path.is_dir())}):
        name = re.sub(r"\.\d+\.tmp$", ".tmp", str(path.relative_to(folder)))
        held: Any = None
        if path.is_file() and path.suffix not in (".tmp", ".lock"):
            try:
                held = content(path)
            except Exception:  # not whole, as a log may be
                held = path.read_bytes()
        digest.update(pickle.dumps((name, held)))
    return digest.hexdigest()


def differences(folder: Path, clean: Path) -> list[str]:
    """Names of the files of two folders that differ."""
    ours, theirs = files_of(folder), files_of(clean)
    return [
        name
        for name in sorted(ours.keys() | theirs.keys())
        if name not in ours or name not in theirs or content(ours[name]) != content(theirs[name])
    ]
