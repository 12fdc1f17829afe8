"""Which of several lifters is best on held-out poses, measured without 3D.

A model that was trained further on few poses may be worse than it was, on other cameras above all.
So the start of the training is one of the candidates. It stays unless another is better by more
than chance on held-out poses and on views of them from other sides.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from ites.evaluation.verdict import WORDS, judge_figures
from ites.evaluation.without_truth import Scores
from ites.pose.metrics import p_mpjpe

BLOCKS = 12
"""Parts of the held-out poses, in order; their differences give the standard error."""
SURE = 2.0
"""Standard errors by which a candidate must be better than the start."""
LEAST_DENSITY = 3.0
"""Nats that the views of a candidate's poses may be less likely than those of the start's."""


@dataclass(frozen=True)
class Candidate:
    """A candidate beside the start.

    Attributes:
        share: of the way from the start's weights to the fitted ones, above 0.
        change: relative change of the score, the mean of equivariance and of the deviation of the
            bones, each by the start's; below 0 is better.
        error: standard error of the change.
        moved: mean distance of the joints from the start's, after the optimal similarity,
            millimetres on a body of 600 mm from pelvis to head.
        refused: why it is not taken; "" if it may be.
    """

    share: float
    change: float
    error: float
    moved: float
    refused: str

    def words(self) -> str:
        """One line."""
        line = f"{self.share:.0%} of the way: {self.change:+.1%} +- {self.error:.1%}"
        return f"{line}; {self.refused}" if self.refused else line


def compare(
    share: float,
    new: tuple[Scores, Mapping[str, float]],
    old: tuple[Scores, Mapping[str, float]],
    flat: Mapping[str, float],
) -> Candidate:
    """Compare a candidate with the start.

    It is refused if it is not better by `SURE` standard errors, if its verdict is worse, if its
    turned views are less likely by `LEAST_DENSITY`, or if it moves poses farther than the error
    that the start expects of its own.

    Args:
        share: see `Candidate`.
        new, old: the scores and the figures of the candidate and of the start on the same poses, by
            `ites.evaluation.without_truth`; one judge for both.
        flat: figures of flat poses.
    """
    (own, figures), (before, of_start) = new, old
    change, error = _change(own, before)
    moved = _apart(own.poses, before.poses)
    words = [judge_figures(some, flat).word for some in (figures, of_start)]
    less = float(before.log_density.mean() - own.log_density.mean())
    refused = ""
    if WORDS.index(words[0]) > WORDS.index(words[1]):
        refused = f"its figures say {words[0]!r}, the start's {words[1]!r}"
    elif less > LEAST_DENSITY:
        refused = f"views of its poses are less likely by {less:.1f} nats"
    elif moved > before.expected_error:
        refused = (
            f"it moves poses by {moved:.0f} mm, where the start expects errors of "
            f"{before.expected_error:.0f}"
        )
    elif not change + SURE * error < 0:
        refused = "not better than the start by more than chance"
    return Candidate(share, change, error, moved, refused)


def best(candidates: Sequence[Candidate]) -> Candidate | None:
    """The candidate of the lowest score that is not refused; None: the start stays."""
    allowed = [candidate for candidate in candidates if not candidate.refused]
    return min(allowed, key=lambda candidate: candidate.change, default=None)


def _change(new: Scores, old: Scores) -> tuple[float, float]:
    """The relative change of the score and its standard error, by blocks of poses."""
    parts = [(new.equivariance, old.equivariance)]
    if np.isfinite(old.bones).any():
        parts.append((new.bones, old.bones))
    relative = [(a - b) / max(float(np.nanmean(b)), 1e-9) for a, b in parts]
    change = np.nanmean(relative, axis=0)
    blocks = [float(part.mean()) for part in np.array_split(change, min(BLOCKS, len(change)))]
    error = float(np.std(blocks, ddof=1)) / len(blocks) ** 0.5 if len(blocks) > 1 else math.inf
    return float(np.mean(change)), error


def _apart(first: NDArray[np.float32], second: NDArray[np.float32]) -> float:
    """Mean distance of the joints of poses (M, J, 3) after the optimal similarity."""
    a, b = (torch.from_numpy(poses).double() for poses in (first, second))
    return float(p_mpjpe(a, b).mean())
