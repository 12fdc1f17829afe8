// Walking along channels: four groups of lanes at a time, then one group, then single numbers, so
// that any count of channels runs the same code.
#pragma once

#include "cpu/lanes.h"

namespace ites {
namespace ITES_SIMD {

template <class V>
// NOLINTNEXTLINE(bugprone-sizeof-expression,cert-arr39-c): a number is a vector of one
constexpr int width_of = sizeof(V) / sizeof(scalar_of<V>);

template <class V>
ITES_FN V load(const scalar_of<V>* from) {
  V value;
  std::memcpy(&value, from, sizeof(V));
  return value;
}
template <class V>
ITES_FN void store(scalar_of<V>* to, V value) {
  std::memcpy(to, &value, sizeof(V));
}

// The first `count` numbers, zero beyond.
template <class V>
ITES_FN V load_some(const scalar_of<V>* from, int64_t count) {
  if (count >= width_of<V>) return load<V>(from);
  scalar_of<V> padded[width_of<V>] = {};
  for (int64_t k = 0; k < count; ++k) padded[k] = from[k];
  return load<V>(padded);
}

// Sum of the lanes, halves first.
template <class T, int N>
ITES_FN T sum_of(Lanes<T, N> x) {
  if constexpr (N > 2) {
    Lanes<T, N / 2> low, high;
    std::memcpy(&low, &x, sizeof(low));
    std::memcpy(&high, reinterpret_cast<const char*>(&x) + sizeof(low), sizeof(high));
    return sum_of(low + high);
  } else {
    return x.v[0] + x.v[1];
  }
}

// A tag that makes `over_channels`' body process K values of type V.
template <class V, int K>
struct Stride {
  using Value = V;
  static constexpr int values = K;
};

// Calls body(Stride, c) for channels c to c + K * width_of<V>, until all `count` are done.
template <class T, class Body>
ITES_FN void over_channels(int64_t count, Body body) {
  using V = lanes_of<T>;
  constexpr int64_t width = width_of<V>;
  int64_t c = 0;
  for (; c + 4 * width <= count; c += 4 * width) body(Stride<V, 4>{}, c);
  for (; c + width <= count; c += width) body(Stride<V, 1>{}, c);
  for (; c < count; ++c) body(Stride<T, 1>{}, c);
}

}  // namespace ITES_SIMD
}  // namespace ites
