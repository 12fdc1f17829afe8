"""The schedule of a training: the steps, the learning rate, and the events between steps."""

from __future__ import annotations

import math
from typing import NamedTuple

from ites.errors import ItesError
from ites.runs.settings import Settings

RATE_STEPS = 20  # steps between updates of a cosine learning rate


class StepShape(NamedTuple):
    """The host-side inputs of a step. Steps with equal inputs can replay one CUDA graph."""

    size: int  # poses of the batch over all ranks
    early: bool  # see `Stage.early_steps`


class Schedule:
    """The steps of a training and the events between them.

    Args:
        settings: of the training.
        poses: number of poses in its data.
        least_batch: the minimum number of poses of the last, short batch of an epoch.
        period: steps between calls of the stage's `before_step`; 0: never.

    Attributes:
        batches: steps per epoch.
        steps: of the whole training.
        early_steps: see `Stage.early_steps`; set once `batches` is known.

    Raises:
        ItesError: there are too few poses for a batch.
    """

    def __init__(self, settings: Settings, poses: int, least_batch: int, period: int) -> None:
        self.settings, self.poses, self.period = settings, poses, period
        full, left = divmod(poses, settings.batch)
        self.batches = full + (left >= least_batch)
        if not self.batches:
            raise ItesError(f"{settings.data}: expected at least 2 poses, got {poses}")
        self.steps = settings.epochs * self.batches
        if settings.steps:
            self.steps = min(self.steps, settings.steps)
        self.early_steps = 0

    def place(self, step: int) -> tuple[int, int]:
        """The epoch of a step and the batch index within it."""
        return divmod(step, self.batches)

    def shape(self, step: int) -> StepShape:
        """The host-side inputs of a step."""
        _, index = self.place(step)
        size = min(self.settings.batch, self.poses - index * self.settings.batch)
        return StepShape(size, early=step < self.early_steps)

    def learning_rate(self, step: int) -> float:
        """The learning rate of a step."""
        settings, (epoch, _) = self.settings, self.place(step)
        if settings.decay == "cosine":
            done = step // RATE_STEPS * RATE_STEPS / self.steps
            return settings.learning_rate * 0.5 * (1 + math.cos(math.pi * done))
        halvings = epoch // settings.halve_every if settings.halve_every else 0
        return settings.learning_rate * 0.5**halvings

    def poses_seen(self, step: int) -> int:
        """The number of poses in the first `step` steps."""
        epochs, batches = self.place(step)
        whole = min(self.poses, self.batches * self.settings.batch)
        return epochs * whole + batches * self.settings.batch

    def is_due(self, every: int, step: int) -> bool:
        """Whether an event with a period in steps is due at a step; period 0: never."""
        return every > 0 and step % every == 0

    def checkpoint_is_due(self, step: int, seconds: float) -> bool:
        """Whether a checkpoint is due, given the seconds since the last one."""
        if step >= self.steps:  # the training loop writes the final one
            return False
        if self.settings.checkpoint_every:
            return self.is_due(self.settings.checkpoint_every, step)
        return step % self.batches == 0 and seconds > 60

    def steps_until_host_work(self, step: int, evaluates: bool) -> int:
        """The number of steps until the next host-side event; they only change device state."""
        settings = self.settings
        every = [settings.log_every, settings.checkpoint_every, self.period]
        every += [RATE_STEPS] if settings.decay == "cosine" else []
        every += [settings.evaluate_every] if evaluates else []
        room = [period - step % period for period in every if period]
        return min(room + [mark - step for mark in (self.steps, self.early_steps) if mark > step])
