"""Poses smoothed in time."""

from __future__ import annotations

import numpy as np
import pytest

from ites.pose.smoothing import DEGREE, SMOOTHERS, WINDOW, local_polynomial, one_euro


def way(frames=80, fps=25.0):
    """(T, 3, 3) metres: joints that swing, once per 2 s."""
    t = np.arange(frames)[:, None, None] / fps
    return 0.4 * np.sin(np.pi * t + np.arange(9).reshape(3, 3))


def noise(shape, size=0.02):
    return np.random.default_rng(0).normal(0, size, shape)


def jerks(values):
    return np.linalg.norm(np.diff(values, 2, axis=0), axis=-1).mean()


@pytest.mark.parametrize("name", SMOOTHERS)
@pytest.mark.parametrize("fps", [25.0, 60.0])
def test_noise_goes_and_motion_stays(name, fps):
    true = way(200, fps)
    noisy = true + noise(true.shape)
    smooth = SMOOTHERS[name](noisy, fps)
    assert jerks(smooth) < 0.65 * jerks(noisy)
    lag = 1.15 if name == "one-euro" else 0.7  # it looks back only
    assert np.abs(smooth - true).mean() < lag * np.abs(noisy - true).mean()


def test_inside_a_clip_it_is_savitzky_and_golays_convolution():
    signal = pytest.importorskip("scipy.signal")
    noisy = way() + noise(way().shape)
    half = max(2, round(WINDOW * 25 / 2))
    expected = signal.savgol_filter(noisy, 2 * half + 1, DEGREE, axis=0)
    found = local_polynomial(noisy, 25.0)
    np.testing.assert_allclose(found[half:-half], expected[half:-half], atol=1e-12)


def test_parabolas_pass_also_at_ends_and_gaps():
    t = np.linspace(0, 1, 60)[:, None, None]
    parabola = 1 + 2 * t - 3 * t**2 + np.zeros((60, 2, 3))
    parabola[20:24, 1] = parabola[40:55, 0] = np.nan
    found = local_polynomial(parabola, 25.0)
    np.testing.assert_allclose(found, parabola, atol=1e-9)


@pytest.mark.parametrize("name", SMOOTHERS)
def test_what_is_unknown_stays_so_and_nothing_reaches_across(name):
    values = (way() + noise(way().shape)).astype(np.float32)
    values[30:60] = np.nan
    values[:, 2] = np.nan
    found = SMOOTHERS[name](values, 25.0)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(np.isnan(found), np.isnan(values))
    other = values.copy()
    other[60:] += 5
    np.testing.assert_array_equal(SMOOTHERS[name](other, 25.0)[:30], found[:30])
    np.testing.assert_allclose(SMOOTHERS[name](other, 25.0)[60:, :2], found[60:, :2] + 5, atol=1e-5)
    alone = SMOOTHERS[name](values[60:], 25.0)
    np.testing.assert_allclose(found[60:, :2], alone[:, :2], atol=1e-6)


@pytest.mark.parametrize("frames", [0, 1, 2, 3])
@pytest.mark.parametrize("name", SMOOTHERS)
def test_few_frames_are_frames(name, frames):
    values = way(frames)
    found = SMOOTHERS[name](values, 25.0)
    assert found.shape == values.shape and np.isfinite(found).all()


def test_one_euro_is_the_recursion_of_the_paper():
    values = np.array([0.0, 1.0, 1.0]).reshape(3, 1, 1)
    share = lambda f: 1 / (1 + 10 / (2 * np.pi * f))  # noqa: E731
    speed = share(2.0) * 10
    first = share(3 + 4 * speed)
    speed += share(2.0) * (0 - speed)
    second = first + share(3 + 4 * speed) * (1 - first)
    np.testing.assert_allclose(one_euro(values, 10.0).ravel(), [0, first, second])
