// Four neighbouring channels as one number: what csrc/common asks of a number, and loads and
// stores of float, half and bfloat16, always computed in float.
#pragma once

#include <torch/headeronly/util/BFloat16.h>
#include <torch/headeronly/util/Half.h>

#include "common/scalar.h"
#include "cuda/launch.cuh"

namespace ites {

using torch::headeronly::BFloat16;
using torch::headeronly::Half;

struct alignas(16) Four {
  float v[4];

  Four() = default;
  ITES_FN explicit Four(float x) : v{x, x, x, x} {}
};
struct FourFlags {
  bool v[4];
};
template <>
struct ScalarOf<Four> {
  using type = float;
};

#define ITES_FOUR_OPERATOR(RESULT, OP)                       \
  ITES_FN RESULT operator OP(const Four& a, const Four& b) { \
    RESULT out;                                              \
    for (int k = 0; k < 4; ++k) out.v[k] = a.v[k] OP b.v[k]; \
    return out;                                              \
  }
ITES_FOUR_OPERATOR(Four, +)
ITES_FOUR_OPERATOR(Four, -)
ITES_FOUR_OPERATOR(Four, *)
ITES_FOUR_OPERATOR(FourFlags, >)
ITES_FOUR_OPERATOR(FourFlags, >=)
ITES_FOUR_OPERATOR(FourFlags, !=)
#undef ITES_FOUR_OPERATOR

ITES_FN Four& operator+=(Four& a, const Four& b) { return a = a + b; }
ITES_FN FourFlags operator|(const FourFlags& a, const FourFlags& b) {
  return {{a.v[0] || b.v[0], a.v[1] || b.v[1], a.v[2] || b.v[2], a.v[3] || b.v[3]}};
}
ITES_FN Four select(const FourFlags& flags, const Four& yes, const Four& no) {
  Four out;
  for (int k = 0; k < 4; ++k) out.v[k] = flags.v[k] ? yes.v[k] : no.v[k];
  return out;
}
ITES_FN float dot(const Four& a, const Four& b) {
  return a.v[0] * b.v[0] + a.v[1] * b.v[1] + a.v[2] * b.v[2] + a.v[3] * b.v[3];
}

// The vector type that moves four stored channels at once.
template <class T>
struct BitsOf {
  using type = float2;
};
template <>
struct BitsOf<float> {
  using type = float4;
};
template <class T>
using Bits = typename BitsOf<T>::type;

// By value: behind a reference nvcc would load memory byte by byte.
template <class T>
ITES_FN Four unpack(const Bits<T> bits) {
  static_assert(sizeof(Bits<T>) == 4 * sizeof(T));
  T x[4];
  memcpy(x, &bits, sizeof bits);
  Four out;
  for (int k = 0; k < 4; ++k) out.v[k] = static_cast<float>(x[k]);
  return out;
}

// Channels at `from`, aligned to all four, which no thread of the kernel writes.
template <class T>
__device__ __forceinline__ Four load(const T* from) {
  return unpack<T>(__ldg(reinterpret_cast<const Bits<T>*>(from)));
}
template <class T>
__device__ __forceinline__ void store(T* to, const Four& value) {
  T x[4];
  for (int k = 0; k < 4; ++k) x[k] = static_cast<T>(value.v[k]);
  Bits<T> bits;
  memcpy(&bits, x, sizeof bits);
  __stwb(reinterpret_cast<Bits<T>*>(to), bits);  // an assignment may be split into its floats
}

// Only the first `count` channels, zero beyond.
template <class T>
__device__ __forceinline__ Four load_some(const T* from, int64_t count) {
  Four out(0.0f);
  for (int k = 0; k < 4; ++k)
    if (k < count) out.v[k] = static_cast<float>(from[k]);
  return out;
}
template <class T>
__device__ __forceinline__ void store_some(T* to, const Four& value, int64_t count) {
  for (int k = 0; k < 4; ++k)
    if (k < count) to[k] = static_cast<T>(value.v[k]);
}

// Starts a copy of four channels into shared memory.
template <class T>
__device__ __forceinline__ void start_copy(Bits<T>* to, const T* from) {
  start_bytes<sizeof(Bits<T>)>(to, from);
}

// Sum over groups of `lanes` neighbouring threads, a power of two; every thread gets it.
__device__ __forceinline__ float group_sum(float x, int lanes) {
  for (int k = lanes / 2; k > 0; k /= 2) x += __shfl_xor_sync(~0u, x, k);
  return x;
}

// Calls body with a zero of the tensor's dtype.
template <class Body>
void with_storage_type(const Tensor& tensor, const Body& body) {
  switch (tensor.scalar_type()) {
    case ScalarType::Float: return body(float());
    case ScalarType::Half: return body(Half());
    case ScalarType::BFloat16: return body(BFloat16());
    default: STD_TORCH_CHECK(false, "ites: the CUDA backend takes float32, float16 and bfloat16");
  }
}

}  // namespace ites
