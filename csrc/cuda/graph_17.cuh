// The graph family for skeletons of 17 joints in 8 pairs. A thread keeps four neighbouring channels
// of all joints of a pose in a column of shared memory that no other thread uses. Asynchronous
// copies fill it, all under way at once. Gathering over the skeleton then needs no barrier and no
// second read of global memory. A group of 16 threads (32 where M > 64) serves one pose. A block
// has one task: the non-local block, or a slice of the convolution's channels.
#pragma once

#include "cuda/graph_tables.cuh"

namespace ites {

constexpr int JOINTS_17 = 17, PAIRS_17 = 8, THREADS_17 = 64;

struct Tiling {
  int lanes, poses;   // threads of a pose, poses of a tile
  int slices, tasks;  // of a pose
  int64_t tiles;

  explicit Tiling(const GraphShape& g)
      : lanes(g.attended > 64 ? 32 : 16), poses(THREADS_17 / lanes) {
    slices = static_cast<int>((g.channels + 4 * lanes - 1) / (4 * lanes));
    tasks = slices + (g.attended > 0) > 0 ? slices + (g.attended > 0) : 1;
    tiles = (g.poses + poses - 1) / poses;
  }
};

inline int columns_bytes(int rows, size_t bits) {
  return static_cast<int>(rows * JOINTS_17 * THREADS_17 * bits);
}
inline int forward_bytes_17(const GraphShape& g, bool residual, size_t bits) {
  return static_cast<int>(in_float4s<int64_t>(2 * g.edges) * sizeof(float)) +
         columns_bytes(residual ? 3 : 2, bits);
}
inline int backward_bytes_17(const GraphShape& g, size_t bits) {
  const int64_t tables = in_float4s<int64_t>(OutgoingEdges::size(g)) + g.edges * THREADS_17;
  return static_cast<int>(in_float4s<int64_t>(tables) * sizeof(float)) + columns_bytes(3, bits);
}

// A thread's column: rows of joints, in slots.
template <class T>
struct Column {
  Bits<T>* here;

  __device__ explicit Column(float* shared)
      : here(reinterpret_cast<Bits<T>*>(shared) + threadIdx.x) {}
  // Starts to copy all joints' channels at `from`, `stride` apart.
  __device__ void start(int slot, const T* from, int64_t stride) const {
#pragma unroll
    for (int j = 0; j < JOINTS_17; ++j)
      start_copy<T>(here + (slot * JOINTS_17 + j) * THREADS_17, from + j * stride);
  }
  __device__ Four operator()(int slot, int joint) const {
    return unpack<T>(here[(slot * JOINTS_17 + joint) * THREADS_17]);
  }
  __device__ Four pooled(int slot, const int* pair) const {
    return pool_pair((*this)(slot, pair[0]), (*this)(slot, pair[1]));
  }
};

// The pose of a thread in a tile, and the thread's position in it.
struct Worker {
  int lanes, lane, group;

  __device__ explicit Worker(const Tiling& tiling)
      : lanes(tiling.lanes), lane(threadIdx.x % tiling.lanes), group(threadIdx.x / tiling.lanes) {}
};

template <class T>
__device__ void mix_17(const GraphShape& g, const GraphTables& tables, const Worker& me, int slice,
                       int64_t pose, const T* features, const T* residual, T* y) {
  float* const weights = shared_floats();
  int* const source = reinterpret_cast<int*>(weights + g.edges);
  const Column<T> column(weights + in_float4s<int64_t>(2 * g.edges));
  const int64_t c = 4 * (slice * me.lanes + me.lane), row = pose * JOINTS_17;
  const bool active = c < g.channels && pose < g.poses;
  if (active) {
    const T* from = features + row * g.stride + c;
    column.start(0, from, g.stride);
    column.start(1, from + g.channels, g.stride);
    if (residual) column.start(2, residual + row * g.channels + c, g.channels);
  }
  put_weights(g, tables, weights);
  for (int i = threadIdx.x; i < JOINTS_17; i += THREADS_17)
    for (int e = tables.row_start[i]; e < tables.row_start[i + 1]; ++e)
      source[e] = tables.columns[e] == i ? i : JOINTS_17 + tables.columns[e];
  finish_copies();
  __syncthreads();
  if (!active) return;
  const Four bias = load_some(tables.bias + c, 4);
  for (int i = 0; i < JOINTS_17; ++i) {
    Four sum = residual ? bias + column(2, i) : bias;
    for (int e = tables.row_start[i]; e < tables.row_start[i + 1]; ++e)
      sum += Four(weights[e]) * column(0, source[e]);
    store(y + (row + i) * g.channels + c, sum);
  }
}

// Non-local block of one pose, as seen by each thread: the scores of the pairs, its
// channels of pooled g with the bias, and all joints' theta.
struct Attention {
  float theta[JOINTS_17], score[PAIRS_17];
  Four pooled[PAIRS_17];

  template <class T>
  __device__ Attention(const GraphShape& g, const GraphTables& tables, const Worker& me,
                       const T* features, const Column<T>& column, bool active) {
    const int64_t m = 4 * me.lane;
    if (active) {
      column.start(0, features + 2 * g.channels + g.attended + m, g.stride);  // phi
      column.start(1, features + 2 * g.channels + m, g.stride);               // g
    }
#pragma unroll
    for (int i = 0; i < JOINTS_17; ++i)
      theta[i] = static_cast<float>(features[i * g.stride + g.theta_column()]);
    finish_copies();
    const Four v = active ? load_some(tables.v + m, 4) : Four(0.0f);
    const Four bias = active ? load_some(tables.bias + g.channels + m, 4) : Four(0.0f);
    const float kappa = tables.bias[g.channels + g.attended];
#pragma unroll
    for (int p = 0; p < PAIRS_17; ++p) {
      const int* pair = tables.pairs + 2 * p;
      pooled[p] = active ? column.pooled(1, pair) + bias : Four(0.0f);
      score[p] = group_sum(active ? dot(v, column.pooled(0, pair)) : 0.0f, me.lanes) + kappa;
    }
  }
};

template <class T>
__device__ void attend_17(const GraphShape& g, const GraphTables& tables, const Worker& me,
                          int64_t pose, const T* features, T* t) {
  const Column<T> column(shared_floats());
  const int64_t m = 4 * me.lane, row = min(pose, g.poses - 1) * JOINTS_17;
  const Attention a(g, tables, me, features + row * g.stride, column, m < g.attended);
  if (m >= g.attended || pose >= g.poses) return;
#pragma unroll
  for (int i = 0; i < JOINTS_17; ++i) {
    Four sum(0.0f);
#pragma unroll
    for (int p = 0; p < PAIRS_17; ++p)
      sum += Four(affinity(a.theta[i], a.score[p], 1.0f / PAIRS_17)) * a.pooled[p];
    store(t + (row + i) * g.attended + m, sum);
  }
}

template <class T>
__global__ void __launch_bounds__(THREADS_17, 6)
    graph_mix_17_kernel(const GraphShape g, const GraphTables tables, const Tiling tiling,
                        const T* __restrict__ features, const T* __restrict__ residual,
                        T* __restrict__ y, T* __restrict__ t) {
  const Worker me(tiling);
  const int64_t pose = blockIdx.x % tiling.tiles * tiling.poses + me.group;
  const int task = static_cast<int>(blockIdx.x / tiling.tiles), others = g.attended > 0;
  if (task < others) {
    attend_17(g, tables, me, pose, features, t);
  } else {
    mix_17(g, tables, me, task - others, pose, features, residual, y);
  }
}

// Zeroes the columns that nothing uses.
template <class T>
__device__ void clear_padding(const GraphShape& g, const Worker& me, T* grad_pose) {
  for (int i = 0; i < JOINTS_17; ++i)
    for (int64_t c = g.used_columns() + me.lane; c < g.stride; c += me.lanes)
      grad_pose[i * g.stride + c] = static_cast<T>(0.0f);
}

// Sum of the groups' values, in their order, for the threads of the first; by the whole block.
__device__ __forceinline__ Four over_groups(const Four& mine, const Worker& me, Four* shared) {
  __syncthreads();
  shared[threadIdx.x] = mine;
  __syncthreads();
  Four sum(0.0f);
  if (me.group == 0)
    for (int k = me.lane; k < THREADS_17; k += me.lanes) sum += shared[k];
  return sum;
}

// The tiles of a block: first, first + step, ...
struct Tiles {
  int64_t first, step;
};

template <class T>
__device__ void mix_backward_17(const GraphShape& g, const GraphTables& tables,
                                const Tiling& tiling, const Worker& me, int slice,
                                const Tiles& tiles, const T* grad_y, const T* features,
                                T* grad_features, float* partial) {
  float* const shared = shared_floats();
  const OutgoingEdges edges(g, shared);
  float* const edge_sums = shared + in_float4s<int64_t>(OutgoingEdges::size(g));
  float* const columns = shared + in_float4s<int64_t>(edge_sums - shared + g.edges * THREADS_17);
  const Column<T> column(columns);
  const int64_t c = 4 * (slice * me.lanes + me.lane);
  for (int e = 0; e < g.edges; ++e) edge_sums[e * THREADS_17 + threadIdx.x] = 0.0f;
  Four bias(0.0f);
  for (int64_t tile = tiles.first; tile < tiling.tiles; tile += tiles.step) {
    const int64_t pose = tile * tiling.poses + me.group, row = pose * JOINTS_17;
    const bool live = pose < g.poses, active = live && c < g.channels;
    if (active) {
      const T* from = features + row * g.stride + c;
      if (grad_y) column.start(0, grad_y + row * g.channels + c, g.channels);
      column.start(1, from, g.stride);
      column.start(2, from + g.channels, g.stride);
    }
    if (tile == tiles.first) edges.build(g, tables);
    finish_copies();
    T* const grad_pose = grad_features + row * g.stride;
    if (live && slice == 0 && g.attended == 0) clear_padding(g, me, grad_pose);
    if (!active) continue;
    const auto incoming = [&](int joint) { return grad_y ? column(0, joint) : Four(0.0f); };
    const auto add = [&](int e, const Four& a, const Four& b) {
      edge_sums[e * THREADS_17 + threadIdx.x] += dot(a, b);
    };
    for (int j = 0; j < JOINTS_17; ++j) {
      const Four own = incoming(j), neighbour = column(2, j);
      const int self = edges.self_edge[j];
      Four grad(0.0f);
      for (int o = edges.column_start[j]; o < edges.column_start[j + 1]; ++o) {
        const Four other = incoming(edges.target[o]);
        add(edges.edge[o], other, neighbour);
        grad += Four(edges.weights[edges.edge[o]]) * other;
      }
      if (self >= 0) add(self, own, column(1, j));
      T* const to = grad_pose + j * g.stride + c;
      store(to, self < 0 ? Four(0.0f) : Four(edges.weights[self]) * own);
      store(to + g.channels, grad);
      bias += own;
    }
  }
  bias = over_groups(bias, me, reinterpret_cast<Four*>(columns));
  if (me.group == 0) store_some(partial + c, bias, g.channels - c);
  for (int e = threadIdx.x / 32; e < g.edges; e += THREADS_17 / 32) {
    const float* from = edge_sums + e * THREADS_17 + threadIdx.x % 32;
    const float sum = group_sum(from[0] + from[32], 32);
    if (threadIdx.x % 32 == 0)
      partial[g.bias_size() + g.attended + static_cast<int64_t>(slice) * g.edges + e] = sum;
  }
}

template <class T>
__device__ void attend_backward_17(const GraphShape& g, const GraphTables& tables,
                                   const Tiling& tiling, const Worker& me, const Tiles& tiles,
                                   const T* grad_t, const T* features, T* grad_features,
                                   float* partial) {
  const Column<T> column(shared_floats());
  const int64_t m = 4 * me.lane;
  const bool active = m < g.attended;
  Four bias_sum(0.0f), v_sum(0.0f), kappa_sum(0.0f);
  for (int64_t tile = tiles.first; tile < tiling.tiles; tile += tiles.step) {
    const int64_t pose = tile * tiling.poses + me.group;
    const int64_t row = min(pose, g.poses - 1) * JOINTS_17;
    const bool live = pose < g.poses, incoming = grad_t && live && active;
    if (incoming) column.start(2, grad_t + row * g.attended + m, g.attended);
    const Attention a(g, tables, me, features + row * g.stride, column, active);
    T* const grad_pose = grad_features + row * g.stride;

    Four grad_g[PAIRS_17];
    float grad_score[PAIRS_17];
#pragma unroll
    for (int p = 0; p < PAIRS_17; ++p) {
      grad_g[p] = Four(0.0f);
      grad_score[p] = 0.0f;
    }
#pragma unroll
    for (int i = 0; i < JOINTS_17; ++i) {
      const Four g_t = incoming ? column(2, i) : Four(0.0f);
      float grad_theta = 0.0f;
#pragma unroll
      for (int p = 0; p < PAIRS_17; ++p) {
        const float product =
            affinity_slope(a.theta[i], a.score[p], 1.0f / PAIRS_17) * dot(g_t, a.pooled[p]);
        grad_theta += product;
        grad_score[p] += product;
        grad_g[p] += Four(affinity(a.theta[i], a.score[p], 1.0f / PAIRS_17)) * g_t;
      }
      grad_theta = group_sum(grad_theta, me.lanes);
      kappa_sum.v[0] += grad_theta;
      if (live && me.lane == 0)
        grad_pose[i * g.stride + g.theta_column()] = static_cast<T>(grad_theta);
    }
#pragma unroll
    for (int p = 0; p < PAIRS_17; ++p) {
      grad_score[p] = group_sum(grad_score[p], me.lanes);
      bias_sum += grad_g[p];
      if (active) v_sum += Four(grad_score[p]) * column.pooled(0, tables.pairs + 2 * p);
    }
    if (live) clear_padding(g, me, grad_pose);
    if (!live || !active) continue;
    const Four v = load_some(tables.v + m, 4);
#pragma unroll 1
    for (int i = 0; i < JOINTS_17; ++i) {
      Four to_phi(0.0f), to_g(0.0f);
#pragma unroll
      for (int p = 0; p < PAIRS_17; ++p) {
        const int first = tables.pairs[2 * p], second = tables.pairs[2 * p + 1];
        if (first != i && second != i) continue;
        const auto route = [&](int slot, const Four& grad, Four& to) {
          Four grad_first, grad_second;
          pool_pair_backward(column(slot, first), column(slot, second), grad, grad_first,
                             grad_second);
          if (first == i) to += grad_first;
          if (second == i) to += grad_second;
        };
        route(0, Four(grad_score[p]) * v, to_phi);
        route(1, grad_g[p], to_g);
      }
      T* const to = grad_pose + i * g.stride + 2 * g.channels + m;
      store(to, to_g);
      store(to + g.attended, to_phi);
    }
  }
  Four* const shared = reinterpret_cast<Four*>(shared_floats());
  bias_sum = over_groups(bias_sum, me, shared);
  v_sum = over_groups(v_sum, me, shared);
  kappa_sum = over_groups(kappa_sum, me, shared);
  if (me.group > 0) return;
  store_some(partial + g.channels + m, bias_sum, g.attended - m);
  store_some(partial + g.bias_size() + m, v_sum, g.attended - m);
  if (me.lane == 0) partial[g.channels + g.attended] = kappa_sum.v[0];
}

template <class T>
__global__ void __launch_bounds__(THREADS_17, 4)
    graph_mix_backward_17_kernel(const GraphShape g, const GraphTables tables, const Tiling tiling,
                                 const T* __restrict__ grad_y, const T* __restrict__ grad_t,
                                 const T* __restrict__ features, T* __restrict__ grad_features,
                                 float* __restrict__ partial) {
  const Worker me(tiling);
  const int rows = gridDim.x / tiling.tasks, task = blockIdx.x / rows, others = g.attended > 0;
  const Tiles tiles{static_cast<int64_t>(blockIdx.x) % rows, rows};
  partial += tiles.first * g.partial_size();
  if (task < others) {
    attend_backward_17(g, tables, tiling, me, tiles, grad_t, features, grad_features, partial);
  } else {
    mix_backward_17(g, tables, tiling, me, task - others, tiles, grad_y, features, grad_features,
                    partial);
  }
}

}  // namespace ites
