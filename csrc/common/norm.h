// Batch normalisation with ReLU and skip connection, per element and per channel: V is a number
// or a group of SIMD lanes that hold neighbouring channels.
#pragma once

#include "common/scalar.h"

namespace ites {

// Mean and sum of squared deviations of a set of values.
template <class V>
struct Moments {
  V mean, deviation;
};

// Moments of R values in registers, in two passes.
template <int R, class V>
ITES_FN Moments<V> moments_of(const V (&x)[R]) {
  V sum = x[0];
  for (int r = 1; r < R; ++r) sum += x[r];
  const V mean = sum * V(scalar_of<V>(1.0 / R));
  V deviation = (x[0] - mean) * (x[0] - mean);
  for (int r = 1; r < R; ++r) deviation += (x[r] - mean) * (x[r] - mean);
  return {mean, deviation};
}

// Moments of two sets together, `share` being the second's part of their number and
// `weight` = n_a n_b / (n_a + n_b)  (Chan, Golub, LeVeque 1979).
template <class V>
ITES_FN Moments<V> join(Moments<V> a, Moments<V> b, scalar_of<V> share, scalar_of<V> weight) {
  const V step = b.mean - a.mean;
  return {a.mean + step * V(share), a.deviation + b.deviation + step * step * V(weight)};
}

// The form of the output: relu(bn), relu(bn + skip), relu(bn) + skip or bn + skip.
struct Form {
  bool relu, skip_before, skip_after;
};

// One channel's statistics and parameters.
template <class V>
struct Channel {
  V mean, scale, weight, bias;  // scale = 1 / sqrt(variance + eps)
};

template <class V>
ITES_FN V normalised(V x, const Channel<V>& c) {
  return (x - c.mean) * c.scale;
}

// The input of the ReLU; skip is read only in the form with skip_before.
template <class V>
ITES_FN V before_relu(V x, V skip, const Channel<V>& c, Form form) {
  const V y = normalised(x, c) * c.weight + c.bias;
  return form.skip_before ? y + skip : y;
}

template <class V>
ITES_FN V batch_norm_relu(V x, V skip, const Channel<V>& c, Form form) {
  V y = before_relu(x, skip, c, form);
  if (form.relu) y = select(V{} > y, V{}, y);
  return form.skip_after ? y + skip : y;
}

// Gradient of the ReLU's input.
template <class V>
ITES_FN V before_relu_backward(V grad, V x, V skip, const Channel<V>& c, Form form) {
  return form.relu ? select(V{} >= before_relu(x, skip, c, form), V{}, grad) : grad;
}

// Gradient of x. Given are the gradient of the ReLU's input, and the means over the batch of that
// gradient and of its product with the normalised value.
template <class V>
ITES_FN V batch_norm_backward(V grad, V x, V grad_mean, V product_mean, const Channel<V>& c) {
  return c.weight * c.scale * (grad - grad_mean - normalised(x, c) * product_mean);
}

// The joint moments of pairs of values: means, sums of squared deviations and of their products.
template <class V>
struct JointMoments {
  V x_mean, y_mean, xx, yy, xy;
};

template <int R, class V>
ITES_FN JointMoments<V> joint_moments_of(const V (&x)[R], const V (&y)[R]) {
  const Moments<V> of_x = moments_of(x), of_y = moments_of(y);
  V xy = (x[0] - of_x.mean) * (y[0] - of_y.mean);
  for (int r = 1; r < R; ++r) xy += (x[r] - of_x.mean) * (y[r] - of_y.mean);
  return {of_x.mean, of_y.mean, of_x.deviation, of_y.deviation, xy};
}

// Two sets together; share and weight as for Moments.
template <class V>
ITES_FN JointMoments<V> join(const JointMoments<V>& a, const JointMoments<V>& b, scalar_of<V> share,
                             scalar_of<V> weight) {
  const V x = b.x_mean - a.x_mean, y = b.y_mean - a.y_mean, s(share), w(weight);
  return {a.x_mean + x * s, a.y_mean + y * s, a.xx + b.xx + x * x * w, a.yy + b.yy + y * y * w,
          a.xy + b.xy + x * y * w};
}

// One channel of a norm of bn(x) + y: x's statistics, those of the sum, and the parameters. The
// bias of the inner norm cancels.
template <class V>
struct NestedChannel {
  V x_mean, x_scale, gain;      // gain = inner weight * x_scale
  V mean, scale, weight, bias;  // of the sum z = gain (x - x_mean) + y
};

template <class V>
ITES_FN V nested_normalised(V x, V y, const NestedChannel<V>& c) {
  return (c.gain * (x - c.x_mean) + (y - c.mean)) * c.scale;
}

// The batch's variance of the sum, from x's and y's variances and their covariance.
template <class V>
ITES_FN V nested_variance(V x_var, V y_var, V covariance, V gain) {
  const V var = gain * gain * x_var + y_var + V(scalar_of<V>(2)) * gain * covariance;
  return select(V{} > var, V{}, var);
}

// The means over the batch that the gradients need: of the gradient of the ReLU's input, and of its
// products with the sum's and x's normalised values; `correlation` is the mean of their product.
template <class V>
struct NestedMeans {
  V grad, with_sum, with_x, correlation;
};

// Gradient of the sum's input, which is y's.
template <class V>
ITES_FN V nested_backward(V grad, V normalised, const NestedMeans<V>& m,
                          const NestedChannel<V>& c) {
  return c.weight * c.scale * (grad - m.grad - normalised * m.with_sum);
}
// The mean of that gradient's product with x's normalised value.
template <class V>
ITES_FN V nested_product(const NestedMeans<V>& m, const NestedChannel<V>& c) {
  return c.weight * c.scale * (m.with_x - m.correlation * m.with_sum);
}

}  // namespace ites
