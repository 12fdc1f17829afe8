"""Fit a model to one's own keypoints: read, clean, split, train, measure without 3D, report."""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rich.console import Console

from ites.data.corrections import Corrections
from ites.data.datasets.field import prepare_field
from ites.data.store import PoseStore
from ites.errors import ItesError
from ites.evaluation.coverage import Coverage, coverage
from ites.evaluation.verdict import join, judge_data, judge_figures
from ites.inference.lift import lift
from ites.inference.likely import density_of
from ites.pose.skeleton import HUMAN36M, Skeleton
from ites.runs.folder import RunFolder, refuse_to_overwrite
from ites.runs.settings import STAGES, make_settings, stages_of
from ites.system.arguments import checked
from ites.system.console import command_console, say
from ites.system.files import atomic_write, load_json, stamp
from ites.system.lock import lock
from ites.system.ranks import Ranks, pick_device
from ites.training.dataset import check_poses
from ites.training.run import settings_of, train
from ites.workflows.fit_choice import choose, figures_of
from ites.workflows.fit_data import read_own, split, write_own
from ites.workflows.fit_report import (
    KEPT,
    choice_lines,
    coverage_lines,
    figures_line,
    verdict_lines,
    write_page,
)
from ites.workflows.fit_settings import RECIPES, SCRATCH, in_words
from ites.workflows.fit_start import AUTO, camera_of, plan, start_of

FORMAT = "ites-fit"
MOST_PRINTED = 12
"""Notes that are printed; the record has all of them."""
REPLAYED = 6000
"""Synthetic people, seen twice, that a training from a run of recipe general sees again."""


@dataclass(frozen=True)
class Fit:
    """The result of a fit.

    Attributes:
        run: the run folder.
        interrupted: whether the training stopped before its end; the same call continues it.
        verdict: "good", "use with care" or "do not use"; "" of an interrupted fit.
        reasons: why it is not good, a line each.
        figures: by name, of the model ("student"), the teacher, the model at the start ("start")
            if there is one, and a flat pose ("flat"), on the held-out frames. A fit that starts
            from a run of recipe general has no student; its model is the teacher.
            `ites.evaluation.without_truth.FIGURES` says what the figures are. Where the start was
            kept, the model's figures are the start's.
        frames: to train on, and held out.
        report: the HTML page; None where plotly is not installed, which draws it.
        share: how far the run's weights went from the start's to the fitted ones, as the held-out
            frames chose; 0: the start is kept, for the fit is not better. 1 from scratch.
    """

    run: Path
    interrupted: bool
    verdict: str = ""
    reasons: list[str] = field(default_factory=list)
    figures: dict[str, dict[str, float]] = field(default_factory=dict)
    frames: tuple[int, int] = (0, 0)
    report: Path | None = None
    share: float = 1.0


@dataclass(frozen=True)
class FitFolder:
    """The paths of a fit beside those of its run folder."""

    root: Path

    @property
    def record(self) -> Path:
        """What was asked for, the plan, and in the end the figures and the verdict."""
        return self.root / "fit.json"

    @property
    def store(self) -> Path:
        """The cleaned keypoints."""
        return self.root / "keypoints.h5"

    @property
    def lifted(self) -> Path:
        """The held-out clips, lifted."""
        return self.root / "lifted.npz"

    @property
    def report(self) -> Path:
        """The page."""
        return self.root / "report.html"

    @property
    def replay(self) -> Path:
        """Synthetic poses that a training from a run of recipe general sees again."""
        return self.root / "replay.h5"

    @property
    def lock(self) -> Path:
        """The lock of the process that fits in this folder."""
        return self.root / ".fit.lock"


@checked("fit")
def fit(
    files: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    *,
    layout: str | None = None,
    skeleton: Skeleton = HUMAN36M,
    fps: float | None = None,
    focal_length: float | None = None,
    field_of_view: float | None = None,
    image_size: tuple[int, int] | None = None,
    person: str | int | None = None,
    min_confidence: float | None = None,
    corrections: Corrections | None = None,
    start: str | os.PathLike[str] | None = AUTO,
    seed: int = 0,
    device: str | None = None,
    resume: bool = False,
    console: Console | None = None,
    on_findings: Callable[[list[dict[str, Any]]], None] | None = None,
    **settings: Any,
) -> Fit:
    """Train a model on 2D keypoints of one's own and measure it without 3D.

    The files are read and cleaned as `ites.lift` reads them. A tenth of the frames is held out, as
    whole source sequences where there are enough. The prior, the teacher and the student are
    trained by recipe "upright", or by that of the run to start from, with settings that follow from
    the amount of data; see `ites.workflows.fit_settings`. The report needs no 3D. A fit that starts
    from a run keeps its weights if no others are better on the held-out frames; see
    `ites.evaluation.choice`.

    A second call with the same arguments continues an interrupted fit, on a CPU to the same bits.

    Example:
        >>> import ites
        >>> result = ites.fit(["monday.json", "tuesday.json"], "runs/mine")
        >>> print(result.verdict, *result.reasons, sep="\\n")
        >>> summary = ites.lift("monday.json", "monday.npz", run="runs/mine")

    Args:
        files: keypoint files or folders by any detector; see `ites.data.readers.read`.
        out: the run folder to write.
        layout, fps, focal_length, field_of_view, image_size, person, min_confidence, corrections:
            see `ites.data.datasets.keypoints.prepare_keypoints`.
        skeleton: of the model.
        start: a run folder whose weights the training starts from, of the same skeleton. "auto":
            the packaged model, if there is one of this skeleton. None: from scratch.
        seed: of the split, the weights, the order and the rotations.
        device: "cpu", "cuda", ...; None: a GPU if available.
        resume: continue the fit in `out`, which must be there; `files` may be empty.
        console: where progress is shown; None: standard output.
        on_findings: is called before the training with what is implausible about the keypoints,
            each as `ites.data.findings.Finding.plain` gives it.
        **settings: settings of the training that override the rule; see `ites.train`.

    Returns:
        The verdict, its reasons and the figures.

    Raises:
        ItesError: a file cannot be read, there are too few frames, the folder holds another fit or
            training, or `start` is no run of this skeleton.
    """
    files = [files] if isinstance(files, str | os.PathLike) else files
    paths = [Path(file) for file in files]
    folder, console = FitFolder(Path(out)), console or command_console()
    for stage in STAGES:
        chosen = settings_of(stage, [*STAGES], settings)
        make_settings(stage, options={**chosen, "recipe": SCRATCH, "seed": seed, "device": device})
    if start not in (None, AUTO):
        start = str(Path(start).absolute())
    options = {
        "layout": layout,
        "fps": fps,
        "focal_length": focal_length,
        "field_of_view": field_of_view,
        "image_size": image_size,
        "person": person,
        "min_confidence": min_confidence,
    }
    request = {
        "files": [[str(path.absolute()), *_stamp(path)] for path in paths],
        **options,
        "corrections": [] if corrections is None else corrections.lines(),
        "skeleton": skeleton.to_json(),
        "start": start,
        "seed": seed,
        "settings": settings,
    }
    with lock(folder.lock, f"{out}: another fit"):
        record = _record(folder, json.loads(json.dumps(request)), resume and not paths)
        if not record:
            if resume:
                raise ItesError(f"{out}: expected the folder of an interrupted fit; it holds none")
            if not paths:
                raise ItesError("fit: expected files of keypoints, got none")
            more = {**options, "corrections": corrections, "prior": density_of(None, skeleton)}
            record = _prepare(paths, folder, request, skeleton, more, on_findings, console)
        return _Fitting(folder, record, device, console).run()


def _stamp(path: Path) -> list[int | str]:
    """`stamp` of a file of keypoints or of a folder."""
    if not path.exists():
        raise ItesError(f"{path}: expected a file of keypoints, or a folder; there is none")
    return stamp(path)


def _record(folder: FitFolder, request: dict[str, Any], any_request: bool) -> dict[str, Any]:
    """The record of a fit in the folder that was asked for the same; {} if there is none.

    Raises:
        ItesError: the folder holds another fit, or a training.
    """
    if not folder.record.is_file():
        for stage in STAGES:
            refuse_to_overwrite(folder.root, stage)
        return {}
    record = load_json(folder.record)
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        raise ItesError(f"{folder.record}: expected the record of a fit, got other JSON")
    before = record["request"]
    changed = [name for name in request if before.get(name) != request[name]]
    if changed and not any_request:
        raise ItesError(
            f"{folder.root}: holds a fit with other {', '.join(changed)}; choose another folder, "
            "or resume it without naming files"
        )
    return record


def _prepare(
    paths: list[Path],
    folder: FitFolder,
    request: dict[str, Any],
    skeleton: Skeleton,
    options: dict[str, Any],
    on_findings: Callable[[list[dict[str, Any]]], None] | None,
    console: Console,
) -> dict[str, Any]:
    """Read, clean, split and store the keypoints; plan the training."""
    start = start_of(request["start"], skeleton, console)
    files = f"keypoints of {paths[0]}" if len(paths) == 1 else f"{len(paths):,} files of keypoints"
    say(console, f"1/5  Reading {files}")
    own = read_own(paths, skeleton, options)
    if on_findings is not None:
        on_findings(own.findings)
    for note in own.notes[:MOST_PRINTED]:
        say(console, f"     {note}")
    if len(own.notes) > MOST_PRINTED:
        say(console, f"     and {len(own.notes) - MOST_PRINTED:,} more notes, in {folder.record}")
    parts = split(own.sources, request["seed"])
    folder.root.mkdir(parents=True, exist_ok=True)
    needs_gravity = start.run is not None and RECIPES[start.recipe].gravity
    gravity = camera_of(start.run) if start.run and needs_gravity else None
    write_own(folder.store, own, parts, gravity)
    if gravity is not None:
        prepare_field(None, folder.replay, people=REPLAYED, views=2, seed=request["seed"])
    try:
        with PoseStore(folder.store) as store:
            points, _ = store.points("train")
        check_poses(points, make_settings("prior", options={"data": ", ".join(map(str, paths))}))
        settings = plan(points, start, request["settings"])
    except ItesError:
        folder.store.unlink()
        folder.replay.unlink(missing_ok=True)
        raise
    covered = coverage(points, skeleton)
    record = {
        "format": FORMAT,
        "request": request,
        "frames": [sum(len(source.clip) for source in part) for part in parts],
        "held_out": sorted({source.clip.name for source in parts[1]}),
        "coverage": covered.plain(),
        "start": start.run,
        "recipe": start.recipe,
        "settings": settings,
        "notes": own.notes,
        "findings": own.findings,
    }
    _write(folder, record)
    return record


def _write(folder: FitFolder, record: Mapping[str, Any]) -> None:
    with atomic_write(folder.record) as temporary:
        temporary.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


@dataclass(frozen=True)
class _Fitting:
    """The fit of a prepared folder."""

    folder: FitFolder
    record: dict[str, Any]
    device: str | None
    console: Console

    def run(self) -> Fit:
        """Train what is not trained yet, then measure and report."""
        folder, record, start = self.folder, self.record, self.record["start"]
        if "verdict" in record:
            self._say(f"{folder.root}: this fit is complete", indent="")
            return self._result()
        own, held = record["frames"]
        data = judge_data(Coverage(**record["coverage"]), started=start is not None)
        self._say(f"2/5  {own:,} frames to train on, {held:,} held out", indent="")
        self._say(*coverage_lines(record["coverage"]), *data.reasons)
        origin = "from scratch" if start is None else f"from the weights of {start}"
        self._say(f"3/5  Training {origin}", indent="")
        self._say(*in_words(record["settings"]))
        if not self._train():
            self._say("interrupted: the same command continues this fit", indent="")
            return Fit(folder.root, interrupted=True)
        self._say("4/5  Measuring on the held-out frames, without 3D", indent="")
        run, device = RunFolder(folder.root), pick_device(self.device or "auto", Ranks.here())
        if start is not None:
            stages = list(record["settings"])
            record["chosen"] = choose(run, start, folder.store, stages, device)
            self._say(*choice_lines(record["chosen"]))
        lifts = stages_of(record["recipe"])[-1]
        dictionary = RECIPES[record["recipe"]].dictionary
        figures = figures_of(run, start, folder.store, lifts, device, dictionary=dictionary)
        verdict = join(judge_figures(figures[lifts], figures["flat"]), data)
        record |= {"figures": figures, "verdict": verdict.word, "reasons": verdict.reasons}
        self._say("5/5  Lifting held-out clips and writing the report", indent="")
        lift(folder.store, folder.lifted, run=folder.root, split="test", device=self.device)
        if find_spec("plotly") is not None:
            write_page(folder.root, folder.report, folder.lifted, record)
        _write(folder, _plain(record))
        return self._result()

    def _say(self, *lines: str, indent: str = "     ") -> None:
        for line in lines:
            say(self.console, f"{indent}{line}")

    def _train(self) -> bool:
        """Train the stages; False if interrupted."""
        record, run = self.record, RunFolder(self.folder.root)
        settings = dict(record["settings"])
        for stage in set(stages_of(record["recipe"])) - settings.keys():
            with atomic_write(run.weights(stage)) as temporary:
                shutil.copyfile(RunFolder(record["start"]).weights(stage), temporary)
        if self.folder.replay.is_file():
            settings["teacher"] = {"replay": str(self.folder.replay), **settings["teacher"]}
        results = train(
            self.folder.store,
            run.root,
            recipe=record["recipe"],
            only=list(settings),
            start=record["start"],
            resume=run.settings.is_file(),
            console=self.console,
            seed=record["request"]["seed"],
            device=self.device,
            **settings,
        )
        return not any(result.interrupted for result in results)

    def _result(self) -> Fit:
        record, folder = self.record, self.folder
        share = record["chosen"]["share"] if "chosen" in record else 1.0
        self._say(*verdict_lines(record["verdict"], record["reasons"]), indent="")
        if not share:
            self._say(KEPT, indent="")
        self._say(*(f"{name}: {figures_line(own)}" for name, own in record["figures"].items()))
        report = folder.report if folder.report.is_file() else None
        missing = f"none: it needs plotly (pip install 'ites[view]'); figures in {folder.record}"
        self._say(f"report: {report or missing}", indent="")
        return Fit(
            folder.root,
            False,
            record["verdict"],
            record["reasons"],
            record["figures"],
            tuple(record["frames"]),
            report,
            share,
        )


def _plain(record: Mapping[str, Any]) -> dict[str, Any]:
    """The record for JSON, which has no nan."""
    figures = {
        name: {key: None if math.isnan(value) else value for key, value in own.items()}
        for name, own in record["figures"].items()
    }
    return {**record, "figures": figures}
