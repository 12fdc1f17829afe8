"""What is wrong with keypoints as a file holds them: units, confidences, joints not found."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ites.data.findings import Finding
from ites.pose.missing import norms

PERCENT = 100.0
"""Coordinates up to here may be percentages: hardly an image is that small."""

TINY = 0.02
"""A person who is so much smaller than in other frames, all of it below 2, is not in pixels."""

Floats = NDArray[np.floating]
Bools = NDArray[np.bool_]


def check_array(keypoints: Floats, name: str = "") -> list[Finding]:
    """Say what is wrong with an array as a file holds it, before anything is made of it.

    Args:
        keypoints: (T, J, 2), or (T, J, 3) with the confidence last; may hold nan.
        name: of the clip.

    Returns:
        Findings of the codes "depth", "normalised", "units", "degenerate" and "zeros".
    """
    if keypoints.ndim != 3 or keypoints.shape[-1] not in (2, 3) or not keypoints.size:
        return []
    points = np.asarray(keypoints[..., :2], np.float64)
    seen: Bools = np.all(np.isfinite(points), axis=-1)
    found = []
    if keypoints.shape[-1] == 3:
        third = np.asarray(keypoints[..., 2], np.float64)
        found += _third_column(third, name)
        if not found:
            with np.errstate(invalid="ignore"):
                seen &= third > 0
    placeholder = seen & placeholders(points)
    return found + list(units(points, seen, name)) + list(zeros(placeholder, name))


def _third_column(third: NDArray[np.float64], name: str) -> list[Finding]:
    known = third[np.isfinite(third)]
    below = (known < 0) & (known != -1)  # -1 marks a joint that was not found
    if below.any():
        return [
            Finding(
                "depth",
                "error",
                f"the third column is below 0 in {below.sum():,} of {known.size:,} joints (down to "
                f"{known.min():.3g}): a confidence lies in 0..1, a depth does not",
                {"below": int(below.sum()), "least": float(known.min())},
                name,
            )
        ]
    if known.size and np.median(known) > 2:
        return [
            Finding(
                "depth",
                "error",
                f"the third column has a median of {np.median(known):.3g} and goes up to "
                f"{known.max():.3g}: a confidence lies in 0..1",
                {"median": float(np.median(known)), "greatest": float(known.max())},
                name,
            )
        ]
    return []


def units(points: Floats, seen: Bools, name: str) -> Iterator[Finding]:
    """Coordinates that cannot be pixels; points (T, J, 2)."""
    rows = np.flatnonzero(seen.sum(1) > 2)
    rows = rows[:: max(1, len(rows) // 500)]  # a sample suffices
    points, placed = points[rows], seen[rows] & (points[rows] != 0).any(-1)
    rows = placed.sum(1) > 2
    if not rows.any():
        return
    all_seen = points[placed]
    mask, several = placed[rows, :, None], points[rows]
    extent = np.where(mask, several, -np.inf).max(1) - np.where(mask, several, np.inf).min(1)
    size = float(np.median(norms(extent)))  # of a body, in a typical frame
    extents = norms(extent)
    tiny = (extents < TINY * size) & (extents > 0)
    flat = size > 0 and not np.median(extent, axis=0).all()
    low, high = np.quantile(all_seen, [0.01, 0.99], axis=0)
    data = {"size": size, "low": low.tolist(), "high": high.tolist()}
    if size == 0:
        yield Finding("degenerate", "error", "all keypoints of a person are the same", data, name)
    elif flat:
        told = "all keypoints of a person lie on one line: a coordinate is missing"
        yield Finding("degenerate", "error", told, data, name)
    elif size < 10:
        yield _too_small(low, high, data, name)
    elif tiny.any() and (several[tiny][mask[tiny, :, 0]] <= 2).all():
        yield Finding(
            "units",
            "warning",
            f"{tiny.sum():,} of {len(tiny):,} frames that were looked at have a person of "
            f"{np.median(extents[tiny]):.2g}, the others of {size:.0f}: coordinates in 0..1 among "
            "pixels",
            {**data, "kind": "mixed", "tiny": int(tiny.sum())},
            name,
        )
    elif low.min() >= 0 and high.max() <= PERCENT:
        yield Finding(
            "units",
            "warning",
            f"coordinates lie in 0..{PERCENT:g}, as percentages of the image's width and height "
            f"do, or places in a heatmap: a person measures {size:.0f}",
            {**data, "kind": "percent"},
            name,
        )
    else:
        yield from _below_zero(all_seen, data, name)


def _too_small(low: Floats, high: Floats, data: dict[str, Any], name: str) -> Finding:
    """The unit of coordinates by which a person measures less than 10."""
    size: float = data["size"]
    span = f"x in {low[0]:.2f}..{high[0]:.2f}, y in {low[1]:.2f}..{high[1]:.2f}"
    if low.min() > -0.1 and high.max() < 1.3 and size < 1.6:
        code, kind = "normalised", "normalised"
        told = (
            f"coordinates are divided by the image's width and height ({span}): multiplied by them "
            "again they are pixels"
        )
    elif low.min() > -1.2 and high.max() < 1.2 and abs(low + high).max() > 0.02:
        code, kind = "units", "screen"
        told = f"coordinates lie in -1..1 ({span}): pixels are expected"
    else:
        code, kind = "units", "metres"
        told = (
            f"coordinates are no pixels: a person measures {size:.2g} ({span}); this may be metres"
        )
    return Finding(code, "error", told, {**data, "kind": kind}, name)


def _below_zero(placed: Floats, data: dict[str, Any], name: str) -> Iterator[Finding]:
    """Many joints (N, 2) below 0."""
    size: float = data["size"]
    negative = np.mean((placed < 0).any(-1))
    if negative <= 0.3:
        return
    below = f"{negative:.0%} of the joints have a coordinate below 0"
    if size > 500 and np.abs(np.median(placed, axis=0)).max() < 0.6 * size:
        told = (
            f"{below} and a person measures {size:.0f}: millimetres about the root joint, or "
            "pixels about another point than the image's corner"
        )
        yield Finding("units", "warning", told, {**data, "kind": "millimetres"}, name)
    else:
        told = f"{below}, outside any image"
        yield Finding("image-size", "warning", told, {**data, "kind": "negative"}, name)


def placeholders(points: Floats) -> Bools:
    """Joints (T, J) at (0, 0) or (-1, -1); a root joint that is (0, 0) throughout is an origin."""
    found: Bools = np.all(points == 0, axis=-1) | np.all(points == -1, axis=-1)
    return found & ~np.all(found, axis=0)


def zeros(placeholder: Bools, name: str) -> Iterator[Finding]:
    """Joints (T, J) that stand for joints not found."""
    if not placeholder.any():
        return
    frames = np.flatnonzero(placeholder.any(1))
    joints = np.flatnonzero(placeholder.any(0))
    yield Finding(
        "zeros",
        "warning",
        f"{placeholder.sum():,} joints lie at exactly (0, 0) or (-1, -1) in {len(frames):,} of "
        f"{len(placeholder):,} frames: they stand for joints not found",
        {"joints": int(placeholder.sum()), "which": joints.tolist()},
        name,
        frames,
    )
