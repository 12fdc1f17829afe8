"""Calibration after a training: the odds that the sign of a lifted depth is right."""

from __future__ import annotations

import os

import torch
from torch import Tensor

from ites.models import fold_norms
from ites.models.trust import CALIBRATION, Odds, Trust
from ites.runs.checkpoint import load_judges, load_model, save_odds


def calibrate(
    run: str | os.PathLike[str], stage: str, points: Tensor, device: torch.device
) -> Odds | None:
    """Fit the odds of a stage's signs to training poses (N, J, 2) and write them into its run.

    Returns:
        The odds. None, without writing a file, if the run folder lacks a prior or a teacher of
        recipe "upright".
    """
    judges = load_judges(run, device)
    if judges is None:
        return None
    model, _ = load_model(run, stage, device)
    count, samples = CALIBRATION
    sample = points[:: max(1, len(points) // count)].to(device, torch.float32)
    odds = Trust(*judges, Odds(0, 0)).fit(fold_norms(model.float()).depth, sample, samples)
    save_odds(run, stage, odds)
    return odds
