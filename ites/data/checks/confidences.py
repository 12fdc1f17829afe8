"""Confidences that are none: a depth in 0..1, or numbers where 0 means sure.

A bone that comes towards the camera is short in the image, and its ends differ in depth: its
squared length plus the squared difference of depth, times a factor, is constant. Of a confidence it
is not. So the correlation of both tells one from the other, along each bone over time (`WITHIN`),
and of all bones, less their usual squared lengths (`ACROSS`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from ites.data.checks.arrays import Floats
from ites.data.checks.group import FEW, HIPS, SHOULDERS, Body, Group, measured_bones
from ites.data.findings import Finding
from ites.pose.missing import norms

WITHIN, ACROSS, BOTH = -0.34, -0.26, -0.8
"""Correlations, and their sum, from which the numbers are a depth. Detections of four real views
have -0.24, -0.19 and -0.40 at the least; depths of 12 clips, scaled to 0..1, at most -0.42, -0.38
and -0.87."""
LOW = 0.25
"""Median of the confidences above 0 below which few joints are sure."""
ENOUGH, PAIRS, LEVELS = 12, 200, 4
"""Least frames, least pairs of squared lengths and differences, and least different numbers."""
LONGEST = 1.5
"""Bones of more than so many times their usual length are misplaced, and count as that long."""
SHORTEST = 0.15
"""Metres: shorter bones tell nothing."""


def depth_correlations(
    keypoints: Floats,
    confidence: Floats,
    metre: Floats,
    bones: Sequence[tuple[int, int, float]],
) -> tuple[float, float] | None:
    """How the squared lengths of bones go with the squared differences of confidence.

    Args:
        keypoints: (T, J, 2), pixels.
        confidence: (T, J), 0 for a missing joint.
        metre: (T,) pixels per metre; nan where unknown.
        bones: the joints at both ends, and metres.

    Returns:
        The correlation along each bone over time, and that of all bones; None if there is too
        little to tell.
    """
    chosen = [bone for bone in bones if bone[2] >= SHORTEST]
    a, b = [bone[0] for bone in chosen], [bone[1] for bone in chosen]
    usual = np.array([bone[2] for bone in chosen])
    there = (confidence[:, a] > 0) & (confidence[:, b] > 0) & (metre > 0)[:, None]
    if len(keypoints) < ENOUGH or there.sum() < PAIRS:
        return None
    if len(np.unique(np.round(confidence[confidence > 0], 4))) < LEVELS:
        return None
    scale = _smooth(metre)[:, None]
    with np.errstate(invalid="ignore", divide="ignore"):
        long = np.minimum(norms(keypoints[:, a] - keypoints[:, b]) / scale, LONGEST * usual) ** 2
    apart = (confidence[:, a] - confidence[:, b]) ** 2
    there &= np.isfinite(long)
    count = np.maximum(there.sum(0), 1)
    means = [np.where(there, values, 0).sum(0) / count for values in (long, apart)]
    within = _correlation((long - means[0])[there], (apart - means[1])[there])
    across = _correlation((long - usual**2)[there], apart[there])
    return within, across


def is_depth(within: float, across: float) -> bool:
    """Whether numbers with these correlations are a depth."""
    return within <= WITHIN and across <= ACROSS and within + across <= BOTH


def _smooth(values: Floats, half: int = 15) -> Floats:
    """The median of so many values before and after each, of those that are known."""
    known = np.where(np.isfinite(values), values, np.nanmedian(values))
    padded = np.pad(known, half, mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * half + 1)
    return np.asarray(np.median(windows, axis=-1))


def _correlation(one: Floats, other: Floats) -> float:
    one, other = one - one.mean(), other - other.mean()
    size = float(np.sqrt((one**2).sum() * (other**2).sum()))
    return float((one * other).sum()) / size if size > 0 else 0.0


def confidence(group: Group, body: Body) -> Iterator[tuple[int, Finding]]:
    """Confidences that vary as a depth does, or that are low throughout."""
    bones = measured_bones(body)
    bones += [(*body.hips, HIPS), (*body.shoulders, SHOULDERS)]
    for number, (clip, rows) in enumerate(zip(group.clips, group.rows, strict=True)):
        if clip.confidence is None or len(clip) < FEW:
            continue
        sure = np.where(group.seen[rows], clip.confidence, 0)
        told = depth_correlations(group.points[rows], sure, group.scale[rows], bones)
        known = sure[sure > 0]
        if told is not None and is_depth(*told):
            yield group.found(
                number,
                "confidence",
                "warning",
                "the confidences vary as a depth does: the more they differ along a bone, the "
                f"shorter it is in the image (correlations {told[0]:.2f} and {told[1]:.2f})",
                {"kind": "depth", "within": told[0], "across": told[1]},
            )
        elif len(known) and (middle := float(np.median(known))) < LOW:
            yield group.found(
                number,
                "confidence",
                "warning",
                f"the confidences are low throughout (median {middle:.2g}): a detector that is "
                "sure of nothing, or numbers where 0 means sure",
                {"kind": "low", "median": middle},
            )
