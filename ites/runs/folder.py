"""A run folder: where a training starts from, and what it leaves.

| file | what |
|---|---|
| `settings.toml` | all settings, a table a stage; `--config` reads it |
| `versions.json` | versions, commit and device of each stage |
| `<stage>.safetensors` | weights |
| `<stage>.state.safetensors` | what `--resume` needs |
| `<stage>.odds.json` | recipe "upright": how sure a depth's sign is; see `ites.models.trust` |
| `<stage>.log.csv`, `<stage>.evaluation.csv` | losses and speed; metrics |
| `tensorboard/<stage>/` | the same for TensorBoard |
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch

import ites
from ites.errors import ItesError
from ites.runs.checkpoint import state_file, weights_file
from ites.runs.settings import STAGES, Settings, make_settings, read_toml, write_toml
from ites.system.files import replacing


def device_name(device: torch.device) -> str:
    """The device in words, such as "cpu, 2 threads" or "cuda:0, NVIDIA H100"."""
    if device.type == "cuda":
        return f"{device}, {torch.cuda.get_device_name(device)}"
    threads = torch.get_num_threads()
    return f"{device}, {threads} thread{'s' if threads > 1 else ''}"


def refuse_to_overwrite(run: str | os.PathLike[str], stage: str) -> None:
    """Raise ItesError where a run folder holds a training of this stage already."""
    if weights_file(run, stage).exists() or state_file(run, stage).exists():
        raise ItesError(
            f"{run}: holds a {stage} already; continue it with --resume {run}, or choose "
            "another folder with --out"
        )


def settings_file(run: str | os.PathLike[str]) -> Path:
    """Where a run folder holds its settings."""
    return Path(run) / "settings.toml"


def resumed_settings(
    run: str | os.PathLike[str], stage: str, options: Mapping[str, Any]
) -> Settings:
    """The settings of an earlier run, with those that may change taken from `options`.

    Raises:
        ItesError: this is no run folder with that stage, or an option may not change.
    """
    if not settings_file(run).is_file() or not has_table(run, stage):
        raise ItesError(f"{run}: expected the folder of a run with a {stage}; it holds none")
    before = make_settings(stage, settings_file(run))
    after = make_settings(stage, settings_file(run), {**options, "out": str(run)})
    refuse_changes(before.to_dict(), after)
    return after


def has_table(run: str | os.PathLike[str], stage: str) -> bool:
    """Whether a run folder has settings of this stage."""
    return bool(read_toml(settings_file(run))[stage])


def refuse_changes(before: Mapping[str, Any], after: Settings) -> None:
    """Raise ItesError where a setting differs that a resumed training may not change."""
    free = {item.name for item in fields(after) if item.metadata["free"]}
    for name, value in after.to_dict().items():
        if name not in free and name in before and before[name] != value:
            raise ItesError(
                f"{after.out}: {name} is {before[name]!r} in this run and cannot become {value!r}; "
                f"a resumed run may change {', '.join(sorted(free))}"
            )


def write_settings(run: str | os.PathLike[str], settings: Iterable[Settings]) -> None:
    """Write settings into a run folder; those of a stage not given stay as they are."""
    tables = {stage.stage: stage for stage in settings}
    if settings_file(run).is_file():
        for stage in STAGES:
            if stage not in tables and has_table(run, stage):
                tables[stage] = make_settings(stage, settings_file(run))
    write_toml(settings_file(run), [tables[stage] for stage in STAGES if stage in tables])


def write_versions(
    run: str | os.PathLike[str], stage: str, device: torch.device, processes: int
) -> None:
    """Write what a stage runs on into a run folder's `versions.json`."""
    path = Path(run) / "versions.json"
    versions = json.loads(path.read_text()) if path.is_file() else {}
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
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(versions, indent=2) + "\n")


def commit() -> str | None:
    """The commit of the source tree that ites runs from; None for an installed package."""
    root = Path(ites.__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return None
    describe = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        result = subprocess.run(describe, cwd=root, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return result.stdout.strip() or None
