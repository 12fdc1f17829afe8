"""Training of one stage: the data, the loop, and the steps before and after it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from rich.console import Console

from ites.data.store import PoseStore
from ites.errors import ItesError
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
from ites.training.dataset import read_training_set
from ites.training.evaluation import Evaluator
from ites.training.loop import Training
from ites.training.result import Result as Result
from ites.training.stages import make_stage, stage_class


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
    if not resume:
        refuse_to_overwrite(settings.out, settings.stage)
    if settings.batch_statistics == "kept" and not settings.start:
        raise ItesError("batch_statistics: kept needs start, a run whose statistics are kept")
    if not settings.data:
        raise ItesError("data: expected a pose store, got none", code="no-data")
    device = pick_device(settings.device, ranks)
    mark = Unfinished(settings.out, settings.stage, ranks)
    with mark.watched(), arithmetic(settings.precision), ranks.joined(device):
        with PoseStore(settings.data) as store:
            data = read_training_set(store, settings, device)
            lifts = ranks.is_main and stage_class(settings).lifts
            evaluator = Evaluator.of(store, settings, data.scale, device) if lifts else None

        def begin(settings: Settings, some: int | None = None) -> Training:
            points = data.points[:: max(1, len(data.points) // some)] if some else data.points
            stage = make_stage(
                settings, data.skeleton, points, device, data.clips, gravity=data.gravity
            )
            own = None if some else evaluator
            return Training(stage, data.scale, device, own, console, ranks, data.stream)

        training = begin(settings)
        for note in data.notes:
            training.say(note)
        if resume:
            training.restore()
            cut_off = mark.line()
            if cut_off:
                training.say(f"{settings.stage}: {cut_off}; continuing from step {training.step}")
        if ranks.is_main:
            write_settings(settings.out, planned)
            write_versions(settings.out, settings.stage, device, ranks.count)
        mark.begin()
        if not resume:
            with training.stopwatch.running():
                if settings.start:
                    training.start_from(settings.start)
                else:
                    training.stage.before_training(training.schedule.steps, begin, training.say)
        if training.step < training.schedule.steps:
            training.run()
        if ranks.is_main and training.step == training.schedule.steps:
            training.stage.after_training(torch.from_numpy(data.array), device)
        mark.end()
        return training.result()
