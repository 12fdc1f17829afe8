// Semantic graph convolution and non-local block of one pose, per channel: V is a number or a
// group of SIMD lanes that hold neighbouring channels.
#pragma once

#include "common/scalar.h"

namespace ites {

// Softmax of one joint's logits, those of its edges [begin, end).
template <class T>
ITES_FN void softmax_row(const T* logits, int begin, int end, T* weights) {
  if (begin == end) return;
  T largest = logits[begin];
  for (int e = begin + 1; e < end; ++e) largest = logits[e] > largest ? logits[e] : largest;
  T total = 0;
  for (int e = begin; e < end; ++e) total += weights[e] = exponential(logits[e] - largest);
  for (int e = begin; e < end; ++e) weights[e] /= total;
}

// Its vector-Jacobian product: w_e (g_e - sum_k w_k g_k).
template <class T>
ITES_FN void softmax_row_backward(const T* weights, const T* grad_weights, int begin, int end,
                                  T* grad_logits) {
  T mean = 0;
  for (int e = begin; e < end; ++e) mean += weights[e] * grad_weights[e];
  for (int e = begin; e < end; ++e) grad_logits[e] = weights[e] * (grad_weights[e] - mean);
}

// The larger of a pair, the first on a tie, NaN if either is.
template <class V>
ITES_FN auto second_wins(V first, V second) {
  return (second > first) | (second != second);
}
template <class V>
ITES_FN V pool_pair(V first, V second) {
  return select(second_wins(first, second), second, first);
}

// Distributes the pooled value's gradient to the pair.
template <class V>
ITES_FN void pool_pair_backward(V first, V second, V grad, V& grad_first, V& grad_second) {
  const auto second_won = second_wins(first, second);
  grad_first = select(second_won, V{}, grad);
  grad_second = select(second_won, grad, V{});
}

// f_ip = relu(theta_i + s_p + kappa) / P, with score = s_p + kappa.
template <class T>
ITES_FN T affinity(T theta, T score, T inverse_pairs) {
  const T sum = theta + score;
  return (sum < 0 ? T(0) : sum) * inverse_pairs;
}

// d f_ip / d theta_i, 0 at the edge of the ReLU.
template <class T>
ITES_FN T affinity_slope(T theta, T score, T inverse_pairs) {
  return theta + score <= 0 ? T(0) : inverse_pairs;
}

}  // namespace ites
