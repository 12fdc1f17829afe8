"""The roll of a clip's camera, found from its 2D poses alone.

A density of 2D poses seen by cameras that are not rolled says how likely each pose is when the
picture is turned. The roll is the angle for which the turned poses are likeliest.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ites.models.prior import soft_clamp
from ites.pose.geometry import unrolled

FRAMES = 48
"""Poses of a clip that are turned, evenly spaced."""
ENOUGH, LEAST_JOINTS = 8, 0.5
"""Complete poses of a clip that suffice; and where there are fewer, the share of a pose's joints
that must be seen for the others to be completed."""
COARSE = 12
"""Step of the first search over all angles, degrees."""
EVIDENCE = 3.0
"""Number of independent poses that a clip counts as, against the prior odds of the angles. The
poses of one clip resemble each other; a person who lies still must not be turned upright."""
SIDEWAYS = 0.05
"""Probability that a camera is held at any angle; otherwise its roll is near `STRAIGHT`."""
STRAIGHT = 12.0
"""Standard deviation of the roll of a camera that is held straight, degrees."""


@torch.inference_mode()
def find_roll(
    points: NDArray[np.floating],
    density: Callable[[Tensor], Tensor],
    device: torch.device | str = "cpu",
    complete: Callable[[Tensor], Tensor] | None = None,
) -> float:
    """The roll of a clip's camera, radians, clockwise.

    The likeliest angle by `mean log density of the turned poses * EVIDENCE + log odds of the angle`
    is refined by the density alone, so poses that are turned further give an angle that is as much
    larger.

    Args:
        points: (T, J, 2), root-relative, any size, nan where a joint is missing.
        density: negative log density (B,) of poses (B, J, 2) float32, nats.
        device: where the density runs.
        complete: gives missing joints of poses (B, J, 2) float32 that are not rolled. Clips of few
            complete poses are turned first, then completed. None: complete poses alone count.

    Returns:
        The angle in [-pi, pi); 0 without a pose to judge by.
    """
    seen = np.isfinite(points).all(-1).mean(1)
    chosen = points[seen == 1]
    if len(chosen) < ENOUGH and complete is not None:
        chosen = points[seen >= LEAST_JOINTS]
    if not len(chosen):
        return 0.0
    rows = np.unique(np.linspace(0, len(chosen) - 1, FRAMES).round().astype(int))
    poses = torch.from_numpy(np.ascontiguousarray(chosen[rows], np.float32)).to(device)

    def unlikely(degrees: NDArray[np.floating]) -> NDArray[np.floating]:
        rolls = torch.from_numpy(np.radians(degrees).astype(np.float32)).to(device)
        turned = torch.cat([unrolled(poses, roll) for roll in rolls])
        if complete is not None and not turned.isfinite().all():
            turned = turned.where(turned.isfinite(), complete(turned))
        return soft_clamp(density(turned)).view(len(degrees), -1).mean(1).double().cpu().numpy()

    angles = np.arange(-180.0, 180.0, COARSE)
    near = (1 - SIDEWAYS) * np.exp(-0.5 * (angles / STRAIGHT) ** 2) / (STRAIGHT * 2.5066)
    odds = np.log(near + SIDEWAYS / 360)
    best = float(angles[np.argmin(EVIDENCE * unlikely(angles) - odds)])
    for step in (4.0, 1.5, 0.5):
        places = best + step * np.arange(-3, 4)
        found = unlikely(places)
        best = _vertex(places, found)
    return math.radians((best + 180) % 360 - 180)


def _vertex(places: NDArray[np.floating], values: NDArray[np.floating]) -> float:
    """The place of the least value, refined by a parabola through its neighbours."""
    index = int(np.argmin(values))
    if index in (0, len(values) - 1):
        return float(places[index])
    before, middle, after = values[index - 1 : index + 2]
    bend = before - 2 * middle + after
    away = 0.5 * (before - after) / bend if bend > 0 else 0.0
    return float(places[index] + away * (places[1] - places[0]))
