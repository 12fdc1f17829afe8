"""Smoothing poses in time: Savitzky and Golay's local polynomials, and the One-Euro filter.

Both take (T, J, D) values of one clip, nan where unknown. They keep every nan, and no value crosses
a gap that is longer than the filter.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]

WINDOW = 0.3
"""Window of the local polynomial, seconds; at least five frames."""
DEGREE = 2
MIN_CUTOFF, SPEED_WEIGHT, SPEED_CUTOFF = 3.0, 4.0, 2.0
"""One-Euro: the cutoff frequency at rest (Hz), its growth with speed (Hz per m/s), and the cutoff
frequency of the speed itself (Hz)."""


def local_polynomial(values: Floats, fps: float, window: float = WINDOW) -> Floats:
    """Savitzky-Golay: at each frame the value of the least-squares parabola of its window.

    At the clip's ends and beside unknown frames the parabola fits the frames that exist, so that
    there is no seam. Inside a clip without gaps this is the convolution of the paper. With fewer
    than four known frames in its window a value does not change.

    Args:
        values: (T, J, D), nan where unknown.
        fps: frames per second.
        window: seconds; at least five frames are used.

    Returns:
        (T, J, D).

    Source: Savitzky and Golay, 1964.
    """
    half = max(2, round(window * fps / 2))
    frames, shape = len(values), values.shape
    flat = values.reshape(frames, math.prod(shape[1:])).astype(np.float64)
    known = np.isfinite(flat)
    padded = np.pad(np.where(known, flat, 0), ((half, half), (0, 0)))
    there = np.pad(known.astype(np.float64), ((half, half), (0, 0)))
    at = np.arange(-half, half + 1) / half
    powers = at[:, None] ** np.arange(2 * DEGREE + 1)  # [W, 2 DEGREE + 1]
    windows = range(2 * half + 1)
    moments = sum(there[w : w + frames, :, None] * powers[w] for w in windows)  # [T, C, ...]
    right = sum(padded[w : w + frames, :, None] * powers[w, : DEGREE + 1] for w in windows)
    both = np.add.outer(np.arange(DEGREE + 1), np.arange(DEGREE + 1))
    enough = known & (moments[..., 0] > DEGREE + 1)
    normal = np.where(enough[..., None, None], moments[..., both], np.eye(DEGREE + 1))
    fitted = np.linalg.solve(normal, np.where(enough[..., None], right, 0)[..., None])[..., 0, 0]
    return np.where(enough, fitted, flat).reshape(shape).astype(values.dtype)


def running_median(values: Floats, fps: float, window: float) -> Floats:
    """At each frame the median of its window, so that single wrong values have no effect.

    Args:
        values: (T), nan where unknown.
        fps: frames per second.
        window: seconds; at least five frames are used.

    Returns:
        (T); nan stays nan.
    """
    half = max(2, round(window * fps / 2))
    padded = np.pad(values.astype(np.float64), half, constant_values=np.nan)
    windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * half + 1)
    found = np.full(len(values), np.nan)
    known = np.isfinite(values)
    for start in range(0, len(values), 1 << 14):
        rows = np.flatnonzero(known[start : start + (1 << 14)]) + start
        if len(rows):
            found[rows] = np.nanmedian(windows[rows], axis=1)
    return found


def one_euro(values: Floats, fps: float) -> Floats:
    """The One-Euro filter: a low-pass filter whose cutoff frequency grows with speed.

    `x[t] = a x_in[t] + (1 - a) x[t-1]` with `a = 1 / (1 + fps / (2 pi f))` and
    `f = MIN_CUTOFF + SPEED_WEIGHT |v|`, v the speed filtered likewise at `SPEED_CUTOFF`. It looks
    back only, so it lags a little. After an unknown frame it begins anew.

    Args:
        values: (T, J, D), metres, nan where unknown.
        fps: frames per second.

    Returns:
        (T, J, D).

    Source: Casiez, Roussel and Vogel, CHI 2012.
    """

    def share(cutoff: Floats | float) -> Floats | float:
        return 1 / (1 + fps / (2 * math.pi * cutoff))

    smooth = values.astype(np.float64)
    known = np.asarray(np.isfinite(values).all(-1))
    speed = np.zeros(smooth.shape[1:])
    for t in range(1, len(values)):
        goes_on = (known[t] & known[t - 1])[:, None]
        step = np.where(goes_on, (smooth[t] - values[t - 1]) * fps, 0)
        speed = np.where(goes_on, speed + share(SPEED_CUTOFF) * (step - speed), 0)
        pace = np.linalg.norm(speed, axis=-1, keepdims=True)
        weight = share(MIN_CUTOFF + SPEED_WEIGHT * pace)
        smooth[t] = np.where(
            goes_on, smooth[t - 1] + weight * (smooth[t] - smooth[t - 1]), smooth[t]
        )
    return smooth.astype(values.dtype)


SMOOTHERS: dict[str, Callable[[Floats, float], Floats]] = {
    "savitzky-golay": local_polynomial,
    "one-euro": one_euro,
}
"""By the name that `ites.lift` takes."""
