// Matrix products within a block: tiles of both factors pass through shared memory in a pipeline of
// asynchronous copies, and every warp multiplies a part. In float32 by FFMA, or by tensor cores of
// factors rounded to TF32 or bfloat16.
#pragma once

#include <cstdint>

#include "check.h"
#include "cuda/launch.cuh"

namespace ites {

// The precisions: products in float32, and those of tensor cores of rounded factors.
struct Float32 {};

// A lane's part of a factor comes as N / 2 numbers of inner place `member`, then as many of inner
// place `member + 4`.
struct Tf32 {
  template <int N>
  struct Part {
    uint32_t bits[N];

    __device__ explicit Part(const float (&x)[N]) {
#pragma unroll
      for (int k = 0; k < N; ++k) bits[k] = to_tf32(x[k]);
    }
  };
  __device__ static void multiply(float (&sum)[4], const Part<4>& a, const Part<2>& b) {
    multiply_tf32(sum, a.bits, b.bits);
  }
};

// The instruction expects neighbouring inner places in a register. It gets `member` and
// `member + 4` instead, in both factors, so that the sum is the same.
struct Bf16 {
  template <int N>
  struct Part {
    uint32_t bits[N / 2];

    __device__ explicit Part(const float (&x)[N]) {
#pragma unroll
      for (int k = 0; k < N / 2; ++k) bits[k] = to_bfloat16(x[k], x[k + N / 2]);
    }
  };
  __device__ static void multiply(float (&sum)[4], const Part<4>& a, const Part<2>& b) {
    multiply_bfloat16(sum, a.bits, b.bits);
  }
};

constexpr int PRODUCT_THREADS = 256, PRODUCT_WARPS = 8, WARP_COLUMNS = 32;
constexpr int STEP = 8;  // of the inner size, that a warp multiplies at once

// A matrix, row by row. `wide`: every fourth number of it is aligned to 16 bytes.
struct Matrix {
  const float* data;
  int rows, columns;
  bool wide;
};

inline Matrix matrix_of(const Tensor& tensor) {
  const float* const from = data<float>(tensor);
  const int64_t columns = tensor.size(1);
  return {from, static_cast<int>(tensor.size(0)), static_cast<int>(columns),
          columns % 4 == 0 && reinterpret_cast<uintptr_t>(from) % 16 == 0};
}

inline void require_clusters(const Call& call, const OnDevice& device) {
  call.require(device.capability() >= 9, "needs a GPU of compute capability 9.0 or later, got ",
               device.capability(), ".x");
}

// Calls body with the precision of factors of so many bits of mantissa: 23, 10 or 7.
template <class Body>
void with_precision(const Call& call, int64_t bits, const Body& body) {
  switch (bits) {
    case 23: return body(Float32());
    case 10: return body(Tf32());
    case 7: return body(Bf16());
    default: call.require(false, "bits must be 23, 10 or 7, got ", bits);
  }
}

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
struct WarpTile {
  float sum[ROWS / 16][4][4] = {};

  // Adds the product of STEP inner places, from the parts' places row, column and inner on.
  template <class A, class B>
  __device__ void multiply(const float* a, const float* b, int row, int column, int inner) {
    const int group = threadIdx.x % 32 / 4, member = threadIdx.x % 4;
    const auto left = [&](int r, int k) { return A::at(a, row + group + r, inner + member + k); };
    const auto right = [&](int c, int k) {
      return B::at(b, column + group + c, inner + member + k);
    };
    const auto part = [&](int j) {
      return typename Precision::template Part<2>({right(8 * j, 0), right(8 * j, 4)});
    };
    const typename Precision::template Part<2> rights[4] = {part(0), part(1), part(2), part(3)};
#pragma unroll
    for (int i = 0; i < ROWS; i += 16) {
      const typename Precision::template Part<4> lefts(
          {left(i, 0), left(i + 8, 0), left(i, 4), left(i + 8, 4)});
#pragma unroll
      for (int j = 0; j < 4; ++j) Precision::multiply(sum[i / 16][j], lefts, rights[j]);
    }
  }

  // Calls body(row, column, value) for each of this thread's sums.
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

template <int ROWS>
struct WarpTile<Float32, ROWS> {
  float sum[ROWS / 4][4] = {};

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

  template <class Body>
  __device__ void each(const Body& body) const {
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int i = 0; i < ROWS / 4; ++i)
#pragma unroll
      for (int j = 0; j < 4; ++j) body(lane / 8 + 4 * i, lane % 8 + 8 * j, sum[i][j]);
  }
};

// Calls multiply(stage) for `chunks` parts of the inner size in turn. start_early(stage, chunk) and
// start(stage, chunk) start the copies of one; STAGES - 1 are under way while one is multiplied. A
// stage has FLOATS floats. What starts early comes from no launch that may still be running.
template <int STAGES, int FLOATS, class Early, class Start, class Multiply>
__device__ __forceinline__ void pipeline(float* stages, int chunks, const Early& start_early,
                                         const Start& start, const Multiply& multiply) {
  for (int chunk = 0; chunk < min(STAGES - 1, chunks); ++chunk)
    start_early(stages + chunk * FLOATS, chunk);
  wait_for_launch_before();
  let_launch_after_start();
  for (int chunk = 0; chunk < STAGES - 1; ++chunk) {
    if (chunk < chunks) start(stages + chunk * FLOATS, chunk);
    end_group();
  }
  for (int chunk = 0; chunk < chunks; ++chunk) {
    finish_groups_but<STAGES - 2>();
    __syncthreads();  // this stage has landed, and the one before it has been multiplied
    const int next = chunk + STAGES - 1;
    if (next < chunks) {
      start_early(stages + next % STAGES * FLOATS, next);
      start(stages + next % STAGES * FLOATS, next);
    }
    end_group();
    multiply(stages + chunk % STAGES * FLOATS);
  }
}

}  // namespace ites
