"""The training loop, the same for all stages of all recipes."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from rich.console import Console
from rich.progress import Progress

from ites.errors import ItesError
from ites.ops import backends
from ites.runs.checkpoint import Metadata, load_state, save_model, save_state, step_of
from ites.runs.folder import RunFolder, device_name, refuse_changes
from ites.system.console import say
from ites.system.interrupts import caught_interrupts
from ites.system.memory import keep_freed_memory
from ites.system.ranks import Ranks
from ites.training.evaluation import Evaluator
from ites.training.feed import CHUNK, Feed, device_budget
from ites.training.log import Log
from ites.training.optimiser import make_optimiser
from ites.training.result import Result
from ites.training.schedule import Schedule
from ites.training.stages import Stage
from ites.training.step import Clock, Step, steps_for
from ites.training.watch import Stopwatch, Watch

COUNTERS = ("step", "seconds", "losses", "poses", "scale", "settings")  # of a training's state


class Training:
    """One stage in training: its optimiser, its counters, its loop.

    Args:
        stage: model on `device`, data there or, to be streamed, in main memory, and losses.
        scale: of the data, for the checkpoint.
        device: where the steps are taken.
        evaluator: measures errors during training, or None.
        console: where progress is shown.
        ranks: this process's rank in distributed training; None: a single process.
        stream: whether the data come in chunks from main memory.
        label: put before each line that is shown, such as "seed 3"; "" for none.
        progress: the bars of several trainings, to which this one adds its own; None: a bar alone.

    Raises:
        ItesError: there are too few poses, or capture is required but not possible.
    """

    def __init__(
        self,
        stage: Stage,
        scale: float,
        device: torch.device,
        evaluator: Evaluator | None,
        console: Console,
        ranks: Ranks | None = None,
        stream: bool = False,
        *,
        label: str = "",
        progress: Progress | None = None,
    ) -> None:
        self.stage, self.scale, self.device = stage, scale, device
        self.label, self.progress = label, progress
        self.evaluator, self.console, self.ranks = evaluator, console, ranks or Ranks()
        self.settings = settings = stage.settings
        self.folder = RunFolder(settings.out)
        if device.type == "cpu":
            keep_freed_memory()
        self.schedule = Schedule(settings, len(stage.data[0]), stage.least_batch, stage.period)
        self.schedule.early_steps = stage.early_steps(self.schedule.batches)
        self.optimiser, self._rate = make_optimiser(stage.model, settings, device)
        self.learning_rate = settings.learning_rate
        self.backend = backends.choose(
            "batch_norm_relu", device.type, stage.data[0].dtype, stage.model.backend
        )
        # These four, the weights and the momentum make the state of a training.
        self.step = 0
        self.stopwatch = Stopwatch()
        self.clock = Clock(settings.seed, device)
        self.recent = self._rate.new_zeros(settings.log_every, len(stage.names))  # since last log

        self.seconds = 0.0  # as of the last checkpoint
        self._saved = time.perf_counter()  # when it was written
        self.watch = Watch(
            self.folder, settings.stage, stage.names, self.recent, self.schedule, self.stopwatch
        )
        self.feed = Feed(
            stage.data,
            self.clock.batch_index,
            seed=settings.seed,
            batch=settings.batch,
            batches=self.schedule.batches,
            ranks=self.ranks,
            stream=stream,
            limit=min(CHUNK, device_budget(settings.device_memory, device)),
        )
        step = Step(stage, self.feed, self.optimiser, self.clock, self.recent, self.ranks)
        self._take = steps_for(step, settings, self.say)

    def run(self) -> None:
        """Train to the end of the schedule, or until interrupted."""
        with caught_interrupts() as interrupted:
            for _ in self.steps(interrupted):
                pass

    def steps(self, interrupted: Sequence[int]) -> Iterator[None]:
        """Train to the end of the schedule; pause after each step, or block of captured steps.

        Args:
            interrupted: as soon as it holds an item, the training writes a checkpoint and ends.

        Raises:
            ItesError: a loss or a weight is not finite.
        """
        schedule, settings, every = self.schedule, self.settings, self.settings.log_every
        self.watch.begin(self.step)
        if self.ranks.is_main:  # it belongs to earlier weights
            self.folder.odds(settings.stage).unlink(missing_ok=True)
        with self.stopwatch.running(), self._log() as log:
            stop = False
            while self.step < schedule.steps and not stop:
                self.advance()
                if log is not None:
                    log.advance(self.step)
                if schedule.is_due(every, self.step):
                    self._write_row(log)
                if log is not None and schedule.is_due(settings.evaluate_every, self.step):
                    self._evaluate(log)
                if schedule.checkpoint_is_due(self.step, time.perf_counter() - self._saved):
                    self.checkpoint()
                if schedule.is_due(every, self.step) or not self.ranks.distributed:
                    stop = self.ranks.any(bool(interrupted), self.device)  # ranks stop together
                yield
            if self.step % every:
                self._write_row(log)
            self.checkpoint()
        self.ranks.barrier(self.device)  # all ranks see the complete files

    def advance(self) -> None:
        """Take the next steps of the schedule: one, or those of a CUDA graph."""
        epoch, index = self.schedule.place(self.step)
        if self.schedule.is_due(self.stage.period, self.step):
            self.stage.before_step(self.step, self.optimiser)
        self.feed.seek(epoch, index)
        self._set_learning_rate()
        room = self.schedule.steps_until_host_work(self.step, self.evaluator is not None)
        room = min(room, self.feed.ahead(index))
        self.step += self._take(self.schedule.shape(self.step), room)

    def _set_learning_rate(self) -> None:
        rate = self.schedule.learning_rate(self.step)
        if rate != self.learning_rate:
            self.learning_rate = rate
            self._rate.fill_(rate)

    def restore(self) -> None:
        """Resume the training of the run folder.

        Raises:
            ItesError: there is no training to resume, or its settings or data differ.
        """
        stage, poses = self.settings.stage, self.schedule.poses
        path = self.folder.state(stage)
        recent, counters = load_state(path, self.stage.model, self.optimiser, COUNTERS)
        refuse_changes(counters["settings"], self.settings)
        if (counters["poses"], counters["scale"]) != (poses, self.scale):
            raise ItesError(
                f"{self.settings.data}: expected what {self.folder.root} was trained on, "
                f"{counters['poses']} poses of scale {counters['scale']}, got {poses} of "
                f"scale {self.scale}"
            )
        self.step, self.watch.means = counters["step"], counters["losses"]
        self.stopwatch.seconds = self.seconds = counters["seconds"]
        self.watch.last_checkpoint_step = self.step
        self.clock.step.fill_(self.step)
        self.recent[: len(recent)] = recent.to(self.device)
        if self.ranks.is_main and step_of(self.folder.weights(stage)) != self.step:
            self._save_weights()  # the process died between writing the state and the weights

    def checkpoint(self) -> None:
        """Write the state, then the weights; each file is replaced atomically.

        Raises:
            ItesError: a loss or a weight is not finite; the files stay as they were.
        """
        self.watch.check(self.step, self.stage.model)
        self.stage.refresh_statistics(self.device)
        self._saved, self.seconds = time.perf_counter(), self.stopwatch.seconds
        self.watch.last_checkpoint_step = self.step
        if not self.ranks.is_main:
            return
        counters = {
            "step": self.step, "seconds": self.seconds, "losses": self.watch.means,
            "poses": self.schedule.poses, "scale": self.scale, "settings": self.settings.to_dict(),
        }  # fmt: skip
        recent, path = self.watch.unlogged(self.step), self.folder.state(self.settings.stage)
        save_state(path, self.stage.model, self.optimiser, recent, counters)
        self._save_weights()

    def _save_weights(self) -> None:
        kind, model, settings = self.settings.stage, self.stage.model, self.settings.to_dict()
        metadata = Metadata(kind, model.skeleton, self.scale, self.step, settings)
        save_model(self.folder.weights(kind), model, metadata)

    def result(self) -> Result:
        """The progress as of the last checkpoint."""
        schedule = self.schedule
        return Result(
            stage=self.settings.stage,
            run=self.folder.root,
            step=self.step,
            steps=schedule.steps,
            epochs=self.step / schedule.batches,
            poses=schedule.poses,
            losses=self.watch.means,
            seconds=self.seconds,
            poses_per_second=schedule.poses_seen(self.step) / max(self.seconds, 1e-9),
            device=device_name(self.device),
            backend=self.backend,
        )

    def say(self, line: str) -> None:
        """Print a line on rank 0."""
        if self.ranks.is_main:
            say(self.console, f"{self.label}: {line}" if self.label else line)

    def _log(self) -> AbstractContextManager[Log | None]:
        if not self.ranks.is_main:
            return nullcontext()
        names, steps, step = self.stage.names, self.schedule.steps, self.step
        shown: Any = {"console": self.console, "label": self.label, "progress": self.progress}
        return Log(self.folder, self.settings, names, steps=steps, step=step, **shown)

    def _write_row(self, log: Log | None) -> None:
        row = self.watch.row(self.step, self.learning_rate)
        if log is not None:
            log.row(row, self.stage.names)

    def _evaluate(self, log: Log) -> None:
        """Evaluate and log; the training's stopwatch excludes this time."""
        if self.evaluator is None:
            return
        self.watch.check(self.step, self.stage.model)
        with self.stopwatch.paused():
            self.stage.refresh_statistics(self.device)
            log.evaluation(self.step, self.evaluator(self.stage.model))
