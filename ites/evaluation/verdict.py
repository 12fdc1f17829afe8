"""A verdict in words on a model that was fitted to one's own keypoints.

The limits were set on runs whose true errors are known: `docs/fit.md` lists them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from ites.evaluation.coverage import SIDES, Coverage

WORDS = ("good", "use with care", "do not use")
"""The verdicts, the best first."""


class Limit(NamedTuple):
    """Up to `good` a figure is good, above `poor` it forbids to use the model.

    `of_flat`: the figure is divided by that of a flat pose first. A figure up to `small` is good in
    any case: a person who hardly moves leaves a flat pose little to get wrong.
    """

    figure: str
    good: float
    poor: float
    of_flat: bool
    small: float
    words: str


LIMITS = (
    Limit(
        "equivariance", 0.55, 0.8, True, 25.0,
        "turned and lifted again, poses are {value:.0f} mm off, {share:.0%} of a flat pose's",
    ),
    Limit(
        "bone_variation", 0.8, 1.0, True, 4.0,
        "bone lengths vary by {value:.1f}% over a clip, {share:.0%} of a flat pose's",
    ),
    Limit(
        "asymmetry", 0.85, 1.1, True, 6.0,
        "left and right bones differ by {value:.1f}%, {share:.0%} of a flat pose's",
    ),
    Limit(
        "doubtful", 5.0, 30.0, False, 0.0, "the depth's sign is doubtful in {value:.0f}% of poses"
    ),
    Limit("wrong_views", 2.0, 10.0, False, 0.0, "{value:.1f}% of turned views get the wrong sign"),
)  # fmt: skip
FRAMES = 2000
"""Frames of training below which a fit is not good; from scratch not to be used either."""
DIFFERENT = (150, 50)
"""Different poses below which a fit is not good, and from scratch not to be used either."""
SIDES_SEEN = (3, 2)
"""The same for the sides from which people are seen."""


class Verdict(NamedTuple):
    """One of `WORDS`, and its reasons, a line each, the most serious first."""

    word: str
    reasons: list[str]


def judge_data(covered: Coverage, started: bool) -> Verdict:
    """A verdict on keypoints to learn from, with advice if they are not enough.

    Args:
        covered: by the training frames.
        started: whether the training starts from a trained model, which has seen others.
    """
    reasons: list[tuple[int, str]] = []
    if covered.frames < FRAMES:
        reasons.append(
            (
                1 if started else 2,
                f"too few frames: {covered.frames:,} to train on, at least {FRAMES:,} are needed; "
                "add clips",
            )
        )
    level = _level(covered.different, DIFFERENT)
    if level:
        reasons.append(
            (
                level if not started else 1,
                f"too few different poses: about {covered.different:,} in {covered.frames:,} "
                f"frames, at least {DIFFERENT[0]} are needed; add clips of other movements",
            )
        )
    seen = covered.sides_seen
    level = 0 if seen is None else _level(seen, SIDES_SEEN)
    if level and covered.sides is not None:
        shares = ", ".join(f"{name} {share:.0%}" for name, share in covered.sides.items() if share)
        reasons.append(
            (
                level if not started else 1,
                f"people are seen from {seen} of {len(SIDES)} sides ({shares}); add clips in which "
                "they turn, or a second camera",
            )
        )
    return _verdict(reasons)


def judge_figures(figures: Mapping[str, float], flat: Mapping[str, float]) -> Verdict:
    """A verdict on a model by figures without 3D.

    Args:
        figures: of the model, by `ites.evaluation.without_truth.measure`.
        flat: of flat poses.
    """
    reasons = []
    for limit in LIMITS:
        value = figures[limit.figure]
        share = value / max(flat[limit.figure], 1e-9)
        measured = share if limit.of_flat else value
        level = int(measured > limit.good) + int(measured > limit.poor)
        if level and value > limit.small:
            reasons.append((level, limit.words.format(value=value, share=share)))
    return _verdict(reasons)


def join(*verdicts: Verdict) -> Verdict:
    """The worst of several verdicts, with the reasons of those that are not good."""
    worst = max(verdicts, key=lambda verdict: WORDS.index(verdict.word))
    order = sorted(verdicts, key=lambda verdict: -WORDS.index(verdict.word))
    return Verdict(worst.word, [reason for verdict in order for reason in verdict.reasons])


def _level(got: int, limits: tuple[int, int]) -> int:
    """0: enough; 1: fewer than the first limit; 2: fewer than the second."""
    return sum(got < limit for limit in limits)


def _verdict(reasons: list[tuple[int, str]]) -> Verdict:
    reasons.sort(key=lambda reason: -reason[0])
    return Verdict(
        WORDS[max((level for level, _ in reasons), default=0)], [text for _, text in reasons]
    )
