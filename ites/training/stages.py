"""The stages: each has tensors, a model, an objective, and what it does beside the steps."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ites.models import Denoiser, Prior, Student, Teacher, UprightStudent, UprightTeacher
from ites.models.teacher import spread_of
from ites.models.temporal import consistent_depths
from ites.ops import RotationDraw, Rotations, TurnDraw
from ites.pose.skeleton import Skeleton
from ites.runs.settings import PriorSettings, Settings, StudentSettings, TeacherSettings
from ites.training.calibration import calibrate
from ites.training.dataset import (
    denoised,
    load_own_prior,
    teacher_labels,
    upright_teacher_labels,
    with_mirror_images,
)
from ites.training.pilots import POSES, Pilot, best_elevation, pilot_losses

Losses = tuple[Tensor, ...]

SETTLES = 10  # times that the global sign is looked at while the camera is held level
SAMPLE = 1024  # poses that decide it
STATISTICS = 4096  # poses that BatchNorm's statistics are taken of


class Stage(nn.Module):
    """What is learned: the tensors `data`, a `model`, and the losses of a batch.

    Args:
        settings: of the stage.
        model: to be trained.
        data: tensors (N, ...), on the training's device or in main memory.

    Attributes:
        names: of the losses; the first is minimised.
        least_batch: poses that a batch needs at least.
        lifts: whether the model lifts poses, so that it can be evaluated.
        period: steps between calls of `before_step`; 0: never.
    """

    names: tuple[str, ...]
    least_batch = 1
    lifts = True
    period = 0
    settings: Any

    def __init__(self, settings: Settings, model: nn.Module, data: tuple[Tensor, ...]) -> None:
        super().__init__()
        self.settings, self.data = settings, data
        self.model: Any = model

    def forward(self, batch: tuple[Tensor, ...], rotations: RotationDraw, early: bool) -> Losses:
        """The losses of one batch, the one to minimise first.

        Args:
            batch: (B, ...) of each tensor of `data`.
            rotations: to draw.
            early: whether this is one of the `early_steps`.
        """
        raise NotImplementedError

    def early_steps(self, batches: int) -> int:
        """Steps at the start whose losses differ, with so many steps per epoch."""
        return 0

    def before_training(
        self, steps: int, begin: Callable[[Settings, int], Pilot], say: Callable[[str], None]
    ) -> None:
        """Do what a new training of so many steps needs first.

        Args:
            steps: of the training.
            begin: makes another training by settings, on about so many of the poses.
            say: prints a line.
        """

    def before_step(self, step: int, optimiser: torch.optim.Optimizer) -> None:
        """Do what is due before a step of `period`."""

    def take_statistics(self, device: torch.device) -> None:
        """Make the model ready to be saved or evaluated."""

    def after_training(self, points: Tensor, device: torch.device) -> None:
        """Do what a finished training needs last; points (N, J, 2) are those of the split."""


class PriorStage(Stage):
    """Learn how likely a 2D pose is, for recipe "upright": the mean negative log density."""

    names = ("total",)
    lifts = False

    def __init__(self, settings: PriorSettings, skeleton: Skeleton, points: Tensor) -> None:
        model = Prior(skeleton, settings.width, settings.blocks, settings.components)
        points = denoised(with_mirror_images(points, skeleton), Denoiser(skeleton))
        model.fit(points)
        super().__init__(settings, model, (points,))  # [2N, J, 2]

    def forward(self, batch: tuple[Tensor, ...], rotations: RotationDraw, early: bool) -> Losses:
        return (self.model(batch[0]).mean(),)


class TeacherStage(Stage):
    """Learn a dictionary of poses from 2D alone, by the published method.

    `reprojection_weight * reprojection + cycle`; METHOD, "Teacher".
    """

    names: tuple[str, ...] = ("total", "reprojection", "cycle")
    least_batch = 2  # BatchNorm has no variance of a single pose

    def __init__(self, settings: TeacherSettings, skeleton: Skeleton, points: Tensor) -> None:
        super().__init__(settings, make_teacher(Teacher, settings, skeleton), (points,))

    def early_steps(self, batches: int) -> int:
        """Steps at the start in which the cycle is centred."""
        return self.settings.centre_steps or self.settings.centre_epochs * batches

    def forward(self, batch: tuple[Tensor, ...], rotations: RotationDraw, early: bool) -> Losses:
        losses = self.model.losses(batch[0], rotations, centre_cycle=early)
        return losses.total(self.settings.reprojection_weight), *losses


class UprightTeacherStage(TeacherStage):
    """Learn a dictionary of poses and the camera's elevation, by recipe "upright".

    `reprojection_weight * reprojection + turn_weight * turn + prior_weight * prior +
    bone_weight * bones`, and at first `level_weight * level`, which holds the camera at the model's
    `start_elevation` until the poses stand.
    """

    names = ("total", "reprojection", "turn", "prior", "bones", "level")

    def __init__(self, settings: TeacherSettings, skeleton: Skeleton, points: Tensor) -> None:
        model = make_teacher(UprightTeacher, settings, skeleton)
        points = denoised(with_mirror_images(points, skeleton), model.denoiser)
        Stage.__init__(self, settings, model, (points,))  # [2N, J, 2]
        self.prior = load_own_prior(settings, skeleton)
        self.period = max(1, settings.level_steps // SETTLES)

    def forward(self, batch: tuple[Tensor, ...], rotations: RotationDraw, early: bool) -> Losses:
        settings, (points,) = self.settings, batch
        counter = rotations.counter
        parts = self.model.turn_losses(points, counter, rotations.samples, self.prior)
        free = (counter[1] / settings.level_steps).clamp(max=1).to(points)
        total = (
            settings.reprojection_weight * parts.reprojection
            + settings.turn_weight * parts.turn
            + settings.prior_weight * parts.prior
            + settings.bone_weight * parts.bones
            + settings.level_weight * (1 - free) * parts.level
        )
        return total, *parts

    def before_training(
        self, steps: int, begin: Callable[[Settings, int], Pilot], say: Callable[[str], None]
    ) -> None:
        """Start from the elevation of the best pilot."""
        losses = pilot_losses(self.settings, steps, lambda given: begin(given, POSES))
        if losses:
            best, line = best_elevation(losses)
            self.fix_elevation(best)
            say(line)

    def fix_elevation(self, degrees: float) -> None:
        """Hold the camera at an elevation at first."""
        self.model.start_elevation.fill_(math.radians(degrees))

    def before_step(self, step: int, optimiser: torch.optim.Optimizer) -> None:
        """Let perspective decide the sign of all depths at once; see `resolve_global_sign`."""
        if 0 < step <= self.settings.level_steps:
            self.resolve_global_sign(optimiser)

    def resolve_global_sign(self, optimiser: torch.optim.Optimizer) -> None:
        """Negate all depths where their turned views are likelier so.

        Only a camera that starts level needs it: another start's pilot has decided the sign.
        """
        if self.model.start_elevation != 0:
            return
        points = _sample(self.data[0], SAMPLE).to(self.model.mean_pose.device)
        if self.model.flip_helps(points, self.prior):
            state = optimiser.state
            self.model.flip(lambda p: [state[p][name] for name in _SIGNED if name in state[p]])

    def take_statistics(self, device: torch.device) -> None:
        """Make BatchNorm's running statistics those of the present weights."""
        self.model.take_statistics(_sample(self.data[0], STATISTICS).to(device))

    def after_training(self, points: Tensor, device: torch.device) -> None:
        """Calibrate the odds that a depth's sign is right."""
        calibrate(self.settings.out, self.settings.stage, points, device)


class StudentStage(Stage):
    """Learn depth joint by joint from the teacher's, and from rotations about the vertical.

    `distillation_weight * distillation + equivariance`; METHOD, "Student".
    """

    names: tuple[str, ...] = ("total", "distillation", "equivariance")

    def __init__(
        self,
        settings: StudentSettings,
        skeleton: Skeleton,
        points: Tensor,
        device: torch.device,
        clips: list[int],
    ) -> None:
        model = make_student(Student, settings, skeleton)
        (depth,) = teacher_labels(settings, skeleton, points, device)
        if settings.temporal == "on":
            distance = settings.distance
            depth = consistent_depths(points, depth, clips, skeleton, distance, device)
        super().__init__(settings, model, (points, depth))  # [N, J, 2], [N, J, 1]
        self.prior: Prior | None = None

    def forward(self, batch: tuple[Tensor, ...], rotations: RotationDraw, early: bool) -> Losses:
        points, depth = batch[:2]
        losses = self.model.losses(points, depth, self.turns(batch, rotations), self.prior)
        total = losses.total(self.settings.distillation_weight, self.settings.prior_weight)
        return total, *(part for part in losses if part is not None)

    def turns(self, batch: tuple[Tensor, ...], rotations: RotationDraw) -> Rotations:
        """The rotations of a batch."""
        return rotations


class UprightStudentStage(StudentStage):
    """Learn depth joint by joint, by recipe "upright".

    The vertical is the true one, by the teacher's elevations, and `prior_weight * prior` can be
    added.
    """

    def __init__(
        self,
        settings: StudentSettings,
        skeleton: Skeleton,
        points: Tensor,
        device: torch.device,
        clips: list[int],
    ) -> None:
        model = make_student(UprightStudent, settings, skeleton)
        points = with_mirror_images(points, skeleton)
        depth, elevation = upright_teacher_labels(settings, skeleton, points, device)
        points = denoised(points, model.denoiser)
        if settings.temporal == "on":
            distance = settings.distance
            depth = consistent_depths(points, depth, clips * 2, skeleton, distance, device)
        Stage.__init__(self, settings, model, (points, depth, elevation))  # [2N, ...]
        self.prior = load_own_prior(settings, skeleton) if settings.prior_weight else None
        if self.prior is not None:
            self.names = (*StudentStage.names, "prior")

    def turns(self, batch: tuple[Tensor, ...], rotations: RotationDraw) -> Rotations:
        """Turns about the true vertical, or rotations about the camera's."""
        if self.settings.vertical != "true":
            return rotations
        elevation = batch[2]
        return TurnDraw(rotations.counter, elevation, spread_of(elevation), rotations.samples)

    def take_statistics(self, device: torch.device) -> None:
        """Make BatchNorm's running statistics those of the present weights.

        A student's weights move too fast for the mean over the last steps. Training reads none.
        """
        self.model.take_statistics(_sample(self.data[0], STATISTICS).to(device))

    def after_training(self, points: Tensor, device: torch.device) -> None:
        """Calibrate the odds that a depth's sign is right."""
        calibrate(self.settings.out, self.settings.stage, points, device)


_SIGNED = ("exp_avg", "momentum_buffer")  # what optimisers keep that has the gradient's sign


def make_teacher(network: type[Teacher], settings: TeacherSettings, skeleton: Skeleton) -> Any:
    """A teacher of the settings' sizes."""
    return network(
        skeleton,
        width=settings.width,
        blocks=settings.blocks,
        atoms=settings.atoms,
        distance=settings.distance,
        backend=settings.chosen_backend,
    )


def make_student(network: type[Student], settings: StudentSettings, skeleton: Skeleton) -> Any:
    """A student of the settings' sizes."""
    return network(
        skeleton,
        width=settings.width,
        blocks=settings.blocks,
        distance=settings.distance,
        backend=settings.chosen_backend,
    )


def stage_class(settings: Settings) -> type[Stage]:
    """The stage that settings ask for."""
    kind = STAGES.get((settings.stage, settings.recipe))
    if kind is None:
        raise TypeError(f"expected the settings of a stage, got {settings!r}")
    return kind


def make_stage(
    settings: Settings,
    skeleton: Skeleton,
    points: Tensor,
    device: torch.device | None = None,
    clips: list[int] | None = None,
) -> Stage:
    """A stage with its data where `points` are and weights drawn from the seed.

    Args:
        settings: of a stage.
        skeleton: of the points.
        points: (N, J, 2) the networks' input, in the training's dtype, on its device or in main
            memory.
        device: the training's; None: that of the points.
        clips: frames of each clip, N in all, for a student whose `temporal` is "on".
    """
    device = points.device if device is None else device
    kind: Any = stage_class(settings)
    more = (device, clips or []) if settings.stage == "student" else ()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        stage: Stage = kind(settings, skeleton, points, *more)
    return stage.to(device=device, dtype=points.dtype).train()


STAGES: dict[tuple[str, str], type[Stage]] = {
    ("prior", "upright"): PriorStage,
    ("teacher", "paper"): TeacherStage,
    ("teacher", "upright"): UprightTeacherStage,
    ("student", "paper"): StudentStage,
    ("student", "upright"): UprightStudentStage,
}
"""What is trained, by the stage and the recipe of its settings."""


def _sample(points: Tensor, count: int) -> Tensor:
    """About so many of N poses, spread over all."""
    return points[:: max(1, len(points) // count)]
