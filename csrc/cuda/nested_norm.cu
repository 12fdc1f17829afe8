// relu(bn(bn(x) + y)) + skip in two launches per direction: the joint moments of x and y give the
// statistics of both norms, so that their sum is never stored and x and y are read twice.
#include "common/norm.h"
#include "cuda/norm_blocks.cuh"
#include "norm_inputs.h"
#include "schemas.h"

namespace ites {
namespace {

constexpr int MOMENTS = 5, STATISTICS = 5;  // rows of a partial result, and of what is kept

struct Counted {
  JointMoments<Four> moments;
  float count;
  float rest[3] = {};  // no padding: what is copied has been written
};

__device__ __forceinline__ Counted join(const Counted& a, const Counted& b) {
  const float count = a.count + b.count, share = count > 0.0f ? b.count / count : 0.0f;
  return {join(a.moments, b.moments, share, a.count * share), count};
}

struct Parameters {
  const float *inner_weight, *weight, *bias, *statistics;
  float eps;
};

template <class T, bool WHOLE>
__global__ void __launch_bounds__(THREADS)
    joint_moments_kernel(const Range r, const T* __restrict__ x, const T* __restrict__ y,
                         float* __restrict__ partial) {
  let_launch_after_start();
  constexpr int R = 4;
  const Place at(r);
  Counted all{};
  const auto add = [&](auto rows, int64_t row) {
    constexpr int count = decltype(rows)::value;
    Four xs[count], ys[count];
#pragma unroll
    for (int i = 0; i < count; ++i) {
      const int64_t here = (row + i * DOWN) * r.channels + at.channel;
      xs[i] = get<WHOLE>(x + here, at.left);
      ys[i] = get<WHOLE>(y + here, at.left);
    }
    all = join(all, Counted{joint_moments_of(xs, ys), static_cast<float>(count)});
  };
  int64_t row = at.begin;
  for (; row + (R - 1) * DOWN < at.end; row += R * DOWN) add(std::integral_constant<int, R>{}, row);
  for (; row < at.end; row += DOWN) add(std::integral_constant<int, 1>{}, row);
  all = over_block(all, at, [](const Counted& a, const Counted& b) { return join(a, b); });
  if (at.down > 0) return;
  float* const to = partial + at.range * MOMENTS * r.channels + at.channel;
  const Four rows[] = {all.moments.x_mean, all.moments.y_mean, all.moments.xx, all.moments.yy,
                       all.moments.xy};
#pragma unroll
  for (int k = 0; k < MOMENTS; ++k) put<WHOLE>(to + k * r.channels, rows[k], at.left);
}

__device__ __forceinline__ Four inverse_root(const Four& var, float eps) {
  Four scale;
  for (int k = 0; k < 4; ++k) scale.v[k] = 1.0f / sqrtf(var.v[k] + eps);
  return scale;
}

// The statistics kept: x's mean and variance, the sum's mean and variance, x's covariance with y.
template <class T, bool WHOLE>
__global__ void __launch_bounds__(THREADS)
    nested_apply_kernel(const Range r, const Parameters p, const T* __restrict__ x,
                        const T* __restrict__ y, const T* __restrict__ skip,
                        const float* __restrict__ partial, T* __restrict__ out,
                        float* __restrict__ statistics) {
  wait_for_launch_before();
  const Place at(r);
  Counted all{};
  for (int64_t range = at.down; range * r.height < r.rows; range += DOWN) {
    const float* from = partial + range * MOMENTS * r.channels + at.channel;
    const auto row = [&](int k) { return get<WHOLE>(from + k * r.channels, at.left); };
    const int64_t rows = min(r.height, r.rows - range * r.height);
    all = join(all, Counted{{row(0), row(1), row(2), row(3), row(4)}, static_cast<float>(rows)});
  }
  all = over_block(all, at, [](const Counted& a, const Counted& b) { return join(a, b); });
  const Four share(1.0f / all.count);
  const JointMoments<Four>& m = all.moments;
  const Four x_var = m.xx * share, covariance = m.xy * share, scale = inverse_root(x_var, p.eps);
  const Four gain = get<WHOLE>(p.inner_weight + at.channel, at.left) * scale;
  const Four var = nested_variance(x_var, m.yy * share, covariance, gain);
  if (at.range == 0 && at.down == 0) {
    const Four rows[] = {m.x_mean, x_var, m.y_mean, var, covariance};
#pragma unroll
    for (int k = 0; k < STATISTICS; ++k)
      put<WHOLE>(statistics + k * r.channels + at.channel, rows[k], at.left);
  }
  const NestedChannel<Four> c{m.x_mean,
                              scale,
                              gain,
                              m.y_mean,
                              inverse_root(var, p.eps),
                              get<WHOLE>(p.weight + at.channel, at.left),
                              get<WHOLE>(p.bias + at.channel, at.left)};
#pragma unroll 2  // with 4 some architectures spill; 64 kB per SM are in flight
  for (int64_t row = at.begin; row < at.end; row += DOWN) {
    const int64_t here = row * r.channels + at.channel;
    const Four added = skip ? get<WHOLE>(skip + here, at.left) : Four(0.0f);
    const Four z =
        nested_normalised(get<WHOLE>(x + here, at.left), get<WHOLE>(y + here, at.left), c);
    const Four before = z * c.weight + c.bias;
    put<WHOLE>(out + here, select(Four{} > before, Four{}, before) + added, at.left);
  }
}

// A channel from the statistics that the forward pass kept, and the norms' correlation.
template <bool WHOLE>
__device__ __forceinline__ NestedChannel<Four> channel_of(const Range& r, const Parameters& p,
                                                          const Place& at, Four& correlation) {
  const auto row = [&](int k) {
    return get<WHOLE>(p.statistics + k * r.channels + at.channel, at.left);
  };
  const Four x_var = row(1), x_scale = inverse_root(x_var, p.eps);
  const Four scale = inverse_root(row(3), p.eps);
  const Four gain = get<WHOLE>(p.inner_weight + at.channel, at.left) * x_scale;
  correlation = scale * x_scale * (gain * x_var + row(4));
  return {row(0),
          x_scale,
          gain,
          row(2),
          scale,
          get<WHOLE>(p.weight + at.channel, at.left),
          get<WHOLE>(p.bias + at.channel, at.left)};
}

struct Sums {
  Four grad, with_sum, with_x;  // of the gradient of the ReLU's input; see NestedMeans
};

__device__ __forceinline__ Sums operator+(const Sums& a, const Sums& b) {
  return {a.grad + b.grad, a.with_sum + b.with_sum, a.with_x + b.with_x};
}

// Gradient of the ReLU's input.
__device__ __forceinline__ Four masked(const Four& grad, const Four& normalised,
                                       const NestedChannel<Four>& c) {
  return select(Four{} >= normalised * c.weight + c.bias, Four{}, grad);
}

template <class T, bool WHOLE>
__global__ void __launch_bounds__(THREADS)
    nested_sums_kernel(const Range r, const Parameters p, const T* __restrict__ grad,
                       const T* __restrict__ x, const T* __restrict__ y,
                       float* __restrict__ partial) {
  let_launch_after_start();
  const Place at(r);
  Four correlation;
  const NestedChannel<Four> c = channel_of<WHOLE>(r, p, at, correlation);
  Sums sums{Four(0.0f), Four(0.0f), Four(0.0f)};
#pragma unroll 4
  for (int64_t row = at.begin; row < at.end; row += DOWN) {
    const int64_t here = row * r.channels + at.channel;
    const Four value = get<WHOLE>(x + here, at.left);
    const Four z = nested_normalised(value, get<WHOLE>(y + here, at.left), c);
    const Four g = masked(get<WHOLE>(grad + here, at.left), z, c);
    sums = sums + Sums{g, g * z, g * ((value - c.x_mean) * c.x_scale)};
  }
  sums = over_block(sums, at, [](const Sums& a, const Sums& b) { return a + b; });
  if (at.down > 0) return;
  float* const to = partial + at.range * 3 * r.channels + at.channel;
  put<WHOLE>(to, sums.grad, at.left);
  put<WHOLE>(to + r.channels, sums.with_sum, at.left);
  put<WHOLE>(to + 2 * r.channels, sums.with_x, at.left);
}

template <class T, bool WHOLE>
__global__ void __launch_bounds__(THREADS)
    nested_backward_kernel(const Range r, const Parameters p, const T* __restrict__ grad,
                           const T* __restrict__ x, const T* __restrict__ y,
                           const float* __restrict__ partial, T* __restrict__ grad_x,
                           T* __restrict__ grad_y, float* __restrict__ grad_inner_weight,
                           float* __restrict__ grad_weight, float* __restrict__ grad_bias) {
  wait_for_launch_before();
  const Place at(r);
  Sums sums{Four(0.0f), Four(0.0f), Four(0.0f)};
  for (int64_t range = at.down; range * r.height < r.rows; range += DOWN) {
    const float* from = partial + range * 3 * r.channels + at.channel;
    const auto row = [&](int k) { return get<WHOLE>(from + k * r.channels, at.left); };
    sums = sums + Sums{row(0), row(1), row(2)};
  }
  sums = over_block(sums, at, [](const Sums& a, const Sums& b) { return a + b; });
  const Four rows(static_cast<float>(r.rows)), share(1.0f / static_cast<float>(r.rows));
  NestedMeans<Four> means{sums.grad * share, sums.with_sum * share, sums.with_x * share, {}};
  const NestedChannel<Four> c = channel_of<WHOLE>(r, p, at, means.correlation);
  const Four product = nested_product(means, c);
  if (at.range == 0 && at.down == 0) {
    put<WHOLE>(grad_inner_weight + at.channel, product * rows, at.left);
    put<WHOLE>(grad_weight + at.channel, sums.with_sum, at.left);
    put<WHOLE>(grad_bias + at.channel, sums.grad, at.left);
  }
#pragma unroll 4
  for (int64_t row = at.begin; row < at.end; row += DOWN) {
    const int64_t here = row * r.channels + at.channel;
    const Four value = get<WHOLE>(x + here, at.left);
    const Four z = nested_normalised(value, get<WHOLE>(y + here, at.left), c);
    const Four g = nested_backward(masked(get<WHOLE>(grad + here, at.left), z, c), z, means, c);
    put<WHOLE>(grad_y + here, g, at.left);
    put<WHOLE>(grad_x + here, c.gain * (g - (value - c.x_mean) * c.x_scale * product), at.left);
  }
}

// The arguments of both directions, checked.
Parameters parameters_of(const Call& call, const Tensor& x, const Tensor& inner_weight,
                         const Tensor& added, const Tensor& weight, const Tensor& bias,
                         double eps) {
  check_batch_norm(call, x, weight, bias, added, eps);
  call.has("inner_weight", inner_weight, call.wide(), {x.size(1)});
  return {data<float>(inner_weight), data<float>(weight), data<float>(bias), nullptr,
          static_cast<float>(eps)};
}

std::tuple<Tensor, Tensor> nested_norm_relu_op(const Tensor& x, const Tensor& inner_weight,
                                               const Tensor& added, const Tensor& weight,
                                               const Tensor& bias,
                                               const std::optional<Tensor>& skip, double eps) {
  const Call call("nested_norm_relu", x, Takes::float32_or_half);
  const Parameters p = parameters_of(call, x, inner_weight, added, weight, bias, eps);
  call.has("skip", skip, {x.size(0), x.size(1)});
  const OnDevice device(x);
  const int64_t N = x.size(0), C = x.size(1);
  if (N == 0) return {empty(x, {N, C}), torch::stable::new_zeros(weight, {STATISTICS, C})};
  const Tensor out = empty(x, {N, C}), statistics = empty(weight, {STATISTICS, C});
  const Range r = ranges_of(N, C);
  const Tensor partial = empty(weight, {r.count(), MOMENTS, C});
  const int64_t blocks = r.count() * r.slices;
  with_storage_type(x, [&](auto zero) {
    using T = decltype(zero);
    const T *from = data<T>(x), *sum = data<T>(added), *residual = data<T>(skip);
    T* to = mutable_data<T>(out);
    with_wholeness(C, {from, sum, residual, to, p.inner_weight, p.weight, p.bias}, [&](auto whole) {
      constexpr bool W = decltype(whole)::value;
      device.launch(joint_moments_kernel<T, W>, blocks, THREADS, THREADS * sizeof(Counted), r, from,
                    sum, mutable_data<float>(partial));
      device.launch_beside(nested_apply_kernel<T, W>, blocks, THREADS, THREADS * sizeof(Counted), r,
                           p, from, sum, residual, data<float>(partial), to,
                           mutable_data<float>(statistics));
    });
  });
  return {out, statistics};
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> nested_norm_relu_backward_op(
    const Tensor& grad, const Tensor& x, const Tensor& inner_weight, const Tensor& added,
    const Tensor& weight, const Tensor& bias, const Tensor& statistics, double eps) {
  const Call call("nested_norm_relu_backward", x, Takes::float32_or_half);
  Parameters p = parameters_of(call, x, inner_weight, added, weight, bias, eps);
  call.has("grad", grad, {x.size(0), x.size(1)});
  call.has("statistics", statistics, call.wide(), {STATISTICS, x.size(1)});
  p.statistics = data<float>(statistics);
  const OnDevice device(x);
  const int64_t N = x.size(0), C = x.size(1);
  if (N == 0) {
    const auto zeros = [&] { return torch::stable::new_zeros(weight, {C}); };
    return {empty(x, {N, C}), zeros(), empty(x, {N, C}), zeros(), zeros()};
  }
  const Tensor grad_x = empty(x, {N, C}), grad_added = empty(x, {N, C});
  const Tensor grad_inner_weight = empty(weight, {C}), grad_weight = empty(weight, {C});
  const Tensor grad_bias = empty(weight, {C});
  const Range r = ranges_of(N, C);
  const Tensor partial = empty(weight, {r.count(), 3, C});
  const int64_t blocks = r.count() * r.slices;
  with_storage_type(x, [&](auto zero) {
    using T = decltype(zero);
    const T *incoming = data<T>(grad), *from = data<T>(x), *sum = data<T>(added);
    T *to_x = mutable_data<T>(grad_x), *to_added = mutable_data<T>(grad_added);
    with_wholeness(
        C, {incoming, from, sum, to_x, to_added, p.inner_weight, p.weight, p.bias, p.statistics},
        [&](auto whole) {
          constexpr bool W = decltype(whole)::value;
          device.launch(nested_sums_kernel<T, W>, blocks, THREADS, THREADS * sizeof(Sums), r, p,
                        incoming, from, sum, mutable_data<float>(partial));
          device.launch_beside(nested_backward_kernel<T, W>, blocks, THREADS,
                               THREADS * sizeof(Sums), r, p, incoming, from, sum,
                               data<float>(partial), to_x, to_added,
                               mutable_data<float>(grad_inner_weight),
                               mutable_data<float>(grad_weight), mutable_data<float>(grad_bias));
        });
  });
  return {grad_x, grad_inner_weight, grad_added, grad_weight, grad_bias};
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(ites_cuda, m) {
  for (const char* schema : nested_norm_schemas) m.def(schema);
}

STABLE_TORCH_LIBRARY_IMPL(ites_cuda, CUDA, m) {
  m.impl("nested_norm_relu", TORCH_BOX(&nested_norm_relu_op));
  m.impl("nested_norm_relu_backward", TORCH_BOX(&nested_norm_relu_backward_op));
}

}  // namespace ites
