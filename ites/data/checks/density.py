"""Poses that a prior finds unlikely."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from ites.data.checks.arrays import Floats
from ites.data.checks.group import FEW, Group
from ites.data.clips import Clip
from ites.data.findings import Finding
from ites.pose.skeleton import root_relative

Density = Callable[[NDArray[np.float32]], Floats]
"""Log densities (N,), nats, of 2D poses (N, J, 2), network units, root-relative."""


DENSITY_FLOOR = -150.0
"""Nats: the median log density of a clip that resembles nothing a prior has learned."""
DENSITY_POSES, SHORT_CLIPS, DENSITY_BATCH = 64, 2048, 4096
"""What a prior judges: about so many poses of a clip; of clips with fewer than `FEW` frames, so
many per batch of checks; poses at a time."""


def density(group: Group, prior: Density, scale: float | None) -> Iterator[tuple[int, Finding]]:
    some = [
        _judged(group, clip, rows, scale)
        for clip, rows in zip(group.clips, group.rows, strict=True)
    ]
    short = [n for n, clip in enumerate(group.clips) if len(clip) < FEW and len(some[n])]
    left_out = set(short) - set(short[:: 1 + len(short) // SHORT_CLIPS])
    numbers = [n for n, points in enumerate(some) if len(points) and n not in left_out]
    if not numbers:
        return
    poses = np.concatenate([some[n] for n in numbers])
    parts = range(0, len(poses), DENSITY_BATCH)
    found = np.concatenate([prior(poses[start : start + DENSITY_BATCH]) for start in parts])
    ends = np.cumsum([len(some[n]) for n in numbers])[:-1]
    floor: float = getattr(prior, "floor", DENSITY_FLOOR)
    for number, own in zip(numbers, np.split(found, ends), strict=True):
        middle = float(np.median(own))
        if middle < floor:
            yield group.found(
                number,
                "density",
                "warning" if len(group.clips[number]) >= FEW else "note",
                f"the poses resemble none that the model was trained on (median log "
                f"density {middle:.0f})",
                {"log_density": middle},
            )


def _judged(group: Group, clip: Clip, rows: slice, scale: float | None) -> NDArray[np.float32]:
    """The poses of a clip that a prior judges, network units: evenly spaced complete ones."""
    nothing = np.zeros((0, *group.points.shape[1:]), np.float32)
    complete = np.flatnonzero(group.seen[rows].all(1))
    chosen = complete[:: max(1, len(complete) // DENSITY_POSES)]
    if not len(chosen):
        return nothing
    points = root_relative(group.points[rows][chosen], group.skeleton.root)
    heads = np.linalg.norm(points[:, group.skeleton.head], axis=-1).mean()
    if not heads > 0:
        return nothing
    if scale is None or clip.focal_length is None:
        points = points * np.float32(0.2 / heads)
    else:
        points = points * np.float32(scale) / np.asarray(clip.focal_length, np.float32)
    return np.asarray(points, np.float32)
