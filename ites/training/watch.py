"""Watching a training: its time, finite checks, and the rows of its log."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from torch import Tensor, nn

from ites.errors import ItesError
from ites.runs.folder import RunFolder
from ites.training.schedule import Schedule


class Stopwatch:
    """Counts the seconds of the blocks in which it runs.

    Attributes:
        seconds: so far, those of the block that goes on included; may be set.
    """

    def __init__(self) -> None:
        self._counted, self._since = 0.0, math.nan  # nan: it stands

    @property
    def seconds(self) -> float:
        going = 0.0 if math.isnan(self._since) else time.perf_counter() - self._since
        return self._counted + going

    @seconds.setter
    def seconds(self, value: float) -> None:
        self._counted = value
        if not math.isnan(self._since):
            self._since = time.perf_counter()

    @contextmanager
    def running(self) -> Iterator[None]:
        """Count the block."""
        self._since = time.perf_counter()
        try:
            yield
        finally:
            self._counted, self._since = self.seconds, math.nan

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Do not count the block, which is within one that is counted."""
        self._counted, self._since = self.seconds, math.nan
        try:
            yield
        finally:
            self._since = time.perf_counter()


class Watch:
    """Checks that losses and weights stay finite, and averages losses for the log.

    Args:
        folder: of the run.
        stage: "prior", "teacher" or "student".
        names: of the losses, the columns of `recent`.
        recent: (log_every, losses), the losses since the last log; row `step % log_every`.
        schedule: of the training.
        stopwatch: counts the time spent training.

    Attributes:
        means: the losses by name, as last logged.
        last_checkpoint_step: 0 before the first checkpoint.
    """

    def __init__(
        self,
        folder: RunFolder,
        stage: str,
        names: Sequence[str],
        recent: Tensor,
        schedule: Schedule,
        stopwatch: Stopwatch,
    ) -> None:
        self.folder, self.stage, self.names = folder, stage, names
        self.recent, self.schedule, self.stopwatch = recent, schedule, stopwatch
        self.means = dict.fromkeys(names, math.nan)
        self.last_checkpoint_step = 0
        self._logged = (0.0, 0)  # seconds and step of the last row

    def begin(self, step: int) -> None:
        """Measure the speed from this step on."""
        self._logged = (self.stopwatch.seconds, step)

    def unlogged(self, step: int) -> Tensor:
        """The losses (steps, losses) not logged yet."""
        return self.recent[: step % len(self.recent)]

    def check(self, step: int, model: nn.Module) -> None:
        """Raise ItesError where a loss not logged yet, or a weight, is not finite."""
        self._check_losses(step, self.unlogged(step).cpu())
        for name, tensor in model.state_dict().items():
            if not tensor.isfinite().all():
                raise self._diverged(f"{name} is not finite after step {step}")

    def row(self, step: int, learning_rate: float) -> dict[str, int | float]:
        """Average the losses since the last log: the only place that waits for the device.

        Raises:
            ItesError: one of them is not finite.
        """
        every = len(self.recent)
        recent = self.recent[: step % every or every].cpu().double()
        self._check_losses(step, recent)
        self.means = dict(zip(self.names, recent.mean(0).tolist(), strict=True))
        now, (before, logged) = self.stopwatch.seconds, self._logged
        seen = self.schedule.poses_seen(step) - self.schedule.poses_seen(logged)
        self._logged = (now, step)
        return {
            "step": step,
            "epoch": round(step / self.schedule.batches, 4),
            **self.means,
            "learning_rate": learning_rate,
            "poses_per_second": round(seen / max(now - before, 1e-9), 1),
            "seconds": round(now, 3),
        }

    def _check_losses(self, step: int, recent: Tensor) -> None:
        """Raise where a loss of the last steps, (steps, losses), is not finite."""
        bad = (~recent.isfinite()).nonzero().tolist()
        if bad:
            row, column = bad[0]
            at = step - len(recent) + row
            raise self._diverged(
                f"the {self.names[column]} loss is {recent[row, column].item()} at step "
                f"{at + 1}, epoch {at // self.schedule.batches + 1}"
            )

    def _diverged(self, what: str) -> ItesError:
        last = self.last_checkpoint_step
        kept = f"the checkpoint of step {last} in {self.folder.root} is good"
        return ItesError(
            f"{self.stage}: {what}; {kept if last else 'there is no checkpoint yet'}"
            "; a lower learning rate may help"
        )
