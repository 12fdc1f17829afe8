"""A small store of synthetic people and a small run of recipe "general" on it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from ites.data.datasets.field import prepare_field
from ites.data.store import PoseStore
from ites.pose.bones import bone_lengths
from ites.pose.camera import Camera
from ites.pose.skeleton import HUMAN36M
from ites.runs.settings import make_settings, stages_of
from ites.training.engine import train
from ites.training.log import quiet_console

PARENTS, JOINTS = np.array(HUMAN36M.bones).T
"""Of each bone."""
CAMERA = Camera(
    id="c", focal_length=(1000.0, 1000.0), center=(540.0, 960.0), width=1080, height=1920
)


def make_field(path: Path) -> Path:
    """A store of 1500 people, each seen by two cameras."""
    prepare_field(None, path, people=1500, views=2, seed=4)
    return path


def train_general(store: Path, run: Path) -> Path:
    """A run folder with a prior and a teacher of few steps."""
    own: dict[str, dict[str, Any]] = {
        "prior": {"steps": 150, "width": 48, "batch": 128},
        "teacher": {"steps": 120, "width": 64, "blocks": 1, "batch": 128},
    }
    for stage in stages_of("general"):
        options = {"data": str(store), "out": str(run), "recipe": "general", **own[stage]}
        train(make_settings(stage, None, options), console=quiet_console())
    return run


def points_of(store: Path, count: int = 64) -> torch.Tensor:
    """The networks' input of the first poses."""
    with PoseStore(store) as poses:
        points, _ = poses.points("train")
    return torch.from_numpy(points[:count])


def lengths(poses: np.ndarray) -> np.ndarray:
    """The bones' lengths (N, bones)."""
    return bone_lengths(poses, HUMAN36M)
