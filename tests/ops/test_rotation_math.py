"""csrc/common/rotation.h, philox.h and scalar.h in float64: what SIMD and CUDA code share."""

from __future__ import annotations

import math

import mpmath
import numpy as np
import pytest
import torch  # noqa: F401  (its libraries, which the extension needs)
from slopes import slope

_C = pytest.importorskip("ites._C")

RNG = np.random.default_rng(0)
VECTORS = [
    np.zeros(3),
    np.array([1e-8, 0.0, -1e-9]),
    np.array([0.0, math.pi, 0.0]),
    *RNG.normal(size=(4, 3)),
    40 * RNG.normal(size=3),
]


# Random123's kat_vectors: counter, key, result.
@pytest.mark.parametrize(
    ("counter", "key", "words"),
    [
        ([0] * 4, [0] * 2, [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
        (
            [0xFFFFFFFF] * 4,
            [0xFFFFFFFF] * 2,
            [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD],
        ),
        (
            [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
            [0xA4093822, 0x299F31D0],
            [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
        ),
    ],
)
def test_philox_known_answers(counter, key, words):
    assert _C.rotation.philox(counter, key) == words


def test_random_words_are_philox_of_the_counter():
    seed, offset, first = 0x0123456789ABCDEF, 0x00000005FFFFFFFE, 2**32 - 2
    words = _C.rotation.random_words([seed, offset, first], 3, 9)
    counter = [1, 9, 0xFFFFFFFE, 5]  # the pose wraps at 2^32
    assert words == _C.rotation.philox(counter, [0x89ABCDEF, 0x01234567])


def exact_so3_exp(w):
    """The paper's formula, digit by digit: an mpmath matrix."""
    w = [mpmath.mpf(float(x)) if not isinstance(x, mpmath.mpf) else x for x in w]
    angle = mpmath.sqrt(sum(x * x for x in w))
    f = 1 / (angle + mpmath.mpf("1e-4"))
    x, y, z = w
    hat = mpmath.matrix([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return (
        mpmath.eye(3) + f * mpmath.sin(angle) * hat + f**2 * (1 - mpmath.cos(angle)) * (hat * hat)
    )


def as_array(matrix):
    return np.array([[float(matrix[i, j]) for j in range(3)] for i in range(3)])


@pytest.mark.parametrize("w", VECTORS, ids=str)
def test_so3_exp(w):
    with mpmath.workdps(40):
        exact = as_array(exact_so3_exp(w))
    np.testing.assert_allclose(np.reshape(_C.rotation.so3_exp(w), (3, 3)), exact, atol=2e-15)


@pytest.mark.parametrize("w", VECTORS[2:], ids=str)
def test_so3_exp_vjp(w):
    gradient = RNG.normal(size=(3, 3))
    expected = []
    with mpmath.workdps(40):
        weights = mpmath.matrix(gradient.tolist())
        for axis in range(3):

            def value(x, axis=axis):
                moved = [mpmath.mpf(float(c)) for c in w]
                moved[axis] += x
                R = exact_so3_exp(moved)
                return sum(weights[i, j] * R[i, j] for i in range(3) for j in range(3))

            expected.append(float(mpmath.diff(value, 0)))
    given = _C.rotation.so3_exp_vjp(gradient.ravel(), w)
    np.testing.assert_allclose(given, expected, rtol=1e-11, atol=1e-11)


def test_so3_exp_vjp_is_zero_at_zero():
    assert _C.rotation.so3_exp_vjp(RNG.normal(size=9), [0.0, 0.0, 0.0]) == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("axes", range(1, 8))
def test_random_rotation(axes):
    words = [0x9E3779B9, 0xC2B2AE35, 0x27D4EB2F, 0]
    u = [(word >> 8) / 2**24 for word in words]
    with mpmath.workdps(40):
        which = [i for i in range(3) if axes >> i & 1]
        axis = [mpmath.mpf(0)] * 3
        if len(which) == 3:
            height, turn = 2 * mpmath.mpf(u[1]) - 1, 2 * mpmath.pi * u[2]
            radius = mpmath.sqrt(1 - height**2)
            axis = [radius * mpmath.cos(turn), radius * mpmath.sin(turn), height]
        elif len(which) == 2:
            turn = 2 * mpmath.pi * u[1]
            axis[which[0]], axis[which[1]] = mpmath.cos(turn), mpmath.sin(turn)
        else:
            axis[which[0]] = mpmath.mpf(-1)  # the top bit of words[1] is set
        exact = as_array(exact_so3_exp([3 * mpmath.mpf(u[0]) * x for x in axis]))
    given = np.reshape(_C.rotation.random_rotation(words, axes, 3.0), (3, 3))
    np.testing.assert_allclose(given, exact, atol=2e-15)


def exact_axis_rotation(axis, angle):
    """Rx or Ry digit by digit, by the exact exponential of [angle * axis]x."""
    x, y = (angle, mpmath.mpf(0)) if axis == "x" else (mpmath.mpf(0), angle)
    return mpmath.expm(mpmath.matrix([[0, 0, y], [0, 0, -x], [-y, x, 0]]))


@pytest.mark.parametrize("elevation", (0.0, 0.4, -2.9))
def test_random_turn(elevation):
    words = [0x9E3779B9, 0xC2B2AE35, 0x27D4EB2F, 0]
    mean, deviation = -0.15, 0.3
    with mpmath.workdps(40):
        u = [mpmath.mpf(word >> 8) / 2**24 for word in words]
        normal = mpmath.sqrt(-2 * mpmath.log(1 - u[1])) * mpmath.cos(2 * mpmath.pi * u[2])
        new = mpmath.mpf(mean) + mpmath.mpf(deviation) * normal
        azimuth = 2 * mpmath.pi * u[0]
        turn = exact_axis_rotation("x", mpmath.mpf(elevation)) * exact_axis_rotation("y", azimuth)
        exact = as_array(turn * exact_axis_rotation("x", -new))
    given = np.reshape(_C.rotation.random_turn(words, elevation, [mean, deviation]), (3, 3))
    np.testing.assert_allclose(given, exact, atol=2e-15)


def test_random_turn_at_the_ends_of_its_words():
    """The farthest elevation that 24 bits give, 5.8 deviations, and none."""
    farthest = _C.rotation.random_turn([0, 2**32 - 1, 0, 0], 0.0, [0.1, 0.2])
    expected = _C.rotation.turn_seen(0.0, 0.0, 0.1 + 0.2 * np.sqrt(48 * np.log(2)))
    np.testing.assert_allclose(farthest, expected, atol=2e-15)
    assert _C.rotation.random_turn([0, 0, 0, 0], 0.3, [0.1, 0.2]) == _C.rotation.turn_seen(
        0.3, 0.0, 0.1
    )


def test_elevation_vjp():
    g, v, u = RNG.normal(size=(3, 3))

    def there(e):
        return g @ _C.rotation.rotate(v, _C.rotation.turn_seen(e[0], 1.1, -0.2))

    def back(e):
        return g @ _C.rotation.rotate_back(u, _C.rotation.turn_seen(e[0], 1.1, -0.2))

    R = _C.rotation.turn_seen(0.7, 1.1, -0.2)
    given = _C.rotation.elevation_vjp(_C.rotation.rotate_back(g, R), v)
    np.testing.assert_allclose(given, slope(there, [0.7])[0], atol=1e-9)
    given = -_C.rotation.elevation_vjp(g, _C.rotation.rotate_back(u, R))
    np.testing.assert_allclose(given, slope(back, [0.7])[0], atol=1e-9)


def test_single_precision_logarithm():
    """Within 1e-7 of the truth, relative: near 1 as well, where Box and Muller need it."""
    wide = 10 ** RNG.uniform(-37, 38, 4000)
    near = 1 - RNG.integers(1, 2**12, 2000) / 2**24
    numbers = np.concatenate([wide, near, RNG.uniform(0.5, 2, 2000)]).astype(np.float32)
    given = np.array([_C.rotation.logarithm(float(x)) for x in numbers])
    exact = np.log(numbers.astype(float))
    assert (np.abs(given - exact) <= 1e-7 * np.abs(exact)).all()
    assert _C.rotation.logarithm(1.0) == 0.0


def test_single_precision_sine_and_cosine():
    """Within 1e-7 of the truth up to 8192, within 1e-6 up to 1e9."""
    near = RNG.uniform(-8192, 8192, 4000)
    far = 10 ** RNG.uniform(4, 9, 500)
    for angles, bound in ((near, 1e-7), (far, 1e-6)):
        angles = angles.astype(np.float32)
        given = np.array([_C.rotation.sine_cosine(float(angle)) for angle in angles])
        exact = np.stack([np.sin(angles.astype(float)), np.cos(angles.astype(float))], axis=1)
        assert np.abs(given - exact).max() < bound


@pytest.mark.parametrize("v", ([0.3, -0.2, 1.0], [0.3, -0.2, -4.5]), ids=("free", "clamped"))
def test_projection_vjp(v):
    g = np.array([0.7, -1.3])
    expected = slope(lambda x: g @ _C.rotation.project(x, 5.0), v)
    np.testing.assert_allclose(_C.rotation.project_vjp(g, v, 5.0), expected, atol=1e-9)


def test_projection_passes_its_gradient_at_the_clamp():
    """As torch.clamp(min=1) does: the depth counts as free where it is exactly 1."""
    assert _C.rotation.project_vjp([1.0, 0.0], [2.0, 0.0, -4.0], 5.0) == [1.0, 0.0, -2.0]


@pytest.mark.parametrize("depth", (0.4, -4.5), ids=("free", "clamped"))
def test_backprojection_vjp(depth):
    g, p = RNG.normal(size=3), [0.2, -0.1]
    expected = slope(lambda x: g @ _C.rotation.backproject(x[:2], x[2], 5.0), [*p, depth])
    given = _C.rotation.backproject_vjp(g, p, depth, 5.0)
    np.testing.assert_allclose(given, expected, atol=1e-9)


def test_rotation_acts_on_rows():
    v, R = RNG.normal(size=3), RNG.normal(size=(3, 3))
    np.testing.assert_allclose(_C.rotation.rotate(v, R.ravel()), v @ R, rtol=1e-14)
    np.testing.assert_allclose(_C.rotation.rotate_back(v, R.ravel()), v @ R.T, rtol=1e-14)


def test_norm_vjp_is_zero_at_zero():
    assert _C.rotation.norm_vjp(2.0, [0.0, 0.0, 0.0]) == [0.0, 0.0, 0.0]
    np.testing.assert_allclose(_C.rotation.norm_vjp(2.0, [3.0, 0.0, 4.0]), [1.2, 0.0, 1.6])
