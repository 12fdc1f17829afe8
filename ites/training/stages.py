"""The stages: each has tensors, a model, an objective, and hooks around the steps."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ites.data.store import PoseStore
from ites.errors import ItesError
from ites.models import (
    Denoiser,
    GeneralPrior,
    GeneralTeacher,
    Prior,
    Student,
    Teacher,
    UprightStudent,
    UprightTeacher,
)
from ites.models.disturb import normal, uniform
from ites.models.mirror import mirror_image
from ites.models.sizes import bone_shares, own_scale
from ites.models.teacher import spread_of
from ites.models.temporal import consistent_poses
from ites.ops import RotationDraw, Rotations, TurnDraw
from ites.pose.geometry import unrolled
from ites.pose.skeleton import Skeleton
from ites.runs.settings import PriorSettings, Settings, StudentSettings, TeacherSettings
from ites.training.calibration import calibrate
from ites.training.dataset import (
    SecondViews,
    denoised,
    load_own_prior,
    read_pairs,
    teacher_labels,
    upright_teacher_labels,
    with_mirror_images,
)
from ites.training.pilots import POSES, Pilot, best_elevation, pilot_losses

Losses = tuple[Tensor, ...]

SIGN_CHECKS = 10  # of the global sign, while the camera is held level
SAMPLE = 1024  # poses per check
STATISTICS = 4096  # poses for BatchNorm's statistics
MANY = 1 << 15  # the same where joints may be missing: some patterns of these are rare
WHITENED = 20_000  # poses for principal components and the mean lengths of bones
REPLAY_STREAM = 6  # of a step's random numbers, see `ites.models.disturb.uniform`
DEQUANTISED = 0.0015  # network units, 4 mm: noise in the density of recipe "general"


@dataclass(frozen=True)
class TrainingData:
    """The 2D poses that a stage learns from.

    Attributes:
        skeleton: of the points.
        points: (N, J, 2) the networks' input, in the training's dtype, on its device or in main
            memory.
        device: the training's.
        clips: frames of each clip, N in all; needed by a student whose `temporal` is "on".
        gravity: (N, 2) elevation and roll of the lines of sight, radians, for recipe "general".
        second: other views of the same people, for the same recipe.
    """

    skeleton: Skeleton
    points: Tensor
    device: torch.device
    clips: list[int]
    gravity: Tensor | None = None
    second: SecondViews | None = None


class Stage(nn.Module):
    """One stage: the tensors `data`, a `model`, and the losses of a batch.

    Args:
        settings: of the stage.
        model: to be trained.
        data: tensors (N, ...), on the training's device or in main memory.

    Attributes:
        names: of the losses; the first is minimised.
        least_batch: the minimum number of poses per batch.
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
            batch: the rows (B, ...) of each tensor of `data`.
            rotations: the rotations to draw.
            early: whether this is one of the `early_steps`.
        """
        raise NotImplementedError

    def early_steps(self, batches: int) -> int:
        """The number of initial steps with different losses, given the steps per epoch."""
        return 0

    def before_training(
        self, steps: int, begin: Callable[[Settings, int], Pilot], say: Callable[[str], None]
    ) -> None:
        """Prepare a new training; called once before the first step.

        Args:
            steps: of the training.
            begin: makes another training from settings, on about the given number of poses.
            say: prints a line.
        """

    def before_step(self, step: int, optimiser: torch.optim.Optimizer) -> None:
        """Called before every `period`-th step."""

    @property
    def keeps_statistics(self) -> bool:
        """Whether BatchNorm uses its running statistics, which stay those of the start."""
        return bool(self.settings.batch_statistics == "kept")

    def refresh_statistics(self, device: torch.device) -> None:
        """Prepare the model for saving or evaluation, unless its statistics are kept."""
        if not self.keeps_statistics:
            self.take_statistics(device)

    def take_statistics(self, device: torch.device) -> None:
        """Take BatchNorm's statistics from the training's poses, where the recipe does."""

    def after_training(self, points: Tensor, device: torch.device) -> None:
        """Complete a finished training; points (N, J, 2) are those of the split."""


class PriorStage(Stage):
    """Learn the density of 2D poses for recipe "upright": the mean negative log density."""

    names = ("total",)
    lifts = False

    def __init__(self, settings: PriorSettings, given: TrainingData) -> None:
        skeleton = given.skeleton
        model = Prior(skeleton, settings.width, settings.blocks, settings.components)
        points = denoised(with_mirror_images(given.points, skeleton), Denoiser(skeleton))
        model.fit(points)
        super().__init__(settings, model, (points,))  # [2N, J, 2]

    def forward(self, batch: tuple[Tensor, ...], rotations: RotationDraw, early: bool) -> Losses:
        return (self.model(batch[0]).mean(),)


class TeacherStage(Stage):
    """Learn a pose dictionary from 2D alone, by the published method.

    `reprojection_weight * reprojection + cycle`; docs/method.md, 3.4.
    """

    names: tuple[str, ...] = ("total", "reprojection", "cycle")
    least_batch = 2  # BatchNorm has no variance of a single pose

    def __init__(self, settings: TeacherSettings, given: TrainingData) -> None:
        super().__init__(settings, make_teacher(Teacher, settings, given.skeleton), (given.points,))

    def early_steps(self, batches: int) -> int:
        """The number of initial steps in which the cycle is centred."""
        return self.settings.centre_steps or self.settings.centre_epochs * batches

    def forward(self, batch: tuple[Tensor, ...], rotations: RotationDraw, early: bool) -> Losses:
        losses = self.model.losses(batch[0], rotations, centre_cycle=early)
        return losses.total(self.settings.reprojection_weight), *losses


class UprightTeacherStage(TeacherStage):
    """Learn a dictionary of poses and the camera's elevation, by recipe "upright".

    `reprojection_weight * reprojection + turn_weight * turn + prior_weight * prior +
    bone_weight * bones`. The first steps add `start_elevation_weight * start_elevation`, logged
    as `level`, which holds the camera at the model's `start_elevation`.
    """

    names = ("total", "reprojection", "turn", "prior", "bones", "level")  # columns of log files

    def __init__(self, settings: TeacherSettings, given: TrainingData) -> None:
        skeleton = given.skeleton
        model = make_teacher(UprightTeacher, settings, skeleton)
        points = denoised(with_mirror_images(given.points, skeleton), model.denoiser)
        Stage.__init__(self, settings, model, (points,))  # [2N, J, 2]
        self.prior = load_own_prior(settings, skeleton)
        self.period = max(1, settings.start_elevation_steps // SIGN_CHECKS)

    def forward(self, batch: tuple[Tensor, ...], rotations: RotationDraw, early: bool) -> Losses:
        settings, (points,) = self.settings, batch
        counter = rotations.counter
        parts = self.model.turn_losses(points, counter, rotations.samples, self.prior)
        free = (counter[1] / settings.start_elevation_steps).clamp(max=1).to(points)
        total = (
            settings.reprojection_weight * parts.reprojection
            + settings.turn_weight * parts.turn
            + settings.prior_weight * parts.prior
            + settings.bone_weight * parts.bones
            + settings.start_elevation_weight * (1 - free) * parts.start_elevation
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
        """Set the elevation at which the camera is held initially."""
        self.model.start_elevation.fill_(math.radians(degrees))

    def before_step(self, step: int, optimiser: torch.optim.Optimizer) -> None:
        """Decide the common sign of all depths by perspective; see `resolve_global_sign`."""
        if 0 < step <= self.settings.start_elevation_steps:
            self.resolve_global_sign(optimiser)

    def resolve_global_sign(self, optimiser: torch.optim.Optimizer) -> None:
        """Negate all depths if that makes their turned views more likely.

        Only a camera that starts level needs it; otherwise the pilot has decided the sign.
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


class GeneralPriorStage(Stage):
    """Learn the density of 2D poses by elevation for recipe "general".

    A little noise keeps the density of exact keypoints finite.
    """

    names = ("total",)
    lifts = False

    def __init__(self, settings: PriorSettings, given: TrainingData) -> None:
        skeleton = given.skeleton
        model = GeneralPrior(skeleton, settings.width, settings.blocks, settings.components)
        points, elevation = level_poses(given)
        model.fit(with_mirror_images(_sample(points, WHITENED), skeleton))
        super().__init__(settings, model, (points, elevation))

    def forward(self, batch: tuple[Tensor, ...], rotations: RotationDraw, early: bool) -> Losses:
        points, elevation = batch
        count, joints, _ = points.shape
        mirrored = uniform(rotations.counter, 0, count, 1)[..., None] < 0.5
        points = torch.where(mirrored, mirror_image(points, self.model.skeleton), points)
        noise = normal(uniform(rotations.counter, 1, count * joints, 2)).view_as(points)
        return (self.model(points + DEQUANTISED * noise.to(points), elevation).mean(),)


class GeneralTeacherStage(Stage):
    """Learn to lift poses seen by any camera, by recipe "general".

    `reprojection_weight * reprojection + turn_weight * turn + prior_weight * prior +
    bone_weight * bones + elevation_weight * elevation + pair_weight * pair`. The last one needs
    second views of the same people, and is 0 in the first `pair_start` steps. Poses of another
    store may replace some of each batch.
    """

    names: tuple[str, ...] = ("total", "reprojection", "turn", "prior", "bones", "elevation")
    least_batch = 2
    replayed: Tensor
    replayed_elevation: Tensor

    def __init__(self, settings: TeacherSettings, given: TrainingData) -> None:
        skeleton = given.skeleton
        model = make_teacher(GeneralTeacher, settings, skeleton)
        points, elevation = level_poses(given)
        second: tuple[Tensor, ...] = ()
        if given.second is not None:
            if 0 < settings.steps <= settings.pair_start:
                raise ItesError(
                    f"train: pair_start must be below steps, {settings.steps}, so that pairs of "
                    f"views count, got {settings.pair_start}"
                )
            second = level_poses(replace(given, **given.second._asdict()))
            self.names = (*self.names, "pair")
        model.shares.copy_(bone_shares(_sample(points, WHITENED), skeleton))
        super().__init__(settings, model, (points, elevation, *second))
        self.prior = load_own_prior(settings, skeleton)
        others = (points[:0], elevation[:0])
        if settings.replay:
            others = level_poses(replayed(settings, skeleton, given.points))
        for name, tensor in zip(("replayed", "replayed_elevation"), others, strict=True):
            self.register_buffer(name, tensor, persistent=False)

    def early_steps(self, batches: int) -> int:
        return int(self.settings.pair_start) if len(self.data) > 2 else 0

    def forward(self, batch: tuple[Tensor, ...], rotations: RotationDraw, early: bool) -> Losses:
        settings, pairs = self.settings, None
        points, elevation = (torch.cat(views) for views in (batch[::2], batch[1::2]))
        points, elevation, other = self.mixed(points, elevation, rotations.counter)
        if len(batch) > 2 and not early:
            first, second = other.chunk(2)
            pairs = ~(first | second)
        parts = self.model.general_losses(
            points, elevation, rotations.counter, self.prior, settings.noise, pairs
        )
        total = (
            settings.reprojection_weight * parts.reprojection
            + settings.turn_weight * parts.turn
            + settings.prior_weight * parts.prior
            + settings.bone_weight * parts.bones
            + settings.elevation_weight * parts.elevation
            + settings.pair_weight * parts.pair
        )
        return (total, *parts)[: len(self.names)]

    def mixed(
        self, points: Tensor, elevation: Tensor, counter: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """A batch, (B, J, 2) and (B,), in which each pose is replaced by one of the replayed poses
        with the probability `replay_share`, and which poses are replaced, (B,) bool."""
        count = len(self.replayed)
        if not count:
            return points, elevation, torch.zeros_like(elevation, dtype=torch.bool)
        draw = uniform(counter, REPLAY_STREAM, len(points), 2)
        other = draw[:, 0] < self.settings.replay_share
        row = (draw[:, 1] * count).long().clamp(max=count - 1)
        points = torch.where(other[:, None, None], self.replayed[row], points)
        return points, torch.where(other, self.replayed_elevation[row], elevation), other

    def take_statistics(self, device: torch.device) -> None:
        """Make BatchNorm's running statistics those of the present weights."""
        self.model.take_statistics(_sample(self.data[0], MANY).to(device))

    def after_training(self, points: Tensor, device: torch.device) -> None:
        """Calibrate the odds that a depth's sign is right, and the expected error."""
        pairs = read_pairs(self.settings.data)
        calibrate(self.settings.out, self.settings.stage, points, device, pairs)


def replayed(settings: TeacherSettings, skeleton: Skeleton, like: Tensor) -> TrainingData:
    """The poses of the store that `settings.replay` names, in the dtype of `like`.

    Raises:
        ItesError: the store's skeleton differs, or it has no elevations.
    """
    with PoseStore(settings.replay) as store:
        if store.skeleton != skeleton:
            raise ItesError(
                f"{settings.replay}: expected poses of {skeleton.name} to replay, got "
                f"{store.skeleton.name}"
            )
        degrees = store.gravity("train")
        if degrees is None:
            raise ItesError(
                f"{settings.replay}: expected the elevation of each line of sight, as `ites "
                "prepare field` writes it, got a store without"
            )
        points, _ = store.points("train", missing="drop")
        degrees = degrees[store.complete("train")]
    gravity = torch.from_numpy(np.radians(degrees)).to(like.dtype)
    return TrainingData(skeleton, torch.from_numpy(points).to(like.dtype), like.device, [], gravity)


def level_poses(given: TrainingData) -> tuple[Tensor, Tensor]:
    """2D poses (N, J, 2) at their own scale, turned back by the known roll, and the elevations."""
    if given.gravity is None:
        raise TypeError("recipe general expected the elevations of the lines of sight, got None")
    points = unrolled(given.points, given.gravity[:, 1])
    return points * own_scale(points, given.skeleton)[:, None, None], given.gravity[:, 0]


class StudentStage(Stage):
    """Learn the depth per joint from the teacher's and from rotations about the vertical.

    `distillation_weight * distillation + equivariance`; docs/method.md, 4.6.
    """

    names: tuple[str, ...] = ("total", "distillation", "equivariance")

    def __init__(self, settings: StudentSettings, given: TrainingData) -> None:
        skeleton, points, device = given.skeleton, given.points, given.device
        model = make_student(Student, settings, skeleton)
        (depth,) = teacher_labels(settings, skeleton, points, device)
        if settings.temporal == "on":
            _, depth = consistent_poses(
                points, depth, given.clips, skeleton, distance=settings.distance, device=device
            )
        super().__init__(settings, model, (points, depth))  # [N, J, 2], [N, J, 1]
        self.prior: Prior | None = None

    def forward(self, batch: tuple[Tensor, ...], rotations: RotationDraw, early: bool) -> Losses:
        points, depth = batch[:2]
        losses = self.model.losses(points, depth, self.turns(batch, rotations), self.prior)
        total = losses.total(self.settings.distillation_weight, self.settings.prior_weight)
        return total, *(part for part in losses if part is not None)

    def turns(self, batch: tuple[Tensor, ...], rotations: RotationDraw) -> Rotations:
        """Draw the rotations of a batch."""
        return rotations


class UprightStudentStage(StudentStage):
    """Learn the depth per joint, by recipe "upright".

    The teacher's elevations give the true vertical. `prior_weight * prior` is optional.
    """

    def __init__(self, settings: StudentSettings, given: TrainingData) -> None:
        skeleton, device = given.skeleton, given.device
        model = make_student(UprightStudent, settings, skeleton)
        points = with_mirror_images(given.points, skeleton)
        depth, elevation = upright_teacher_labels(settings, skeleton, points, device)
        points = denoised(points, model.denoiser)
        if settings.temporal == "on":
            _, depth = consistent_poses(
                points, depth, given.clips * 2, skeleton, distance=settings.distance, device=device
            )
        Stage.__init__(self, settings, model, (points, depth, elevation))  # [2N, ...]
        self.prior = load_own_prior(settings, skeleton) if settings.prior_weight else None
        if self.prior is not None:
            self.names = (*StudentStage.names, "prior")

    def turns(self, batch: tuple[Tensor, ...], rotations: RotationDraw) -> Rotations:
        """Draw rotations about the true vertical, or about the camera's vertical axis."""
        if self.settings.vertical != "true":
            return rotations
        elevation = batch[2]
        return TurnDraw(rotations.counter, elevation, spread_of(elevation), rotations.samples)

    def take_statistics(self, device: torch.device) -> None:
        """Make BatchNorm's running statistics those of the present weights.

        A student's weights change too fast for a running mean over the last steps. Training itself
        does not read the running statistics.
        """
        self.model.take_statistics(_sample(self.data[0], STATISTICS).to(device))

    def after_training(self, points: Tensor, device: torch.device) -> None:
        """Calibrate the odds that a depth's sign is right."""
        calibrate(self.settings.out, self.settings.stage, points, device)


_SIGNED = ("exp_avg", "momentum_buffer")  # optimiser buffers that have the gradient's sign


def make_teacher(network: type[Teacher], settings: TeacherSettings, skeleton: Skeleton) -> Any:
    """Build a teacher with the settings' sizes."""
    return network(
        skeleton,
        width=settings.width,
        blocks=settings.blocks,
        atoms=settings.atoms,
        distance=settings.distance,
        backend=settings.chosen_backend,
    )


def make_student(network: type[Student], settings: StudentSettings, skeleton: Skeleton) -> Any:
    """Build a student with the settings' sizes."""
    return network(
        skeleton,
        width=settings.width,
        blocks=settings.blocks,
        distance=settings.distance,
        backend=settings.chosen_backend,
    )


def stage_class(settings: Settings) -> type[Stage]:
    """The stage that the settings select."""
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
    *,
    gravity: Tensor | None = None,
    second: SecondViews | None = None,
) -> Stage:
    """Build a stage; its data lie where `points` are, its weights are drawn from the seed.

    Args:
        settings: of a stage.
        skeleton: of the points.
        points: (N, J, 2) the networks' input, in the training's dtype, on its device or in main
            memory.
        device: the training's; None: that of the points.
        clips: frames of each clip, N in all, for a student whose `temporal` is "on".
        gravity, second: see `TrainingData`.
    """
    device = points.device if device is None else device
    kind: Any = stage_class(settings)
    given = TrainingData(skeleton, points, device, clips or [], gravity, second)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        stage: Stage = kind(settings, given)
    stage.to(device=device, dtype=points.dtype).train()
    if stage.keeps_statistics:
        stage.model.eval()
    return stage


STAGES: dict[tuple[str, str], type[Stage]] = {
    ("prior", "upright"): PriorStage,
    ("teacher", "paper"): TeacherStage,
    ("teacher", "upright"): UprightTeacherStage,
    ("student", "paper"): StudentStage,
    ("student", "upright"): UprightStudentStage,
    ("prior", "general"): GeneralPriorStage,
    ("teacher", "general"): GeneralTeacherStage,
}
"""The stage class by the stage and the recipe of the settings."""


def _sample(points: Tensor, count: int) -> Tensor:
    """About `count` of N poses, evenly spaced."""
    return points[:: max(1, len(points) // count)]
