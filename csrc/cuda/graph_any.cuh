// The graph family for any skeleton and any alignment: a block of threads takes one pose after the
// other and reads it through the cache.
#pragma once

#include "cuda/graph_tables.cuh"

namespace ites {

constexpr int THREADS_ANY = 128, WARPS_ANY = THREADS_ANY / 32;

// One pose's columns.
template <class T>
struct PoseColumns {
  const GraphShape& g;
  const T* features;

  __device__ float at(int joint, int64_t column) const {
    return static_cast<float>(features[joint * g.stride + column]);
  }
  __device__ float theta(int joint) const { return at(joint, g.theta_column()); }
  __device__ float pooled(const int* pair, int64_t column) const {
    return pool_pair(at(pair[0], column), at(pair[1], column));
  }
};

// Scores of a pose's pairs, one warp per pair. A barrier must follow.
template <class T>
__device__ void put_scores(const GraphShape& g, const GraphTables& tables,
                           const PoseColumns<T>& pose, float* scores) {
  const int lane = threadIdx.x % 32;
  if (g.attended == 0) return;
  for (int p = threadIdx.x / 32; p < g.pairs; p += WARPS_ANY) {
    float sum = 0.0f;
    for (int64_t m = lane; m < g.attended; m += 32)
      sum += tables.v[m] * pose.pooled(tables.pairs + 2 * p, 2 * g.channels + g.attended + m);
    sum = group_sum(sum, 32);
    if (lane == 0) scores[p] = sum + tables.bias[g.channels + g.attended];
  }
}

inline int forward_bytes_any(const GraphShape& g) { return (g.edges + g.pairs) * sizeof(float); }

template <class T>
__global__ void __launch_bounds__(THREADS_ANY, 4)
    graph_mix_any_kernel(const GraphShape g, const GraphTables tables,
                         const T* __restrict__ features, const T* __restrict__ residual,
                         T* __restrict__ y, T* __restrict__ t) {
  float* const weights = shared_floats();
  float* const scores = weights + g.edges;
  const int64_t b = blockIdx.x;
  const PoseColumns<T> pose{g, features + b * g.joints * g.stride};
  put_weights(g, tables, weights);
  put_scores(g, tables, pose, scores);
  __syncthreads();
  for (int64_t k = threadIdx.x; k < g.joints * g.channels; k += THREADS_ANY) {
    const int i = static_cast<int>(k / g.channels);
    const int64_t c = k % g.channels, at = b * g.joints * g.channels + k;
    float sum = tables.bias[c] + (residual ? static_cast<float>(residual[at]) : 0.0f);
    for (int e = tables.row_start[i]; e < tables.row_start[i + 1]; ++e) {
      const int j = tables.columns[e];
      sum += weights[e] * pose.at(j, j == i ? c : g.channels + c);
    }
    y[at] = static_cast<T>(sum);
  }
  for (int64_t k = threadIdx.x; k < g.joints * g.attended; k += THREADS_ANY) {
    const int i = static_cast<int>(k / g.attended);
    const int64_t m = k % g.attended;
    const float theta = pose.theta(i), bias = tables.bias[g.channels + m], share = 1.0f / g.pairs;
    float sum = 0.0f;
    for (int p = 0; p < g.pairs; ++p)
      sum += affinity(theta, scores[p], share) *
             (pose.pooled(tables.pairs + 2 * p, 2 * g.channels + m) + bias);
    t[b * g.joints * g.attended + k] = static_cast<T>(sum);
  }
}

// Shared memory of the backward kernel.
struct BackwardAny {
  OutgoingEdges edges;
  float *edge_sums, *column_sums;         // gradients of the edges' weights; of bias and v
  float *scores, *grad_scores, *product;  // [P], [P], [J, P]: gradient of the affinities' sums

  __device__ BackwardAny(const GraphShape& g, float* shared) : edges(g, shared) {
    edge_sums = shared + OutgoingEdges::size(g);
    column_sums = edge_sums + g.edges;
    scores = column_sums + g.bias_size() + g.attended;
    grad_scores = scores + g.pairs;
    product = grad_scores + g.pairs;
  }
};
inline int backward_bytes_any(const GraphShape& g) {
  const int64_t pairs = g.attended ? g.pairs : 0;
  return static_cast<int>(sizeof(float) * (OutgoingEdges::size(g) + g.edges + g.bias_size() +
                                           g.attended + 2 * g.pairs + g.joints * pairs));
}

// Gradients of one pose's self and neighbour columns, of the bias and of the edges' weights.
template <class T>
__device__ void mix_backward_any(const GraphShape& g, const GraphTables& tables,
                                 const BackwardAny& s, const PoseColumns<T>& pose, const T* grad_y,
                                 T* grad) {
  for (int64_t c = threadIdx.x; c < g.channels; c += THREADS_ANY) {
    for (int j = 0; j < g.joints; ++j) {
      const float own = grad_y ? static_cast<float>(grad_y[j * g.channels + c]) : 0.0f;
      float neighbours = 0.0f;
      for (int o = s.edges.column_start[j]; grad_y && o < s.edges.column_start[j + 1]; ++o)
        neighbours += s.edges.weights[s.edges.edge[o]] *
                      static_cast<float>(grad_y[s.edges.target[o] * g.channels + c]);
      const int self = s.edges.self_edge[j];
      grad[j * g.stride + c] = static_cast<T>(self < 0 ? 0.0f : s.edges.weights[self] * own);
      grad[j * g.stride + g.channels + c] = static_cast<T>(neighbours);
      s.column_sums[c] += own;
    }
  }
  const int lane = threadIdx.x % 32;
  for (int e = threadIdx.x / 32; grad_y && e < g.edges; e += WARPS_ANY) {
    const int i = s.edges.row[e], j = tables.columns[e];
    float sum = 0.0f;
    for (int64_t c = lane; c < g.channels; c += 32)
      sum +=
          static_cast<float>(grad_y[i * g.channels + c]) * pose.at(j, i == j ? c : g.channels + c);
    sum = group_sum(sum, 32);
    if (lane == 0) s.edge_sums[e] += sum;
  }
}

// Gradients of one pose's g, phi and theta columns, of g's bias, kappa and v.
template <class T>
__device__ void attend_backward_any(const GraphShape& g, const GraphTables& tables,
                                    const BackwardAny& s, const PoseColumns<T>& pose,
                                    const T* grad_t, T* grad) {
  const float share = 1.0f / g.pairs;
  const float* bias = tables.bias + g.channels;
  const int lane = threadIdx.x % 32;
  for (int k = threadIdx.x / 32; k < g.joints * g.pairs; k += WARPS_ANY) {
    const int i = k / g.pairs, p = k % g.pairs;
    float sum = 0.0f;
    for (int64_t m = lane; m < g.attended; m += 32)
      sum += (grad_t ? static_cast<float>(grad_t[i * g.attended + m]) : 0.0f) *
             (pose.pooled(tables.pairs + 2 * p, 2 * g.channels + m) + bias[m]);
    sum = group_sum(sum, 32);
    if (lane == 0) s.product[k] = affinity_slope(pose.theta(i), s.scores[p], share) * sum;
  }
  __syncthreads();
  for (int i = threadIdx.x; i < g.joints; i += THREADS_ANY) {
    float sum = 0.0f;
    for (int p = 0; p < g.pairs; ++p) sum += s.product[i * g.pairs + p];
    grad[i * g.stride + g.theta_column()] = static_cast<T>(sum);
  }
  for (int p = threadIdx.x; p < g.pairs; p += THREADS_ANY) {
    float sum = 0.0f;
    for (int i = 0; i < g.joints; ++i) sum += s.product[i * g.pairs + p];
    s.grad_scores[p] = sum;
  }
  __syncthreads();
  float* const bias_sums = s.column_sums + g.channels;
  if (threadIdx.x == 0)
    for (int p = 0; p < g.pairs; ++p) bias_sums[g.attended] += s.grad_scores[p];
  for (int64_t m = threadIdx.x; m < g.attended; m += THREADS_ANY) {
    T* const grad_g = grad + 2 * g.channels + m;
    for (int i = 0; i < g.joints; ++i)
      grad_g[i * g.stride] = grad_g[i * g.stride + g.attended] = static_cast<T>(0.0f);
    for (int p = 0; p < g.pairs; ++p) {
      const int *pair = tables.pairs + 2 * p, first = pair[0], second = pair[1];
      float grad_pooled = 0.0f;
      for (int i = 0; grad_t && i < g.joints; ++i)
        grad_pooled += affinity(pose.theta(i), s.scores[p], share) *
                       static_cast<float>(grad_t[i * g.attended + m]);
      const auto route = [&](int64_t column, T* to, float gradient) {
        float grad_first, grad_second;
        pool_pair_backward(pose.at(first, column), pose.at(second, column), gradient, grad_first,
                           grad_second);
        to += column - 2 * g.channels - m;
        to[first * g.stride] =
            static_cast<T>(static_cast<float>(to[first * g.stride]) + grad_first);
        to[second * g.stride] =
            static_cast<T>(static_cast<float>(to[second * g.stride]) + grad_second);
      };
      route(2 * g.channels + m, grad_g, grad_pooled);
      route(2 * g.channels + g.attended + m, grad_g, s.grad_scores[p] * tables.v[m]);
      bias_sums[m] += grad_pooled;
      s.column_sums[g.bias_size() + m] +=
          s.grad_scores[p] * pose.pooled(pair, 2 * g.channels + g.attended + m);
    }
  }
}

template <class T>
__global__ void __launch_bounds__(THREADS_ANY, 4)
    graph_mix_backward_any_kernel(const GraphShape g, const GraphTables tables,
                                  const T* __restrict__ grad_y, const T* __restrict__ grad_t,
                                  const T* __restrict__ features, T* __restrict__ grad_features,
                                  float* __restrict__ partial) {
  const BackwardAny s(g, shared_floats());
  s.edges.build(g, tables);
  const int64_t columns = g.bias_size() + g.attended;
  for (int64_t k = threadIdx.x; k < columns + g.edges; k += THREADS_ANY) s.edge_sums[k] = 0.0f;
  for (int64_t b = blockIdx.x; b < g.poses; b += gridDim.x) {
    const int64_t row = b * g.joints;
    const PoseColumns<T> pose{g, features + row * g.stride};
    T* const grad = grad_features + row * g.stride;
    __syncthreads();
    put_scores(g, tables, pose, s.scores);
    mix_backward_any(g, tables, s, pose, grad_y ? grad_y + row * g.channels : nullptr, grad);
    __syncthreads();
    if (g.attended)
      attend_backward_any(g, tables, s, pose, grad_t ? grad_t + row * g.attended : nullptr, grad);
    for (int i = 0; i < g.joints; ++i)
      for (int64_t c = g.used_columns() + threadIdx.x; c < g.stride; c += THREADS_ANY)
        grad[i * g.stride + c] = static_cast<T>(0.0f);
  }
  __syncthreads();
  float* const to = partial + blockIdx.x * g.partial_size();
  for (int64_t k = threadIdx.x; k < columns; k += THREADS_ANY) to[k] = s.column_sums[k];
  for (int e = threadIdx.x; e < g.edges; e += THREADS_ANY) to[columns + e] = s.edge_sums[e];
}

}  // namespace ites
