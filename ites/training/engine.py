"""Training of one stage: the data, the loop, and the steps before and after it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from rich.console import Console
from rich.progress import Progress
from torch import Tensor

from ites.data.store import PoseStore
from ites.errors import ItesError
from ites.runs.checkpoint import load_stage
from ites.runs.folder import (
    RunFolder,
    Unfinished,
    refuse_to_overwrite,
    write_settings,
    write_versions,
)
from ites.runs.settings import Settings
from ites.system.arithmetic import arithmetic
from ites.system.console import command_console
from ites.system.lock import lock
from ites.system.ranks import Ranks, pick_device
from ites.training.dataset import TrainingSet, read_training_set
from ites.training.evaluation import Evaluator
from ites.training.loop import Training
from ites.training.result import Result as Result
from ites.training.stages import Stage, make_stage, stage_class

_OF_THE_DATA = ("denoiser.matrix", "denoiser.offset")  # fitted to the data, not trained


def train(
    settings: Settings,
    *,
    resume: bool = False,
    console: Console | None = None,
    planned: Sequence[Settings] = (),
) -> Result:
    """Train one stage into the run folder `settings.out`.

    Processes that `torchrun` started train together, one model on each global batch; rank 0 writes.

    Args:
        settings: of the prior, the teacher or the student.
        resume: continue the training in the folder. The result equals that of an uninterrupted
            training, on a CPU bit for bit.
        console: where progress is shown; None: standard output.
        planned: settings of all stages to be trained into the folder; after an interruption they
            let the next stages start.

    Raises:
        ItesError: the data, the teacher or the folder cannot be used, a resumed run's data or
            settings changed, or a loss is not finite.
    """
    ranks, planned, console = Ranks.here(), planned or [settings], console or command_console()
    if not ranks.is_main:
        return _train(settings, resume, console, ranks, planned)
    with lock(RunFolder(settings.out).lock, f"{settings.out}: another training"):
        return _train(settings, resume, console, ranks, planned)


def _train(
    settings: Settings, resume: bool, console: Console, ranks: Ranks, planned: Sequence[Settings]
) -> Result:
    refuse_unusable(settings, resume)
    device = pick_device(settings.device, ranks)
    mark = Unfinished(settings.out, settings.stage, ranks)
    with mark.watched(), arithmetic(settings.precision), ranks.joined(device):
        data = read_data(settings, device, ranks)
        training = Trainings(data, device, console, ranks).begin(settings, mark, planned, resume)
        if training.step < training.schedule.steps:
            training.run()
        return complete(training, data, mark)


def refuse_unusable(settings: Settings, resume: bool) -> None:
    """Raise ItesError if a stage has no data, or its folder holds a training already."""
    if not resume:
        refuse_to_overwrite(settings.out, settings.stage)
    if settings.batch_statistics == "kept" and not settings.start:
        raise ItesError("batch_statistics: kept needs start, a run whose statistics are kept")
    if not settings.data:
        raise ItesError("data: expected a pose store, got none", code="no-data")


class Data(NamedTuple):
    """The data of a training: the poses, and the evaluator that the settings select, or None."""

    poses: TrainingSet
    evaluator: Evaluator | None


def read_data(settings: Settings, device: torch.device, ranks: Ranks, trainings: int = 1) -> Data:
    """Read the data of a stage for a number of trainings that share them.

    Raises:
        ItesError: the store or the split cannot be used.
    """
    with PoseStore(settings.data) as store:
        poses = read_training_set(store, settings, device, trainings)
        lifts = ranks.is_main and stage_class(settings).lifts
        evaluator = Evaluator.of(store, settings, poses.scale, device) if lifts else None
    return Data(poses, evaluator)


class Trainings:
    """Begins trainings of one stage that share their data.

    Args:
        data: of the stage.
        device: where the steps are taken.
        console: where progress is shown.
        ranks: this process's rank.
        progress: the bars of several trainings; None: each training has a bar of its own.
    """

    def __init__(
        self,
        data: Data,
        device: torch.device,
        console: Console,
        ranks: Ranks,
        progress: Progress | None = None,
    ) -> None:
        self.data, self.device, self.console = data, device, console
        self.ranks, self.progress = ranks, progress
        self._tensors: tuple[Tensor, ...] = ()  # of the first training

    def begin(
        self,
        settings: Settings,
        mark: Unfinished,
        planned: Sequence[Settings],
        resume: bool,
        label: str = "",
    ) -> Training:
        """A training before its next step: new, or resumed where it stopped.

        Args:
            settings: of the stage.
            mark: of this training.
            planned: settings of all stages to be trained into the folder.
            resume: continue the training in the folder.
            label: put before each line that is shown; "" for none.

        Raises:
            ItesError: see `train`.
        """
        poses, ranks = self.data.poses, self.ranks

        def make(given: Settings, some: int | None = None) -> Training:
            points = poses.points[:: max(1, len(poses.points) // some)] if some else poses.points
            stage = make_stage(
                given,
                poses.skeleton,
                points,
                self.device,
                poses.clips,
                gravity=poses.gravity,
                second=poses.second,
            )
            if not some:
                self._share(stage)
            return Training(
                stage,
                poses.scale,
                self.device,
                None if some else self.data.evaluator,
                self.console,
                ranks,
                poses.stream,
                label=label,
                progress=self.progress,
            )

        training = make(settings)
        for note in poses.notes:
            training.say(note)
        if resume:
            training.restore()
            cut_off = mark.line()
            if cut_off:
                training.say(f"{settings.stage}: {cut_off}; continuing from step {training.step}")
        if ranks.is_main:
            write_settings(settings.out, planned)
            write_versions(settings.out, settings.stage, self.device, ranks.count)
        mark.begin()
        if not resume:
            with training.stopwatch.running():
                if settings.start:
                    start_from(settings.start, settings, training.stage.model)
                else:
                    training.stage.before_training(training.schedule.steps, make, training.say)
        return training

    def _share(self, stage: Stage) -> None:
        """Give a stage the tensors of the first one in place of equal ones of its own."""
        if not self._tensors:
            self._tensors = stage.data
        stage.data = tuple(
            first if first is own or torch.equal(first, own) else own
            for first, own in zip(self._tensors, stage.data, strict=True)
        )


def start_from(run: str, settings: Settings, model: Any) -> None:
    """Give a model the weights of another run's stage; the denoiser stays that of these data.

    Args:
        run: a run folder or a checkpoint.
        settings: of the stage.
        model: of the stage.

    Raises:
        ItesError: there is no such stage, or its skeleton or sizes differ.
    """
    given, metadata = load_stage(run, settings.stage)
    ours, theirs = model.sizes(), given.sizes()  # type: ignore[operator]
    if metadata.skeleton != model.skeleton:
        ours, theirs = f"skeleton {model.skeleton.name}", metadata.skeleton.name
    if ours != theirs:
        raise ItesError(f"{run}: expected a {settings.stage} of {ours} to start from, got {theirs}")
    taken = {name: t for name, t in given.state_dict().items() if name not in _OF_THE_DATA}
    model.load_state_dict(model.state_dict() | taken)


def complete(training: Training, data: Data, mark: Unfinished) -> Result:
    """Calibrate a training that has reached its last step, remove its mark, return its result."""
    if training.ranks.is_main and training.step == training.schedule.steps:
        training.stage.after_training(torch.from_numpy(data.poses.array), training.device)
    mark.end()
    return training.result()
