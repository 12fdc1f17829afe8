"""csrc/common/norm.h in float64: the formulas that SIMD and CUDA code share."""

from __future__ import annotations

import numpy as np
import pytest
import torch  # noqa: F401  (its libraries, which the extension needs)
from slopes import slope_of

_C = pytest.importorskip("ites._C")


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
        numeric = slope_of(lambda t, unit=unit: grad @ normalised(x + t * unit) * weight, 0.0)
        assert given == pytest.approx(numeric, abs=1e-8)
