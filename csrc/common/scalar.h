// The number operations of the per-pose math, for float and double. csrc/cpu/lanes.h adds the same
// functions for a group of lanes, so that one formula runs as scalar, SIMD and CUDA code.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#ifdef __CUDACC__
#define ITES_FN __host__ __device__ __forceinline__
#else
#define ITES_FN inline __attribute__((always_inline))
#endif

namespace ites {

template <class T>
struct Vec3 {
  T x, y, z;
};

// The number type behind T: float for float and for a group of float lanes.
template <class T>
struct ScalarOf {
  using type = T;
};
template <class T>
using scalar_of = typename ScalarOf<T>::type;

ITES_FN float select(bool condition, float yes, float no) { return condition ? yes : no; }
ITES_FN double select(bool condition, double yes, double no) { return condition ? yes : no; }

ITES_FN float square_root(float x) { return sqrtf(x); }
ITES_FN double square_root(double x) { return sqrt(x); }

ITES_FN float exponential(float x) { return expf(x); }
ITES_FN double exponential(double x) { return exp(x); }

// sin and cos for |r| <= pi/4 (Cephes' single precision polynomials, error below 1 ulp there).
template <class T>
ITES_FN void sincos_near_zero(T r, T& sine, T& cosine) {
  const T r2 = r * r;
  const T s = T(8.3321608736e-3f) + r2 * T(-1.9515295891e-4f);
  const T c = T(-1.388731625493765e-3f) + r2 * T(2.443315711809948e-5f);
  sine = r + r * r2 * (T(-1.6666654611e-1f) + r2 * s);
  cosine = T(1.0f) - T(0.5f) * r2 + r2 * r2 * (T(4.166664568298827e-2f) + r2 * c);
}

// The quadrant's sign and exchange: sin and cos of r + quadrant * pi/2.
ITES_FN void rotate_quadrant(int quadrant, float& sine, float& cosine) {
  const float s = (quadrant & 1) ? cosine : sine;
  const float c = (quadrant & 1) ? sine : cosine;
  sine = (quadrant & 2) ? -s : s;
  cosine = ((quadrant + 1) & 2) ? -c : c;
}

// sin and cos together, error below 1e-7 for |angle| <= 8192 and below 1e-6 up to 1e9.
// One code for host and device: CUDA's sincosf would keep a table in local memory.
ITES_FN void sine_cosine(float angle, float& sine, float& cosine) {
  float r;
  int quadrant;
  if (fabsf(angle) <= 8192.0f) {
    const float k = rintf(angle * 0.636619772f);
    r = ((angle - k * 1.5703125f) - k * 4.837512969970703125e-4f) - k * 7.54978995489188216e-8f;
    quadrant = static_cast<int>(k);
  } else {
    const double k = rint(angle * 0.63661977236758134);
    r = static_cast<float>((angle - k * 1.57079632673412561) - k * 6.07710050650619224e-11);
    quadrant = static_cast<int>(static_cast<int64_t>(k) & 3);
  }
  sincos_near_zero(r, sine, cosine);
  rotate_quadrant(quadrant, sine, cosine);
}
ITES_FN void sine_cosine(double angle, double& sine, double& cosine) {
  sine = sin(angle);
  cosine = cos(angle);
}

// log(mantissa * 2^exponent), the mantissa in [sqrt(1/2), sqrt(2)) (Cephes' single precision
// polynomial, error below 1 ulp of the result).
template <class T>
ITES_FN T log_of_parts(T mantissa, T exponent) {
  const T r = mantissa - T(1.0f), r2 = r * r;
  T p = T(-1.1514610310e-1f) + r * T(7.0376836292e-2f);
  p = T(1.1676998740e-1f) + r * p;
  p = T(-1.2420140846e-1f) + r * p;
  p = T(1.4249322787e-1f) + r * p;
  p = T(-1.6668057665e-1f) + r * p;
  p = T(2.0000714765e-1f) + r * p;
  p = T(-2.4999993993e-1f) + r * p;
  p = T(3.3333331174e-1f) + r * p;
  return (r + (r * r2 * p - exponent * T(2.12194440e-4f) - T(0.5f) * r2)) +
         exponent * T(0.693359375f);
}

constexpr int32_t HALF_ROOT_BITS = 0x3F3504F3;  // sqrt(1/2) as a float

// The natural logarithm of a positive normal number, accurate near 1 too.
ITES_FN float logarithm(float x) {
  int32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  const int32_t exponent = (bits - HALF_ROOT_BITS) >> 23;
  bits -= exponent * (1 << 23);
  float mantissa;
  std::memcpy(&mantissa, &bits, sizeof bits);
  return log_of_parts(mantissa, static_cast<float>(exponent));
}
ITES_FN double logarithm(double x) { return log(x); }

}  // namespace ites
