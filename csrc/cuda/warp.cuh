// Sums over a warp, and floats that may be nan.
#pragma once

#include <cfloat>
#include <cmath>

#include "cuda/launch.cuh"

namespace ites {

// The sum over a warp, for all of its lanes.
__device__ __forceinline__ float warp_sum(float v) {
#pragma unroll
  for (int lanes = 16; lanes > 0; lanes /= 2) v += __shfl_xor_sync(0xFFFFFFFFu, v, lanes);
  return v;
}

__device__ __forceinline__ bool is_finite(float v) { return fabsf(v) <= FLT_MAX; }

// v, or `least` where it is smaller; nan stays nan, unlike with fmaxf.
__device__ __forceinline__ float at_least(float v, float least) { return v < least ? least : v; }

}  // namespace ites
