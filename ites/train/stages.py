"""The stages: which model, which tensors, which losses."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from ites.errors import ItesError
from ites.models import Denoiser, Prior, Student, Teacher
from ites.models.mirror import mirror_image, other_sides
from ites.models.teacher import spread_of
from ites.models.temporal import consistent_depths
from ites.ops import RotationDraw, TurnDraw
from ites.pose.skeleton import Skeleton
from ites.runs.checkpoint import load_model, load_prior, weights_file
from ites.runs.settings import PriorSettings, Settings, StudentSettings, TeacherSettings

Losses = tuple[Tensor, ...]


SETTLES = 10  # times that the sign of all depths is looked at while the camera is held level
SAMPLE = 1024  # poses that decide it


class PriorStage(nn.Module):
    """Learn how likely a 2D pose is, for recipe "upright"."""

    names = ("total",)
    least_batch = 1

    def __init__(self, settings: PriorSettings, skeleton: Skeleton, points: Tensor) -> None:
        super().__init__()
        self.settings = settings
        self.model = Prior(skeleton, settings.width, settings.blocks, settings.components)
        points = denoised(with_mirror_images(points, skeleton), Denoiser(skeleton))
        self.model.fit(points)
        self.data = (points,)  # [2N, J, 2]

    def early_steps(self, batches: int) -> int:
        """None."""
        return 0

    def forward(self, batch: tuple[Tensor, ...], rotations: RotationDraw, early: bool) -> Losses:
        """The mean negative log density; see `TeacherStage.forward`."""
        return (self.model(batch[0]).mean(),)


class TeacherStage(nn.Module):
    """Learn a dictionary of poses from 2D alone.

    Recipe "paper": `reprojection_weight * reprojection + cycle`; METHOD, "Teacher". Recipe
    "upright": `reprojection_weight * reprojection + turn_weight * turn + prior_weight * prior +
    bone_weight * bones`, and at first `level_weight * level`, which holds the camera at the model's
    `start_elevation` until the poses stand.
    """

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
            upright=settings.recipe == "upright",
            backend=chosen_backend(settings),
        )
        self.prior = prior_of(settings, skeleton)
        last = ("turn", "prior", "bones", "level") if self.prior else ("cycle",)
        self.names = ("total", "reprojection", *last)
        self.period = max(1, settings.level_steps // SETTLES) if self.prior else 0
        if self.model.denoiser is not None:
            points = denoised(with_mirror_images(points, skeleton), self.model.denoiser)
        self.data = (points,)  # [N, J, 2], recipe "upright" [2N, J, 2]

    def early_steps(self, batches: int) -> int:
        """Steps at the start in which the cycle is centred, with so many steps an epoch."""
        return self.settings.centre_steps or self.settings.centre_epochs * batches

    def settle(self, step: int, optimiser: torch.optim.Optimizer) -> None:
        """Before a step of `period`: let perspective decide the sign of all depths at once.

        Of a camera that starts level; another start's pilot has decided it.
        """
        if self.prior is None or not 0 < step <= self.settings.level_steps:
            return
        if self.model.start_elevation != 0:
            return
        points = self.data[0][:: max(1, len(self.data[0]) // SAMPLE)]
        points = points.to(self.model.mean_pose.device)
        if self.model.flip_helps(points, self.prior):
            state = optimiser.state
            self.model.flip(lambda p: [state[p][name] for name in _SIGNED if name in state[p]])

    def forward(self, batch: tuple[Tensor, ...], rotations: RotationDraw, early: bool) -> Losses:
        """The losses of one batch, the one to minimise first.

        Args:
            batch: (B, ...) of each tensor of `data`.
            rotations: to draw.
            early: whether this is one of the `early_steps`.
        """
        (points,) = batch
        if self.prior is not None:
            settings = self.settings
            counter, samples = rotations.counter, rotations.samples
            parts = self.model.turn_losses(points, counter, samples, self.prior)
            free = (counter[1] / settings.level_steps).clamp(max=1).to(points)
            total = (
                settings.reprojection_weight * parts.reprojection
                + settings.turn_weight * parts.turn
                + settings.prior_weight * parts.prior
                + settings.bone_weight * parts.bones
                + settings.level_weight * (1 - free) * parts.level
            )
            return total, *parts
        losses = self.model.losses(points, rotations, centre_cycle=early)
        return losses.total(self.settings.reprojection_weight), *losses


class StudentStage(nn.Module):
    """Learn depth joint by joint from the teacher's, and from rotations about the vertical.

    `distillation_weight * distillation + equivariance`; METHOD, "Student". In recipe "upright" the
    vertical is the true one, by the teacher's elevations, and `prior_weight * prior` can be added.
    """

    least_batch = 1  # its BatchNorm counts joints too

    def __init__(
        self,
        settings: StudentSettings,
        skeleton: Skeleton,
        points: Tensor,
        device: torch.device,
        clips: list[int] | None = None,
    ) -> None:
        super().__init__()
        self.settings = settings
        self.model = Student(
            skeleton,
            width=settings.width,
            blocks=settings.blocks,
            distance=settings.distance,
            upright=settings.recipe == "upright",
            backend=chosen_backend(settings),
        )
        if settings.recipe == "upright":
            points = with_mirror_images(points, skeleton)
        depth, *elevation = teacher_labels(settings, skeleton, points, device)
        if self.model.denoiser is not None:
            points = denoised(points, self.model.denoiser)
        if settings.temporal == "on":
            lengths = (clips or []) * (2 if settings.recipe == "upright" else 1)
            depth = consistent_depths(points, depth, lengths, skeleton, settings.distance, device)
        self.data = (points, depth, *elevation)  # [N, J, 2], [N, J, 1], recipe "upright" [N]
        self.prior = prior_of(settings, skeleton) if settings.prior_weight else None
        self.names = ("total", "distillation", "equivariance", *(("prior",) if self.prior else ()))

    def early_steps(self, batches: int) -> int:
        """None: the student's losses stay the same."""
        return 0

    def forward(self, batch: tuple[Tensor, ...], rotations: RotationDraw, early: bool) -> Losses:
        """The losses of one batch, the one to minimise first; see `TeacherStage.forward`."""
        points, depth, *elevation = batch
        draw: RotationDraw | TurnDraw = rotations
        if elevation and self.settings.vertical == "true":
            draw = TurnDraw(
                rotations.counter, elevation[0], spread_of(elevation[0]), rotations.samples
            )
        losses = self.model.losses(points, depth, draw, self.prior)
        total = losses.total(self.settings.distillation_weight, self.settings.prior_weight)
        return total, *(part for part in losses if part is not None)


def chosen_backend(settings: Settings) -> str | None:
    """The backend that the settings name, None for the fastest."""
    return None if settings.backend == "auto" else settings.backend


_SIGNED = ("exp_avg", "momentum_buffer")  # what optimisers keep that has the gradient's sign

Stage = PriorStage | TeacherStage | StudentStage


def make_stage(
    settings: Settings,
    skeleton: Skeleton,
    points: Tensor,
    device: torch.device | None = None,
    clips: list[int] | None = None,
) -> Stage:
    """A stage with its data where `points` are and weights drawn from the seed.

    Args:
        settings: of either stage.
        skeleton: of the points.
        points: (N, J, 2) the networks' input, in the training's dtype, on its device or in main
            memory.
        device: the training's; None: that of the points.
        clips: frames of each clip, N in all, for a student whose `temporal` is "on".
    """
    device = points.device if device is None else device
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        stage: Stage
        if isinstance(settings, TeacherSettings):
            stage = TeacherStage(settings, skeleton, points)
        elif isinstance(settings, StudentSettings):
            stage = StudentStage(settings, skeleton, points, device, clips)
        elif isinstance(settings, PriorSettings):
            stage = PriorStage(settings, skeleton, points)
        else:
            raise TypeError(f"make_stage: expected a stage's settings, got {settings!r}")
    stage.to(device=device, dtype=points.dtype).train()
    return stage


@torch.no_grad()
def teacher_labels(
    settings: StudentSettings, skeleton: Skeleton, points: Tensor, device: torch.device
) -> tuple[Tensor, ...]:
    """What the trained teacher says of all poses, in evaluation mode, beside `points`.

    Depths (N, J, 1); in recipe "upright", where the second half of the poses are the mirror images
    of the first, the camera's elevations (N,) too. They are computed on `device`.
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
    upright = settings.recipe == "upright"
    if teacher.upright != upright:
        raise ItesError(
            f"{path}: expected a teacher of recipe {settings.recipe!r}, got the other's"
        )
    ask = (teacher.depth, teacher.elevation) if upright else (teacher.depth,)
    asked = points[: len(points) // 2] if upright else points
    depth, *elevation = (
        torch.cat([say(part.to(device)).to(points.device) for part in asked.split(8192)])
        for say in ask
    )
    if not upright:
        return (depth,)
    return torch.cat([depth, other_sides(depth, skeleton)]), elevation[0].repeat(2)


def with_mirror_images(points: Tensor, skeleton: Skeleton) -> Tensor:
    """2D poses (N, J, 2), then the mirror image of each: (2N, J, 2)."""
    return torch.cat([points, mirror_image(points, skeleton)])


def denoised(points: Tensor, denoiser: Denoiser) -> Tensor:
    """2D poses (N, J, 2) without the noise that a denoiser, fitted here, finds in them."""
    denoiser.to(points)
    denoiser.fit(points)
    return torch.cat([denoiser(part) for part in points.split(8192)])


def prior_of(settings: TeacherSettings | StudentSettings, skeleton: Skeleton) -> Prior | None:
    """The trained prior that recipe "upright" needs, constant; None for the paper's."""
    if settings.recipe != "upright":
        return None
    path = Path(settings.prior or weights_file(settings.out, "prior"))
    if not path.exists():
        raise ItesError(f"{path}: expected a trained prior; name another by --prior RUN")
    prior = load_prior(path)
    if prior.skeleton != skeleton:
        raise ItesError(
            f"{path}: the prior's skeleton {prior.skeleton.name!r} differs from "
            f"{skeleton.name!r}, that of {settings.data}"
        )
    return prior.requires_grad_(False)
