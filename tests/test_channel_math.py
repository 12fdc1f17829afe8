"""csrc/common/graph.h and norm.h in float64: the formulas that SIMD and CUDA code share."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch  # noqa: F401  (its libraries, which the extension needs)

_C = pytest.importorskip("ites._C")


def slope(function, x, step=1e-6):
    return (function(x + step) - function(x - step)) / (2 * step)


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
        numeric = slope(lambda x, unit=unit: grad @ _C.graph.softmax(logits + x * unit), 0.0)
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
    numeric = slope(lambda t: _C.graph.affinity(t, score, share), theta)
    assert _C.graph.affinity_slope(theta, score, share) == pytest.approx(numeric)
    assert _C.graph.affinity_slope(-score, score, share) == 0


def test_moments_join_without_cancellation():
    x = 1e8 + np.array([1.0, 4.0, -2.0, 0.5, 3.0, 3.0, -1.0, 2.5])
    mean, deviation = _C.norm.moments(x[:4], x[4:])
    assert mean == pytest.approx(x.mean(), rel=1e-15)
    assert deviation == pytest.approx(((x - x.mean()) ** 2).sum(), rel=1e-9)


FORMS = ((True, True, False), (True, False, True), (True, False, False), (False, False, True))


@pytest.mark.parametrize("form", FORMS)
def test_batch_norm_relu(form):
    relu, skip_before, skip_after = form
    mean, scale, weight, bias = channel = (0.4, 2.5, -1.5, 0.3)
    for x in (-1.0, 0.2, 0.9):
        for skip in (-2.0, 0.7):
            inner = (x - mean) * scale * weight + bias + skip * skip_before
            expected = (max(inner, 0) if relu else inner) + skip * skip_after
            assert _C.norm.batch_norm_relu(x, skip, channel, form) == pytest.approx(expected)
            passed = 3.0 if inner > 0 or not relu else 0.0
            assert _C.norm.before_relu_backward(3.0, x, skip, channel, form) == passed


def test_batch_norm_backward():
    x, grad = np.array([0.3, -1.0, 2.0, 0.7]), np.array([1.0, 0.0, -2.0, 0.5])
    weight, eps = 1.5, 1e-5

    def normalised(x):
        return (x - x.mean()) / np.sqrt(x.var() + eps)

    y = normalised(x)
    channel = (x.mean(), 1 / np.sqrt(x.var() + eps), weight, 0.0)
    for i, unit in enumerate(np.eye(4)):
        given = _C.norm.batch_norm_backward(grad[i], x[i], grad.mean(), (grad * y).mean(), channel)
        numeric = slope(lambda t, unit=unit: grad @ normalised(x + t * unit) * weight, 0.0)
        assert given == pytest.approx(numeric, abs=1e-8)
