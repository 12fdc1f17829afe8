"""The two stages: which model, which tensors, which losses."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from ites.checkpoint import load_model, weights_file
from ites.config import Settings, StudentSettings, TeacherSettings
from ites.errors import ItesError
from ites.models import Student, Teacher
from ites.ops import RotationDraw
from ites.skeleton import Skeleton

Losses = tuple[Tensor, ...]


class TeacherStage(nn.Module):
    """Learn a dictionary of poses from 2D alone.

    `reprojection_weight * reprojection + cycle`; METHOD, "Teacher".
    """

    names = ("total", "reprojection", "cycle")
    least_batch = 2  # BatchNorm has no variance of a single pose

    def __init__(self, settings: TeacherSettings, skeleton: Skeleton, points: Tensor) -> None:
        super().__init__()
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

    def early_steps(self, batches: int) -> int:
        """Steps at the start in which the cycle is centred, with so many steps an epoch."""
        return self.settings.centre_steps or self.settings.centre_epochs * batches

    def forward(self, batch: tuple[Tensor, ...], rotations: RotationDraw, early: bool) -> Losses:
        """The losses of one batch, the one to minimise first.

        Args:
            batch: (B, ...) of each tensor of `data`.
            rotations: to draw.
            early: whether this is one of the `early_steps`.
        """
        (points,) = batch
        losses = self.model.losses(points, rotations, centre_cycle=early)
        return losses.total(self.settings.reprojection_weight), *losses


class StudentStage(nn.Module):
    """Learn depth joint by joint from the teacher's, and from rotations about the vertical.

    `distillation_weight * distillation + equivariance`; METHOD, "Student".
    """

    names = ("total", "distillation", "equivariance")
    least_batch = 1  # its BatchNorm counts joints too

    def __init__(
        self,
        settings: StudentSettings,
        skeleton: Skeleton,
        points: Tensor,
        device: torch.device,
    ) -> None:
        super().__init__()
        self.settings = settings
        self.model = Student(
            skeleton,
            width=settings.width,
            blocks=settings.blocks,
            distance=settings.distance,
            backend=chosen_backend(settings),
        )
        depth = teacher_depth(settings, skeleton, points, device)
        self.data = (points, depth)  # [N, J, 2], [N, J, 1]

    def early_steps(self, batches: int) -> int:
        """None: the student's losses stay the same."""
        return 0

    def forward(self, batch: tuple[Tensor, ...], rotations: RotationDraw, early: bool) -> Losses:
        """The losses of one batch, the one to minimise first; see `TeacherStage.forward`."""
        points, depth = batch
        losses = self.model.losses(points, depth, rotations)
        return losses.total(self.settings.distillation_weight), *losses


def chosen_backend(settings: Settings) -> str | None:
    """The backend that the settings name, None for the fastest."""
    return None if settings.backend == "auto" else settings.backend


Stage = TeacherStage | StudentStage


def make_stage(
    settings: Settings, skeleton: Skeleton, points: Tensor, device: torch.device | None = None
) -> Stage:
    """A stage with its data where `points` are and weights drawn from the seed.

    Args:
        settings: of either stage.
        skeleton: of the points.
        points: (N, J, 2) the networks' input, in the training's dtype, on its device or in main
            memory.
        device: the training's; None: that of the points.
    """
    device = points.device if device is None else device
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        stage: Stage
        if isinstance(settings, TeacherSettings):
            stage = TeacherStage(settings, skeleton, points)
        elif isinstance(settings, StudentSettings):
            stage = StudentStage(settings, skeleton, points, device)
        else:
            raise TypeError(f"make_stage: expected a stage's settings, got {settings!r}")
    stage.to(device=device, dtype=points.dtype).train()
    return stage


@torch.no_grad()
def teacher_depth(
    settings: StudentSettings, skeleton: Skeleton, points: Tensor, device: torch.device
) -> Tensor:
    """The trained teacher's depths of all poses, in evaluation mode: (N, J, 1), beside `points`.

    They are computed on `device`.
    """
    path = Path(settings.teacher or weights_file(settings.out, "teacher"))
    if not path.exists():
        raise ItesError(f"{path}: expected a trained teacher; name another by --teacher RUN")
    teacher, metadata = load_model(path, "teacher", device, chosen_backend(settings))
    if metadata.skeleton != skeleton:
        raise ItesError(
            f"{path}: the teacher's skeleton {metadata.skeleton.name!r} differs from "
            f"{skeleton.name!r}, that of {settings.data}"
        )
    assert isinstance(teacher, Teacher)
    teacher.to(points.dtype)
    parts = (teacher.depth(part.to(device)).to(points.device) for part in points.split(8192))
    return torch.cat(list(parts))
