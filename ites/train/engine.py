"""The training loop, the same for both stages."""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from rich.console import Console
from torch import Tensor

from ites.data.store import PoseStore
from ites.errors import ItesError
from ites.models import Prior, Teacher
from ites.models.trust import calibrate, odds_file
from ites.ops import backends
from ites.runs.checkpoint import (
    Metadata,
    load_state,
    save_model,
    save_state,
    state_file,
    step_of,
    weights_file,
)
from ites.runs.folder import (
    Unfinished,
    device_name,
    refuse_changes,
    refuse_to_overwrite,
    write_settings,
    write_versions,
)
from ites.runs.settings import Settings, TeacherSettings
from ites.system.console import command_console, say
from ites.system.lock import lock
from ites.system.memory import keep_freed_memory
from ites.system.ranks import Ranks, pick_device
from ites.train.clips import clip_lengths
from ites.train.dataset import check_poses
from ites.train.evaluation import Evaluator
from ites.train.feed import CHUNK, Feed, device_budget
from ites.train.log import Log, Stopwatch
from ites.train.stages import Stage, TeacherStage, make_stage
from ites.train.step import Captured, Clock, Kind, Step, Steps, one_by_one

STATISTICS = 4096  # poses that BatchNorm's statistics are taken of in recipe "upright"
ELEVATIONS = (0, -30, 30)  # degrees that pilots hold the camera at
PILOT_POSES = 100_000  # about as many does a pilot learn from
RATE_STEPS = 20  # between changes of a learning rate that falls by a cosine
COUNTERS = ("step", "seconds", "losses", "poses", "scale", "settings")  # of a training's state


@dataclass(frozen=True)
class Result:
    """What a training did.

    Attributes:
        stage: "teacher" or "student".
        run: the run folder.
        step: optimiser steps taken, earlier parts of a resumed run included.
        steps: steps of the whole schedule; more than `step` where it was interrupted.
        epochs: passes over the data, a fraction of one included.
        poses: in the training split.
        losses: the last logged means by name.
        seconds: time spent training, earlier parts included.
        poses_per_second: poses seen a second of that time.
        device: in words.
        backend: which ran the ops.
    """

    stage: str
    run: Path
    step: int
    steps: int
    epochs: float
    poses: int
    losses: dict[str, float]
    seconds: float
    poses_per_second: float
    device: str
    backend: str

    @property
    def interrupted(self) -> bool:
        """Whether it stopped before the end of its schedule."""
        return self.step < self.steps


def train(settings: Settings, *, resume: bool = False, console: Console | None = None) -> Result:
    """Train one stage into the run folder `settings.out`.

    Processes that `torchrun` started train together, one model on each global batch; rank 0 writes.

    Args:
        settings: of the teacher or the student.
        resume: continue the training that the folder holds, to the same numbers, bit for bit on
            a CPU, that an uninterrupted one gives.
        console: where progress is shown; None: standard output.

    Raises:
        ItesError: the data, the teacher or the folder cannot be used, a resumed run's data or
            settings changed, or a loss is not finite.
    """
    ranks = Ranks.here()
    if not ranks.main:
        return _train(settings, resume, console, ranks)
    with lock(Path(settings.out) / ".training.lock", f"{settings.out}: another training"):
        return _train(settings, resume, console, ranks)


def _train(settings: Settings, resume: bool, console: Console | None, ranks: Ranks) -> Result:
    if not resume:
        refuse_to_overwrite(settings.out, settings.stage)
    if not settings.data:
        raise ItesError("data: expected a pose store (--data STORE, from `ites prepare`), got none")
    console = console or command_console()
    device = pick_device(settings.device, ranks)
    mark = Unfinished(settings.out, settings.stage, ranks)
    with mark.watched(), _arithmetic(settings), ranks.joined(device):
        lifts = ranks.main and settings.stage != "prior"
        with PoseStore(settings.data) as store:
            array, scale = store.points(settings.split, missing=settings.missing)
            evaluator = Evaluator.of(store, settings, scale, device) if lifts else None
            skeleton = store.skeleton
            clips = clip_lengths(store, settings.split, settings.missing)
        check_poses(array, settings)
        dtype = torch.float64 if settings.precision == "float64" else torch.float32
        points = torch.as_tensor(array).to(dtype)
        stream = _is_too_large(points, settings, device)
        points = points if stream else points.to(device)

        def begin(settings: Settings, points: Tensor, watch: Evaluator | None = None) -> Training:
            stage = make_stage(settings, skeleton, points, device, clips)
            return Training(stage, scale, device, watch, console, ranks, stream)

        training = begin(settings, points, evaluator)
        if resume:
            training.restore()
            cut_off = mark.line()
            if ranks.main and cut_off:
                say(console, f"{settings.stage}: {cut_off}; continuing from step {training.step}")
        if ranks.main:
            write_settings(settings.out, [settings])
            write_versions(settings.out, settings.stage, device, ranks.count)
        mark.begin()
        if not resume and isinstance(settings, TeacherSettings) and settings.recipe == "upright":
            some = points[:: max(1, len(points) // PILOT_POSES)]
            with training.watch.running():
                losses = pilots(settings, training.steps, lambda given: begin(given, some))
            training.follow(losses)
        if training.step < training.steps:
            if ranks.main:  # those of earlier weights
                odds_file(settings.out, settings.stage).unlink(missing_ok=True)
            training.run()
        if lifts and settings.recipe == "upright" and training.step == training.steps:
            calibrate(settings.out, settings.stage, torch.from_numpy(array), device)
        mark.end()
        return training.result()


def pilots(
    settings: TeacherSettings, steps: int, begin: Callable[[Settings], Training]
) -> dict[float, float]:
    """What short trainings of a recipe "upright" teacher lose, the camera held at an elevation.

    Held far from the truth, or at its opposite, no poses are found that look likely from all sides.
    (Free from the start, a camera can run away.)

    Args:
        settings: of the training to come.
        steps: of it.
        begin: makes a training by settings.

    Returns:
        The mean loss over the later half of a pilot's steps, by its elevation in degrees; nothing
        where the settings or so few steps leave no room for pilots.
    """
    steps = min(settings.pilot_steps, steps // 10)
    if not steps:
        return {}
    held = replace(settings, steps=steps, epochs=steps, log_every=steps, level_steps=1000 * steps)
    losses: dict[float, float] = {}
    for elevation in ELEVATIONS:
        pilot = begin(held)
        pilot.hold(elevation)
        while pilot.step < steps:
            pilot.advance()
        loss = pilot.recent[steps // 2 :, 0].mean().item()
        losses[elevation] = loss if math.isfinite(loss) else math.inf
    return losses


class Training:
    """One stage in training: its optimiser, its counters, its loop.

    Args:
        stage: model on `device`, data there or, to be streamed, in main memory, and losses.
        scale: of the data, for the checkpoint.
        device: where the steps are taken.
        evaluator: what to measure on the way, or None.
        console: where progress is shown.
        ranks: which process this is of those that train together; None: the only one.
        stream: whether the data come in chunks from main memory.

    Raises:
        ItesError: there are too few poses, or steps cannot be captured that should be.
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
    ) -> None:
        self.stage, self.scale, self.device = stage, scale, device
        self.evaluator, self.console = evaluator, console
        self.ranks = ranks = ranks or Ranks()
        self.settings = settings = stage.settings
        if device.type == "cpu":
            keep_freed_memory()
        self.run_folder = Path(settings.out)
        self.learning_rate = settings.learning_rate
        # On the device, where a captured step reads it; of the type that the fused kernels take.
        wide = torch.float32 if device.type == "cuda" else torch.float64
        self._rate = torch.tensor(self.learning_rate, dtype=wide, device=device)
        self.optimiser = self._optimiser()
        self.poses = len(stage.data[0])
        full, left = divmod(self.poses, settings.batch)
        self.batches = full + (left >= stage.least_batch)  # steps an epoch
        if not self.batches:
            raise ItesError(f"{settings.data}: expected at least 2 poses, got {self.poses}")
        self.steps = settings.epochs * self.batches
        if settings.steps:
            self.steps = min(self.steps, settings.steps)

        self._early = stage.early_steps(self.batches)
        self.backend = backends.choose(
            "batch_norm_relu", device.type, stage.data[0].dtype, stage.model.backend
        )
        self._good = 0  # step of the last checkpoint
        self._saved = time.perf_counter()  # when it was written

        # What follows, the weights and the momentum make the state of a training.
        self.step = 0
        self.watch = Stopwatch()
        self.seconds = 0.0  # as of the last checkpoint
        self.clock = Clock(settings.seed, device)
        self.means = dict.fromkeys(stage.names, math.nan)  # of the losses, as last logged
        self.recent = self._rate.new_zeros(settings.log_every, len(stage.names))  # since then

        self.feed = Feed(
            stage.data,
            self.clock.place,
            seed=settings.seed,
            batch=settings.batch,
            batches=self.batches,
            ranks=ranks,
            stream=stream,
            limit=min(CHUNK, device_budget(settings.device_memory, device)),
        )
        step = Step(stage, self.feed, self.optimiser, self.clock, self.recent, ranks)
        self._take = self._steps(step)

    def _optimiser(self) -> torch.optim.Optimizer:
        settings, parameters = self.settings, self.stage.model.parameters()
        fused = self.device.type in ("cpu", "cuda")
        decay, momentum = settings.weight_decay, settings.momentum
        if settings.optimiser == "adam":
            return torch.optim.Adam(
                parameters, self._rate, (momentum, 0.999), weight_decay=decay, fused=fused
            )
        return torch.optim.SGD(parameters, self._rate, momentum, weight_decay=decay, fused=fused)

    def run(self) -> None:
        """Train to the end of the schedule, or until interrupted."""
        settings, every = self.settings, self.settings.log_every
        self._logged = (self.watch.seconds, self.step)
        with self.watch.running(), self._log() as log, _interrupts() as interrupted:
            stop = False
            while self.step < self.steps and not stop:
                self.advance()
                if log is not None:
                    log.advance(self.step)
                if self.step % every == 0:
                    self._write_log(log)
                if self.evaluator and log and self.step % settings.evaluate_every == 0:
                    self._evaluate(self.evaluator, log)
                if self._checkpoint_due() and self.step < self.steps:
                    self.checkpoint()
                if self.step % every == 0 or not self.ranks.several:  # ranks stop together
                    stop = self.ranks.any(bool(interrupted), self.device)
            if self.step % every:
                self._write_log(log)
            self.checkpoint()
        self.ranks.any(False, self.device)  # the files are there for all

    def follow(self, losses: dict[float, float]) -> None:
        """Hold the camera where of these pilots the best did, and say so; see `pilots`."""
        if not losses:
            return
        best = min(losses, key=losses.__getitem__)
        self.hold(best)
        steep = f"{'down' if best > 0 else 'up'} by about {abs(best)} degrees"
        told = ", ".join(f"{loss:.2f} at {elevation}°" for elevation, loss in losses.items())
        self._say(f"the camera looks {steep if best else 'about level'} (pilots lose {told})")

    def hold(self, elevation: float) -> None:
        """Hold the camera of a teacher of recipe "upright" at an elevation, degrees, at first."""
        assert isinstance(self.stage.model, Teacher)
        self.stage.model.start_elevation.fill_(math.radians(elevation))

    def advance(self) -> None:
        """Take the next steps of the schedule: one, or where they are captured a graph's."""
        settings = self.settings
        epoch, index = divmod(self.step, self.batches)
        if isinstance(self.stage, TeacherStage) and self._is_due(self.stage.period):
            self.stage.settle(self.step, self.optimiser)
        self.feed.seek(epoch, index)
        self._set_learning_rate(epoch)
        size = min(settings.batch, self.poses - index * settings.batch)
        kind = Kind(size, early=self.step < self._early)
        self.step += self._take(kind, self._room(index))

    def _is_due(self, period: int) -> bool:
        return period > 0 and self.step % period == 0

    def _room(self, index: int) -> int:
        """Steps that differ in what the device holds alone, before the host has something to do."""
        settings, step = self.settings, self.step
        every = [settings.log_every, settings.checkpoint_every]
        if settings.decay == "cosine":
            every.append(RATE_STEPS)
        if isinstance(self.stage, TeacherStage):
            every.append(self.stage.period)
        if self.evaluator is not None:
            every.append(settings.evaluate_every)
        room = [period - step % period for period in every if period]
        room += [mark - step for mark in (self.steps, self._early) if mark > step]
        return min(*room, self.feed.ahead(index))

    def _steps(self, step: Step) -> Steps:
        """How steps are taken here."""
        wanted = self.settings.capture
        possible = self.device.type == "cuda" and not self.ranks.several
        if wanted == "on" and not possible:
            raise ItesError(
                "capture: expected a GPU and a single process for steps as CUDA graphs, got "
                f"{self.device} and {self.ranks.count}; leave --capture out"
            )
        if not possible or wanted == "off":
            return one_by_one(step)
        return Captured(step, self.settings.capture_steps, self._say if wanted == "auto" else None)

    def result(self) -> Result:
        """What was done so far, as of the last checkpoint."""
        return Result(
            stage=self.settings.stage,
            run=self.run_folder,
            step=self.step,
            steps=self.steps,
            epochs=self.step / self.batches,
            poses=self.poses,
            losses=self.means,
            seconds=self.seconds,
            poses_per_second=self._seen(self.step) / max(self.seconds, 1e-9),
            device=device_name(self.device),
            backend=self.backend,
        )

    def restore(self) -> None:
        """Take up the training that the run folder holds.

        Raises:
            ItesError: there is none, or its settings or data are others.
        """
        path = state_file(self.run_folder, self.settings.stage)
        recent, counters = load_state(path, self.stage.model, self.optimiser, COUNTERS)
        refuse_changes(counters["settings"], self.settings)
        if (counters["poses"], counters["scale"]) != (self.poses, self.scale):
            raise ItesError(
                f"{self.settings.data}: expected what {self.run_folder} was trained on, "
                f"{counters['poses']} poses of scale {counters['scale']}, got {self.poses} of "
                f"scale {self.scale}"
            )
        self.step, self.means = counters["step"], counters["losses"]
        self.watch.seconds = self.seconds = counters["seconds"]
        self._good = self.step
        self.clock.step.fill_(self.step)
        self.recent[: len(recent)] = recent.to(self.device)
        weights = weights_file(self.run_folder, self.settings.stage)
        if self.ranks.main and step_of(weights) != self.step:  # it was cut off between the two
            self._save_weights()

    def checkpoint(self) -> None:
        """Write the state and the weights, each at once, if they are good.

        Raises:
            ItesError: a loss or a weight is not finite; the files stay as they were.
        """
        self._check()
        self._take_statistics()
        self._saved, self.seconds = time.perf_counter(), self.watch.seconds
        counters = {
            "step": self.step,
            "seconds": self.seconds,
            "losses": self.means,
            "poses": self.poses,
            "scale": self.scale,
            "settings": self.settings.to_dict(),
        }
        self._good = self.step
        if not self.ranks.main:
            return
        stage = self.settings.stage
        path = state_file(self.run_folder, stage)
        recent = self.recent[: self.step % self.settings.log_every]
        save_state(path, self.stage.model, self.optimiser, recent, counters)
        self._save_weights()

    def _save_weights(self) -> None:
        model, settings = self.stage.model, self.settings
        metadata = Metadata(
            settings.stage, model.skeleton, self.scale, self.step, settings.to_dict()
        )
        save_model(weights_file(self.run_folder, settings.stage), model, metadata)

    def _take_statistics(self) -> None:
        """In recipe "upright", BatchNorm's running statistics as of these very weights.

        A student's weights move too fast for the mean over the last steps. Training reads none.
        """
        model = self.stage.model
        if self.settings.recipe == "upright" and not isinstance(model, Prior):
            points = self.stage.data[0]
            sample = points[:: max(1, len(points) // STATISTICS)]
            model.take_statistics(sample.to(self.device))

    def _say(self, line: str) -> None:
        """Show a line, once for all ranks."""
        if self.ranks.main:
            say(self.console, line)

    def _checkpoint_due(self) -> bool:
        every = self.settings.checkpoint_every
        if every:
            return self.step % every == 0
        return self.step % self.batches == 0 and time.perf_counter() - self._saved > 60

    def _log(self) -> AbstractContextManager[Log | None]:
        if not self.ranks.main:
            return nullcontext()
        columns = ["step", "epoch", *self.stage.names]
        columns += ["learning_rate", "poses_per_second", "seconds"]
        return Log(
            self.run_folder,
            self.settings.stage,
            columns,
            steps=self.steps,
            step=self.step,
            kept=self.step - self.step % self.settings.log_every,
            console=self.console,
        )

    def _write_log(self, log: Log | None) -> None:
        """Log the means since the last log: the only place that waits for the device."""
        every = self.settings.log_every
        recent = self.recent[: self.step % every or every].cpu().double()
        self._check_losses(recent)
        self.means = dict(zip(self.stage.names, recent.mean(0).tolist(), strict=True))
        now, (before, logged) = self.watch.seconds, self._logged
        seen = self._seen(self.step) - self._seen(logged)
        self._logged = (now, self.step)
        row = {
            "step": self.step,
            "epoch": round(self.step / self.batches, 4),
            **self.means,
            "learning_rate": self.learning_rate,
            "poses_per_second": round(seen / max(now - before, 1e-9), 1),
            "seconds": round(now, 3),
        }
        if log is not None:
            log.row(row, self.stage.names)

    def _evaluate(self, evaluator: Evaluator, log: Log) -> None:
        """Measure and log; the time it takes is not the training's."""
        self._check()
        assert not isinstance(self.stage.model, Prior)
        with self.watch.paused():
            self._take_statistics()
            log.evaluation(self.step, evaluator(self.stage.model))

    def _seen(self, step: int) -> int:
        """Poses seen in the first `step` steps."""
        epochs, batches = divmod(step, self.batches)
        whole = min(self.poses, self.batches * self.settings.batch)
        return epochs * whole + batches * self.settings.batch

    def _check(self) -> None:
        """Raise where a loss not logged yet or a weight is not finite."""
        self._check_losses(self.recent[: self.step % self.settings.log_every].cpu())
        for name, tensor in self.stage.model.state_dict().items():
            if not tensor.isfinite().all():
                raise self._diverged(f"{name} is not finite after step {self.step}")

    def _check_losses(self, recent: Tensor) -> None:
        """Raise where a loss of the last steps, (steps, losses), is not finite."""
        bad = (~recent.isfinite()).nonzero().tolist()
        if bad:
            row, column = bad[0]
            step = self.step - len(recent) + row
            raise self._diverged(
                f"the {self.stage.names[column]} loss is {recent[row, column].item()} at step "
                f"{step + 1}, epoch {step // self.batches + 1}"
            )

    def _diverged(self, what: str) -> ItesError:
        kept = f"the checkpoint of step {self._good} in {self.run_folder} is good"
        return ItesError(
            f"{self.settings.stage}: {what}; {kept if self._good else 'there is no checkpoint yet'}"
            "; a lower --learning-rate may help"
        )

    def _set_learning_rate(self, epoch: int) -> None:
        settings = self.settings
        if settings.decay == "cosine":
            done = self.step // RATE_STEPS * RATE_STEPS / self.steps
            rate = settings.learning_rate * 0.5 * (1 + math.cos(math.pi * done))
        else:
            halvings = epoch // settings.halve_every if settings.halve_every else 0
            rate = settings.learning_rate * 0.5**halvings
        if rate != self.learning_rate:
            self.learning_rate = rate
            self._rate.fill_(rate)


def _is_too_large(points: Tensor, settings: Settings, device: torch.device) -> bool:
    """Whether the training set, for a student with its depths, does not fit the device."""
    needed = points.nbytes * (1.5 if settings.stage == "student" else 1.0)
    return needed > device_budget(settings.device_memory, device)


@contextmanager
def _arithmetic(settings: Settings) -> Iterator[None]:
    """TF32 in matrix products where it is asked for, and nowhere else."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if settings.precision == "tf32" else "highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


@contextmanager
def _interrupts() -> Iterator[list[int]]:
    """Give a list that is filled by the first SIGINT or SIGTERM; the second one acts as usual."""
    caught: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield caught
        return
    before: dict[signal.Signals, Any] = {}

    def catch(number: int, frame: FrameType | None) -> None:
        caught.append(number)
        signal.signal(number, before[signal.Signals(number)])

    for number in (signal.SIGINT, signal.SIGTERM):
        before[number] = signal.signal(number, catch)
    try:
        yield caught
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
