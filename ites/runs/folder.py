"""A run folder: the settings, weights, logs and marks of a training, and their paths.

| file | content |
|---|---|
| `settings.toml` | all settings, one table per stage; another training can read it |
| `versions.json` | versions, commit and device of each stage |
| `<stage>.safetensors` | weights |
| `<stage>.state.safetensors` | what resuming needs |
| `<stage>.unfinished.json` | mark of a running or interrupted training |
| `<stage>.odds.json` | recipes upright, general: how sure a sign is; see `ites.models.trust` |
| `<stage>.log.csv`, `<stage>.evaluation.csv` | losses and speed; metrics |
| `tensorboard/<stage>/` | the same for TensorBoard |
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch

import ites
from ites.errors import ItesError
from ites.runs.settings import STAGES, Settings, make_settings, read_toml, write_toml
from ites.system.files import atomic_write, load_json
from ites.system.ranks import Ranks


def device_name(device: torch.device) -> str:
    """A description of the device, such as "cpu, 2 threads" or "cuda:0, NVIDIA H100"."""
    if device.type == "cuda":
        return f"{device}, {torch.cuda.get_device_name(device)}"
    threads = torch.get_num_threads()
    return f"{device}, {threads} thread{'s' if threads > 1 else ''}"


@dataclass(frozen=True)
class RunFolder:
    """The paths of a run folder.

    Args:
        root: the folder.
    """

    root: Path

    def __init__(self, root: str | os.PathLike[str]) -> None:
        object.__setattr__(self, "root", Path(root))

    @property
    def settings(self) -> Path:
        """All settings, one table per stage."""
        return self.root / "settings.toml"

    @property
    def versions(self) -> Path:
        """Versions, commit and device of each stage."""
        return self.root / "versions.json"

    @property
    def lock(self) -> Path:
        """The lock of the process that trains in this folder."""
        return self.root / ".training.lock"

    def weights(self, stage: str) -> Path:
        """A stage's weights."""
        return self.root / f"{stage}.safetensors"

    def state(self, stage: str) -> Path:
        """The state from which a stage's training continues."""
        return self.root / f"{stage}.state.safetensors"

    def odds(self, stage: str) -> Path:
        """Recipe "upright": the odds that the sign of a stage's depth is right."""
        return self.root / f"{stage}.odds.json"

    def unfinished(self, stage: str) -> Path:
        """The mark of a training that has started but not finished; see `Unfinished`."""
        return self.root / f"{stage}.unfinished.json"

    def log(self, stage: str) -> Path:
        """Losses and speed."""
        return self.root / f"{stage}.log.csv"

    def evaluation_log(self, stage: str) -> Path:
        """Metrics during the training."""
        return self.root / f"{stage}.evaluation.csv"

    def tensorboard(self, stage: str) -> Path:
        """Events for TensorBoard."""
        return self.root / "tensorboard" / stage

    def has_training(self, stage: str) -> bool:
        """Whether a stage was trained here, partly or completely."""
        return self.weights(stage).exists() or self.state(stage).exists()


def refuse_to_overwrite(run: str | os.PathLike[str], stage: str) -> None:
    """Raise ItesError if a run folder already holds a training of this stage."""
    if RunFolder(run).has_training(stage):
        raise ItesError(
            f"{run}: holds a {stage} already; resume it or choose another folder",
            code="trained-already",
        )


def resumed_settings(
    run: str | os.PathLike[str], stage: str, options: Mapping[str, Any]
) -> Settings:
    """The settings of an earlier run, with the changeable ones taken from `options`.

    Raises:
        ItesError: this is not a run folder with that stage, or an option must not change.
    """
    if not RunFolder(run).settings.is_file() or not has_table(run, stage):
        raise ItesError(f"{run}: expected the folder of a run with a {stage}; it holds none")
    before = make_settings(stage, RunFolder(run).settings)
    after = make_settings(stage, RunFolder(run).settings, {**options, "out": str(run)})
    refuse_changes(before.to_dict(), after)
    return after


def has_table(run: str | os.PathLike[str], stage: str) -> bool:
    """Whether a run folder has settings of this stage."""
    return bool(read_toml(RunFolder(run).settings)[stage])


def refuse_changes(before: Mapping[str, Any], after: Settings) -> None:
    """Raise ItesError if a setting differs that a resumed training must not change."""
    free = {item.name for item in fields(after) if item.metadata["free"]}
    for name, value in after.to_dict().items():
        if name not in free and name in before and before[name] != value:
            raise ItesError(
                f"{after.out}: {name} is {before[name]!r} in this run and cannot become {value!r}; "
                f"a resumed run may change {', '.join(sorted(free))}"
            )


def write_settings(run: str | os.PathLike[str], settings: Iterable[Settings]) -> None:
    """Write settings into a run folder; stages that are not given keep theirs."""
    tables = {stage.stage: stage for stage in settings}
    if RunFolder(run).settings.is_file():
        for stage in STAGES:
            if stage not in tables and has_table(run, stage):
                tables[stage] = make_settings(stage, RunFolder(run).settings)
    write_toml(RunFolder(run).settings, [tables[stage] for stage in STAGES if stage in tables])


def write_versions(
    run: str | os.PathLike[str], stage: str, device: torch.device, processes: int
) -> None:
    """Write a stage's versions and device into a run folder's `versions.json`."""
    path = RunFolder(run).versions
    versions = load_json(path) if path.is_file() else {}
    if not isinstance(versions, dict):
        raise ItesError(f"{path}: expected the versions of each stage, got other JSON")
    versions[stage] = {
        "ites": ites.__version__,
        "commit": commit(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "platform": platform.platform(),
        "device": device_name(device),
        "threads": torch.get_num_threads(),
        "processes": processes,
    }
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(versions, indent=2) + "\n", encoding="utf-8")


class Unfinished:
    """The mark in a run folder that a stage's training has started but not finished.

    A killed process cannot report its end. The mark outlives it, and the next training in the
    folder reports it.

    Args:
        run: the run folder.
        stage: "prior", "teacher" or "student".
        ranks: this process's rank; rank 0 sets and removes the mark.
    """

    def __init__(self, run: str | os.PathLike[str], stage: str, ranks: Ranks) -> None:
        self.path, self.ranks = RunFolder(run).unfinished(stage), ranks
        self._begun = False

    @contextmanager
    def watched(self) -> Iterator[Unfinished]:
        """Write the message of an ItesError in the block beside the mark, on any rank."""
        try:
            yield self
        except ItesError as error:
            if self._begun:
                with suppress(OSError):  # the disk may be what failed
                    self._write(str(error))
            raise

    def begin(self) -> None:
        """Set the mark."""
        self._begun = True
        if self.ranks.is_main:
            self._write("")

    def end(self) -> None:
        """Remove the mark."""
        self._begun = False
        if self.ranks.is_main:
            self.path.unlink(missing_ok=True)

    def line(self) -> str | None:
        """The fate of an earlier unfinished training; None if there is none."""
        if not self.path.is_file():
            return None
        try:
            mark = json.loads(self.path.read_text(encoding="utf-8"))
            count, reason = int(mark["processes"]), str(mark["reason"])
        except (ValueError, KeyError, TypeError, RecursionError):
            count, reason = 1, ""
        who = "its process was" if count == 1 else f"one of its {count} processes was"
        return f"the last training was cut off: {reason or f'{who} killed'}"

    def _write(self, reason: str) -> None:
        mark = {"processes": self.ranks.count, "reason": reason}
        with atomic_write(self.path) as temporary:
            temporary.write_text(json.dumps(mark) + "\n", encoding="utf-8")


def commit() -> str | None:
    """The commit of the running source tree; None for an installed package."""
    root = Path(ites.__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return None
    describe = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        result = subprocess.run(describe, cwd=root, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return result.stdout.strip() or None
