// Rotations of one pose. Row vectors: X' = X @ R, R stored row by row in nine numbers.
// T is float, double or a group of lanes.
#pragma once

#include "common/philox.h"

namespace ites {

template <class T>
struct Mat3 {
  T m[9];
};

template <class T>
ITES_FN T dot(const Vec3<T>& a, const Vec3<T>& b) {
  return a.x * b.x + a.y * b.y + a.z * b.z;
}

template <class T>
ITES_FN Vec3<T> subtract(const Vec3<T>& a, const Vec3<T>& b) {
  return {a.x - b.x, a.y - b.y, a.z - b.z};
}

template <class T>
ITES_FN Vec3<T> add(const Vec3<T>& a, const Vec3<T>& b) {
  return {a.x + b.x, a.y + b.y, a.z + b.z};
}

template <class T>
ITES_FN T norm(const Vec3<T>& v) {
  return square_root(dot(v, v));
}

// Gradient of g |v| to v, given |v|; zero at v = 0.
template <class T>
ITES_FN Vec3<T> norm_vjp(T g, const Vec3<T>& v, T length) {
  const T scale = select(length > T(0.0f), g / length, T(0.0f));
  return {scale * v.x, scale * v.y, scale * v.z};
}

// v @ R
template <class T>
ITES_FN Vec3<T> rotate(const Vec3<T>& v, const Mat3<T>& R) {
  // clang-format off
  return {v.x * R.m[0] + v.y * R.m[3] + v.z * R.m[6],
          v.x * R.m[1] + v.y * R.m[4] + v.z * R.m[7],
          v.x * R.m[2] + v.y * R.m[5] + v.z * R.m[8]};
  // clang-format on
}

// g @ R^T: the gradient of v @ R to v, and the inverse of a proper rotation.
template <class T>
ITES_FN Vec3<T> rotate_back(const Vec3<T>& g, const Mat3<T>& R) {
  // clang-format off
  return {g.x * R.m[0] + g.y * R.m[1] + g.z * R.m[2],
          g.x * R.m[3] + g.y * R.m[4] + g.z * R.m[5],
          g.x * R.m[6] + g.y * R.m[7] + g.z * R.m[8]};
  // clang-format on
}

// I + s [w]x + t (w^T w - |w|^2 I): with t the coefficient of [w]x^2.
template <class T>
ITES_FN Mat3<T> rodrigues(const Vec3<T>& w, T s, T t) {
  const T one(1.0f), xx = t * w.x * w.x, yy = t * w.y * w.y, zz = t * w.z * w.z;
  const T xy = t * w.x * w.y, xz = t * w.x * w.z, yz = t * w.y * w.z;
  // clang-format off
  return {{one - yy - zz, xy - s * w.z, xz + s * w.y,
           xy + s * w.z, one - xx - zz, yz - s * w.x,
           xz - s * w.y, yz + s * w.x, one - xx - yy}};
  // clang-format on
}

// With f = 1 / (angle + 1e-4): s = f sin(angle), t = f^2 (1 - cos(angle)), and their slopes.
// 1 - cos is taken as 2 sin^2(angle / 2), which keeps its digits near zero.
template <class T>
struct Coefficients {
  T f, sine, cosine, one_minus_cosine;

  explicit ITES_FN Coefficients(T angle) {
    T half_sine, half_cosine;
    sine_cosine(angle * T(0.5f), half_sine, half_cosine);
    f = T(1.0f) / (angle + T(scalar_of<T>(1e-4)));
    sine = T(2.0f) * half_sine * half_cosine;
    one_minus_cosine = T(2.0f) * half_sine * half_sine;
    cosine = T(1.0f) - one_minus_cosine;
  }
  ITES_FN T s() const { return f * sine; }
  ITES_FN T t() const { return f * f * one_minus_cosine; }
  ITES_FN T s_slope() const { return f * cosine - f * f * sine; }
  ITES_FN T t_slope() const { return f * f * sine - T(2.0f) * f * f * f * one_minus_cosine; }
};

// The rotation of a rotation vector: I + f sin(a) [w]x + f^2 (1 - cos(a)) [w]x^2, a = |w|.
template <class T>
ITES_FN Mat3<T> so3_exp(const Vec3<T>& w) {
  const Coefficients<T> c(norm(w));
  return rodrigues(w, c.s(), c.t());
}

// Gradient of so3_exp to w, given G, the gradient to the matrix. Exactly zero at w = 0.
template <class T>
ITES_FN Vec3<T> so3_exp_vjp(const Mat3<T>& G, const Vec3<T>& w) {
  const T angle = norm(w);
  const Coefficients<T> c(angle);
  const T s = c.s(), t = c.t(), trace = G.m[0] + G.m[4] + G.m[8];
  const Vec3<T> skew = {G.m[7] - G.m[5], G.m[2] - G.m[6], G.m[3] - G.m[1]};  // <G, [w]x> = skew . w
  // clang-format off
  const Vec3<T> both = {  // (G + G^T) w
      T(2.0f) * G.m[0] * w.x + (G.m[1] + G.m[3]) * w.y + (G.m[2] + G.m[6]) * w.z,
      (G.m[1] + G.m[3]) * w.x + T(2.0f) * G.m[4] * w.y + (G.m[5] + G.m[7]) * w.z,
      (G.m[2] + G.m[6]) * w.x + (G.m[5] + G.m[7]) * w.y + T(2.0f) * G.m[8] * w.z};
  // clang-format on
  const T quadratic = T(0.5f) * dot(both, w) - trace * dot(w, w);  // <G, [w]x^2>
  const T slope = c.s_slope() * dot(skew, w) + c.t_slope() * quadratic;
  const T radial = select(angle > T(0.0f), slope / angle, T(0.0f)) - T(2.0f) * t * trace;
  return {s * skew.x + t * both.x + radial * w.x, s * skew.y + t * both.y + radial * w.y,
          s * skew.z + t * both.z + radial * w.z};
}

// Distribution of random rotations. The mask `axes` is a sum of x = 1, y = 2, z = 4. The angle is
// uniform in [0, max_angle), the axis uniform on the sphere, circle or pair of directions that the
// mask spans.
template <class S>
struct Draw {
  int axes;
  S max_angle;
};

// Random words as numbers: 24 bits in [0, 1), exact in float, and the top bit as +1 or -1.
template <class T>
struct FromWord {
  static ITES_FN T uniform(uint32_t word) {
    return static_cast<T>(word >> 8) * static_cast<T>(5.9604644775390625e-8);  // 2^-24
  }
  static ITES_FN T sign(uint32_t word) { return word >> 31 ? T(-1) : T(1); }
};

// Turns u in [0, 1) as radians in [-pi, pi): half the rounding of [0, 2 pi).
template <class T>
ITES_FN T radians(T u) {
  const T turn(scalar_of<T>(6.283185307179586));
  return turn * (u - select(u >= T(0.5f), T(1.0f), T(0.0f)));
}

// A direction from two uniform numbers; `sign` is +1 or -1.
template <class T>
ITES_FN Vec3<T> random_axis(int axes, T u1, T u2, T sign) {
  const T zero(0.0f), one(1.0f), two(2.0f);
  T sine, cosine;
  switch (axes) {
    case 1: return {sign, zero, zero};
    case 2: return {zero, sign, zero};
    case 4: return {zero, zero, sign};
    default: break;
  }
  sine_cosine(radians(axes == 7 ? u2 : u1), sine, cosine);
  switch (axes) {
    case 3: return {cosine, sine, zero};
    case 5: return {cosine, zero, sine};
    case 6: return {zero, cosine, sine};
    default: break;
  }
  // z = 2u - 1 and sqrt(1 - z^2), the latter without its cancellation near the poles.
  const T radius = two * square_root(u1 * (one - u1));
  return {radius * cosine, radius * sine, two * u1 - one};
}

// A random rotation from Philox's words: uniform angle, uniform axis.
template <class T, class W>
ITES_FN Mat3<T> random_rotation(const W (&words)[4], const Draw<scalar_of<T>>& draw) {
  using From = FromWord<T>;
  const T angle = T(draw.max_angle) * From::uniform(words[0]);
  const Vec3<T> axis = random_axis(draw.axes, From::uniform(words[1]), From::uniform(words[2]),
                                   From::sign(words[1]));
  const Coefficients<T> c(angle);  // so3_exp(angle * axis), |axis| = 1
  return rodrigues(axis, angle * c.s(), angle * angle * c.t());
}

// Rx(e) @ Ry(a) @ Rx(-f), exact rotations: a turn by a about the vertical of a camera of elevation
// e, seen by one of elevation f. Positive elevations look down: y points down, z forward.
template <class T>
ITES_FN Mat3<T> turn_seen(T e, T a, T f) {
  T se, ce, sa, ca, sf, cf;
  sine_cosine(e, se, ce);
  sine_cosine(a, sa, ca);
  sine_cosine(f, sf, cf);
  // clang-format off
  return {{ca, -(sa * sf), sa * cf,
           se * sa, ce * cf + se * ca * sf, ce * sf - se * ca * cf,
           -(ce * sa), se * cf - ce * ca * sf, se * sf + ce * ca * cf}};
  // clang-format on
}

// A random turn from Philox's words: uniform azimuth, normal elevation of the new camera (Box and
// Muller; 1 - u is exact and at least 2^-24).
template <class T, class W>
ITES_FN Mat3<T> random_turn(const W (&words)[4], T elevation, T mean, T deviation) {
  using From = FromWord<T>;
  const T radius = square_root(T(-2.0f) * logarithm(T(1.0f) - From::uniform(words[1])));
  T sine, cosine;
  sine_cosine(radians(From::uniform(words[2])), sine, cosine);
  return turn_seen(elevation, radians(From::uniform(words[0])),
                   mean + deviation * (radius * cosine));
}

// Gradient of v @ turn_seen(e, a, f) to e, given that to v: d Rx(e) / de = [x]x Rx(e).
template <class T>
ITES_FN T elevation_vjp(const Vec3<T>& g, const Vec3<T>& v) {
  return g.y * v.z - g.z * v.y;
}

// Perspective at unit focal length, the subject `distance` away: (x, y) / max(distance + z, 1).
template <class T>
struct Projection {
  T x, y, inverse_depth;
  decltype(T() >= T()) free;  // the depth is not clamped

  ITES_FN Projection(const Vec3<T>& v, T distance) {
    const T depth = distance + v.z;
    free = depth >= T(1.0f);
    inverse_depth = T(1.0f) / select(free, depth, T(1.0f));
    x = v.x * inverse_depth;
    y = v.y * inverse_depth;
  }

  // Gradient to the point, given that to its projection.
  ITES_FN Vec3<T> vjp(T gx, T gy) const {
    return {gx * inverse_depth, gy * inverse_depth,
            select(free, -(gx * x + gy * y) * inverse_depth, T(0.0f))};
  }
};

// The point seen at (px, py) with depth d: (px, py) * max(d + distance, 1), d.
template <class T>
ITES_FN Vec3<T> backproject(T px, T py, T d, T distance) {
  const T depth = d + distance, reach = select(depth >= T(1.0f), depth, T(1.0f));
  return {px * reach, py * reach, d};
}

// Gradients of backproject to the projection and the depth, given that to the point.
template <class T>
ITES_FN Vec3<T> backproject_vjp(const Vec3<T>& g, T px, T py, T d, T distance) {
  const T depth = d + distance;
  const auto free = depth >= T(1.0f);
  const T reach = select(free, depth, T(1.0f));
  return {g.x * reach, g.y * reach, g.z + select(free, g.x * px + g.y * py, T(0.0f))};
}

}  // namespace ites
