"""csrc/common/graph.h in float64: the formulas that SIMD and CUDA code share."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch  # noqa: F401  (its libraries, which the extension needs)
from slopes import slope_of

_C = pytest.importorskip("ites._C")


def test_softmax():
    logits = np.array([0.3, -1.2, 700.0, 699.0])
    weights = np.array(_C.graph.softmax(logits))
    expected = np.exp(logits - logits.max())
    np.testing.assert_allclose(weights, expected / expected.sum(), rtol=1e-15)
    assert _C.graph.softmax([]) == []


def test_softmax_vjp():
    logits, grad = np.array([0.3, -1.2, 0.9]), np.array([1.0, -2.0, 0.5])
    given = _C.graph.softmax_vjp(_C.graph.softmax(logits), grad)
    for e, unit in enumerate(np.eye(3)):
        numeric = slope_of(lambda x, unit=unit: grad @ _C.graph.softmax(logits + x * unit), 0.0)
        assert given[e] == pytest.approx(numeric, abs=1e-9)


def test_pool_pair_takes_the_first_on_a_tie():
    assert _C.graph.pool_pair(1.0, 2.0) == 2
    assert _C.graph.pool_pair_vjp(1.0, 2.0, 5.0) == [0, 5]
    assert _C.graph.pool_pair_vjp(2.0, 2.0, 5.0) == [5, 0]
    assert math.isnan(_C.graph.pool_pair(math.nan, 2.0))
    assert math.isnan(_C.graph.pool_pair(2.0, math.nan))


@pytest.mark.parametrize("theta", (-1.0, 0.25, 2.0))
def test_affinity(theta):
    score, share = 0.5, 1 / 8
    assert _C.graph.affinity(theta, score, share) == max(theta + score, 0) * share
    numeric = slope_of(lambda t: _C.graph.affinity(t, score, share), theta)
    assert _C.graph.affinity_slope(theta, score, share) == pytest.approx(numeric)
    assert _C.graph.affinity_slope(-score, score, share) == 0
