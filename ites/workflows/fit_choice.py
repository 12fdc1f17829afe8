"""Which weights a fit keeps, and the figures of its models on the held-out frames."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ites.data.store import PoseStore
from ites.evaluation.choice import best, compare
from ites.evaluation.without_truth import HeldOut, Scores, flat, measure, scores
from ites.models import fold_norms
from ites.models.predict import Pose
from ites.models.trust import Odds
from ites.pose.geometry import unrolled
from ites.runs.checkpoint import (
    load_model,
    load_stage,
    load_trust,
    load_weights,
    save_model,
    save_odds,
)
from ites.runs.folder import RunFolder
from ites.training.calibration import calibrate

MOST_HELD = 4096
"""Held-out poses that are measured."""
SHARES = (0.25, 0.5, 0.75, 1.0)
"""Shares of the way from the start's weights to the fitted ones that are tried."""


def choose(
    run: RunFolder, start: str, store: Path, stages: Sequence[str], device: torch.device
) -> dict[str, Any]:
    """Replace a run's weights by those between the start's and the fitted ones that are best.

    The held-out frames decide, without 3D; see `ites.evaluation.choice`. The odds of the depth's
    sign are those of the chosen weights.

    Args:
        run: the run folder of the fit.
        start: the run at the start, of the same recipe.
        store: the fit's pose store, with the splits "train" and "test".
        stages: those that were trained; the last one's model lifts.
        device: where the models run.

    Returns:
        For the record: the share of the way that was taken, 0 if the start is kept, and the
        candidates.
    """
    lifts = stages[-1]
    judge = load_trust(start, lifts, device) or load_trust(run.root, lifts, device)
    assert judge is not None
    between = {stage: Between(start, run, stage) for stage in stages}
    held = held_out(store, between[lifts].about.scale)

    def rated(share: float) -> tuple[Scores, dict[str, float]]:
        model: Any = between[lifts].at(share).to(device).float().eval()
        pose = fold_norms(model).pose
        return scores(pose, held, judge, device), measure(pose, held, judge, device)

    before, flat_figures = rated(0.0), measure(flat, held, judge, device)
    found = [compare(share, rated(share), before, flat_figures) for share in SHARES]
    taken = best(found)
    share = taken.share if taken is not None else 0.0
    for weights in between.values():
        weights.write(share)
    for stage in stages:
        _write_odds(run, start, stage, store, share, device)
    return {"share": share, "candidates": [asdict(candidate) for candidate in found]}


def _write_odds(
    run: RunFolder, start: str, stage: str, store: Path, share: float, device: torch.device
) -> None:
    """Write the odds of a stage's chosen weights; the expected error stays the start's."""
    before = load_trust(start, stage, device)
    if before is None:
        return
    odds: Odds | None = before.odds
    if share == 1 and (after := load_trust(run.root, stage, device)) is not None:
        odds = after.odds  # fitted at the end of the training
    elif share:
        with PoseStore(store) as poses:
            points, _ = poses.points("train")
        odds = calibrate(run.root, stage, torch.from_numpy(points), device)
    if odds is not None:
        save_odds(run.root, stage, odds._replace(error=before.odds.error))


def figures_of(
    run: RunFolder,
    start: str | None,
    store: Path,
    lifts: str,
    device: torch.device,
    *,
    dictionary: bool,
) -> dict[str, dict[str, float]]:
    """The figures of each model on the held-out frames, by `ites.evaluation.without_truth.measure`.

    Args:
        run: the run folder of the fit.
        start: the run at the start, measured too; None: there is none.
        store: the fit's pose store.
        lifts: the stage whose model lifts.
        device: where the models run.
        dictionary: whether the teacher's reprojection is that of its dictionary's poses.

    Returns:
        Figures by name: `lifts`, "teacher", "start" if there is one, and "flat".
    """
    judge = load_trust(run.root, lifts, device)
    assert judge is not None
    lifters: dict[str, Any] = {}
    for stage in dict.fromkeys((lifts, "teacher")):
        lifters[stage], about = load_model(run.root, stage, device)
    if start is not None:
        lifters["start"], _ = load_model(start, lifts, device)
    held = held_out(store, about.scale)
    figures = {}
    for name, model in lifters.items():
        explains = _dictionary(model.float()) if dictionary and name == "teacher" else None
        figures[name] = measure(fold_norms(model.float()).pose, held, judge, device, explains)
    figures["flat"] = measure(flat, held, judge, device)
    return figures


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
            roll = torch.from_numpy(np.radians(gravity[:, 1]))
            points = unrolled(torch.from_numpy(points), roll).numpy()
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
