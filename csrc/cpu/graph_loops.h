// Loops of the graph family over poses.
#pragma once

#include "common/graph.h"
#include "cpu/channels.h"
#include "cpu/graph_arguments.h"

namespace ites {
namespace ITES_SIMD {

// y of one pose.
template <class T>
ITES_FN void mix(const GraphMix<T>& m, const T* features, const T* residual, T* y) {
  for (int i = 0; i < m.table.joints; ++i) {
    over_channels<T>(m.channels, [&](auto stride, int64_t c) __attribute__((always_inline)) {
      using V = typename decltype(stride)::Value;
      constexpr int K = decltype(stride)::values, width = width_of<V>;
      V sum[K];
      for (int k = 0; k < K; ++k) {
        sum[k] = load<V>(m.bias + c + k * width);
        if (residual) sum[k] += load<V>(residual + i * m.channels + c + k * width);
      }
      for (int e = m.table.row_start[i]; e < m.table.row_start[i + 1]; ++e) {
        const Incoming<T> edge = m.table.incoming[e];
        for (int k = 0; k < K; ++k)
          sum[k] += V(edge.weight) * load<V>(features + edge.offset + c + k * width);
      }
      for (int k = 0; k < K; ++k) store(y + i * m.channels + c + k * width, sum[k]);
    });
  }
}

// Pools g (with its bias) and phi of one pose into [P, padded], zero beyond M, and scores the
// pairs. phi may be left out.
template <class Mix, class T>
ITES_FN void pool(const Mix& m, const T* features, T* pooled_g, T* pooled_phi, T* score) {
  using V = lanes_of<T>;
  const int64_t padded = m.padded();
  const T *g_bias = m.bias + m.channels, kappa = g_bias[m.attended];
  for (int p = 0; p < m.pairs; ++p) {
    const T* first = features + m.pair[2 * p] * m.stride + 2 * m.channels;
    const T* second = features + m.pair[2 * p + 1] * m.stride + 2 * m.channels;
    V s(T(0));
    for (int64_t c = 0; c < padded; c += width_of<V>) {
      const int64_t left = m.attended - c;
      const V g = pool_pair(load_some<V>(first + c, left), load_some<V>(second + c, left));
      store(pooled_g + p * padded + c, g + load_some<V>(g_bias + c, left));
      const V phi = pool_pair(load_some<V>(first + m.attended + c, left),
                              load_some<V>(second + m.attended + c, left));
      if (pooled_phi) store(pooled_phi + p * padded + c, phi);
      s += load_some<V>(m.v + c, left) * phi;
    }
    score[p] = sum_of(s) + kappa;
  }
}

// t of one pose.
template <class T>
ITES_FN void attend(const GraphMix<T>& m, const T* features, T* t, T* scratch) {
  const int64_t padded = m.padded();
  T *pooled = scratch, *score = pooled + m.pairs * padded, *share = score + m.pairs;
  pool(m, features, pooled, static_cast<T*>(nullptr), score);
  for (int i = 0; i < m.table.joints; ++i) {
    const T theta = features[i * m.stride + 2 * (m.channels + m.attended)];
    for (int p = 0; p < m.pairs; ++p) share[p] = affinity(theta, score[p], T(1) / m.pairs);
    over_channels<T>(m.attended, [&](auto stride, int64_t c) __attribute__((always_inline)) {
      using V = typename decltype(stride)::Value;
      constexpr int K = decltype(stride)::values, width = width_of<V>;
      V sum[K];
      for (int k = 0; k < K; ++k) sum[k] = V(T(0));
      for (int p = 0; p < m.pairs; ++p)
        for (int k = 0; k < K; ++k)
          sum[k] += V(share[p]) * load<V>(pooled + p * padded + c + k * width);
      for (int k = 0; k < K; ++k) store(t + i * m.attended + c + k * width, sum[k]);
    });
  }
}

template <class T>
void graph_mix(const GraphMix<T>& m, T* scratch, int64_t begin, int64_t end) {
  const int64_t joints = m.table.joints;
  for (int64_t b = begin; b < end; ++b) {
    const T* features = m.features + b * joints * m.stride;
    const int64_t row = b * joints * m.channels;
    mix(m, features, m.residual ? m.residual + row : nullptr, m.y + row);
    if (m.attended) attend(m, features, m.t + b * joints * m.attended, scratch);
  }
}

// Gradients of one pose's self and neighbour columns; adds to those of the bias and, lane by
// lane, of the edges' weights.
template <class T>
ITES_FN void mix_backward(const GraphMixBackward<T>& m, const T* grad_y, const T* features,
                          T* grad_features, T* grad_bias, T* edge_sums) {
  constexpr int lanes = GraphMixBackward<T>::lanes;
  const EdgeTables<T>& table = m.table;
  over_channels<T>(m.channels, [&](auto stride, int64_t c) __attribute__((always_inline)) {
    using V = typename decltype(stride)::Value;
    constexpr int K = decltype(stride)::values, width = width_of<V>;
    V bias[K];
    for (int k = 0; k < K; ++k) bias[k] = load<V>(grad_bias + c + k * width);
    for (int j = 0; j < table.joints; ++j) {
      const T* own = features + j * m.stride + c;
      T* grad_own = grad_features + j * m.stride + c;
      const int self = table.self_edge[j];
      const V weight(self < 0 ? T(0) : table.weights[self]);
      V product(T(0)), neighbour[K], grad[K];
      for (int k = 0; k < K; ++k) {
        const V g = load<V>(grad_y + j * m.channels + c + k * width);
        bias[k] += g;
        product += g * load<V>(own + k * width);
        store(grad_own + k * width, weight * g);
        neighbour[k] = load<V>(own + m.channels + k * width);
        grad[k] = V(T(0));
      }
      if (self >= 0) store(edge_sums + self * lanes, load<V>(edge_sums + self * lanes) + product);
      for (int o = table.column_start[j]; o < table.column_start[j + 1]; ++o) {
        const Outgoing<T> edge = table.outgoing[o];
        V sum = load<V>(edge_sums + edge.edge * lanes);
        for (int k = 0; k < K; ++k) {
          const V g = load<V>(grad_y + edge.target * m.channels + c + k * width);
          sum += g * neighbour[k];
          grad[k] += V(edge.weight) * g;
        }
        store(edge_sums + edge.edge * lanes, sum);
      }
      for (int k = 0; k < K; ++k) store(grad_own + m.channels + k * width, grad[k]);
    }
    for (int k = 0; k < K; ++k) store(grad_bias + c + k * width, bias[k]);
  });
}

// Gradients of one pose's g, phi and theta columns, which must be zero; adds to those of g's
// bias, of kappa behind it, and of v.
template <class T>
ITES_FN void attend_backward(const GraphMixBackward<T>& m, const T* grad_t, const T* features,
                             T* grad_features, T* grad_bias, T* grad_v, T* scratch) {
  using V = lanes_of<T>;
  constexpr int width = width_of<V>;
  const int64_t padded = m.padded(), theta_column = 2 * (m.channels + m.attended);
  const int joints = m.table.joints, pairs = m.pairs;
  T *score_sums = scratch, *pooled_g = score_sums + pairs * width,
    *pooled_phi = pooled_g + pairs * padded, *share = pooled_phi + pairs * padded,
    *score = share + pairs * joints, *grad_score = score + pairs;
  pool(m, features, pooled_g, pooled_phi, score);

  for (int64_t k = 0; k < int64_t{pairs} * width; ++k) score_sums[k] = 0;
  for (int i = 0; i < joints; ++i) {
    const T theta = features[i * m.stride + theta_column];
    const T* g = grad_t + i * m.attended;
    V theta_sum(T(0));
    for (int p = 0; p < pairs; ++p) {
      V product(T(0));
      for (int64_t c = 0; c < padded; c += width)
        product += load_some<V>(g + c, m.attended - c) * load<V>(pooled_g + p * padded + c);
      share[i * pairs + p] = affinity(theta, score[p], T(1) / pairs);
      product = product * V(affinity_slope(theta, score[p], T(1) / pairs));
      theta_sum += product;
      store(score_sums + p * width, load<V>(score_sums + p * width) + product);
    }
    const T grad_theta = sum_of(theta_sum);
    grad_features[i * m.stride + theta_column] = grad_theta;
    grad_bias[m.attended] += grad_theta;
  }
  for (int p = 0; p < pairs; ++p) grad_score[p] = sum_of(load<V>(score_sums + p * width));

  over_channels<T>(m.attended, [&](auto stride, int64_t c) __attribute__((always_inline)) {
    using W = typename decltype(stride)::Value;
    constexpr int K = decltype(stride)::values, step = width_of<W>;
    for (int p = 0; p < pairs; ++p) {
      W grad_g[K];
      for (int k = 0; k < K; ++k) grad_g[k] = W(T(0));
      for (int i = 0; i < joints; ++i)
        for (int k = 0; k < K; ++k)
          grad_g[k] += W(share[i * pairs + p]) * load<W>(grad_t + i * m.attended + c + k * step);
      const int64_t first = m.pair[2 * p] * m.stride + 2 * m.channels;
      const int64_t second = m.pair[2 * p + 1] * m.stride + 2 * m.channels;
      const auto route = [&](int64_t at, W grad) __attribute__((always_inline)) {
        W grad_first, grad_second;
        pool_pair_backward(load<W>(features + first + at), load<W>(features + second + at), grad,
                           grad_first, grad_second);
        store(grad_features + first + at, load<W>(grad_features + first + at) + grad_first);
        store(grad_features + second + at, load<W>(grad_features + second + at) + grad_second);
      };
      for (int k = 0; k < K; ++k) {
        const int64_t at = c + int64_t{k} * step;
        route(at, grad_g[k]);
        route(m.attended + at, W(grad_score[p]) * load<W>(m.v + at));
        store(grad_bias + at, load<W>(grad_bias + at) + grad_g[k]);
        store(grad_v + at,
              load<W>(grad_v + at) + W(grad_score[p]) * load<W>(pooled_phi + p * padded + at));
      }
    }
  });
}

template <class T>
void graph_mix_backward(const GraphMixBackward<T>& m, T* scratch, int64_t begin, int64_t end) {
  constexpr int unit = GraphMixBackward<T>::unit, lanes = GraphMixBackward<T>::lanes;
  using V = lanes_of<T>;
  const int64_t joints = m.table.joints, edges = m.table.edges, stride = m.stride;
  T *edge_sums = scratch, *rest = edge_sums + edges * lanes;
  for (int64_t u = begin; u < end; ++u) {
    T *grad_bias = m.partial + u * m.partial_size(), *grad_v = grad_bias + m.bias_size();
    for (int64_t k = 0; k < m.partial_size(); ++k) grad_bias[k] = 0;
    for (int64_t k = 0; k < edges * lanes; ++k) edge_sums[k] = 0;
    const int64_t last = (u + 1) * unit < m.poses ? (u + 1) * unit : m.poses;
    for (int64_t b = u * unit; b < last; ++b) {
      const T* features = m.features + b * joints * stride;
      T* grad = m.grad_features + b * joints * stride;
      const int64_t clear = m.grad_y ? 2 * m.channels : 0;
      for (int64_t i = 0; i < joints; ++i)
        for (int64_t c = clear; c < stride; ++c) grad[i * stride + c] = 0;
      if (m.grad_y)
        mix_backward(m, m.grad_y + b * joints * m.channels, features, grad, grad_bias, edge_sums);
      if (m.grad_t)
        attend_backward(m, m.grad_t + b * joints * m.attended, features, grad,
                        grad_bias + m.channels, grad_v, rest);
    }
    T* grad_weights = grad_v + m.attended;
    for (int64_t e = 0; e < edges; ++e) grad_weights[e] = sum_of(load<V>(edge_sums + e * lanes));
  }
}

#define ITES_INSTANTIATE(T)                                             \
  template void graph_mix<T>(const GraphMix<T>&, T*, int64_t, int64_t); \
  template void graph_mix_backward<T>(const GraphMixBackward<T>&, T*, int64_t, int64_t);
ITES_INSTANTIATE(float)
ITES_INSTANTIATE(double)
#undef ITES_INSTANTIATE

}  // namespace ITES_SIMD
}  // namespace ites
