"""A small store and small trainings on it, and what they leave."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

from ites.data.store import PoseStoreWriter
from ites.pose.camera import human36m_cameras
from ites.pose.skeleton import HUMAN36M
from ites.runs.folder import RunFolder
from ites.runs.settings import Settings, make_settings

POSES = 71  # with batches of 16: five steps an epoch, the last of seven poses
SMALL = {"batch": 16, "width": 16, "blocks": 1, "log_every": 4, "device": "cpu"}


def write_store(path: Path, poses: int = POSES, positions: bool = True) -> Path:
    """A pose store of one clip per split, random poses 5 m before the camera."""
    rng = np.random.default_rng(0)
    camera = human36m_cameras("S1")[0]
    body = rng.normal(size=(17, 3)) * 0.3
    with PoseStoreWriter(path, HUMAN36M) as writer:
        writer.add_camera("camera", camera)
        for split in ("train", "test"):
            joints = body + rng.normal(size=(poses, 17, 3)) * 0.1 + [0, 0, 5]
            writer.add(
                camera.project(joints),
                camera="camera",
                subject=split,
                action="walk",
                split=split,
                fps=10,
                positions=joints if positions else None,
            )
    return path


def teacher_settings(store: Path, run: Path, **given: Any) -> Settings:
    chosen = {"data": str(store), "out": str(run), "epochs": 3, "atoms": 4, **SMALL, **given}
    return make_settings("teacher", None, chosen)


def student_settings(store: Path, run: Path, teacher: Path | str, **given: Any) -> Settings:
    chosen = {"data": str(store), "out": str(run), "epochs": 3, **SMALL, **given}
    return make_settings("student", None, {**chosen, "teacher": str(teacher)})


def rows(path: Path, skip: tuple[str, ...] = ("poses_per_second", "seconds")) -> list[Any]:
    """A log's rows without the columns that depend on the clock."""
    with path.open(newline="") as file:
        return [{k: v for k, v in row.items() if k not in skip} for row in csv.DictReader(file)]


def numbers(run: Path, stage: str) -> tuple[dict[str, torch.Tensor], list[Any]]:
    """All tensors that a training leaves, and its log without the clock's columns."""
    tensors = load_file(RunFolder(run).state(stage)) | load_file(RunFolder(run).weights(stage))
    return tensors, rows(run / f"{stage}.log.csv")


def same(left: tuple[dict[str, torch.Tensor], list[Any]], right: Any) -> None:
    """Asserts that two trainings left the same `numbers`, bit by bit."""
    assert left[0].keys() == right[0].keys()
    for name, tensor in left[0].items():
        assert torch.equal(tensor, right[0][name]), name
    assert left[1] == right[1]
