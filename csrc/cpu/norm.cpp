// The norm family on a CPU: arguments, threads, registration. The loops are in norm_loops.h.
#include <algorithm>
#include <cmath>
#include <map>
#include <mutex>
#include <vector>

#include "cpu/dispatch.h"
#include "cpu/norm_arguments.h"
#include "cpu/packed.h"
#include "norm_inputs.h"
#include "schemas.h"
#include "tensor.h"

ITES_SIMD_DECLARE(template <class T> void batch_moments(const BatchNorm<T>&, T*, int64_t, int64_t))
ITES_SIMD_DECLARE(template <class T>
                  void batch_norm_apply(const BatchNorm<T>&, T*, int64_t, int64_t))
ITES_SIMD_DECLARE(template <class T> void batch_norm_sums(const BatchNorm<T>&,
                                                          const BatchNormGrads<T>&, T*, int64_t,
                                                          int64_t))
ITES_SIMD_DECLARE(template <class T> void batch_norm_backward_apply(const BatchNorm<T>&,
                                                                    const BatchNormGrads<T>&,
                                                                    int64_t, int64_t))

namespace ites {
namespace {

// Runs loop(begin, end) over units of rows in parallel.
template <class T, class Loop>
void over_units(const BatchNorm<T>& a, const Loop& loop) {
  const int64_t unit_size = a.unit * (a.channels > 0 ? a.channels : 1);
  torch::stable::parallel_for(0, (a.rows + a.unit - 1) / a.unit,
                              (16384 + unit_size - 1) / unit_size, loop);
}

template <class T>
std::vector<T> scales(const T* var, int64_t channels, double eps) {
  std::vector<T> scale(channels);
  for (int64_t c = 0; c < channels; ++c) scale[c] = static_cast<T>(1 / std::sqrt(var[c] + eps));
  return scale;
}

template <class T>
int64_t units_of(const BatchNorm<T>& a) {
  return (a.rows + a.unit - 1) / a.unit;
}

// Mean and biased variance: the units' moments joined in their order, in float64.
template <class T>
void join_moments(const BatchNorm<T>& a, const std::vector<T>& partial, T* mean, T* var) {
  const int64_t C = a.channels, units = units_of(a);
  std::vector<double> means(C), deviations(C);
  for (int64_t u = 0; u < units; ++u) {
    const T* unit = partial.data() + u * 2 * C;
    const double before = static_cast<double>(u * a.unit);
    const double here =
        static_cast<double>(a.rows - u * a.unit < a.unit ? a.rows - u * a.unit : a.unit);
    const double share = here / (before + here);
    for (int64_t c = 0; c < C; ++c) {
      const Moments<double> joined =
          join(Moments<double>{means[c], deviations[c]}, Moments<double>{unit[c], unit[C + c]},
               share, before * share);
      means[c] = joined.mean;
      deviations[c] = joined.deviation;
    }
  }
  const double share = a.rows ? 1.0 / static_cast<double>(a.rows) : 0;
  for (int64_t c = 0; c < C; ++c) {
    mean[c] = static_cast<T>(means[c]);
    var[c] = static_cast<T>(deviations[c] * share);
  }
}

template <class T>
void batch_statistics(const BatchNorm<T>& a, T* mean, T* var) {
  std::vector<T> partial(units_of(a) * 2 * a.channels);
  over_units(a, [&](int64_t begin, int64_t end) {
    ITES_SIMD_CALL(batch_moments, a, partial.data(), begin, end);
  });
  join_moments(a, partial, mean, var);
}

std::tuple<Tensor, Tensor, Tensor> batch_norm_relu_op(const Tensor& x, const Tensor& weight,
                                                      const Tensor& bias,
                                                      const std::optional<Tensor>& skip, bool relu,
                                                      bool skip_after, double eps) {
  const Call call("batch_norm_relu", x, Takes::float32_or_64);
  check_batch_norm(call, x, weight, bias, skip, eps);
  const int64_t N = x.size(0), C = x.size(1);
  const Tensor out = empty(x, {N, C}), mean = empty(weight, {C}), var = empty(weight, {C});
  with_floating(x, [&](auto zero) {
    using T = decltype(zero);
    BatchNorm<T> a = {N,
                      C,
                      form_of(skip, relu, skip_after),
                      data<T>(x),
                      data<T>(skip),
                      data<T>(mean),
                      nullptr,
                      data<T>(weight),
                      data<T>(bias)};
    batch_statistics(a, mutable_data<T>(mean), mutable_data<T>(var));
    const auto scale = scales(data<T>(var), C, eps);
    a.scale = scale.data();
    over_units(a, [&](int64_t begin, int64_t end) {
      ITES_SIMD_CALL(batch_norm_apply, a, mutable_data<T>(out), begin, end);
    });
  });
  return {out, mean, var};
}

// The units' sums, added in their order, in float64.
template <class T>
std::vector<double> add_sums(const std::vector<T>& partial, int64_t size) {
  if (static_cast<int64_t>(partial.size()) == size) return {partial.begin(), partial.end()};
  std::vector<double> sums(size);
  for (size_t at = 0; at < partial.size(); at += size)
    for (int64_t k = 0; k < size; ++k) sums[k] += partial[at + k];
  return sums;
}

// Sums over the batch, for each channel, of the gradient of the ReLU's input and of its product
// with the normalised value.
template <class T>
std::vector<double> gradient_sums(const BatchNorm<T>& a, const BatchNormGrads<T>& g) {
  std::vector<T> partial(units_of(a) * 2 * a.channels);
  over_units(a, [&](int64_t begin, int64_t end) {
    ITES_SIMD_CALL(batch_norm_sums, a, g, partial.data(), begin, end);
  });
  return add_sums(partial, 2 * a.channels);
}

// Gives the sums to the parameters' gradients, and returns the means.
template <class T>
std::vector<T> hand_out(const BatchNorm<T>& a, const std::vector<double>& sums, T* grad_weight,
                        T* grad_bias) {
  std::vector<T> means(2 * a.channels);
  std::copy(sums.begin(), sums.begin() + a.channels, grad_bias);
  std::copy(sums.begin() + a.channels, sums.end(), grad_weight);
  for (int64_t k = 0; k < 2 * a.channels; ++k)
    means[k] = static_cast<T>(sums[k] / static_cast<double>(a.rows));
  return means;
}

std::tuple<Tensor, Tensor, Tensor, Tensor> batch_norm_relu_backward_op(
    const Tensor& grad, const Tensor& x, const Tensor& weight, const Tensor& bias,
    const std::optional<Tensor>& skip, const Tensor& mean, const Tensor& var, bool relu,
    bool skip_after, double eps) {
  const Call call("batch_norm_relu_backward", x, Takes::float32_or_64);
  check_batch_norm(call, x, weight, bias, skip, eps);
  call.has("grad", grad, {x.size(0), x.size(1)});
  call.has("mean", mean, call.wide(), {x.size(1)});
  call.has("var", var, call.wide(), {x.size(1)});
  const int64_t N = x.size(0), C = x.size(1);
  const Form form = form_of(skip, relu, skip_after);
  const Tensor grad_x = empty(x, {N, C}), grad_weight = empty(weight, {C});
  const Tensor grad_bias = empty(bias, {C});
  const Tensor grad_skip = form.skip_before ? empty(x, {N, C}) : empty(x, {0});
  with_floating(x, [&](auto zero) {
    using T = decltype(zero);
    const auto scale = scales(data<T>(var), C, eps);
    const BatchNorm<T> a = {N,
                            C,
                            form,
                            data<T>(x),
                            data<T>(skip),
                            data<T>(mean),
                            scale.data(),
                            data<T>(weight),
                            data<T>(bias)};
    BatchNormGrads<T> g = {data<T>(grad), nullptr, nullptr, mutable_data<T>(grad_skip),
                           mutable_data<T>(grad_x)};
    const auto means =
        hand_out(a, gradient_sums(a, g), mutable_data<T>(grad_weight), mutable_data<T>(grad_bias));
    g.grad_mean = means.data();
    g.product_mean = means.data() + C;
    over_units(a, [&](int64_t begin, int64_t end) {
      ITES_SIMD_CALL(batch_norm_backward_apply, a, g, begin, end);
    });
  });
  return {grad_x, grad_weight, grad_bias, grad_skip};
}

// relu(bn(bn(x product^T) + added)) + skip: a unit's rows are normalised while they are in the
// cache from the product, and the sum's moments are taken as it is written. To the bits these are
// the product and the two norms.
std::tuple<Tensor, Tensor, Tensor, Tensor> linear_nested_norm_relu_op(
    const Tensor& x, const Tensor& matrix, const Tensor& inner_weight, const Tensor& inner_bias,
    const Tensor& added, const Tensor& weight, const Tensor& bias,
    const std::optional<Tensor>& skip, double eps) {
  const Call call("linear_nested_norm_relu", x, Takes::float32_or_64);
  call.has("x", x, {ANY, ANY});
  call.has("matrix", matrix, {ANY, x.size(1)});
  const int64_t N = x.size(0), M = x.size(1), C = matrix.size(0);
  call.has("added", added, {N, C});
  call.has("inner_weight", inner_weight, {C});
  call.has("inner_bias", inner_bias, {C});
  check_batch_norm(call, added, weight, bias, skip, eps);
  const Tensor out = empty(x, {N, C}), product = empty(x, {N, C}), sum = empty(x, {N, C});
  const Tensor statistics = empty(weight, {4, C});
  with_floating(x, [&](auto zero) {
    using T = decltype(zero);
    T *found = mutable_data<T>(statistics), *rows = mutable_data<T>(product);
    BatchNorm<T> inner = {N,
                          C,
                          {false, false, true},
                          rows,
                          data<T>(added),
                          found,
                          nullptr,
                          data<T>(inner_weight),
                          data<T>(inner_bias)};
    BatchNorm<T> outer = {N,
                          C,
                          form_of(skip, true, true),
                          data<T>(sum),
                          data<T>(skip),
                          found + 2 * C,
                          nullptr,
                          data<T>(weight),
                          data<T>(bias)};
    std::vector<T> partial(units_of(inner) * 2 * C);
    Packed<T> weights(Matrix<const T>(data<T>(matrix), C, M).transposed());
    over_units(inner, [&](int64_t begin, int64_t end) {
      for (int64_t u = begin; u < end; ++u) {
        const int64_t first = u * inner.unit, count = std::min<int64_t>(inner.unit, N - first);
        weights.multiply({rows + first * C, count, C}, {data<T>(x) + first * M, count, M});
        ITES_SIMD_CALL(batch_moments, inner, partial.data(), u, u + 1);
      }
    });
    join_moments(inner, partial, found, found + C);
    const auto inner_scale = scales(found + C, C, eps);
    inner.scale = inner_scale.data();
    over_units(inner, [&](int64_t begin, int64_t end) {
      for (int64_t u = end - 1; u >= begin; --u) {
        ITES_SIMD_CALL(batch_norm_apply, inner, mutable_data<T>(sum), u, u + 1);
        ITES_SIMD_CALL(batch_moments, outer, partial.data(), u, u + 1);
      }
    });
    join_moments(outer, partial, found + 2 * C, found + 3 * C);
    const auto outer_scale = scales(found + 3 * C, C, eps);
    outer.scale = outer_scale.data();
    over_units(outer, [&](int64_t begin, int64_t end) {
      for (int64_t u = begin; u < end; ++u)
        ITES_SIMD_CALL(batch_norm_apply, outer, mutable_data<T>(out), u, u + 1);
    });
  });
  return {out, product, sum, statistics};
}

// Its gradients, likewise: those of the product stay in the cache. That of the sum is `added`'s,
// and that of skip the incoming one.
std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor>
linear_nested_norm_relu_backward_op(const Tensor& grad, const Tensor& x, const Tensor& matrix,
                                    const Tensor& inner_weight, const Tensor& inner_bias,
                                    const Tensor& weight, const Tensor& bias, const Tensor& product,
                                    const Tensor& sum, const Tensor& statistics, double eps) {
  const Call call("linear_nested_norm_relu_backward", x, Takes::float32_or_64);
  call.has("x", x, {ANY, ANY});
  call.has("matrix", matrix, {ANY, x.size(1)});
  const int64_t N = x.size(0), M = x.size(1), C = matrix.size(0);
  call.has("grad", grad, {N, C});
  call.has("product", product, {N, C});
  call.has("inner_weight", inner_weight, {C});
  call.has("inner_bias", inner_bias, {C});
  call.has("statistics", statistics, {4, C});
  check_batch_norm(call, sum, weight, bias, std::nullopt, eps);
  call.has("sum", sum, {N, C});
  const Tensor grad_x = empty(x, {N, M}), grad_matrix = empty(x, {C, M}),
               grad_sum = empty(x, {N, C});
  const Tensor grad_inner_weight = empty(x, {C}), grad_inner_bias = empty(x, {C});
  const Tensor grad_weight = empty(x, {C}), grad_bias = empty(x, {C});
  with_floating(x, [&](auto zero) {
    using T = decltype(zero);
    const T* found = data<T>(statistics);
    const auto inner_scale = scales(found + C, C, eps), outer_scale = scales(found + 3 * C, C, eps);
    const BatchNorm<T> inner = {N,
                                C,
                                {false, false, false},
                                data<T>(product),
                                nullptr,
                                found,
                                inner_scale.data(),
                                data<T>(inner_weight),
                                data<T>(inner_bias)};
    const BatchNorm<T> outer = {N,
                                C,
                                {true, false, false},
                                data<T>(sum),
                                nullptr,
                                found + 2 * C,
                                outer_scale.data(),
                                data<T>(weight),
                                data<T>(bias)};
    T* to_sum = mutable_data<T>(grad_sum);
    BatchNormGrads<T> g = {data<T>(grad), nullptr, nullptr, nullptr, to_sum};
    const auto means = hand_out(outer, gradient_sums(outer, g), mutable_data<T>(grad_weight),
                                mutable_data<T>(grad_bias));
    g.grad_mean = means.data();
    g.product_mean = means.data() + C;
    BatchNormGrads<T> inner_g = {to_sum, nullptr, nullptr, nullptr, nullptr};
    std::vector<T> partial(units_of(inner) * 2 * C);
    over_units(outer, [&](int64_t begin, int64_t end) {
      for (int64_t u = end - 1; u >= begin; --u) {
        ITES_SIMD_CALL(batch_norm_backward_apply, outer, g, u, u + 1);
        ITES_SIMD_CALL(batch_norm_sums, inner, inner_g, partial.data(), u, u + 1);
      }
    });
    const auto inner_means =
        hand_out(inner, add_sums(partial, 2 * C), mutable_data<T>(grad_inner_weight),
                 mutable_data<T>(grad_inner_bias));
    inner_g.grad_mean = inner_means.data();
    inner_g.product_mean = inner_means.data() + C;
    Packed<T> weights(Matrix<const T>(data<T>(matrix), C, M));
    std::map<int64_t, std::vector<T>> of_ranges;  // grad_matrix, by a range's first unit
    std::mutex guard;
    over_units(inner, [&](int64_t begin, int64_t end) {
      std::vector<T> own(C * M);
      Scratch<T> passing(inner.unit * C);
      for (int64_t u = begin; u < end; ++u) {
        const int64_t first = u * inner.unit, count = std::min<int64_t>(inner.unit, N - first);
        BatchNorm<T> unit = inner;
        BatchNormGrads<T> unit_g = inner_g;
        unit.rows = count;
        unit.x += first * C;
        unit_g.grad += first * C;
        unit_g.grad_x = passing.data();
        ITES_SIMD_CALL(batch_norm_backward_apply, unit, unit_g, 0, 1);
        const Matrix<const T> passed(passing.data(), count, C);
        const Matrix<const T> inputs(data<T>(x) + first * M, count, M);
        weights.multiply({mutable_data<T>(grad_x) + first * M, count, M}, passed);
        const Product<T> to_matrix = {{own.data(), C, M},
                                      passed.transposed(),
                                      inputs,
                                      nullptr,
                                      u > begin ? own.data() : nullptr};
        ITES_SIMD_CALL(multiply, to_matrix);
      }
      const std::lock_guard<std::mutex> lock(guard);
      of_ranges[begin] = std::move(own);
    });
    add_ranges(of_ranges, mutable_data<T>(grad_matrix), C * M);
  });
  return {grad_x,   grad_matrix, grad_inner_weight, grad_inner_bias,
          grad_sum, grad_weight, grad_bias};
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(ites_cpp, m) {
  for (const char* schema : norm_schemas) m.def(schema);
  for (const char* schema : linear_nested_norm_schemas) m.def(schema);
}

STABLE_TORCH_LIBRARY_IMPL(ites_cpp, CPU, m) {
  m.impl("batch_norm_relu", TORCH_BOX(&batch_norm_relu_op));
  m.impl("batch_norm_relu_backward", TORCH_BOX(&batch_norm_relu_backward_op));
  m.impl("linear_nested_norm_relu", TORCH_BOX(&linear_nested_norm_relu_op));
  m.impl("linear_nested_norm_relu_backward", TORCH_BOX(&linear_nested_norm_relu_backward_op));
}

}  // namespace ites
