"""Which of several lifters is best, without 3D: the start stays unless another is surely better."""

from __future__ import annotations

import numpy as np
import pytest

from ites.evaluation.choice import best, compare
from ites.evaluation.without_truth import Scores

FLAT = {
    "equivariance": 150.0,
    "bone_variation": 10.0,
    "asymmetry": 20.0,
    "doubtful": 0.0,
    "wrong_views": 0.0,
}
GOOD = {**FLAT, "equivariance": 50.0, "bone_variation": 5.0, "asymmetry": 6.0}
COUNT = 240


def rated(
    equivariance: float = 50.0,
    bones: float = 10.0,
    moved: float = 0.0,
    density: float = -30.0,
    noise: float = 0.0,
    expected: float = 60.0,
) -> Scores:
    """Scores of as many poses; `noise` differs from one part of the poses to the next."""
    rng = np.random.default_rng(0)
    poses = 300 * rng.normal(size=(COUNT, 17, 3)).astype(np.float32)
    poses[:, 3] += np.float32(17 * moved)  # of one joint, so no similarity hides it
    wave = noise * np.sin(np.arange(COUNT) / 10.0)
    full = np.ones(COUNT, np.float32)
    return Scores(
        poses,
        (equivariance * full + wave).astype(np.float32),
        bones * full,
        density * full,
        expected,
    )


def test_a_candidate_that_is_better_everywhere_is_taken() -> None:
    found = compare(0.5, (rated(45.0, 9.0), GOOD), (rated(), GOOD), FLAT)
    assert found.refused == "" and found.change == pytest.approx(-0.1, abs=1e-6)
    assert found.words() == "50% of the way: -10.0% +- 0.0%"
    further = compare(1.0, (rated(40.0, 9.0), GOOD), (rated(), GOOD), FLAT)
    assert best([found, further]) is further


@pytest.mark.parametrize(
    "given, figures, words",
    [
        ({}, {}, "not better than the start by more than chance"),
        ({"equivariance": 60.0}, {}, "not better than the start by more than chance"),
        ({"equivariance": 48.0, "noise": 20.0}, {}, "not better than the start by more than"),
        ({"equivariance": 40.0, "density": -34.0}, {}, "less likely by 4.0 nats"),
        ({"equivariance": 40.0, "moved": 150.0}, {}, "where the start expects errors of 60"),
        ({"equivariance": 40.0}, {"wrong_views": 4.0}, "its figures say 'use with care'"),
    ],
)
def test_a_candidate_that_is_not_surely_better_is_refused(given, figures, words) -> None:
    found = compare(1.0, (rated(**given), {**GOOD, **figures}), (rated(), GOOD), FLAT)
    assert words in found.refused and best([found]) is None


def test_short_clips_are_compared_without_their_bones() -> None:
    nothing = np.full(COUNT, np.nan, np.float32)
    new, old = rated(45.0)._replace(bones=nothing), rated()._replace(bones=nothing)
    found = compare(1.0, (new, GOOD), (old, GOOD), FLAT)
    assert found.change == pytest.approx(-0.1, abs=1e-6) and not found.refused


def test_without_a_candidate_the_start_stays() -> None:
    assert best([]) is None
