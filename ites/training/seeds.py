"""Several trainings in one process that differ in their seed alone, for the spread of the figures.

The seeds take turns, step by step, in one thread. On a GPU each has a stream of its own, so that
the kernels of one fill what the others leave idle, and all read one copy of the data set. Not run
on a GPU.
"""

from __future__ import annotations

import csv
import json
import math
import statistics
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from rich.console import Console

from ites.data.store import PoseStore
from ites.errors import ItesError
from ites.runs.folder import RunFolder, Unfinished, refuse_changes
from ites.runs.settings import Settings, make_settings
from ites.system.arithmetic import arithmetic
from ites.system.console import command_console, say
from ites.system.files import atomic_write, load_json, reading
from ites.system.interrupts import caught_interrupts
from ites.system.lock import lock
from ites.system.ranks import Ranks, pick_device
from ites.training.engine import Data, Trainings, complete, read_data, refuse_unusable
from ites.training.evaluation import Evaluator
from ites.training.log import progress_bars
from ites.training.loop import Training
from ites.training.result import Result

SEEDS = "seeds.json"
"""The file in the common folder that lists the seeds; written once all of them have begun."""
TABLE = "seeds.csv"
"""The file in the common folder with every figure of every seed, their mean and deviation."""


@dataclass(frozen=True)
class Figure:
    """A figure of a stage.

    Attributes:
        stage: "prior", "teacher" or "student".
        name: a loss, as last logged; or a metric of `ites.training.evaluation.FIGURES`.
        values: by seed.
    """

    stage: str
    name: str
    values: Mapping[int, float]

    @property
    def mean(self) -> float:
        """The mean over the seeds."""
        return statistics.fmean(self.values.values())

    @property
    def deviation(self) -> float:
        """The sample standard deviation over the seeds; nan for a single seed."""
        return statistics.stdev(self.values.values()) if len(self.values) > 1 else math.nan


@dataclass(frozen=True)
class Study:
    """What trainings with several seeds did.

    Attributes:
        out: the common folder.
        results: of each stage that was trained, by seed.
        failed: messages of the seeds that failed, by seed.
        figures: of all stages, over the seeds that completed them.
    """

    out: Path
    results: dict[int, list[Result]]
    failed: dict[int, str] = field(default_factory=dict)
    figures: list[Figure] = field(default_factory=list)

    @property
    def interrupted(self) -> bool:
        """Whether a training was interrupted before the end of its schedule."""
        return any(result.interrupted for held in self.results.values() for result in held)


def seed_folder(out: str | Path, seed: int) -> Path:
    """The run folder of a seed."""
    return Path(out) / f"seed-{seed}"


def read_seeds(out: str | Path) -> list[int]:
    """The seeds that were trained into a folder.

    Raises:
        ItesError: the folder holds no trainings with several seeds.
    """
    path = Path(out) / SEEDS
    if not path.is_file():
        raise ItesError(f"{out}: expected a folder of `ites train --seeds`, got none of {SEEDS}")
    with reading(path, "the seeds of trainings"):
        seeds = load_json(path)["seeds"]
        if not isinstance(seeds, list) or not all(type(seed) is int for seed in seeds):
            raise ItesError(f"{path}: expected a list of seeds, got {seeds!r}")
    return seeds


def train_seeds(
    settings: Sequence[Settings],
    seeds: Sequence[int],
    *,
    resume: bool = False,
    console: Console | None = None,
) -> Study:
    """Train all stages once per seed, each seed into the folder `out/seed-N`.

    Each seed leaves the same files as if it were trained alone, on a CPU with the same bits, except
    for times. A seed that fails, as with a loss that is not finite, ends; the others continue.
    A fault of the machine, such as a full disk, ends all.

    Args:
        settings: of each stage, in order; `seed` is replaced, and `out` is the common folder.
        seeds: all different.
        resume: continue the trainings in the folders; a stage that had not begun is begun.
        console: where progress is shown; None: standard output.

    Returns:
        The results and the figures; the latter also stand in `out/seeds.csv`.

    Raises:
        ItesError: the seeds are not different numbers from 0 on, there are several processes, a
            folder holds a training already, another process trains in one, or see
            `ites.training.engine.train`. Nothing is trained then.
    """
    _check(seeds)
    out, console = Path(settings[0].out), console or command_console()
    own = {seed: [_of_seed(one, out, seed) for one in settings] for seed in seeds}
    for stages in own.values():
        for one in stages:
            started = _has_begun(one, resume)
            if resume:
                before = make_settings(one.stage, RunFolder(one.out).settings)
                refuse_changes(before.to_dict(), one)
            refuse_unusable(one, started)
    study = Study(out, {seed: [] for seed in seeds})
    with ExitStack() as stack:
        for seed in seeds:
            folder = RunFolder(seed_folder(out, seed))
            stack.enter_context(lock(folder.lock, f"{folder.root}: another training"))
        for index in range(len(settings)):
            going = {s: own[s] for s in seeds if s not in study.failed}
            _train_stage(index, going, resume, console, study)
            if study.interrupted or len(study.failed) == len(seeds):
                break
        _write_table(study)
    return study


def _check(seeds: Sequence[int]) -> None:
    count = Ranks.here().count
    if count > 1:
        raise ItesError(
            f"seeds: expected a single process, got {count} by torchrun, which share each batch; "
            "train one seed with them, or all seeds without torchrun"
        )
    if not seeds or min(seeds) < 0 or len(set(seeds)) < len(seeds):
        raise ItesError(f"seeds: expected different numbers from 0 on, got {list(seeds)}")


def _of_seed(settings: Settings, out: Path, seed: int) -> Settings:
    return replace(settings, out=str(seed_folder(out, seed)), seed=seed)


def _has_begun(settings: Settings, resume: bool) -> bool:
    """Whether a stage is to be resumed, not begun."""
    return resume and RunFolder(settings.out).state(settings.stage).is_file()


def _train_stage(
    index: int,
    planned: Mapping[int, Sequence[Settings]],
    resume: bool,
    console: Console,
    study: Study,
) -> None:
    """Train one stage with each seed, in turns; add to the results, the failures, the figures."""
    chosen = {seed: stages[index] for seed, stages in planned.items()}
    first, ranks = next(iter(chosen.values())), Ranks()
    device = pick_device(first.device, ranks)
    marks = {seed: Unfinished(one.out, one.stage, ranks) for seed, one in chosen.items()}
    with ExitStack() as stack:
        for mark in marks.values():
            stack.enter_context(mark.watched())
        stack.enter_context(arithmetic(first.precision))
        data = read_data(first, device, ranks, len(chosen))
        progress = stack.enter_context(progress_bars(console))
        begins = Trainings(data, device, console, ranks, progress)
        trainings = {
            seed: begins.begin(
                one, marks[seed], planned[seed], _has_begun(one, resume), f"seed {seed}"
            )
            for seed, one in chosen.items()
        }
        _write_seeds(study)
        with caught_interrupts() as interrupted:
            courses = {
                seed: _course(training, data, marks[seed], interrupted)
                for seed, training in trainings.items()
            }
            for seed, end in take_turns(courses, device):
                if isinstance(end, ItesError):
                    study.failed[seed] = str(end)
                    trainings[seed].say(f"{end}; the other seeds continue")
                else:
                    study.results[seed].append(end)
        ended = {s: t for s, t in trainings.items() if t.step == t.schedule.steps}
        complete_ones = {s: t for s, t in ended.items() if s not in study.failed}
        if complete_ones:
            study.figures.extend(_figures(complete_ones, first, data, console))


def _course(
    training: Training, data: Data, mark: Unfinished, interrupted: Sequence[int]
) -> Generator[None, None, Result]:
    """A training from its next step to its end; pauses after each step."""
    with mark.watched():
        if training.step < training.schedule.steps:
            yield from training.steps(interrupted)
        return complete(training, data, mark)


def take_turns(
    courses: Mapping[int, Generator[None, None, Result]], device: torch.device
) -> Iterator[tuple[int, Result | ItesError]]:
    """Advance trainings in turns, on a GPU each on a stream of its own.

    Yields:
        each training that has ended: its seed, and its result or its error.
    """
    going = dict(courses)
    streams: dict[int, torch.cuda.Stream] = {}
    if device.type == "cuda":
        for seed in going:
            streams[seed] = torch.cuda.Stream(device)
            streams[seed].wait_stream(torch.cuda.current_stream(device))  # for data and weights
    try:
        while going:
            for seed in list(going):
                stream = streams.get(seed)
                try:
                    with torch.cuda.stream(stream) if stream else nullcontext():
                        next(going[seed])
                except (StopIteration, ItesError) as end:
                    del going[seed]
                    if stream is not None:
                        torch.cuda.current_stream(device).wait_stream(stream)
                    yield seed, end.value if isinstance(end, StopIteration) else end
    finally:
        for course in going.values():
            course.close()


def _figures(
    trainings: Mapping[int, Training], settings: Settings, data: Data, console: Console
) -> list[Figure]:
    """The last losses of completed trainings of one stage; of one that lifts, metrics too."""
    stage = settings.stage
    found = [{f"{name} loss": v for name, v in t.watch.means.items()} for t in trainings.values()]
    try:
        evaluator = _evaluator(settings, data, next(iter(trainings.values())))
    except ItesError as error:
        say(console, f"{stage}: no metrics in the table: {error}")
        evaluator = None
    if evaluator is not None:
        for values, training in zip(found, trainings.values(), strict=True):
            values.update(evaluator(training.stage.model))
    return [
        Figure(stage, name, dict(zip(trainings, (v[name] for v in found), strict=True)))
        for name in found[0]
    ]


def _evaluator(settings: Settings, data: Data, training: Training) -> Evaluator | None:
    """The evaluator of a stage that lifts, where the store has 3D and the split; else None."""
    if data.evaluator is not None or not training.stage.lifts:
        return data.evaluator
    with PoseStore(settings.data) as store:
        if not store.has_positions or settings.evaluate_split not in store.splits:
            return None
        return Evaluator.on(store, settings, data.poses.scale, training.device)


def _write_seeds(study: Study) -> None:
    """List the seeds in the common folder, beside those of earlier trainings there."""
    path = study.out / SEEDS
    before = read_seeds(study.out) if path.is_file() else []
    with atomic_write(path) as temporary:
        seeds = list(dict.fromkeys([*before, *study.results]))
        temporary.write_text(json.dumps({"seeds": seeds}) + "\n", encoding="utf-8")


def _write_table(study: Study) -> None:
    if not study.figures:
        return
    seeds = list(study.results)
    with (
        atomic_write(study.out / TABLE) as temporary,
        temporary.open("w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["stage", "figure", "mean", "deviation", *(f"seed-{s}" for s in seeds)])
        for figure in study.figures:
            values = [figure.values.get(seed, "") for seed in seeds]
            writer.writerow([figure.stage, figure.name, figure.mean, figure.deviation, *values])
