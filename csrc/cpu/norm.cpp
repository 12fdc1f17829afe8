// The norm family on a CPU: arguments, threads, registration. The loops are in norm_loops.h.
#include <algorithm>
#include <cmath>
#include <vector>

#include "cpu/dispatch.h"
#include "cpu/norm_arguments.h"
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

// Mean and biased variance: the units' moments joined in their order, in float64.
template <class T>
void batch_statistics(const BatchNorm<T>& a, T* mean, T* var) {
  const int64_t C = a.channels, units = (a.rows + a.unit - 1) / a.unit;
  std::vector<T> partial(units * 2 * C);
  over_units(a, [&](int64_t begin, int64_t end) {
    ITES_SIMD_CALL(batch_moments, a, partial.data(), begin, end);
  });
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

// Sums over the batch, for each channel, of the gradient of the ReLU's input and of its product
// with the normalised value: the units' sums added in their order, in float64.
template <class T>
std::vector<double> gradient_sums(const BatchNorm<T>& a, const BatchNormGrads<T>& g) {
  const int64_t size = 2 * a.channels, units = (a.rows + a.unit - 1) / a.unit;
  std::vector<T> partial(units * size);
  over_units(a, [&](int64_t begin, int64_t end) {
    ITES_SIMD_CALL(batch_norm_sums, a, g, partial.data(), begin, end);
  });
  if (units == 1) return {partial.begin(), partial.end()};
  std::vector<double> sums(size);
  for (int64_t u = 0; u < units; ++u)
    for (int64_t k = 0; k < size; ++k) sums[k] += partial[u * size + k];
  return sums;
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
    const std::vector<double> sums = gradient_sums(a, g);
    std::vector<T> means(2 * C);
    std::copy(sums.begin(), sums.begin() + C, mutable_data<T>(grad_bias));
    std::copy(sums.begin() + C, sums.end(), mutable_data<T>(grad_weight));
    for (int64_t k = 0; k < 2 * C; ++k) means[k] = static_cast<T>(sums[k] / N);
    g.grad_mean = means.data();
    g.product_mean = means.data() + C;
    over_units(a, [&](int64_t begin, int64_t end) {
      ITES_SIMD_CALL(batch_norm_backward_apply, a, g, begin, end);
    });
  });
  return {grad_x, grad_weight, grad_bias, grad_skip};
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(ites_cpp, m) {
  for (const char* schema : norm_schemas) m.def(schema);
}

STABLE_TORCH_LIBRARY_IMPL(ites_cpp, CPU, m) {
  m.impl("batch_norm_relu", TORCH_BOX(&batch_norm_relu_op));
  m.impl("batch_norm_relu_backward", TORCH_BOX(&batch_norm_relu_backward_op));
}

}  // namespace ites
