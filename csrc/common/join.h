// The joined weights of a graph layer and their gradients, entry by entry:
//
//     projection (C, S) = [W0 | W1 | g' | phi' | theta' u | 0]
//     bias (C + M + 1,) = [b | b_g | u . b_theta + v . b_phi]
//
// See ites/ops/join.py.
#pragma once

#include "common/scalar.h"

namespace ites {

// One layer's parameters, row by row: conv_weight (2, C, C), g, theta and phi (M, C), affinity
// (2, M) = [u | v]; T is const to read them, and not to write their gradients.
template <class T>
struct LayerParameters {
  T *conv_weight, *conv_bias, *g_weight, *g_bias, *theta_weight, *theta_bias, *phi_weight,
      *phi_bias, *affinity;
};
// What they are joined to: projection (C, S), bias (C + M + 1,), v (M,).
template <class T>
struct JoinedWeights {
  T *projection, *bias, *v;
};
struct JoinShape {
  int channels, attended, columns;  // C, M, S

  ITES_FN int theta_column() const { return 2 * (channels + attended); }
  ITES_FN int joined_size() const { return channels * columns + channels + 2 * attended + 1; }
  ITES_FN int parameters_size() const {
    const int m = attended;
    return 2 * channels * channels + channels + 3 * (m * channels + m) + 2 * m;
  }
};

// Entry `i` of projection, bias and v, one after the other.
template <class T>
ITES_FN void join_entry(const JoinShape& s, const LayerParameters<const T>& p, int i,
                        const JoinedWeights<T>& to) {
  const int C = s.channels, M = s.attended;
  const T *u = p.affinity, *v = u + M;
  if (i < C * s.columns) {
    const int c = i / s.columns, column = i % s.columns, m = column - 2 * C;
    T value = 0;
    if (column < C) {
      value = p.conv_weight[c * C + column];
    } else if (column < 2 * C) {
      value = p.conv_weight[(C + c) * C + column - C];
    } else if (m < M) {
      value = p.g_weight[m * C + c];
    } else if (m < 2 * M) {
      value = p.phi_weight[(m - M) * C + c];
    } else if (m == 2 * M) {
      for (int k = 0; k < M; ++k) value += u[k] * p.theta_weight[k * C + c];
    }
    to.projection[i] = value;
    return;
  }
  i -= C * s.columns;
  if (i < C) {
    to.bias[i] = p.conv_bias[i];
  } else if (i < C + M) {
    to.bias[i] = p.g_bias[i - C];
  } else if (i == C + M) {
    T kappa = 0;
    for (int k = 0; k < M; ++k) kappa += u[k] * p.theta_bias[k] + v[k] * p.phi_bias[k];
    to.bias[i] = kappa;
  } else {
    to.v[i - C - M - 1] = v[i - C - M - 1];
  }
}

// Entry `i` of the gradients of the parameters, in the order of LayerParameters.
template <class T>
ITES_FN void join_backward_entry(const JoinShape& s, const LayerParameters<const T>& p,
                                 const JoinedWeights<const T>& grad, int i,
                                 const LayerParameters<T>& to) {
  const int C = s.channels, M = s.attended, S = s.columns;
  const T *u = p.affinity, *v = u + M;
  const T kappa = grad.bias[C + M];
  if (i < 2 * C * C) {
    const int half = i / (C * C), c = i / C % C, column = i % C;
    to.conv_weight[i] = grad.projection[c * S + half * C + column];
    return;
  }
  i -= 2 * C * C;
  if (i < C) {
    to.conv_bias[i] = grad.bias[i];
    return;
  }
  i -= C;
  if (i < M * C) {
    to.g_weight[i] = grad.projection[i % C * S + 2 * C + i / C];
    return;
  }
  i -= M * C;
  if (i < M) {
    to.g_bias[i] = grad.bias[C + i];
    return;
  }
  i -= M;
  if (i < M * C) {
    to.theta_weight[i] = u[i / C] * grad.projection[i % C * S + s.theta_column()];
    return;
  }
  i -= M * C;
  if (i < M) {
    to.theta_bias[i] = u[i] * kappa;
    return;
  }
  i -= M;
  if (i < M * C) {
    to.phi_weight[i] = grad.projection[i % C * S + 2 * C + M + i / C];
    return;
  }
  i -= M * C;
  if (i < M) {
    to.phi_bias[i] = v[i] * kappa;
    return;
  }
  i -= M;
  if (i < M) {
    T sum = p.theta_bias[i] * kappa;
    for (int c = 0; c < C; ++c)
      sum += p.theta_weight[i * C + c] * grad.projection[c * S + s.theta_column()];
    to.affinity[i] = sum;
  } else {
    to.affinity[i] = grad.v[i - M] + p.phi_bias[i - M] * kappa;
  }
}

}  // namespace ites
