"""Calibration after a training: the odds that the sign of a lifted depth is right."""

from __future__ import annotations

import os

import torch
from torch import Tensor

from ites.models import fold_norms
from ites.models.disturb import disturb
from ites.models.sizes import own_scale
from ites.models.trust import CALIBRATION, Odds, Trust
from ites.pose.skeleton import HUMAN36M
from ites.runs.checkpoint import load_judges, load_model, save_odds


def calibrate(
    run: str | os.PathLike[str],
    stage: str,
    points: Tensor,
    device: torch.device,
    pairs: tuple[Tensor, Tensor] | None = None,
) -> Odds | None:
    """Fit the odds of a stage's signs to training poses (N, J, 2) and write them into its run.

    Args:
        run: the run folder; it holds the prior, the teacher and the stage's weights.
        stage: "teacher" or "student", whose lifts are judged.
        points: (N, J, 2), the networks' input; about `CALIBRATION[0]` of them are used.
        device: of the computation.
        pairs: two views (M, 17, 2) each of some people; from them the expected error is fitted too.

    Returns:
        The odds. None, without writing a file, if the run folder lacks a prior or a teacher of
        recipe "upright" or "general".

    Raises:
        ItesError: a file of the run folder is damaged, or the stage has no weights there.
    """
    judges = load_judges(run, device)
    if judges is None:
        return None
    model, _ = load_model(run, stage, device)
    count, samples = CALIBRATION
    sample = points[:: max(1, len(points) // count)].to(device, torch.float32)
    depth, trust = fold_norms(model.float()).depth, Trust(*judges, Odds(0, 0))
    odds = trust.fit(depth, sample, samples)
    if pairs is not None:
        odds = odds._replace(error=trust.fit_error(depth, *_disturbed(pairs, device)))
    save_odds(run, stage, odds)
    return odds


def _disturbed(pairs: tuple[Tensor, Tensor], device: torch.device) -> list[Tensor]:
    """Both views of people as a detector sees them, at their own scale."""
    counter, found = torch.zeros(3, dtype=torch.int64, device=device), []
    for stream, points in enumerate(pairs):
        points = points.to(device, torch.float32)
        points = points * own_scale(points, HUMAN36M)[:, None, None]
        points, seen = disturb(points, counter, 8 + 2 * stream)
        found.append(points.where(seen[..., None], torch.nan))
    return found
