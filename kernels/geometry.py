"""Rotations, the networks' camera and packed stores as device functions, all in float32.

A rotation is kept as (c, q), four numbers, with `R = I + 2 c [q]x + 2 [q]x^2`. For a rotation
vector w with a = |w| and f = 1 / (a + 1e-4) these are `c = cos(a / 2)` and `q = f sin(a / 2) w`.
This is the paper's formula, since `2 c q = f sin(a) w` and `2 (f sin(a / 2))^2 = f^2 (1 - cos a)`.
"""

import triton
import triton.language as tl

from .philox import philox_words, uniform


@triton.jit
def _sin_cos_near(r, quarters):
    """Sine and cosine of r + quarters * pi / 2, with |r| <= pi / 4, to 1e-7."""
    r2 = r * r
    s = r + r * r2 * (-1.6666654611e-1 + r2 * (8.3321608736e-3 - r2 * 1.9515295891e-4))
    c = 4.166664568298827e-2 + r2 * (-1.388731625493765e-3 + r2 * 2.443315711809948e-5)
    c = 1.0 - 0.5 * r2 + r2 * r2 * c
    n = quarters.to(tl.int32)
    odd = (n & 1) != 0
    sine, cosine = tl.where(odd, c, s), tl.where(odd, s, c)
    return (
        tl.where((n & 2) != 0, -sine, sine),
        tl.where(((n + 1) & 2) != 0, -cosine, cosine),
    )


@triton.jit
def sin_cos(angle):
    """Sine and cosine of radians up to 1e4, without the slow path and local memory of `tl.sin`."""
    quarters = tl.floor(angle * 0.6366197723675814 + 0.5)
    # pi / 2 in three parts, the first two short: their products with `quarters` are exact.
    r = angle - quarters * 1.5703125 - quarters * 4.837512969970703e-4
    return _sin_cos_near(r - quarters * 7.549789948768648e-8, quarters)


@triton.jit
def sin_cos_quarters(angle):
    """Sine and cosine of an angle in quarter turns; whole ones are taken off exactly."""
    quarters = tl.floor(angle + 0.5)
    return _sin_cos_near((angle - quarters) * 1.5707963267948966, quarters)


@triton.jit
def inverse(length):
    """1 / length, and 0 where length is 0, so the gradient of |v| is 0 at v = 0."""
    return 1.0 / tl.where(length > 0.0, length, float("inf"))


@triton.jit
def exp_quaternion(x, y, z):
    """(c, qx, qy, qz) of a rotation vector."""
    angle = tl.sqrt(x * x + y * y + z * z)
    sine, cosine = sin_cos(0.5 * angle)
    scale = sine / (angle + 1e-4)
    return cosine, scale * x, scale * y, scale * z


@triton.jit
def exp_vjp(x, y, z, g00, g01, g02, g10, g11, g12, g20, g21, g22):
    """The gradient to a rotation vector of `sum(g * so3_exp(w))`; zero at w = 0."""
    angle = tl.sqrt(x * x + y * y + z * z)
    sine, cosine = sin_cos(0.5 * angle)
    f = 1.0 / (angle + 1e-4)
    s = 2.0 * f * sine * cosine  # f sin(a)
    t = 2.0 * f * f * sine * sine  # f^2 (1 - cos a)
    s_slope = f * (cosine * cosine - sine * sine) - f * s
    t_slope = f * s - 2.0 * f * t
    vx, vy, vz = g21 - g12, g02 - g20, g10 - g01
    trace = g00 + g11 + g22
    mx = 2.0 * (g00 - trace) * x + (g01 + g10) * y + (g02 + g20) * z
    my = (g01 + g10) * x + 2.0 * (g11 - trace) * y + (g12 + g21) * z
    mz = (g02 + g20) * x + (g12 + g21) * y + 2.0 * (g22 - trace) * z
    # <g, [w]x> = v . w is linear in w and <g, [w]x^2> = m . w / 2 is quadratic.
    to_angle = s_slope * (vx * x + vy * y + vz * z) + 0.5 * t_slope * (mx * x + my * y + mz * z)
    along = to_angle * inverse(angle)
    return s * vx + t * mx + along * x, s * vy + t * my + along * y, s * vz + t * mz + along * z


@triton.jit
def drawn_quaternion(counter, pose, sample, half_turns, AXES: tl.constexpr):
    """(c, qx, qy, qz) of a draw with angles up to `half_turns` * pi; AXES: x 1, y 2, z 4, added.

    Angles are kept in turns until they are small, so the paper's ranges, pi and 2 pi, are exact.
    """
    u0, u1, u2, _ = philox_words(counter, pose, sample)
    turns = half_turns * uniform(u0)
    sine, cosine = sin_cos_quarters(turns)  # of half the angle
    angle = 3.141592653589793 * turns
    scale = sine - sine * (1e-4 / (angle + 1e-4))  # sine * angle / (angle + 1e-4), rounded less
    zero = tl.zeros_like(scale)
    if AXES == 7:
        z = 2.0 * uniform(u1) - 1.0
        along_y, along_x = sin_cos_quarters(4.0 * uniform(u2))
        radius = tl.sqrt((1.0 - z) * (1.0 + z))
        x, y = radius * along_x, radius * along_y
    elif AXES == 1 or AXES == 2 or AXES == 4:
        sign = tl.where(u1 < 0x80000000, 1.0, -1.0)
        x = sign if AXES == 1 else zero
        y = sign if AXES == 2 else zero
        z = sign if AXES == 4 else zero
    else:
        second, first = sin_cos_quarters(4.0 * uniform(u1))
        x = zero if AXES == 6 else first
        y = zero if AXES == 5 else (second if AXES == 3 else first)
        z = zero if AXES == 3 else second
    return cosine, scale * x, scale * y, scale * z


@triton.jit
def logarithm(x):
    """The natural logarithm of a positive normal number, to 1e-7 relative; `tl.log` is not near 1.

    Cephes' single precision polynomial, of a mantissa in [sqrt(1/2), sqrt(2)).
    """
    bits = x.to(tl.int32, bitcast=True)
    exponent = (bits - 0x3F3504F3) >> 23
    r = (bits - (exponent << 23)).to(tl.float32, bitcast=True) - 1.0
    k = exponent.to(tl.float32)
    p = -1.1514610310e-1 + r * 7.0376836292e-2
    p = -1.2420140846e-1 + r * (1.1676998740e-1 + r * p)
    p = -1.6668057665e-1 + r * (1.4249322787e-1 + r * p)
    p = -2.4999993993e-1 + r * (2.0000714765e-1 + r * p)
    p = 3.3333331174e-1 + r * p
    r2 = r * r
    return (r + (r * r2 * p - k * 2.12194440e-4 - 0.5 * r2)) + k * 0.693359375


@triton.jit
def turn_quaternion(counter, pose, sample, elevation, mean, deviation):
    """(c, qx, qy, qz) of `Rx(e) Ry(a) Rx(-f)`, a drawn uniformly, f from N(mean, deviation).

    The quaternion has unit length, so the rotations are exact.
    """
    u0, u1, u2, _ = philox_words(counter, pose, sample)
    _, cosine = sin_cos_quarters(4.0 * uniform(u2))
    drawn = mean + deviation * tl.sqrt(-2.0 * logarithm(1.0 - uniform(u1))) * cosine
    turns = uniform(u0)
    sa, ca = sin_cos_quarters(2.0 * tl.where(turns < 0.5, turns, turns - 1.0))  # of half of a
    sd, cd = sin_cos(0.5 * (elevation - drawn))
    ss, cs = sin_cos(0.5 * (elevation + drawn))
    return ca * cd, ca * sd, sa * cs, sa * ss


@triton.jit
def rotate(x, y, z, c, qx, qy, qz):
    """(x, y, z) @ R; with -q for q, (x, y, z) @ R^T."""
    tx, ty, tz = 2.0 * (y * qz - z * qy), 2.0 * (z * qx - x * qz), 2.0 * (x * qy - y * qx)
    return (
        x + c * tx + (ty * qz - tz * qy),
        y + c * ty + (tz * qx - tx * qz),
        z + c * tz + (tx * qy - ty * qx),
    )


@triton.jit
def store_matrices(pointer, c, qx, qy, qz, count):
    """Store the matrices of the first `count` of N rotations at consecutive addresses.

    Nine of 16 threads write one entry each. `tl.gather` passes them the rotation; otherwise Triton
    would recompute it in every thread.
    """
    slot = tl.arange(0, 16 * c.shape[0])
    which, entry = slot // 16, slot % 16
    row, column = entry // 3, entry % 3
    c = tl.gather(c, which, 0)
    qx, qy, qz = tl.gather(qx, which, 0), tl.gather(qy, which, 0), tl.gather(qz, which, 0)
    left = tl.where(row == 0, qx, tl.where(row == 1, qy, qz))
    right = tl.where(column == 0, qx, tl.where(column == 1, qy, qz))
    axis = 3 - row - column  # of [q]x, negated where column follows row cyclically
    skew = tl.where(axis == 0, qx, tl.where(axis == 1, qy, qz))
    skew = tl.where((column - row + 3) % 3 == 1, -skew, skew)
    diagonal = 1.0 - 2.0 * (qx * qx + qy * qy + qz * qz)
    value = 2.0 * left * right + tl.where(row == column, diagonal, 2.0 * c * skew)
    tl.store(pointer + 9 * which + entry, value, mask=(entry < 9) & (which < count))


@triton.jit
def project(x, y, z, distance):
    """Points of the networks' camera: `(x, y) / max(distance + z, 1)`."""
    scale = 1.0 / tl.maximum(z + distance, 1.0)
    return x * scale, y * scale


@triton.jit
def project_vjp(gx, gy, x, y, z, distance):
    """The gradient to (x, y, z) of a gradient (gx, gy) to its projection."""
    scale = 1.0 / tl.maximum(z + distance, 1.0)
    gz = -(gx * x + gy * y) * scale * scale
    return gx * scale, gy * scale, tl.where(z + distance >= 1.0, gz, 0.0)


@triton.jit
def load_vectors(pointer, at, mask):
    """x, y, z of the vectors number `at`."""
    return (
        tl.load(pointer + 3 * at, mask=mask, other=0.0),
        tl.load(pointer + 3 * at + 1, mask=mask, other=0.0),
        tl.load(pointer + 3 * at + 2, mask=mask, other=0.0),
    )


@triton.jit
def pack_vectors(x, y, z):
    """Three [..., N] -> [..., N, 4] flattened: x, y, z and one unused entry.

    In this layout neighbouring threads store to neighbouring addresses. Three separate stores would
    each touch every memory sector.
    """
    return tl.join(tl.join(x, z), tl.join(y, z))
