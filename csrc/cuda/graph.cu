// The graph family in CUDA: arguments, launches, registration. graph_17.cuh has the kernels for
// skeletons of 17 joints in 8 pairs, graph_any.cuh those for any other.
#include "cuda/graph_17.cuh"
#include "cuda/graph_any.cuh"
#include "graph_inputs.h"
#include "schemas.h"

namespace ites {
namespace {

constexpr int SUM_THREADS = 1024, SUM_COLUMNS = 32;

// Adds up the rows of `partial` in a fixed order: a block takes 32 columns. The last block takes
// the edges' columns, `slices` for each edge, on to the logits.
__global__ void __launch_bounds__(SUM_THREADS)
    sum_partial_kernel(const GraphShape g, const float* __restrict__ partial, int rows,
                       const float* __restrict__ logits, const int* __restrict__ row_start,
                       float* __restrict__ grad_bias, float* __restrict__ grad_v,
                       float* __restrict__ grad_logits) {
  float* const shared = shared_floats();
  const int64_t plain = g.bias_size() + g.attended, width = g.partial_size();
  const int across = threadIdx.x % SUM_COLUMNS, down = threadIdx.x / SUM_COLUMNS;
  const auto column_sum = [&](int64_t column, bool exists) {
    float sum = 0.0f;
    if (exists) {
#pragma unroll 4
      for (int r = down; r < rows; r += SUM_THREADS / SUM_COLUMNS)
        sum += partial[r * width + column];
    }
    shared[threadIdx.x] = sum;
    __syncthreads();
    sum = 0.0f;
    for (int k = across; k < SUM_THREADS; k += SUM_COLUMNS) sum += shared[k];
    __syncthreads();
    return sum;
  };
  if (blockIdx.x + 1 < gridDim.x) {
    const int64_t column = static_cast<int64_t>(blockIdx.x) * SUM_COLUMNS + across;
    const float sum = column_sum(column, column < plain);
    if (down > 0) return;
    if (column < g.bias_size()) {
      grad_bias[column] = sum;
    } else if (column < plain) {
      grad_v[column - g.bias_size()] = sum;
    }
    return;
  }
  float* const grad_weights = shared + SUM_THREADS;
  float* const weights = grad_weights + g.edges;
  for (int e0 = 0; e0 < g.edges; e0 += SUM_COLUMNS) {
    const int e = e0 + across;
    float sum = 0.0f;
    for (int s = 0; s < g.slices; ++s) sum += column_sum(plain + s * g.edges + e, e < g.edges);
    if (down == 0 && e < g.edges) grad_weights[e] = sum;
  }
  __syncthreads();
  for (int i = threadIdx.x; i < g.joints; i += SUM_THREADS) {
    softmax_row(logits, row_start[i], row_start[i + 1], weights);
    softmax_row_backward(weights, grad_weights, row_start[i], row_start[i + 1], grad_logits);
  }
}

// Whether the kernels of graph_17.cuh can run: the skeleton's size, and rows that allow four
// channels at once.
bool fits_17(const GraphShape& g, std::initializer_list<const void*> pointers) {
  bool fits = g.joints == 17 && (g.attended == 0 || g.pairs == 8) && g.attended <= 128 &&
              g.channels % 4 == 0 && g.attended % 4 == 0 && g.stride % 4 == 0;
  for (const void* pointer : pointers) fits &= reinterpret_cast<uintptr_t>(pointer) % 16 == 0;
  return fits;
}

GraphShape shape_of(const Tensor& features, const Tensor& v, const Tensor& row_start,
                    const Tensor& columns, const Tensor& pairs, int64_t channels) {
  return {features.size(0),
          channels,
          v.size(0),
          features.size(2),
          static_cast<int>(row_start.size(0)) - 1,
          static_cast<int>(columns.size(0)),
          static_cast<int>(pairs.size(0)),
          1};
}

std::tuple<Tensor, Tensor> graph_mix_op(const Tensor& features, const Tensor& logits,
                                        const Tensor& bias, const Tensor& v,
                                        const std::optional<Tensor>& residual,
                                        const Tensor& row_start, const Tensor& columns,
                                        const Tensor& pairs, int64_t channels) {
  const Call call("graph_mix", features, Takes::float32_or_half);
  call.has("features", features, {ANY, ANY, ANY});
  check_mix(call, features, features.size(2), logits, bias, v, row_start, columns, pairs, channels);
  call.has("residual", residual, {features.size(0), features.size(1), channels});
  const OnDevice device(features);
  GraphShape g = shape_of(features, v, row_start, columns, pairs, channels);
  const Tensor y = empty(features, {g.poses, g.joints, g.channels});
  const Tensor t = empty(features, {g.poses, g.joints, g.attended});
  if (g.poses == 0) return {y, t};
  const GraphTables tables{data<float>(logits),  data<float>(bias),  data<float>(v),
                           data<int>(row_start), data<int>(columns), data<int>(pairs)};
  with_storage_type(features, [&](auto zero) {
    using T = decltype(zero);
    const T *from = data<T>(features), *added = data<T>(residual);
    T *to_y = mutable_data<T>(y), *to_t = mutable_data<T>(t);
    if (fits_17(g, {from, added, to_y, to_t})) {
      const Tiling tiling(g);
      const int shared = forward_bytes_17(g, added != nullptr, sizeof(Bits<T>));
      device.launch(graph_mix_17_kernel<T>, tiling.tasks * tiling.tiles, THREADS_17, shared, g,
                    tables, tiling, from, added, to_y, to_t);
    } else {
      device.launch(graph_mix_any_kernel<T>, g.poses, THREADS_ANY, forward_bytes_any(g), g, tables,
                    from, added, to_y, to_t);
    }
  });
  return {y, t};
}

std::tuple<Tensor, Tensor, Tensor, Tensor> graph_mix_backward_op(
    const std::optional<Tensor>& grad_y, const std::optional<Tensor>& grad_t,
    const Tensor& features, const Tensor& logits, const Tensor& bias, const Tensor& v,
    const Tensor& row_start, const Tensor& columns, const Tensor& pairs, int64_t channels) {
  const Call call("graph_mix_backward", features, Takes::float32_or_half);
  call.has("features", features, {ANY, ANY, ANY});
  check_mix(call, features, features.size(2), logits, bias, v, row_start, columns, pairs, channels);
  call.has("grad_y", grad_y, {features.size(0), features.size(1), channels});
  call.has("grad_t", grad_t, {features.size(0), features.size(1), v.size(0)});
  const OnDevice device(features);
  GraphShape g = shape_of(features, v, row_start, columns, pairs, channels);
  if (g.poses == 0)
    return {empty(features, {0, g.joints, g.stride}), torch::stable::new_zeros(logits, {g.edges}),
            torch::stable::new_zeros(bias, {g.bias_size()}),
            torch::stable::new_zeros(v, {g.attended})};
  const Tensor grad_features = empty(features, {g.poses, g.joints, g.stride});
  const Tensor grad_logits = empty(logits, {g.edges}), grad_bias = empty(bias, {g.bias_size()});
  const Tensor grad_v = empty(v, {g.attended});
  const GraphTables tables{data<float>(logits),  data<float>(bias),  data<float>(v),
                           data<int>(row_start), data<int>(columns), data<int>(pairs)};
  with_storage_type(features, [&](auto zero) {
    using T = decltype(zero);
    const T *from = data<T>(features), *from_y = data<T>(grad_y), *from_t = data<T>(grad_t);
    T* to = mutable_data<T>(grad_features);
    const bool fits = fits_17(g, {from, from_y, from_t, to});
    const Tiling tiling(g);
    if (fits) g.slices = tiling.slices;
    const int shared = fits ? backward_bytes_17(g, sizeof(Bits<T>)) : backward_bytes_any(g);
    STD_TORCH_CHECK(shared <= device.most_shared(), "graph_mix_backward: the skeleton (", g.joints,
                    " joints, ", g.pairs, " pairs) needs ", shared,
                    " bytes of shared memory, more than this GPU has; use backend='triton'");
    const auto kernel = graph_mix_backward_17_kernel<T>;
    const auto any_kernel = graph_mix_backward_any_kernel<T>;
    const int64_t resident = fits
                                 ? device.resident_blocks(kernel, THREADS_17, shared) / tiling.tasks
                                 : device.resident_blocks(any_kernel, THREADS_ANY, shared);
    const int64_t work = fits ? tiling.tiles : g.poses;
    const int64_t rows = resident < 1 ? 1 : resident < work ? resident : work;
    const Tensor partial = empty(bias, {rows, g.partial_size()});
    if (fits) {
      device.launch(kernel, tiling.tasks * rows, THREADS_17, shared, g, tables, tiling, from_y,
                    from_t, from, to, mutable_data<float>(partial));
    } else {
      device.launch(any_kernel, rows, THREADS_ANY, shared, g, tables, from_y, from_t, from, to,
                    mutable_data<float>(partial));
    }
    const int64_t blocks = (g.bias_size() + g.attended + SUM_COLUMNS - 1) / SUM_COLUMNS + 1;
    device.launch(sum_partial_kernel, blocks, SUM_THREADS,
                  (SUM_THREADS + 2 * g.edges) * sizeof(float), g, data<float>(partial),
                  static_cast<int>(rows), data<float>(logits), data<int>(row_start),
                  mutable_data<float>(grad_bias), mutable_data<float>(grad_v),
                  mutable_data<float>(grad_logits));
  });
  return {grad_features, grad_logits, grad_bias, grad_v};
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(ites_cuda, m) {
  for (const char* schema : graph_schemas) m.def(schema);
}

STABLE_TORCH_LIBRARY_IMPL(ites_cuda, CUDA, m) {
  m.impl("graph_mix", TORCH_BOX(&graph_mix_op));
  m.impl("graph_mix_backward", TORCH_BOX(&graph_mix_backward_op));
}

}  // namespace ites
