// A group of numbers that move together: the compiler's vector type, ITES_LANE_BYTES wide, as a
// register is (GCC keeps a wider vector in memory). It offers what csrc/common/scalar.h offers for
// one number, and the shared math runs on it unchanged.
#pragma once

#ifdef __x86_64__
#include <immintrin.h>
#endif

#include <cstring>

#include "common/rotation.h"

namespace ites {
namespace ITES_SIMD {

// N numbers of type T as the compiler's vector type.
template <class T, int N>
struct VectorOf {
  typedef T type __attribute__((vector_size(N * sizeof(T))));
};
template <class T, int N>
using vector_of = typename VectorOf<T, N>::type;

template <class T, int N>
struct Lanes {
  using Vector = vector_of<T, N>;
  Vector v;

  static constexpr int count = N;

  Lanes() = default;
  ITES_FN Lanes(Vector vector) : v(vector) {}
  ITES_FN Lanes(T scalar) : v(scalar - Vector{}) {}

  static ITES_FN Lanes load(const T* from) {
    Lanes out;
    std::memcpy(&out.v, from, sizeof(Vector));
    return out;
  }
  ITES_FN void store(T* to) const { std::memcpy(to, &v, sizeof(Vector)); }
};

using Floats = Lanes<float, ITES_LANE_BYTES / 4>;
using Doubles = Lanes<double, ITES_LANE_BYTES / 8>;
template <int N>
using Words = Lanes<uint32_t, N>;

template <class T>
struct LanesOf;
template <>
struct LanesOf<float> {
  using type = Floats;
};
template <>
struct LanesOf<double> {
  using type = Doubles;
};
template <class T>
using lanes_of = typename LanesOf<T>::type;

#define ITES_LANES_OPERATOR(OP)                                           \
  template <class T, int N>                                               \
  ITES_FN Lanes<T, N> operator OP(Lanes<T, N> a, Lanes<T, N> b) {         \
    return Lanes<T, N>(vector_of<T, N>(a.v OP b.v));                      \
  }                                                                       \
  template <class T, int N>                                               \
  ITES_FN Lanes<T, N>& operator OP## = (Lanes<T, N> & a, Lanes<T, N> b) { \
    a.v = a.v OP b.v;                                                     \
    return a;                                                             \
  }
ITES_LANES_OPERATOR(+)
ITES_LANES_OPERATOR(-)
ITES_LANES_OPERATOR(*)
ITES_LANES_OPERATOR(/)
ITES_LANES_OPERATOR(^)
#undef ITES_LANES_OPERATOR

template <class T, int N>
ITES_FN Lanes<T, N> operator-(Lanes<T, N> a) {
  return Lanes<T, N>(vector_of<T, N>(-a.v));
}

#define ITES_LANES_COMPARE(OP)                             \
  template <class T, int N>                                \
  ITES_FN auto operator OP(Lanes<T, N> a, Lanes<T, N> b) { \
    return a.v OP b.v;                                     \
  }
ITES_LANES_COMPARE(>=)
ITES_LANES_COMPARE(>)
ITES_LANES_COMPARE(!=)
#undef ITES_LANES_COMPARE

template <class Mask, class T, int N>
ITES_FN Lanes<T, N> select(Mask mask, Lanes<T, N> yes, Lanes<T, N> no) {
  return Lanes<T, N>(vector_of<T, N>(mask ? yes.v : no.v));
}

template <class T, int N>
ITES_FN Lanes<T, N> square_root(Lanes<T, N> x) {
  for (int lane = 0; lane < N; ++lane) x.v[lane] = ites::square_root(static_cast<T>(x.v[lane]));
  return x;
}

// The 64-bit products of every other lane, the first included: an instruction that GCC does not
// find by itself.
#ifdef __x86_64__
ITES_FN auto products_of_even(vector_of<uint32_t, 4> a, vector_of<uint32_t, 4> b) {
  return (vector_of<uint64_t, 2>)_mm_mul_epu32((__m128i)a, (__m128i)b);
}
#if ITES_LANE_BYTES >= 32
ITES_FN auto products_of_even(vector_of<uint32_t, 8> a, vector_of<uint32_t, 8> b) {
  return (vector_of<uint64_t, 4>)_mm256_mul_epu32((__m256i)a, (__m256i)b);
}
#endif
#if ITES_LANE_BYTES >= 64
ITES_FN auto products_of_even(vector_of<uint32_t, 16> a, vector_of<uint32_t, 16> b) {
  return (vector_of<uint64_t, 8>)_mm512_mul_epu32((__m512i)a, (__m512i)b);
}
#endif
#endif
template <class Vector>
ITES_FN auto products_of_even(Vector a, Vector b) {
  using Wide = vector_of<uint64_t, sizeof(Vector) / 8>;
  return ((Wide)a & 0xFFFFFFFF) * ((Wide)b & 0xFFFFFFFF);
}

// Each lane's 64-bit product, upper half.
template <int N>
ITES_FN Words<N> high_product(Words<N> a, Words<N> b) {
  using Vector = vector_of<uint32_t, N>;
  using Wide = vector_of<uint64_t, N / 2>;
  const Wide even = products_of_even(a.v, b.v) >> 32;
  const Wide odd = products_of_even((Vector)((Wide)a.v >> 32), (Vector)((Wide)b.v >> 32));
  return Words<N>((Vector)(even | (odd & 0xFFFFFFFF00000000)));
}

// As for one float: see common/scalar.h. Lanes beyond its first range are taken one by one.
template <int N>
ITES_FN void sine_cosine(Lanes<float, N> angle, Lanes<float, N>& sine, Lanes<float, N>& cosine) {
  using V = Lanes<float, N>;
  using Ints = vector_of<int32_t, N>;
  const V to_integer(12582912.0f);  // 1.5 * 2^23: adding it rounds to the nearest integer
  const V k = angle * V(0.636619772f) + to_integer - to_integer;
  const V r = ((angle - k * V(1.5703125f)) - k * V(4.837512969970703125e-4f)) -
              k * V(7.54978995489188216e-8f);
  V s, c;
  sincos_near_zero(r, s, c);
  const Ints quadrant = __builtin_convertvector(k.v, Ints);
  const Ints odd = (quadrant & 1) != 0;
  sine = select((quadrant & 2) != 0, -select(odd, c, s), select(odd, c, s));
  cosine = select(((quadrant + 1) & 2) != 0, -select(odd, s, c), select(odd, s, c));
  for (int lane = 0; lane < N; ++lane) {
    if (!(fabsf(angle.v[lane]) <= 8192.0f)) {
      float one_sine, one_cosine;
      ites::sine_cosine(static_cast<float>(angle.v[lane]), one_sine, one_cosine);
      sine.v[lane] = one_sine;
      cosine.v[lane] = one_cosine;
    }
  }
}
template <int N>
ITES_FN void sine_cosine(Lanes<double, N> angle, Lanes<double, N>& sine, Lanes<double, N>& cosine) {
  for (int lane = 0; lane < N; ++lane) {
    sine.v[lane] = sin(angle.v[lane]);
    cosine.v[lane] = cos(angle.v[lane]);
  }
}

template <int N>
ITES_FN Lanes<float, N> logarithm(Lanes<float, N> x) {
  using V = Lanes<float, N>;
  using Ints = vector_of<int32_t, N>;
  const Ints bits = (Ints)x.v;
  const Ints exponent = (bits - HALF_ROOT_BITS) >> 23;
  return log_of_parts(V((typename V::Vector)(bits - exponent * (1 << 23))),
                      V(__builtin_convertvector(exponent, typename V::Vector)));
}
template <int N>
ITES_FN Lanes<double, N> logarithm(Lanes<double, N> x) {
  for (int lane = 0; lane < N; ++lane) x.v[lane] = log(x.v[lane]);
  return x;
}

// The numbers 0, 1, 2, ...
template <int N>
ITES_FN Words<N> lane_numbers() {
  Words<N> out;
  for (int lane = 0; lane < N; ++lane) out.v[lane] = lane;
  return out;
}

// A square block of `size` rows of as many numbers, as 16-byte vectors, to be transposed.
template <class T>
struct Block;
template <>
struct Block<float> {
  static constexpr int size = 4;
  using Vector = vector_of<float, 4>;
  static ITES_FN void transpose(Vector (&v)[4]) {
    const Vector a = __builtin_shufflevector(v[0], v[1], 0, 4, 1, 5);
    const Vector b = __builtin_shufflevector(v[0], v[1], 2, 6, 3, 7);
    const Vector c = __builtin_shufflevector(v[2], v[3], 0, 4, 1, 5);
    const Vector d = __builtin_shufflevector(v[2], v[3], 2, 6, 3, 7);
    v[0] = __builtin_shufflevector(a, c, 0, 1, 4, 5);
    v[1] = __builtin_shufflevector(a, c, 2, 3, 6, 7);
    v[2] = __builtin_shufflevector(b, d, 0, 1, 4, 5);
    v[3] = __builtin_shufflevector(b, d, 2, 3, 6, 7);
  }
};
template <>
struct Block<double> {
  static constexpr int size = 2;
  using Vector = vector_of<double, 2>;
  static ITES_FN void transpose(Vector (&v)[2]) {
    const Vector a = __builtin_shufflevector(v[0], v[1], 0, 2);
    v[1] = __builtin_shufflevector(v[0], v[1], 1, 3);
    v[0] = a;
  }
};

// Copies the block at `from`, rows `from_stride` apart, transposed, to `to`.
template <class T>
ITES_FN void copy_transposed(const T* const (&from)[Block<T>::size],
                             T* const (&to)[Block<T>::size]) {
  constexpr int M = Block<T>::size;
  typename Block<T>::Vector v[M];
  for (int i = 0; i < M; ++i) std::memcpy(&v[i], from[i], sizeof v[i]);
  Block<T>::transpose(v);
  for (int i = 0; i < M; ++i) std::memcpy(to[i], &v[i], sizeof v[i]);
}

// Lane l of tile[k] is element k of row l: `rows` rows (the last repeated for absent lanes) of
// `width` contiguous elements, `stride` apart.
template <class T, int N>
ITES_FN void load_rows(Lanes<T, N>* tile, const T* from, int64_t stride, int rows, int width) {
  constexpr int M = Block<T>::size;
  T* flat = reinterpret_cast<T*>(tile);
  for (int lane = 0; lane < N; lane += M) {
    const T* row[M];
    for (int i = 0; i < M; ++i) row[i] = from + (lane + i < rows ? lane + i : rows - 1) * stride;
    int k = 0;
    for (; k + M <= width; k += M) {
      const T* in[M];
      T* out[M];
      for (int i = 0; i < M; ++i) in[i] = row[i] + k, out[i] = flat + (k + i) * N + lane;
      copy_transposed<T>(in, out);
    }
    for (; k < width; ++k)
      for (int i = 0; i < M; ++i) flat[k * N + lane + i] = row[i][k];
  }
}

// The reverse, for the `rows` lanes that are present.
template <class T, int N>
ITES_FN void store_rows(const Lanes<T, N>* tile, T* to, int64_t stride, int rows, int width) {
  constexpr int M = Block<T>::size;
  const T* flat = reinterpret_cast<const T*>(tile);
  int lane = 0;
  for (; lane + M <= rows; lane += M) {
    T* row = to + lane * stride;
    int k = 0;
    for (; k + M <= width; k += M) {
      const T* in[M];
      T* out[M];
      for (int i = 0; i < M; ++i) in[i] = flat + (k + i) * N + lane, out[i] = row + i * stride + k;
      copy_transposed<T>(in, out);
    }
    for (; k < width; ++k)
      for (int i = 0; i < M; ++i) row[i * stride + k] = flat[k * N + lane + i];
  }
  for (; lane < rows; ++lane)
    for (int k = 0; k < width; ++k) to[lane * stride + k] = flat[k * N + lane];
}

}  // namespace ITES_SIMD

template <class T, int N>
struct FromWord<ITES_SIMD::Lanes<T, N>> {
  using Out = ITES_SIMD::Lanes<T, N>;
  using Words = ITES_SIMD::Words<N>;
  using Ints = ITES_SIMD::vector_of<int32_t, N>;
  static ITES_FN Out to_number(Words words) {  // from below 2^31
    return Out(__builtin_convertvector((Ints)words.v, typename Out::Vector));
  }
  static ITES_FN Out uniform(Words words) {
    return to_number(Words(words.v >> 8)) * Out(static_cast<T>(5.9604644775390625e-8));
  }
  static ITES_FN Out sign(Words words) {
    return Out(T(1)) - Out(T(2)) * to_number(Words(words.v >> 31));
  }
};

template <class T, int N>
struct ScalarOf<ITES_SIMD::Lanes<T, N>> {
  using type = T;
};

}  // namespace ites
