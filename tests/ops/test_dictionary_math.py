"""csrc/common/dictionary.h in float64: the formulas that SIMD and CUDA code share."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch  # noqa: F401  (its libraries, which the extension needs)
from slopes import slope

_C = pytest.importorskip("ites._C")

RNG = np.random.default_rng(0)


def test_reprojection():
    v, w, target = RNG.normal(size=3), RNG.normal(size=3), [0.1, -0.2]
    R = _C.rotation.so3_exp(w)
    error, camera = _C.dictionary.reprojection(v, R, target, 5.0)
    np.testing.assert_allclose(camera, v @ np.reshape(R, (3, 3)), rtol=1e-14)
    assert error == pytest.approx(math.dist(_C.rotation.project(camera, 5.0), target), rel=1e-14)
    identity = np.eye(3).ravel()

    def error_of(joint):
        return _C.dictionary.reprojection(joint, identity, target, 5.0)[0]

    given = _C.dictionary.reprojection_vjp(1.5, v, R, target, 5.0)
    np.testing.assert_allclose(given, 1.5 * slope(error_of, camera), atol=1e-8)
    at_target = _C.dictionary.reprojection_vjp(1.5, [0.5, -1.0, 0.0], identity, target, 5.0)
    assert at_target == [0.0, 0.0, 0.0]


def test_outer_product():
    G, x, g = RNG.normal(size=9), RNG.normal(size=3), RNG.normal(size=3)
    given = _C.dictionary.add_outer(G, x, g)
    np.testing.assert_allclose(given, G + np.outer(x, g).ravel(), rtol=1e-14)
