"""Pilots: short trainings that find the start elevation of recipe "upright"."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Protocol

from torch import Tensor

from ites.runs.settings import TeacherSettings

ELEVATIONS = (0, -30, 30)  # degrees at which pilots hold the camera
POSES = 100_000  # approximate poses per pilot


class Pilot(Protocol):
    """The part of a training that pilots use."""

    stage: Any
    step: int
    recent: Tensor

    def advance(self) -> None:
        """Take the next steps."""


def pilot_losses(
    settings: TeacherSettings, steps: int, begin: Callable[[TeacherSettings], Pilot]
) -> dict[float, float]:
    """Run short teacher trainings, each with the camera held at one elevation.

    With a wrong or negated elevation, training finds no poses that look likely from all sides.
    A camera that is free from the start can diverge.

    Args:
        settings: of the training that follows.
        steps: of that training.
        begin: makes a training from settings.

    Returns:
        The mean loss over the second half of each pilot's steps, by elevation in degrees. Empty
        if the settings or too few steps rule out pilots.
    """
    steps = min(settings.pilot_steps, steps // 10)
    if not steps:
        return {}
    held = replace(
        settings, steps=steps, epochs=steps, log_every=steps, start_elevation_steps=1000 * steps
    )
    losses: dict[float, float] = {}
    for elevation in ELEVATIONS:
        pilot = begin(held)
        pilot.stage.fix_elevation(elevation)
        while pilot.step < steps:
            pilot.advance()
        loss = pilot.recent[steps // 2 :, 0].mean().item()
        losses[elevation] = loss if math.isfinite(loss) else math.inf
    return losses


def best_elevation(losses: Mapping[float, float]) -> tuple[float, str]:
    """The elevation in degrees of the pilot with the smallest loss, and a message."""
    best = min(losses, key=losses.__getitem__)
    steep = f"{'down' if best > 0 else 'up'} by about {abs(best)} degrees"
    listed = ", ".join(f"{loss:.2f} at {elevation}°" for elevation, loss in losses.items())
    return best, f"the camera looks {steep if best else 'about level'} (pilots lose {listed})"
