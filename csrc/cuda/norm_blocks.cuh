// How the norm family's kernels divide their rows: a block takes a slice of 32 channels and a range
// of rows, eight threads along the channels, four each, and 32 along the rows.
#pragma once

#include <initializer_list>
#include <type_traits>

#include "cuda/channels.cuh"

namespace ites {

constexpr int ACROSS = 8, DOWN = 32, THREADS = ACROSS * DOWN, SLICE = 4 * ACROSS;

struct Range {
  int64_t rows, channels, height;  // rows in all, and of a range
  int slices;

  int64_t count() const { return (rows + height - 1) / height; }
};

// Ranges of at least 64 rows, at most as many as fill a large GPU and can be joined quickly.
inline Range ranges_of(int64_t rows, int64_t channels) {
  const int64_t slices = (channels + SLICE - 1) / SLICE;
  const int64_t most = slices > 16 ? 32 : slices > 2 ? 512 / slices : 256;
  const int64_t height = ((rows + most - 1) / most + DOWN - 1) / DOWN * DOWN;
  return {rows, channels, height < 64 ? 64 : height, static_cast<int>(slices)};
}

inline Range one_range(int64_t rows, int64_t channels) {
  return {rows, channels, rows, static_cast<int>((channels + SLICE - 1) / SLICE)};
}

// This thread's part of a block's work.
struct Place {
  int across, down;
  int64_t range, channel, left;  // left: channels from `channel` on
  int64_t begin, end;            // rows begin, begin + DOWN, ...

  __device__ explicit Place(const Range& r)
      : across(threadIdx.x % ACROSS), down(threadIdx.x / ACROSS), range(blockIdx.x / r.slices) {
    channel = (blockIdx.x % r.slices) * SLICE + across * 4;
    left = r.channels - channel;
    begin = range * r.height + down;
    end = min((range + 1) * r.height, r.rows);
  }
};

template <bool WHOLE, class T>
__device__ __forceinline__ Four get(const T* from, int64_t left) {
  if constexpr (WHOLE) return left > 0 ? load(from) : Four(0.0f);
  return load_some(from, left);
}
template <bool WHOLE, class T>
__device__ __forceinline__ void put(T* to, const Four& value, int64_t left) {
  if constexpr (WHOLE) {
    if (left > 0) store(to, value);
  } else {
    store_some(to, value, left);
  }
}

// Combines the values of the threads that share channels; all of them get the result. Each thread
// hands its value on once, in a place of its own: no barrier is needed before it.
template <class Value, class Spot, class Combine>
__device__ Value over_block(Value mine, const Spot& at, const Combine& combine) {
  Value* const shared = reinterpret_cast<Value*>(shared_floats());
  for (int half = DOWN / 2; half > 0; half /= 2) {
    if (at.down >= half && at.down < 2 * half) shared[threadIdx.x] = mine;
    __syncthreads();
    if (at.down < half) mine = combine(mine, shared[threadIdx.x + half * ACROSS]);
  }
  if (at.down == 0) shared[at.across] = mine;
  __syncthreads();
  return shared[at.across];
}

// A norm's running statistics, which move towards a pass's mean + shift and var * correction. No
// mean: there is nothing to move. No shift: it is zero.
struct Running {
  float *mean, *var;
  const float* shift;
  float correction, momentum;

  __device__ void move(int64_t channel, float pass_mean, float pass_var) const {
    const auto towards = [&](float& from, float to) { from += momentum * (to - from); };
    towards(mean[channel], shift ? pass_mean + shift[channel] : pass_mean);
    towards(var[channel], pass_var * correction);
  }
};

// Whether four channels may be moved at once: calls body with that as a type.
template <class Body>
void with_wholeness(int64_t channels, std::initializer_list<const void*> pointers,
                    const Body& body) {
  bool whole = channels % 4 == 0;
  for (const void* pointer : pointers) whole &= reinterpret_cast<uintptr_t>(pointer) % 16 == 0;
  if (whole) {
    body(std::true_type());
  } else {
    body(std::false_type());
  }
}

}  // namespace ites
