// Layers relu(batch_norm(x W^T) + skip) of few rows in CUDA, a launch per layer and direction, for
// GPUs with clusters of blocks (sm_90). A layer is a dependent launch: it copies its first weights
// beside the layer before, then waits for that one's output.
//
// A cluster of at most 8 blocks has all rows of 32 columns, a block ROWS of them. The block's warps
// share the inner dimension: each adds up its part of the product, and the parts are added in
// order. The blocks join their columns' statistics in the order of their rows, by stores into each
// other's shared memory. So the order of every sum depends on sizes alone.
#include <vector>

#include "check.h"
#include "common/norm.h"
#include "cuda/norm_blocks.cuh"
#include "cuda/product.cuh"
#include "schemas.h"

namespace ites {
namespace {

static_assert(THREADS == PRODUCT_THREADS && SLICE == WARP_COLUMNS);

constexpr int MOST_ROWS = 512;

// ROWS x 32 of a product by a block: GROUPS of warps along the rows, WAYS along the inner size.
// INNER_LAST: of the right factor, see Factor.
template <class Precision, int ROWS, bool INNER_LAST>
struct Tile {
  static constexpr int GROUPS = ROWS > 32 ? 2 : 1, WARP_ROWS = ROWS / GROUPS;
  static constexpr int WAYS = PRODUCT_WARPS / GROUPS, DEPTH = STEP * WAYS, STAGES = 4;
  using A = Factor<ROWS, DEPTH, true>;
  using B = Factor<SLICE, DEPTH, INNER_LAST>;
  static constexpr int STAGE = A::FLOATS + B::FLOATS, STRIDE = SLICE + 4;
  static constexpr int SUMS = WAYS * ROWS * STRIDE;
  static constexpr int FLOATS = STAGES * STAGE > SUMS ? STAGES * STAGE : SUMS;

  // Leaves the warps' parts of the product in shared memory, of rows and columns from these on. b
  // is from no launch that may still be running.
  __device__ static void multiply(float* shared, const Matrix& a, const Matrix& b, int row,
                                  int column) {
    const int warp = threadIdx.x / 32, group = warp % GROUPS, way = warp / GROUPS;
    WarpTile<Precision, WARP_ROWS> tile;
    pipeline<STAGES, STAGE>(
        shared, (a.columns + DEPTH - 1) / DEPTH,
        [&](float* stage, int chunk) { B::start(stage + A::FLOATS, b, column, chunk * DEPTH); },
        [&](float* stage, int chunk) { A::start(stage, a, row, chunk * DEPTH); },
        [&](const float* stage) {
          tile.template multiply<A, B>(stage, stage + A::FLOATS, group * WARP_ROWS, 0, way * STEP);
        });
    __syncthreads();  // the stages have been read: their memory takes the sums
    float* const to = shared + (way * ROWS + group * WARP_ROWS) * STRIDE;
    tile.each([&](int r, int c, float value) { to[r * STRIDE + c] = value; });
    __syncthreads();
  }

  // Four columns of a row of the product.
  __device__ static Four sum(const float* shared, int row, int column) {
    Four sum(0.0f);
#pragma unroll
    for (int way = 0; way < WAYS; ++way) {
      const float* const from = shared + (way * ROWS + row) * STRIDE + column;
      sum += unpack<float>(*reinterpret_cast<const float4*>(from));
    }
    return sum;
  }
};

// This thread's part of a block's work: four channels, rows down, down + DOWN, ... of the block's.
struct Spot {
  int across, down, block, blocks;  // block: of the cluster's
  int channel, left;                // left: channels from `channel` on
  int row, rows;                    // the block's first row, and its number of rows, if any

  __device__ Spot(int cluster, int block_rows, int all_rows, int channels)
      : across(threadIdx.x % ACROSS),
        down(threadIdx.x / ACROSS),
        block(blockIdx.x % cluster),
        blocks(cluster) {
    channel = static_cast<int>(blockIdx.x / cluster) * SLICE + across * 4;
    left = channels - channel;
    row = block * block_rows;
    rows = max(min(block_rows, all_rows - row), 0);
  }
};

// Two values per column.
struct Two {
  Four first, second;
};

constexpr int PLACES = THREADS * sizeof(Two) / sizeof(float);  // floats for over_block
constexpr int SHARED = MOST_BLOCKS * ACROSS * sizeof(Two) / sizeof(float);

__device__ __forceinline__ float4 bits_of(const Four& x) {
  return make_float4(x.v[0], x.v[1], x.v[2], x.v[3]);
}

// Every block of the cluster gives its values to all: result[block] is what that block gave. The
// threads must have arrived at the cluster's barrier once before, because a block must be running
// before others write to its shared memory.
struct FromBlocks {
  const float4* all;
  int across;

  __device__ FromBlocks(float4* all, const Two& mine, const Spot& at)
      : all(all), across(at.across) {
    cluster_wait();
    if (at.down < at.blocks) {
      float4* const to = all + (at.block * ACROSS + across) * 2;
      store_to_block(to, at.down, bits_of(mine.first));
      store_to_block(to + 1, at.down, bits_of(mine.second));
    }
    cluster_arrive();
    cluster_wait();
  }
  __device__ Two operator[](int block) const {
    const float4* const from = all + (block * ACROSS + across) * 2;
    return {unpack<float>(from[0]), unpack<float>(from[1])};
  }
};

template <int ROWS>
constexpr int ROWS_OF_THREAD = ROWS > DOWN ? ROWS / DOWN : 1;

__device__ __forceinline__ Channel<Four> channel_of(const Four& mean, const Four& var, float eps,
                                                    const Four& gamma, const Four& beta) {
  Four scale;
  for (int k = 0; k < 4; ++k) scale.v[k] = 1.0f / sqrtf(var.v[k] + eps);
  return {mean, scale, gamma, beta};
}

struct Forward {
  Matrix x, weight;
  const float *gamma, *beta, *skip;  // skip is null where there is none
  float eps;
  float *out, *product, *mean, *var;
  Running running;
};

template <class Precision, int ROWS>
__global__ void __launch_bounds__(THREADS, 2)
    linear_norm_relu_kernel(const Forward layer, int cluster) {
  using Product = Tile<Precision, ROWS, true>;
  constexpr int COUNT = ROWS_OF_THREAD<ROWS>;
  float* const sums = shared_floats() + PLACES;
  float* const shared = sums + SHARED;
  const int rows = layer.x.rows, channels = layer.weight.rows;
  const Spot at(cluster, ROWS, rows, channels);
  cluster_arrive();
  Product::multiply(shared, layer.x, layer.weight, at.row, at.channel - at.across * 4);

  const auto add = [](const Four& a, const Four& b) { return a + b; };
  Four values[COUNT], sum(0.0f), squares(0.0f);
#pragma unroll
  for (int k = 0; k < COUNT; ++k) {
    const int row = at.down + k * DOWN;
    values[k] = row < at.rows ? Product::sum(shared, row, at.across * 4) : Four(0.0f);
    sum += values[k];
  }
  const Four centre = over_block(sum, at, add) * Four(1.0f / static_cast<float>(max(at.rows, 1)));
#pragma unroll
  for (int k = 0; k < COUNT; ++k) {
    const Four away = values[k] - centre;
    if (at.down + k * DOWN < at.rows) squares += away * away;
  }
  squares = over_block(squares, at, add);
  const FromBlocks all(reinterpret_cast<float4*>(sums), {centre, squares}, at);
  Moments<Four> moments{Four(0.0f), Four(0.0f)};
  for (int block = 0; block < cluster; ++block) {
    const Two other = all[block];
    const float before = static_cast<float>(min(block * ROWS, rows));
    const float more = static_cast<float>(max(min(ROWS, rows - block * ROWS), 0));
    const float share = more / (before + more);
    moments = join(moments, {other.first, other.second}, share, before * share);
  }
  if (at.left <= 0) return;
  const Four var = moments.deviation * Four(1.0f / static_cast<float>(rows));
  if (at.block == 0 && at.down == 0) {
    store(layer.mean + at.channel, moments.mean);
    store(layer.var + at.channel, var);
    if (layer.running.mean)
      for (int k = 0; k < 4; ++k) layer.running.move(at.channel + k, moments.mean.v[k], var.v[k]);
  }
  const Channel<Four> channel = channel_of(
      moments.mean, var, layer.eps, load(layer.gamma + at.channel), load(layer.beta + at.channel));
  const Form form{true, layer.skip != nullptr, false};
#pragma unroll
  for (int k = 0; k < COUNT; ++k) {
    const int row = at.down + k * DOWN;
    if (row >= at.rows) break;
    const int64_t here = static_cast<int64_t>(at.row + row) * channels + at.channel;
    const Four skip = layer.skip ? load(layer.skip + here) : Four(0.0f);
    store(layer.product + here, values[k]);
    store(layer.out + here, batch_norm_relu(values[k], skip, channel, form));
  }
}

// A layer's gradient comes from the layer after it: that of its product times its weight. The last
// layer has none after it: that product has no inner places, and all comes from `added`.
struct Backward {
  Matrix grad, weight;
  const float* added;  // null: nothing
  const float *out, *product, *gamma, *mean, *var;
  float eps;
  int rows, channels;
  float *grad_product, *grad_gamma, *grad_beta;
  float* grad_skip;  // the gradient of the ReLU's input; null: not wanted
};

template <class Precision, int ROWS>
__global__ void __launch_bounds__(THREADS, 2)
    linear_norm_relu_backward_kernel(const Backward layer, int cluster) {
  using Product = Tile<Precision, ROWS, false>;
  constexpr int COUNT = ROWS_OF_THREAD<ROWS>;
  float* const sums = shared_floats() + PLACES;
  float* const shared = sums + SHARED;
  const Spot at(cluster, ROWS, layer.rows, layer.channels);
  cluster_arrive();
  Product::multiply(shared, layer.grad, layer.weight, at.row, at.channel - at.across * 4);

  const bool some = at.left > 0;
  const Four zero(0.0f);
  const Channel<Four> channel = channel_of(some ? load(layer.mean + at.channel) : zero,
                                           some ? load(layer.var + at.channel) : zero, layer.eps,
                                           some ? load(layer.gamma + at.channel) : zero, zero);
  Four grads[COUNT], values[COUNT];
  Two mine{zero, zero};
#pragma unroll
  for (int k = 0; k < COUNT; ++k) {
    const int row = at.down + k * DOWN;
    if (row >= at.rows || !some) break;
    const int64_t here = static_cast<int64_t>(at.row + row) * layer.channels + at.channel;
    Four grad = Product::sum(shared, row, at.across * 4);
    if (layer.added) grad += load(layer.added + here);
    grads[k] = select(zero >= load(layer.out + here), zero, grad);
    if (layer.grad_skip) store(layer.grad_skip + here, grads[k]);
    values[k] = load(layer.product + here);
    mine.first += grads[k];
    mine.second += grads[k] * normalised(values[k], channel);
  }
  const auto add = [](const Two& a, const Two& b) {
    return Two{a.first + b.first, a.second + b.second};
  };
  mine = over_block(mine, at, add);
  const FromBlocks all(reinterpret_cast<float4*>(sums), mine, at);
  Two total{zero, zero};
  for (int block = 0; block < cluster; ++block) total = add(total, all[block]);
  if (!some) return;
  if (at.block == 0 && at.down == 0) {
    store(layer.grad_beta + at.channel, total.first);
    store(layer.grad_gamma + at.channel, total.second);
  }
  const Four share(1.0f / static_cast<float>(layer.rows));
  const Four grad_mean = total.first * share, product_mean = total.second * share;
#pragma unroll
  for (int k = 0; k < COUNT; ++k) {
    const int row = at.down + k * DOWN;
    if (row >= at.rows) break;
    const int64_t here = static_cast<int64_t>(at.row + row) * layer.channels + at.channel;
    store(layer.grad_product + here,
          batch_norm_backward(grads[k], values[k], grad_mean, product_mean, channel));
  }
}

void check_layers(const Call& call, int64_t rows, const std::vector<Tensor>& weights,
                  const std::vector<Tensor>& gammas, const std::vector<int64_t>& skips,
                  double eps) {
  const auto count = static_cast<int64_t>(weights.size());
  call.require(rows >= 1 && rows <= MOST_ROWS, "x must have 1 to ", MOST_ROWS, " rows, got ", rows);
  call.require(count >= 1 && gammas.size() == weights.size() && skips.size() == weights.size(),
               "expected at least one layer, and as many of each argument");
  call.finite("eps", eps, 0);
  std::vector<bool> taken(weights.size(), false);
  for (int64_t i = 0; i < count; ++i) {
    const Tensor& weight = weights[i];
    call.has("weight", weight, {ANY, i ? weights[i - 1].size(0) : ANY});
    const int64_t channels = weight.size(0), from = skips[i];
    call.require(channels >= 4 && channels % 4 == 0 && weight.size(1) >= 1,
                 "a layer's outputs must be a multiple of 4, got ", channels);
    call.has("gamma", gammas[i], {channels});
    call.require(reinterpret_cast<uintptr_t>(data<float>(gammas[i])) % 16 == 0,
                 "gamma must be aligned to 16 bytes");
    call.require(from >= -1 && from < i, "skip must be an earlier layer or -1, got ", from);
    if (from < 0) continue;
    call.require(weights[from].size(0) == channels && !taken[from],
                 "a skip must have the layer's width and be the only one of its layer");
    taken[from] = true;
  }
}

// Starts kernel<precision, rows of a block> with all rows of 32 columns in each cluster; `beside`
// the layer that gave its input.
template <class Argument>
void launch_layer(const Call& call, const OnDevice& device, int64_t bits, int64_t rows,
                  int64_t channels, bool beside, const Argument& layer) {
  constexpr bool forward = std::is_same_v<Argument, Forward>;
  const auto start = [&](auto precision, auto block_rows) {
    using P = decltype(precision);
    constexpr int ROWS = decltype(block_rows)::value;
    int blocks = 1;  // a power of two; the last may be without rows
    while (blocks * ROWS < rows) blocks *= 2;
    const int slices = static_cast<int>((channels + SLICE - 1) / SLICE);
    const size_t floats = PLACES + SHARED + Tile<P, ROWS, forward>::FLOATS;
    if constexpr (forward) {
      device.launch_clusters(linear_norm_relu_kernel<P, ROWS>, slices, blocks, beside, THREADS,
                             floats * sizeof(float), layer, blocks);
    } else {
      device.launch_clusters(linear_norm_relu_backward_kernel<P, ROWS>, slices, blocks, beside,
                             THREADS, floats * sizeof(float), layer, blocks);
    }
  };
  with_precision(call, bits, [&](auto precision) {
    if (rows <= 16 * MOST_BLOCKS) return start(precision, std::integral_constant<int, 16>());
    if (rows <= 32 * MOST_BLOCKS) return start(precision, std::integral_constant<int, 32>());
    start(precision, std::integral_constant<int, 64>());
  });
}

std::vector<Tensor> linear_norm_relu_op(
    const Tensor& x, const std::vector<Tensor>& weights, const std::vector<Tensor>& gammas,
    const std::vector<Tensor>& betas, const std::vector<Tensor>& running_means,
    const std::vector<Tensor>& running_vars, const std::vector<Tensor>& shifts,
    const std::vector<int64_t>& skips, double eps, double momentum, int64_t bits) {
  const Call call("linear_norm_relu", x, Takes::float32);
  call.has("x", x, {ANY, ANY});
  const int64_t rows = x.size(0);
  check_layers(call, rows, weights, gammas, skips, eps);
  call.require(betas.size() == weights.size() && weights[0].size(1) == x.size(1),
               "expected a beta per layer, and a first weight of x's width");
  const bool moves = !running_means.empty();
  const size_t moved = moves ? weights.size() : 0;
  call.require(
      running_means.size() == moved && running_vars.size() == moved && shifts.size() == moved,
      "expected running statistics and a shift of every layer or of none");
  call.finite("momentum", momentum, 0, 1);
  const float correction = static_cast<float>(rows) / static_cast<float>(rows > 1 ? rows - 1 : 1);
  const OnDevice device(x);
  require_clusters(call, device);
  std::vector<Tensor> outs, products, means, vars;
  for (size_t i = 0; i < weights.size(); ++i) {
    const int64_t channels = weights[i].size(0);
    call.has("beta", betas[i], {channels});
    call.require(reinterpret_cast<uintptr_t>(data<float>(betas[i])) % 16 == 0,
                 "beta must be aligned to 16 bytes");
    outs.push_back(empty(x, {rows, channels}));
    products.push_back(empty(x, {rows, channels}));
    means.push_back(empty(x, {channels}));
    vars.push_back(empty(x, {channels}));
    Running running{};
    if (moves) {
      const bool shifted = shifts[i].numel() > 0;
      call.has("running mean", running_means[i], {channels});
      call.has("running var", running_vars[i], {channels});
      if (shifted) call.has("shift", shifts[i], {channels});
      running = {mutable_data<float>(running_means[i]), mutable_data<float>(running_vars[i]),
                 shifted ? data<float>(shifts[i]) : nullptr, correction,
                 static_cast<float>(momentum)};
    }
    const Forward layer{matrix_of(i ? outs[i - 1] : x),
                        matrix_of(weights[i]),
                        data<float>(gammas[i]),
                        data<float>(betas[i]),
                        skips[i] < 0 ? nullptr : data<float>(outs[skips[i]]),
                        static_cast<float>(eps),
                        mutable_data<float>(outs[i]),
                        mutable_data<float>(products[i]),
                        mutable_data<float>(means[i]),
                        mutable_data<float>(vars[i]),
                        running};
    launch_layer(call, device, bits, rows, channels, i > 0, layer);
  }
  for (const auto* list : {&products, &means, &vars})
    outs.insert(outs.end(), list->begin(), list->end());
  return outs;
}

std::vector<Tensor> linear_norm_relu_backward_op(
    const Tensor& grad, const std::vector<Tensor>& weights, const std::vector<Tensor>& gammas,
    const std::vector<int64_t>& skips, const std::vector<Tensor>& outputs,
    const std::vector<Tensor>& products, const std::vector<Tensor>& means,
    const std::vector<Tensor>& vars, double eps, int64_t bits) {
  const Call call("linear_norm_relu_backward", grad, Takes::float32);
  call.has("grad", grad, {ANY, ANY});
  const int64_t rows = grad.size(0);
  check_layers(call, rows, weights, gammas, skips, eps);
  const size_t count = weights.size();
  call.require(outputs.size() == count && products.size() == count && means.size() == count &&
                   vars.size() == count && weights[count - 1].size(0) == grad.size(1),
               "expected as many of each argument, and a last weight of grad's width");
  const OnDevice device(grad);
  require_clusters(call, device);
  std::vector<Tensor> grads(3 * count, grad), behind(count, grad);
  std::vector<const float*> added(count, nullptr);
  added[count - 1] = data<float>(grad);
  for (size_t i = count; i-- > 0;) {
    const int64_t channels = weights[i].size(0);
    call.has("output", outputs[i], {rows, channels});
    call.has("product", products[i], {rows, channels});
    call.has("mean", means[i], {channels});
    call.has("var", vars[i], {channels});
    grads[i] = empty(grad, {rows, channels});
    grads[count + i] = empty(grad, {channels});
    grads[2 * count + i] = empty(grad, {channels});
    if (skips[i] >= 0) {
      behind[i] = empty(grad, {rows, channels});
      added[skips[i]] = data<float>(behind[i]);
    }
    const bool last = i + 1 == count;
    const Matrix nothing{nullptr, 0, 0, true};
    const Backward layer{last ? nothing : matrix_of(grads[i + 1]),
                         last ? nothing : matrix_of(weights[i + 1]),
                         added[i],
                         data<float>(outputs[i]),
                         data<float>(products[i]),
                         data<float>(gammas[i]),
                         data<float>(means[i]),
                         data<float>(vars[i]),
                         static_cast<float>(eps),
                         static_cast<int>(rows),
                         static_cast<int>(channels),
                         mutable_data<float>(grads[i]),
                         mutable_data<float>(grads[count + i]),
                         mutable_data<float>(grads[2 * count + i]),
                         skips[i] < 0 ? nullptr : mutable_data<float>(behind[i])};
    launch_layer(call, device, bits, rows, channels, !last, layer);
  }
  return grads;
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(ites_cuda, m) {
  for (const char* schema : linear_norm_schemas) m.def(schema);
}

STABLE_TORCH_LIBRARY_IMPL(ites_cuda, CUDA, m) {
  m.impl("linear_norm_relu", TORCH_BOX(&linear_norm_relu_op));
  m.impl("linear_norm_relu_backward", TORCH_BOX(&linear_norm_relu_backward_op));
}

}  // namespace ites
