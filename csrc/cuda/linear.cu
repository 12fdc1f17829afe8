// A linear layer of few rows with its residuals and ReLU in one launch, for lifting frame by frame:
// the weights are read once, a row per warp, for four rows of x at a time.
#include "check.h"
#include "cuda/warp.cuh"
#include "schemas.h"

namespace ites {
namespace {

constexpr int THREADS = 256, WARPS = THREADS / 32, ROWS = 4;
constexpr int64_t MOST_ROWS = ROWS * 65535LL;  // of blocks along y

struct Epilogue {
  const float *bias, *skip, *scaled, *scale, *after;  // each may be null
};

// VECTOR floats per load: 4 where the inner size is a multiple of it.
template <int VECTOR>
__global__ void __launch_bounds__(THREADS)
    linear_relu_kernel(int rows, int inner, int columns, const float* __restrict__ x,
                       const float* __restrict__ weight, const Epilogue e,
                       float* __restrict__ out) {
  const int lane = threadIdx.x % 32, column = blockIdx.x * WARPS + threadIdx.x / 32;
  if (column >= columns) return;
  const int first = blockIdx.y * ROWS, here = min(ROWS, rows - first);
  const float* const w = weight + static_cast<int64_t>(column) * inner;
  float sum[ROWS] = {};
  for (int k = lane * VECTOR; k < inner; k += 32 * VECTOR) {
    if constexpr (VECTOR == 4) {
      const float4 b = *reinterpret_cast<const float4*>(w + k);
#pragma unroll
      for (int r = 0; r < ROWS; ++r) {
        if (r >= here) break;
        const float4 a =
            *reinterpret_cast<const float4*>(x + static_cast<int64_t>(first + r) * inner + k);
        sum[r] += a.x * b.x + a.y * b.y + a.z * b.z + a.w * b.w;
      }
    } else {
#pragma unroll
      for (int r = 0; r < ROWS; ++r)
        if (r < here) sum[r] += x[static_cast<int64_t>(first + r) * inner + k] * w[k];
    }
  }
  float value = 0.0f;
#pragma unroll
  for (int r = 0; r < ROWS; ++r) {
    const float whole = warp_sum(sum[r]);
    if (lane == r) value = whole;
  }
  if (lane >= here) return;
  const int64_t at = static_cast<int64_t>(first + lane) * columns + column;
  if (e.bias) value += e.bias[column];
  if (e.skip) value += e.scale ? e.skip[at] + e.scaled[at] * e.scale[column] : e.skip[at];
  value = value < 0.0f ? 0.0f : value;  // nan stays nan
  out[at] = e.after ? value + e.after[at] : value;
}

Tensor linear_relu_op(const Tensor& x, const Tensor& weight, const std::optional<Tensor>& bias,
                      const std::optional<Tensor>& skip, const std::optional<Tensor>& scaled,
                      const std::optional<Tensor>& scale, const std::optional<Tensor>& after) {
  const Call call("linear_relu", x, Takes::float32);
  call.has("x", x, {ANY, ANY});
  const int64_t N = x.size(0), K = x.size(1);
  call.has("weight", weight, {ANY, K});
  const int64_t M = weight.size(0);
  call.has("bias", bias, {M});
  call.has("skip", skip, {N, M});
  call.has("scaled", scaled, {N, M});
  call.has("scale", scale, {M});
  call.has("after", after, {N, M});
  call.require(scaled.has_value() == scale.has_value() && (skip.has_value() || !scale.has_value()),
               "scaled and scale are given together, with skip");
  call.require(N <= MOST_ROWS, "expected at most ", MOST_ROWS, " rows, got ", N);
  Tensor out = empty(x, {N, M});
  if (N == 0 || M == 0) return out;
  const OnDevice device(x);
  const Epilogue e{data<float>(bias), data<float>(skip), data<float>(scaled), data<float>(scale),
                   data<float>(after)};
  const auto launch = [&](auto kernel) {
    device.launch_rows(kernel, (M + WARPS - 1) / WARPS, (N + ROWS - 1) / ROWS, THREADS,
                       static_cast<int>(N), static_cast<int>(K), static_cast<int>(M),
                       data<float>(x), data<float>(weight), e, mutable_data<float>(out));
  };
  if (K % 4 == 0) {
    launch(linear_relu_kernel<4>);
  } else {
    launch(linear_relu_kernel<1>);
  }
  return out;
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(ites_cuda, m) {
  for (const char* schema : linear_relu_schemas) m.def(schema);
}

STABLE_TORCH_LIBRARY_IMPL(ites_cuda, CUDA, m) { m.impl("linear_relu", TORCH_BOX(&linear_relu_op)); }

}  // namespace ites
