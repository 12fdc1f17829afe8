"""Numeric derivatives, against which the tests of the math hold the exact ones."""

from __future__ import annotations

import numpy as np


def slope(function, x, step=1e-6):
    """The gradient of a function of a vector, by central differences."""
    x = np.asarray(x, dtype=float)
    return np.array(
        [(function(x + step * e) - function(x - step * e)) / (2 * step) for e in np.eye(len(x))]
    )


def slope_of(function, x, step=1e-6):
    """The derivative of a function of one number."""
    return (function(x + step) - function(x - step)) / (2 * step)
