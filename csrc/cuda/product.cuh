// Matrix products within a block: tiles of both factors pass through shared memory in a pipeline of
// asynchronous copies, and every warp multiplies a part. In float32 by FFMA, or in TF32 by tensor
// cores.
#pragma once

#include <cstdint>

#include "cuda/on_chip.cuh"

namespace ites {

// The precisions: products in float32, and of factors rounded to TF32.
struct Float32 {};
struct Tf32 {};

constexpr int PRODUCT_THREADS = 256, PRODUCT_WARPS = 8, WARP_COLUMNS = 32;
constexpr int STEP = 8;  // of the inner size, that a warp multiplies at once

// A matrix, row by row. `wide`: every fourth number of it is aligned to 16 bytes.
struct Matrix {
  const float* data;
  int rows, columns;
  bool wide;
};

// One factor's part of a stage: SIZE of its outer places by DEPTH of the inner ones, zero outside
// the matrix. INNER_LAST: the matrix has the inner dimension last, as x and W in x W^T. The strides
// let the warps below read without bank conflicts.
template <int SIZE, int DEPTH, bool INNER_LAST>
struct Factor {
  static constexpr int ROWS = INNER_LAST ? SIZE : DEPTH, COLUMNS = INNER_LAST ? DEPTH : SIZE;
  static constexpr int STRIDE = COLUMNS + (INNER_LAST ? 4 : 8), FLOATS = ROWS * STRIDE;

  // The block's threads start copies of the part from `outer` and `inner` on.
  __device__ static void start(float* to, const Matrix& from, int outer, int inner) {
    const int row = INNER_LAST ? outer : inner, column = INNER_LAST ? inner : outer;
    if (from.wide) {
      start_by<4>(to, from, row, column);
    } else {
      start_by<1>(to, from, row, column);
    }
  }

  __device__ static float at(const float* part, int outer, int inner) {
    return INNER_LAST ? part[outer * STRIDE + inner] : part[inner * STRIDE + outer];
  }

 private:
  template <int COUNT>
  __device__ static void start_by(float* to, const Matrix& from, int row, int column) {
    constexpr int ACROSS = COLUMNS / COUNT;
#pragma unroll 1  // addresses of several copies at once cost registers that the sums need
    for (int i = threadIdx.x; i < ROWS * ACROSS; i += PRODUCT_THREADS) {
      const int r = i / ACROSS, c = i % ACROSS * COUNT;
      const bool inside = row + r < from.rows && column + c < from.columns;
      const int64_t place = static_cast<int64_t>(row + r) * from.columns + column + c;
      start_bytes_or_zero<COUNT * sizeof(float)>(to + r * STRIDE + c,
                                                 from.data + (inside ? place : 0), inside);
    }
  }
};

// What a warp adds up: ROWS x 32 of the product.
template <class Precision, int ROWS>
struct WarpTile;

template <int ROWS>
struct WarpTile<Float32, ROWS> {
  float sum[ROWS / 4][4] = {};

  // Adds the product of STEP inner places, from the parts' places row, column and inner on.
  template <class A, class B>
  __device__ void multiply(const float* a, const float* b, int row, int column, int inner) {
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int k = 0; k < STEP; ++k) {
      float right[4];
#pragma unroll
      for (int j = 0; j < 4; ++j) right[j] = B::at(b, column + lane % 8 + 8 * j, inner + k);
#pragma unroll
      for (int i = 0; i < ROWS / 4; ++i) {
        const float left = A::at(a, row + lane / 8 + 4 * i, inner + k);
#pragma unroll
        for (int j = 0; j < 4; ++j) sum[i][j] += left * right[j];
      }
    }
  }

  // Calls body(row, column, value) for each of this thread's sums.
  template <class Body>
  __device__ void each(const Body& body) const {
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int i = 0; i < ROWS / 4; ++i)
#pragma unroll
      for (int j = 0; j < 4; ++j) body(lane / 8 + 4 * i, lane % 8 + 8 * j, sum[i][j]);
  }
};

template <int ROWS>
struct WarpTile<Tf32, ROWS> {
  float sum[ROWS / 16][4][4] = {};

  template <class A, class B>
  __device__ void multiply(const float* a, const float* b, int row, int column, int inner) {
    const int group = threadIdx.x % 32 / 4, member = threadIdx.x % 4;
    uint32_t right[4][2];
#pragma unroll
    for (int j = 0; j < 4; ++j)
#pragma unroll
      for (int h = 0; h < 2; ++h)
        right[j][h] = to_tf32(B::at(b, column + 8 * j + group, inner + member + 4 * h));
#pragma unroll
    for (int i = 0; i < ROWS / 16; ++i) {
      uint32_t left[4];
#pragma unroll
      for (int h = 0; h < 4; ++h)
        left[h] = to_tf32(A::at(a, row + 16 * i + group + h % 2 * 8, inner + member + h / 2 * 4));
#pragma unroll
      for (int j = 0; j < 4; ++j) multiply_tf32(sum[i][j], left, right[j]);
    }
  }

  template <class Body>
  __device__ void each(const Body& body) const {
    const int group = threadIdx.x % 32 / 4, member = threadIdx.x % 4;
#pragma unroll
    for (int i = 0; i < ROWS / 16; ++i)
#pragma unroll
      for (int j = 0; j < 4; ++j)
#pragma unroll
        for (int h = 0; h < 4; ++h)
          body(16 * i + group + h / 2 * 8, 8 * j + 2 * member + h % 2, sum[i][j][h]);
  }
};

// Calls multiply(stage) for `chunks` parts of the inner size in turn. start(stage, chunk) starts
// the copies of one; STAGES - 1 are under way while one is multiplied. A stage has FLOATS floats.
template <int STAGES, int FLOATS, class Start, class Multiply>
__device__ __forceinline__ void pipeline(float* stages, int chunks, const Start& start,
                                         const Multiply& multiply) {
  for (int chunk = 0; chunk < STAGES - 1; ++chunk) {
    if (chunk < chunks) start(stages + chunk * FLOATS, chunk);
    end_group();
  }
  for (int chunk = 0; chunk < chunks; ++chunk) {
    finish_groups_but<STAGES - 2>();
    __syncthreads();  // this stage has landed, and the one before it has been multiplied
    const int next = chunk + STAGES - 1;
    if (next < chunks) start(stages + next % STAGES * FLOATS, next);
    end_group();
    multiply(stages + chunk % STAGES * FLOATS);
  }
}

}  // namespace ites
