"""Pilots: short trainings that find the elevation at which recipe "upright" starts."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Protocol

from torch import Tensor

from ites.runs.settings import TeacherSettings

ELEVATIONS = (0, -30, 30)  # degrees at which pilots hold the camera
POSES = 100_000  # that a pilot learns from, about


class Pilot(Protocol):
    """A training, as far as pilots use it."""

    stage: Any
    step: int
    recent: Tensor

    def advance(self) -> None:
        """Take the next steps."""


def pilot_losses(
    settings: TeacherSettings, steps: int, begin: Callable[[TeacherSettings], Pilot]
) -> dict[float, float]:
    """Losses of short teacher trainings, each with the camera held at one elevation.

    A camera held far from the truth, or at the opposite elevation, finds no poses that look likely
    from all sides. A camera that is free from the start can run away.

    Args:
        settings: of the training that follows.
        steps: of it.
        begin: makes a training by settings.

    Returns:
        The mean loss over the later half of a pilot's steps, by its elevation in degrees. Empty
        where the settings, or too few steps, leave no room for pilots.
    """
    steps = min(settings.pilot_steps, steps // 10)
    if not steps:
        return {}
    held = replace(settings, steps=steps, epochs=steps, log_every=steps, level_steps=1000 * steps)
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
    """The elevation of the pilot with the smallest loss, degrees, and a line about it."""
    best = min(losses, key=losses.__getitem__)
    steep = f"{'down' if best > 0 else 'up'} by about {abs(best)} degrees"
    listed = ", ".join(f"{loss:.2f} at {elevation}°" for elevation, loss in losses.items())
    return best, f"the camera looks {steep if best else 'about level'} (pilots lose {listed})"
