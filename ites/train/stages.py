"""The two stages: which model, which tensors, which losses."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from ites.checkpoint import load_model, weights_file
from ites.config import Settings, StudentSettings, TeacherSettings
from ites.errors import ItesError
from ites.models import Student, Teacher
from ites.ops import RotationDraw
from ites.skeleton import Skeleton

Losses = tuple[Tensor, ...]


class TeacherStage:
    """Learn a dictionary of poses from 2D alone.

    `reprojection_weight * reprojection + cycle`; METHOD, "Teacher".
    """

    names = ("total", "reprojection", "cycle")
    least_batch = 2  # BatchNorm has no variance of a single pose

    def __init__(self, settings: TeacherSettings, skeleton: Skeleton, points: Tensor) -> None:
        self.settings = settings
        self.model = Teacher(
            skeleton,
            width=settings.width,
            blocks=settings.blocks,
            atoms=settings.atoms,
            distance=settings.distance,
            backend=chosen_backend(settings),
        )
        self.data = (points,)  # [N, J, 2]

    def losses(
        self, batch: tuple[Tensor, ...], rotations: RotationDraw, epoch: int, step: int
    ) -> Losses:
        """The losses of one batch, the one to minimise first; epoch and step count from 0."""
        (points,) = batch
        if self.settings.centre_steps:
            centre = step < self.settings.centre_steps
        else:
            centre = epoch < self.settings.centre_epochs
        losses = self.model.losses(points, rotations, centre_cycle=centre)
        total = self.settings.reprojection_weight * losses.reprojection + losses.cycle
        return total, losses.reprojection, losses.cycle


class StudentStage:
    """Learn depth joint by joint from the teacher's, and from rotations about the vertical.

    `distillation_weight * distillation + equivariance`; METHOD, "Student".
    """

    names = ("total", "distillation", "equivariance")
    least_batch = 1  # its BatchNorm counts joints too

    def __init__(self, settings: StudentSettings, skeleton: Skeleton, points: Tensor) -> None:
        self.settings = settings
        self.model = Student(
            skeleton,
            width=settings.width,
            blocks=settings.blocks,
            distance=settings.distance,
            backend=chosen_backend(settings),
        )
        self.data = (points, teacher_depth(settings, skeleton, points))  # [N, J, 2], [N, J, 1]

    def losses(
        self, batch: tuple[Tensor, ...], rotations: RotationDraw, epoch: int, step: int
    ) -> Losses:
        """The losses of one batch, the one to minimise first."""
        points, depth = batch
        losses = self.model.losses(points, depth, rotations)
        total = self.settings.distillation_weight * losses.distillation + losses.equivariance
        return total, losses.distillation, losses.equivariance


def chosen_backend(settings: Settings) -> str | None:
    """The backend that the settings name, None for the fastest."""
    return None if settings.backend == "auto" else settings.backend


Stage = TeacherStage | StudentStage


def make_stage(settings: Settings, skeleton: Skeleton, points: Tensor) -> Stage:
    """A stage with its data on the device of `points` and weights drawn from the seed.

    Args:
        settings: of either stage.
        skeleton: of the points.
        points: (N, J, 2) the networks' input, on the training's device, in its dtype.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        stage: Stage
        if isinstance(settings, TeacherSettings):
            stage = TeacherStage(settings, skeleton, points)
        elif isinstance(settings, StudentSettings):
            stage = StudentStage(settings, skeleton, points)
        else:
            raise TypeError(f"make_stage: expected a stage's settings, got {settings!r}")
    stage.model.to(device=points.device, dtype=points.dtype).train()
    return stage


@torch.no_grad()
def teacher_depth(settings: StudentSettings, skeleton: Skeleton, points: Tensor) -> Tensor:
    """The trained teacher's depths of all poses, in evaluation mode: (N, J, 1)."""
    path = Path(settings.teacher or weights_file(settings.out, "teacher"))
    if not path.exists():
        raise ItesError(f"{path}: expected a trained teacher; name another by --teacher RUN")
    teacher, metadata = load_model(path, "teacher", points.device, chosen_backend(settings))
    if metadata.skeleton != skeleton:
        raise ItesError(
            f"{path}: the teacher's skeleton {metadata.skeleton.name!r} differs from "
            f"{skeleton.name!r}, that of {settings.data}"
        )
    assert isinstance(teacher, Teacher)
    teacher.to(points.dtype)
    return torch.cat([teacher.depth(part) for part in points.split(8192)])
