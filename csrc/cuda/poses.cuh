// Tiles of poses in shared memory, as the rotation and the dictionary family keep them.
#pragma once

#include "common/rotation.h"
#include "cuda/launch.cuh"

namespace ites {

constexpr int MOST_POSES = 32;  // of a tile
constexpr int FEW_POSES = 8;    // of a tile of a batch below SMALL_BATCH: more blocks for it
constexpr int SMALL_BATCH = 4096;
constexpr int ROTATION = 12;  // floats between rotations in shared memory: three float4

// Joint `joint` of a tile, three coordinates each.
__device__ __forceinline__ Vec3<float> get(const float* tile, int joint) {
  return {tile[3 * joint], tile[3 * joint + 1], tile[3 * joint + 2]};
}
__device__ __forceinline__ void put(float* tile, int joint, const Vec3<float>& v) {
  tile[3 * joint] = v.x;
  tile[3 * joint + 1] = v.y;
  tile[3 * joint + 2] = v.z;
}

// Rotation `index` from `shared` on.
__device__ __forceinline__ void stage_rotation(const Mat3<float>& R, float* shared, int index = 0) {
  float4* to = reinterpret_cast<float4*>(shared + index * ROTATION);
  to[0] = make_float4(R.m[0], R.m[1], R.m[2], R.m[3]);
  to[1] = make_float4(R.m[4], R.m[5], R.m[6], R.m[7]);
  to[2] = make_float4(R.m[8], 0.0f, 0.0f, 0.0f);
}
__device__ __forceinline__ Mat3<float> staged_rotation(const float* shared, int index = 0) {
  const float4* from = reinterpret_cast<const float4*>(shared + index * ROTATION);
  const float4 a = from[0], b = from[1];
  return {{a.x, a.y, a.z, a.w, b.x, b.y, b.z, b.w, shared[index * ROTATION + 8]}};
}

}  // namespace ites
