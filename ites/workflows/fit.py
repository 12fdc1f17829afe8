"""Fit a model to one's own keypoints: read, clean, split, train, measure without 3D, report."""

from __future__ import annotations

import copy
import json
import math
import os
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from torch import Tensor, nn

from ites.data.corrections import Corrections
from ites.data.datasets.field import prepare_field
from ites.data.store import PoseStore
from ites.errors import ItesError
from ites.evaluation.choice import Candidate, best, compare
from ites.evaluation.coverage import Coverage, coverage
from ites.evaluation.verdict import Verdict, judge_data, judge_figures
from ites.evaluation.verdict import join as join_verdicts
from ites.evaluation.without_truth import (
    FIGURES,
    MEANING,
    HeldOut,
    Scores,
    flat,
    measure,
    scores,
)
from ites.inference.lift import lift
from ites.inference.likely import density_of
from ites.inference.roll import find_roll
from ites.models import fold_norms
from ites.models.predict import Pose
from ites.models.trust import Odds
from ites.pose.skeleton import HUMAN36M, Skeleton
from ites.runs.checkpoint import (
    load_model,
    load_prior,
    load_stage,
    load_trust,
    load_weights,
    save_model,
    save_odds,
)
from ites.runs.folder import RunFolder, refuse_to_overwrite
from ites.runs.packaged import FOLDER, has_packaged_run
from ites.runs.settings import STAGES, make_settings, stages_of
from ites.show.report import Section, write_report
from ites.system.console import command_console, say
from ites.system.files import atomic_write, load_json
from ites.system.lock import lock
from ites.system.ranks import Ranks, pick_device
from ites.training.calibration import calibrate
from ites.training.dataset import check_poses
from ites.training.run import settings_of, train
from ites.workflows.fit_data import Gravity, read_own, split, write_own
from ites.workflows.fit_settings import in_words, settings_for, settings_from

FORMAT = "ites-fit"
RECIPE = "upright"
AUTO = "auto"
TOLD = 12
"""Notes that are printed."""
MOST_HELD = 4096
"""Held-out poses that are measured."""
SHARES = (0.25, 0.5, 0.75, 1.0)
"""Shares of the way from the start's weights to the fitted ones that are tried."""
REPLAYED = 6000
"""Synthetic people, seen twice, that a training from a run of recipe general sees again."""
KEPT = (
    "The start is kept: no fit was better than it by more than chance on the held-out frames. "
    "This run lifts as its start does."
)


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
    tell: Callable[[list[dict[str, Any]]], None] | None = None,
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
        tell: is called with what is implausible about the keypoints, before the training; each as
            `ites.data.findings.Finding.plain` gives it.
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
        make_settings(stage, options={**chosen, "recipe": RECIPE, "seed": seed, "device": device})
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
            record = _prepare(paths, folder, request, skeleton, more, tell, console)
        return _Fitting(folder, record, device, console).run()


def _stamp(path: Path) -> list[int]:
    """Size and time of change of a file, or of what a folder holds."""
    if not path.exists():
        raise ItesError(f"{path}: expected a file of keypoints, or a folder; there is none")
    held = sorted(path.rglob("*")) if path.is_dir() else [path]
    stats = [file.stat() for file in held if file.is_file()]
    return [sum(s.st_size for s in stats), max((s.st_mtime_ns for s in stats), default=0)]


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
    tell: Callable[[list[dict[str, Any]]], None] | None,
    console: Console,
) -> dict[str, Any]:
    """Read, clean, split and store the keypoints; plan the training."""
    start = _start(request["start"], skeleton, console)
    files = f"keypoints of {paths[0]}" if len(paths) == 1 else f"{len(paths):,} files of keypoints"
    say(console, f"1/5  Reading {files}")
    own = read_own(paths, skeleton, options)
    if tell is not None:
        tell(own.findings)
    for note in own.notes[:TOLD]:
        say(console, f"     {note}")
    if len(own.notes) > TOLD:
        say(console, f"     and {len(own.notes) - TOLD:,} more notes, in {folder.record}")
    parts = split(own.sources, request["seed"])
    folder.root.mkdir(parents=True, exist_ok=True)
    gravity = camera_of(start.run) if start.run and start.recipe == "general" else None
    write_own(folder.store, own, parts, gravity)
    if gravity is not None:
        prepare_field(None, folder.replay, people=REPLAYED, views=2, seed=request["seed"])
    try:
        with PoseStore(folder.store) as store:
            points, _ = store.points("train")
        check_poses(points, make_settings("prior", options={"data": ", ".join(map(str, paths))}))
        plan = _plan(points, start, request["settings"])
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
        "settings": plan,
        "notes": own.notes,
        "findings": own.findings,
    }
    _write(folder, record)
    return record


class _Start(NamedTuple):
    """Where the training starts: a run folder or None, the recipe, the settings by stage."""

    run: str | None
    recipe: str
    settings: dict[str, Mapping[str, Any]]


def _start(asked: str | None, skeleton: Skeleton, console: Console) -> _Start:
    scratch = _Start(None, RECIPE, {})
    if asked is None or asked == AUTO and not has_packaged_run():
        return scratch
    run = str(FOLDER) if asked == AUTO else asked
    if not Path(run).is_dir():
        raise ItesError(f"{run}: expected a run folder to start from; there is none")
    teacher, about = load_stage(run, "teacher")
    if about.skeleton != skeleton:
        words = f"{run}: expected a teacher of {skeleton.name}, got {about.skeleton.name}"
        if asked != AUTO:
            raise ItesError(words)
        say(console, f"{words}: training from scratch")
        return scratch
    recipe = str(getattr(teacher, "recipe", ""))
    if "prior" not in stages_of(recipe):
        raise ItesError(f"{run}: expected a run of recipe upright or general, got {recipe}")
    settings: dict[str, Mapping[str, Any]] = {}
    for stage in stages_of(recipe):
        model, about = load_stage(run, stage)
        sizes: dict[str, Any] = model.sizes()  # type: ignore[operator]
        settings[stage] = {**about.settings, **sizes}
    return _Start(run, recipe, settings)


def _plan(
    points: NDArray[np.float32], start: _Start, given: Mapping[str, Any]
) -> dict[str, dict[str, Any]]:
    """The settings by stage: those of the rule, overridden by those that a caller gave."""
    plan = settings_for(points)
    if start.run is not None:
        plan = settings_from(points, start.settings, start.recipe)
    return {stage: own | settings_of(stage, [*plan], given) for stage, own in plan.items()}


def camera_of(run: str | os.PathLike[str]) -> Gravity:
    """What estimates how a clip's camera stands, by the teacher and the prior of a run."""
    teacher, _ = load_model(run, "teacher")
    prior = load_prior(run)

    def stands(points: NDArray[np.float32]) -> tuple[float, float]:
        roll = find_roll(points, prior)
        with torch.inference_mode():
            straight = torch.from_numpy(straightened(points, np.float32(roll)))
            elevation = teacher.elevation(straight)  # type: ignore[operator]
        return float(elevation.median().rad2deg()), math.degrees(roll)

    return stands


def straightened(
    points: NDArray[np.float32], roll: NDArray[np.float32] | np.float32
) -> NDArray[np.float32]:
    """2D poses (N, J, 2) of cameras rolled clockwise by (N, 1) or one angle, radians, turned back.

    `(x, y)' = (x cos(roll) - y sin(roll), y cos(roll) + x sin(roll))`.
    """
    c, s, x, y = np.cos(roll), np.sin(roll), points[..., 0], points[..., 1]
    return np.stack([c * x - s * y, c * y + s * x], axis=-1)


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
        folder, record = self.folder, self.record
        if "verdict" in record:
            say(self.console, f"{folder.root}: this fit is complete")
            return self._result()
        data = self._judged_data()
        own, held = record["frames"]
        say(self.console, f"2/5  {own:,} frames to train on, {held:,} held out")
        for line in _of_data(record["coverage"]):
            say(self.console, f"     {line}")
        for reason in data.reasons:
            say(self.console, f"     {reason}")
        say(self.console, f"3/5  Training {_from(record['start'])}")
        for line in in_words(record["settings"]):
            say(self.console, f"     {line}")
        if not self._train():
            say(self.console, "interrupted: the same command continues this fit")
            return Fit(folder.root, interrupted=True)
        say(self.console, "4/5  Measuring on the held-out frames, without 3D")
        chosen = self._choose() if record["start"] else {}
        for line in _of_choice(chosen):
            say(self.console, f"     {line}")
        figures = self._measure()
        verdict = join_verdicts(judge_figures(figures[self.model], figures["flat"]), data)
        record |= {"figures": figures, "verdict": verdict.word, "reasons": verdict.reasons}
        record |= {"chosen": chosen} if chosen else {}
        say(self.console, "5/5  Lifting held-out clips and writing the report")
        lift(folder.store, folder.lifted, run=folder.root, split="test", device=self.device)
        if find_spec("plotly") is not None:
            self._report()
        _write(folder, _plain(record))
        return self._result()

    def _train(self) -> bool:
        """Train the stages; False if interrupted."""
        record, run = self.record, RunFolder(self.folder.root)
        stages = stages_of(record["recipe"])
        trained = list(record["settings"])
        only = trained[0] if len(trained) < len(stages) else None
        for stage in set(stages) - set(trained):
            with atomic_write(run.weights(stage)) as temporary:
                shutil.copyfile(RunFolder(record["start"]).weights(stage), temporary)
        settings = record["settings"]
        if self.folder.replay.is_file():
            settings = {
                **settings,
                "teacher": {"replay": str(self.folder.replay), **settings["teacher"]},
            }
        results = train(
            self.folder.store,
            run.root,
            recipe=record["recipe"],
            only=only,
            start=record["start"],
            resume=run.settings.is_file(),
            console=self.console,
            seed=record["request"]["seed"],
            device=self.device,
            **settings,
        )
        return not any(result.interrupted for result in results)

    def _choose(self) -> dict[str, Any]:
        """Take the weights between the start's and the fitted ones that are best on the held-out
        frames; what was compared, for the record."""
        start, root = self.record["start"], RunFolder(self.folder.root)
        device = pick_device(self.device or "auto", Ranks.here())
        judge = load_trust(start, self.model, device) or load_trust(root.root, self.model, device)
        assert judge is not None
        between = {stage: Between(start, root, stage) for stage in self.record["settings"]}
        held = held_out(self.folder.store, between[self.model].about.scale)

        def rated(share: float) -> tuple[Scores, dict[str, float]]:
            model: Any = between[self.model].at(share).to(device).float().eval()
            pose = fold_norms(model).pose
            return scores(pose, held, judge, device), measure(pose, held, judge, device)

        before, flat_figures = rated(0.0), measure(flat, held, judge, device)
        found = [compare(share, rated(share), before, flat_figures) for share in SHARES]
        taken = best(found)
        share = taken.share if taken is not None else 0.0
        for weights in between.values():
            weights.write(share)
        self._odds(share, device)
        return {"share": share, "candidates": [asdict(candidate) for candidate in found]}

    def _odds(self, share: float, device: torch.device) -> None:
        """Write the odds of the chosen weights; the expected error stays the start's."""
        start, root = RunFolder(self.record["start"]), RunFolder(self.folder.root)
        for stage in stages_of(self.record["recipe"]):
            before = load_trust(start.root, stage, device)
            if before is None:
                continue
            odds: Odds | None = before.odds
            if share == 1 and (after := load_trust(root.root, stage, device)) is not None:
                odds = after.odds  # fitted at the end of the training
            elif share:
                with PoseStore(self.folder.store) as store:
                    points, _ = store.points("train")
                odds = calibrate(root.root, stage, torch.from_numpy(points), device)
            if odds is not None:
                save_odds(root.root, stage, odds._replace(error=before.odds.error))

    def _measure(self) -> dict[str, dict[str, float]]:
        """The figures of each model on the held-out frames."""
        root = self.folder.root
        device = pick_device(self.device or "auto", Ranks.here())
        judge = load_trust(root, self.model, device)
        assert judge is not None
        lifters: dict[str, Any] = {}
        for stage in dict.fromkeys((self.model, "teacher")):
            lifters[stage], about = load_model(root, stage, device)
        if self.record["start"]:
            lifters["start"], _ = load_model(self.record["start"], self.model, device)
        held = held_out(self.folder.store, about.scale)
        figures = {}
        for name, model in lifters.items():
            explains = model.float() if name == "teacher" and model.recipe == RECIPE else None
            pose = fold_norms(model.float()).pose
            figures[name] = measure(pose, held, judge, device, explains and _dictionary(explains))
        figures["flat"] = measure(flat, held, judge, device)
        return figures

    @property
    def model(self) -> str:
        """The stage whose model lifts."""
        return stages_of(self.record["recipe"])[-1]

    def _judged_data(self) -> Verdict:
        covered = Coverage(**self.record["coverage"])
        return judge_data(covered, started=self.record["start"] is not None)

    def _report(self) -> None:
        record, folder = self.record, self.folder
        own, held = record["frames"]
        lines = [
            *_verdict(record["verdict"], record["reasons"]),
            *_of_choice(record.get("chosen", {})),
            f"Trained on {own:,} frames; measured on {held:,} others.",
            *_of_data(record["coverage"]),
        ]
        table = Section(
            "How good it is, measured without 3D",
            ["", *(f"{figure.title}|{figure.unit}" for figure in FIGURES)],
            [
                [name, *(_shown(figures[figure.name]) for figure in FIGURES)]
                for name, figures in record["figures"].items()
            ],
            MEANING,
        )
        notes = [*record["notes"], *(found["message"] for found in record["findings"])]
        read = Section("What was read", ["note"], [[note] for note in notes])
        write_report(
            folder.root,
            folder.report,
            lifted=folder.lifted,
            title=f"Fit: {folder.root.resolve().name}",
            summary=lines,
            sections=[table, read] if notes else [table],
        )

    def _result(self) -> Fit:
        record, folder = self.record, self.folder
        for line in _verdict(record["verdict"], record["reasons"]):
            say(self.console, line)
        chosen = record.get("chosen", {})
        if chosen and not chosen["share"]:
            say(self.console, KEPT)
        for name, figures in record["figures"].items():
            say(self.console, f"     {name}: {', '.join(_words(figures))}")
        report = folder.report if folder.report.is_file() else None
        missing = f"none: it needs plotly (pip install 'ites[view]'); figures in {folder.record}"
        say(self.console, f"report: {report or missing}")
        return Fit(
            folder.root,
            False,
            record["verdict"],
            record["reasons"],
            record["figures"],
            tuple(record["frames"]),
            report,
            chosen["share"] if chosen else 1.0,
        )


class Between:
    """The models on the straight line from a run's weights to those of a finished training.

    Args:
        start: the run at the start.
        run: the folder of the training; its weights are read from the training's state, so that
            they are there after `write` too.
        stage: of both.

    Attributes: `about`, the metadata of the fitted weights.
    """

    def __init__(self, start: str, run: RunFolder, stage: str) -> None:
        self.path = run.weights(stage)
        self.model, self.about = load_stage(run.root, stage)
        self.fitted = load_weights(run.state(stage)) if run.state(stage).is_file() else {}
        self.start = load_stage(start, stage)[0].to(self.model_dtype).state_dict()

    @property
    def model_dtype(self) -> torch.dtype:
        """The dtype of the fitted weights."""
        return next(self.model.parameters()).dtype

    def at(self, share: float) -> nn.Module:
        """The model at a share of the way; 0: the start's weights, 1: the fitted ones."""
        weights = dict(self.start)
        for name, fitted in self.fitted.items() if share else ():
            if fitted.is_floating_point():
                weights[name] = fitted if share == 1 else torch.lerp(weights[name], fitted, share)
        model = copy.deepcopy(self.model)
        model.load_state_dict(weights)
        return model

    def write(self, share: float) -> None:
        """Replace the run's weights by those at a share of the way."""
        save_model(self.path, self.at(share), self.about)


def _dictionary(teacher: Any) -> Pose:
    """The poses (B, J, 3) out of a teacher's dictionary, in the camera's frame."""

    def pose(points: Tensor) -> Tensor:
        shown: Tensor = teacher(points).camera_pose
        return shown

    return pose


def held_out(path: Path, scale: float, most: int = MOST_HELD) -> HeldOut:
    """The held-out poses of a fit's store, as many clips as make about `most` poses."""
    with PoseStore(path) as store:
        points, _ = store.points("test", scale)
        gravity = store.gravity("test")
        if gravity is not None:
            points = straightened(points, np.radians(gravity[:, 1:]))
        sequences = store.sequences_of("test")
        cameras = [store.cameras[sequence.camera] for sequence in sequences]
        skeleton = store.skeleton
    count = sum(sequence.length for sequence in sequences)
    chosen = list(range(0, len(sequences), max(1, count // most)))
    rows = [sequences[index].rows for index in chosen]
    pixels = [cameras[index].focal_length[0] / scale for index in chosen]
    lengths = [row.stop - row.start for row in rows]
    return HeldOut(
        np.concatenate([points[row] for row in rows]),
        lengths,
        np.repeat(np.array(pixels, np.float32), lengths),
        skeleton,
    )


def _from(start: str | None) -> str:
    return "from scratch" if start is None else f"from the weights of {start}"


def _of_data(covered: Mapping[str, Any]) -> list[str]:
    """What the frames to train on cover, a line each."""
    lines = [f"About {covered['different']:,} different poses."]
    if covered["sides"] is not None:
        shares = ", ".join(f"{name} {share:.0%}" for name, share in covered["sides"].items())
        lines.append(f"People are seen from: {shares}.")
    return lines


def _of_choice(chosen: Mapping[str, Any]) -> list[str]:
    """What was compared with the start, a line each, and what was taken."""
    if not chosen:
        return []
    lines = [Candidate(**found).words() for found in chosen["candidates"]]
    share = chosen["share"]
    taken = f"Taken: {share:.0%} of the way from the start's weights to the fitted ones."
    return [
        "Weights between the start's and the fitted ones, on the held-out frames and turned views "
        "of them (less is better):",
        *(f"  {line}" for line in lines),
        taken if share else KEPT,
    ]


def _verdict(word: str, reasons: Iterable[str]) -> list[str]:
    return [f"Verdict: {word}", *(f"  {reason}" for reason in reasons)]


def _words(figures: Mapping[str, float]) -> list[str]:
    return [
        f"{figure.title} {_shown(figures[figure.name])} {figure.unit}"
        for figure in FIGURES
        if figure.name in ("bone_variation", "equivariance", "sign_confidence")
    ]


def _shown(value: float | None) -> str:
    return "-" if value is None or math.isnan(value) else f"{value:.1f}"


def _plain(record: Mapping[str, Any]) -> dict[str, Any]:
    """The record for JSON, which has no nan."""
    figures = {
        name: {key: None if math.isnan(value) else value for key, value in own.items()}
        for name, own in record["figures"].items()
    }
    return {**record, "figures": figures}
