// Gradients of weights, grad^T x, of many layers in one launch, for GPUs with clusters of blocks
// (sm_90). A step makes one pass or two through a layer; each gives a part of the rows, and the sum
// runs over all of them.
//
// A cluster takes a tile of 128 x 128 of one gradient and its blocks share the rows, so that few
// weights of many rows fill a GPU too. A warp adds up 64 x 32. Then every block adds its share of
// the tile over the cluster's blocks, in their order.
#include <vector>

#include "cuda/channels.cuh"
#include "cuda/product.cuh"
#include "schemas.h"

namespace ites {
namespace {

constexpr int MOST_LAYERS = 32, MOST_PARTS = 2, SIDE = 128, HALF = SIDE / 2;
constexpr int DEPTH = 16, STAGES = 4;
constexpr int ENOUGH_BLOCKS = 200;  // to keep a large GPU busy

struct Weight {
  Matrix grad[MOST_PARTS], x[MOST_PARTS];  // (N, M) and (N, K) of each part; no rows if absent
  float* out;                              // (M, K)
  int first;                               // of the launch's clusters
};
struct Weights {
  Weight layer[MOST_LAYERS];
  int count;
};

__host__ __device__ __forceinline__ int chunks_of(int rows) { return (rows + DEPTH - 1) / DEPTH; }

using Side = Factor<SIDE, DEPTH, false>;
constexpr int FLOATS = 2 * STAGES * Side::FLOATS, STRIDE = SIDE + 8;  // STRIDE: of the sums
static_assert(SIDE * STRIDE <= FLOATS);

template <class Precision>
__global__ void __launch_bounds__(PRODUCT_THREADS)
    weight_gradients_kernel(const Weights weights, int cluster) {
  const int place = blockIdx.x / cluster, block = blockIdx.x % cluster;
  int index = 0;
  while (index + 1 < weights.count && place >= weights.layer[index + 1].first) ++index;
  const Weight& layer = weights.layer[index];
  const int rows = layer.grad[0].columns, columns = layer.x[0].columns;
  const int across = (columns + SIDE - 1) / SIDE, tile = place - layer.first;
  const int row = tile / across * SIDE, column = tile % across * SIDE;
  const int warp = threadIdx.x / 32, down = warp / 4 * HALF, right = warp % 4 * WARP_COLUMNS;
  const int first = chunks_of(layer.grad[0].rows), all = first + chunks_of(layer.grad[1].rows);
  const int begin = all * block / cluster, end = all * (block + 1) / cluster;
  float* const shared = shared_floats();
  WarpTile<Precision, HALF> sums;
  pipeline<STAGES, 2 * Side::FLOATS>(
      shared, end - begin, [](float*, int) {},
      [&](float* stage, int chunk) {
        const int part = begin + chunk >= first;
        const int inner = (begin + chunk - part * first) * DEPTH;
        Side::start(stage, layer.grad[part], row, inner);
        Side::start(stage + Side::FLOATS, layer.x[part], column, inner);
      },
      [&](const float* stage) {
#pragma unroll 1  // with both steps at once it spills
        for (int inner = 0; inner < DEPTH; inner += STEP)
          sums.template multiply<Side, Side>(stage, stage + Side::FLOATS, down, right, inner);
      });
  __syncthreads();  // the stages have been read: their memory takes the sums
  sums.each([&](int r, int c, float value) { shared[(down + r) * STRIDE + right + c] = value; });
  cluster_arrive();
  cluster_wait();
  const int share = SIDE / cluster;  // rows of the tile
  for (int i = threadIdx.x; i < share * SIDE / 4; i += PRODUCT_THREADS) {
    const int r = block * share + i / (SIDE / 4), c = i % (SIDE / 4) * 4;
    const float4* const from = reinterpret_cast<const float4*>(shared + r * STRIDE + c);
    Four sum(0.0f);
    for (int other = 0; other < cluster; ++other)
      sum += unpack<float>(load_from_block(from, other));
    if (row + r >= rows || column + c >= columns) continue;
    float* const to = layer.out + static_cast<int64_t>(row + r) * columns + column + c;
    if (columns % 4 == 0) {
      store(to, sum);
    } else {
      store_some(to, sum, columns - column - c);
    }
  }
  cluster_arrive();
  cluster_wait();  // no block ends while another reads its sums
}

std::vector<Tensor> weight_gradients_op(const std::vector<Tensor>& grads,
                                        const std::vector<Tensor>& inputs, int64_t parts,
                                        int64_t bits) {
  if (grads.empty()) throw std::runtime_error("weight_gradients: expected a layer, got none");
  const Call call("weight_gradients", grads[0], Takes::float32);
  call.require(parts >= 1 && parts <= MOST_PARTS, "parts must be 1 or 2, got ", parts);
  const size_t count = grads.size() / parts;
  call.require(grads.size() == count * parts && inputs.size() == grads.size(),
               "expected as many gradients and inputs of every part");
  const OnDevice device(grads[0]);
  require_clusters(call, device);
  std::vector<Tensor> results;
  for (size_t first = 0; first < count; first += MOST_LAYERS) {
    Weights weights{};
    int tiles = 0, most_chunks = 0;
    weights.count = static_cast<int>(count - first < MOST_LAYERS ? count - first : MOST_LAYERS);
    for (int k = 0; k < weights.count; ++k) {
      Weight& layer = weights.layer[k];
      const Tensor &grad = grads[first + k], &x = inputs[first + k];
      call.has("grad", grad, {ANY, ANY});
      call.has("input", x, {grad.size(0), ANY});
      const int64_t rows = grad.size(1), columns = x.size(1);
      int chunks = 0;
      for (int64_t part = 0; part < parts; ++part) {
        const size_t i = part * count + first + k;
        call.has("grad", grads[i], {ANY, rows});
        call.has("input", inputs[i], {grads[i].size(0), columns});
        layer.grad[part] = matrix_of(grads[i]);
        layer.x[part] = matrix_of(inputs[i]);
        chunks += chunks_of(layer.grad[part].rows);
      }
      most_chunks = chunks > most_chunks ? chunks : most_chunks;
      results.push_back(empty(grad, {rows, columns}));
      layer.out = mutable_data<float>(results.back());
      layer.first = tiles;
      tiles += static_cast<int>((rows + SIDE - 1) / SIDE * ((columns + SIDE - 1) / SIDE));
    }
    if (tiles == 0) continue;
    int cluster = 1;
    while (cluster < MOST_BLOCKS && tiles * cluster < ENOUGH_BLOCKS &&
           most_chunks >= 2 * cluster * STAGES)
      cluster *= 2;
    with_precision(call, bits, [&](auto precision) {
      device.launch_clusters(weight_gradients_kernel<decltype(precision)>, tiles, cluster, false,
                             PRODUCT_THREADS, FLOATS * sizeof(float), weights, cluster);
    });
  }
  return results;
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(ites_cuda, m) {
  for (const char* schema : weight_gradients_schemas) m.def(schema);
}

STABLE_TORCH_LIBRARY_IMPL(ites_cuda, CUDA, m) {
  m.impl("weight_gradients", TORCH_BOX(&weight_gradients_op));
}

}  // namespace ites
