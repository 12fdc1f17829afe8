// The norm family in CUDA. A block takes a slice of 32 channels and a range of rows: eight threads
// along the channels, four each, and 32 along the rows. The first kernel leaves one partial result
// per range. The second joins them in a fixed order before its own rows. So each direction is two
// launches and reads its input twice. Up to 512 rows stay in registers: one launch.
#include "common/norm.h"

#include <type_traits>

#include "cuda/norm_blocks.cuh"
#include "norm_inputs.h"
#include "schemas.h"

namespace ites {
namespace {

struct Counted {
  Moments<Four> moments;
  float count;
  float rest[3] = {};  // no padding: what is copied has been written
};

__device__ __forceinline__ Counted join(const Counted& a, const Counted& b) {
  const float count = a.count + b.count, share = count > 0.0f ? b.count / count : 0.0f;
  return {join(a.moments, b.moments, share, a.count * share), count};
}

template <class T, bool WHOLE>
__global__ void __launch_bounds__(THREADS)
    moments_kernel(const Range r, const T* __restrict__ x, float* __restrict__ partial) {
  constexpr int R = 8;
  const Place at(r);
  Counted all{{Four(0.0f), Four(0.0f)}, 0.0f};
  const auto add = [&](auto rows, int64_t row) {
    constexpr int count = decltype(rows)::value;
    Four values[count];
#pragma unroll
    for (int i = 0; i < count; ++i)
      values[i] = get<WHOLE>(x + (row + i * DOWN) * r.channels + at.channel, at.left);
    all = join(all, Counted{moments_of(values), static_cast<float>(count)});
  };
  int64_t row = at.begin;
  for (; row + (R - 1) * DOWN < at.end; row += R * DOWN) add(std::integral_constant<int, R>{}, row);
  for (; row < at.end; row += DOWN) add(std::integral_constant<int, 1>{}, row);
  all = over_block(all, at, [](const Counted& a, const Counted& b) { return join(a, b); });
  if (at.down > 0) return;
  float* const to = partial + at.range * 2 * r.channels + at.channel;
  put<WHOLE>(to, all.moments.mean, at.left);
  put<WHOLE>(to + r.channels, all.moments.deviation, at.left);
}

struct Parameters {
  const float *mean, *var, *weight, *bias;
  float eps;
  Form form;
};

template <bool WHOLE>
__device__ __forceinline__ Channel<Four> channel_of(const Parameters& p, const Place& at,
                                                    const Four& mean, const Four& var) {
  Four scale;
  for (int k = 0; k < 4; ++k) scale.v[k] = 1.0f / sqrtf(var.v[k] + p.eps);
  return {mean, scale, get<WHOLE>(p.weight + at.channel, at.left),
          get<WHOLE>(p.bias + at.channel, at.left)};
}
// With the statistics that the forward pass left.
template <bool WHOLE>
__device__ __forceinline__ Channel<Four> channel_of(const Parameters& p, const Place& at) {
  return channel_of<WHOLE>(p, at, get<WHOLE>(p.mean + at.channel, at.left),
                           get<WHOLE>(p.var + at.channel, at.left));
}

template <class T, bool WHOLE>
__global__ void __launch_bounds__(THREADS, 4)  // without the 4, float16 spills on sm_100
    apply_kernel(const Range r, const Parameters p, const T* __restrict__ x,
                 const T* __restrict__ skip, const float* __restrict__ partial, T* __restrict__ out,
                 float* __restrict__ mean, float* __restrict__ var) {
  const Place at(r);
  Counted all{{Four(0.0f), Four(0.0f)}, 0.0f};
  for (int64_t range = at.down; range * r.height < r.rows; range += DOWN) {
    const float* from = partial + range * 2 * r.channels + at.channel;
    const int64_t rows = min(r.height, r.rows - range * r.height);
    all = join(all, Counted{{get<WHOLE>(from, at.left), get<WHOLE>(from + r.channels, at.left)},
                            static_cast<float>(rows)});
  }
  all = over_block(all, at, [](const Counted& a, const Counted& b) { return join(a, b); });
  const Four batch_var = all.moments.deviation * Four(1.0f / all.count);
  if (at.range == 0 && at.down == 0) {
    put<WHOLE>(mean + at.channel, all.moments.mean, at.left);
    put<WHOLE>(var + at.channel, batch_var, at.left);
  }
  const Channel<Four> channel = channel_of<WHOLE>(p, at, all.moments.mean, batch_var);
#pragma unroll 2  // with 4 some architectures spill; 64 kB per SM are in flight
  for (int64_t row = at.begin; row < at.end; row += DOWN) {
    const int64_t here = row * r.channels + at.channel;
    const Four added = skip ? get<WHOLE>(skip + here, at.left) : Four(0.0f);
    const Four y = batch_norm_relu(get<WHOLE>(x + here, at.left), added, channel, p.form);
    put<WHOLE>(out + here, y, at.left);
  }
}

struct Sums {
  Four grad, product;  // of the gradient of the ReLU's input, and with the normalised value
};

__device__ __forceinline__ Sums sums_over_block(const Sums& mine, const Place& at) {
  return over_block(mine, at, [](const Sums& a, const Sums& b) {
    return Sums{a.grad + b.grad, a.product + b.product};
  });
}

template <class T, bool WHOLE>
__global__ void __launch_bounds__(THREADS)
    sums_kernel(const Range r, const Parameters p, const T* __restrict__ grad,
                const T* __restrict__ x, const T* __restrict__ skip, T* __restrict__ grad_skip,
                float* __restrict__ partial) {
  const Place at(r);
  const Channel<Four> channel = channel_of<WHOLE>(p, at);
  Sums sums{Four(0.0f), Four(0.0f)};
#pragma unroll 4
  for (int64_t row = at.begin; row < at.end; row += DOWN) {
    const int64_t here = row * r.channels + at.channel;
    const Four value = get<WHOLE>(x + here, at.left);
    const Four added = skip ? get<WHOLE>(skip + here, at.left) : Four(0.0f);
    const Four g =
        before_relu_backward(get<WHOLE>(grad + here, at.left), value, added, channel, p.form);
    if (skip) put<WHOLE>(grad_skip + here, g, at.left);
    sums.grad += g;
    sums.product += g * normalised(value, channel);
  }
  sums = sums_over_block(sums, at);
  if (at.down > 0) return;
  float* const to = partial + at.range * 2 * r.channels + at.channel;
  put<WHOLE>(to, sums.grad, at.left);
  put<WHOLE>(to + r.channels, sums.product, at.left);
}

template <class T, bool WHOLE>
__global__ void __launch_bounds__(THREADS)
    backward_apply_kernel(const Range r, const Parameters p, const T* __restrict__ grad,
                          const T* __restrict__ x, const float* __restrict__ partial,
                          T* __restrict__ grad_x, float* __restrict__ grad_weight,
                          float* __restrict__ grad_bias) {
  const Place at(r);
  Sums sums{Four(0.0f), Four(0.0f)};
  for (int64_t range = at.down; range * r.height < r.rows; range += DOWN) {
    const float* from = partial + range * 2 * r.channels + at.channel;
    sums.grad += get<WHOLE>(from, at.left);
    sums.product += get<WHOLE>(from + r.channels, at.left);
  }
  sums = sums_over_block(sums, at);
  if (at.range == 0 && at.down == 0) {
    put<WHOLE>(grad_bias + at.channel, sums.grad, at.left);
    put<WHOLE>(grad_weight + at.channel, sums.product, at.left);
  }
  const Four share(1.0f / static_cast<float>(r.rows));
  const Four grad_mean = sums.grad * share, product_mean = sums.product * share;
  const Channel<Four> channel = channel_of<WHOLE>(p, at);
#pragma unroll 4
  for (int64_t row = at.begin; row < at.end; row += DOWN) {
    const int64_t here = row * r.channels + at.channel;
    const Four value = get<WHOLE>(x + here, at.left);
    const Four g =
        before_relu_backward(get<WHOLE>(grad + here, at.left), value, Four(0.0f), channel, p.form);
    put<WHOLE>(grad_x + here, batch_norm_backward(g, value, grad_mean, product_mean, channel),
               at.left);
  }
}

// Few rows: a block has all rows of its channels, a thread the rows down, down + DOWN, ... of its
// four, ROWS at most, in registers. The input is read once, the variance taken in two passes.
constexpr int FEW = 4, MORE = 16;

template <class T, bool WHOLE, int ROWS>
__global__ void __launch_bounds__(THREADS)
    few_rows_kernel(const Range r, const Parameters p, const T* __restrict__ x,
                    const T* __restrict__ skip, T* __restrict__ out, float* __restrict__ mean,
                    float* __restrict__ var) {
  const Place at(r);
  const auto add = [](const Four& a, const Four& b) { return a + b; };
  const Four share(1.0f / static_cast<float>(r.rows));
  Four values[ROWS], sum(0.0f), squares(0.0f);
#pragma unroll
  for (int k = 0; k < ROWS; ++k) {
    const int64_t row = at.down + k * DOWN;
    values[k] = row < r.rows ? get<WHOLE>(x + row * r.channels + at.channel, at.left) : Four(0.0f);
    sum += values[k];
  }
  const Four centre = over_block(sum, at, add) * share;
#pragma unroll
  for (int k = 0; k < ROWS; ++k) {
    const Four away = values[k] - centre;
    if (at.down + k * DOWN < r.rows) squares += away * away;
  }
  const Four batch_var = over_block(squares, at, add) * share;
  if (at.down == 0) {
    put<WHOLE>(mean + at.channel, centre, at.left);
    put<WHOLE>(var + at.channel, batch_var, at.left);
  }
  const Channel<Four> channel = channel_of<WHOLE>(p, at, centre, batch_var);
#pragma unroll
  for (int k = 0; k < ROWS; ++k) {
    const int64_t row = at.down + k * DOWN, here = row * r.channels + at.channel;
    if (row >= r.rows) break;
    const Four added = skip ? get<WHOLE>(skip + here, at.left) : Four(0.0f);
    put<WHOLE>(out + here, batch_norm_relu(values[k], added, channel, p.form), at.left);
  }
}

template <class T, bool WHOLE, int ROWS>
__global__ void __launch_bounds__(THREADS)
    few_rows_backward_kernel(const Range r, const Parameters p, const T* __restrict__ grad,
                             const T* __restrict__ x, const T* __restrict__ skip,
                             T* __restrict__ grad_skip, T* __restrict__ grad_x,
                             float* __restrict__ grad_weight, float* __restrict__ grad_bias) {
  const Place at(r);
  const Channel<Four> channel = channel_of<WHOLE>(p, at);
  Four values[ROWS], grads[ROWS];
  Sums sums{Four(0.0f), Four(0.0f)};
#pragma unroll
  for (int k = 0; k < ROWS; ++k) {
    const int64_t row = at.down + k * DOWN, here = row * r.channels + at.channel;
    if (row >= r.rows) break;
    values[k] = get<WHOLE>(x + here, at.left);
    const Four added = skip ? get<WHOLE>(skip + here, at.left) : Four(0.0f);
    grads[k] =
        before_relu_backward(get<WHOLE>(grad + here, at.left), values[k], added, channel, p.form);
    if (skip) put<WHOLE>(grad_skip + here, grads[k], at.left);
    sums.grad += grads[k];
    sums.product += grads[k] * normalised(values[k], channel);
  }
  sums = sums_over_block(sums, at);
  if (at.down == 0) {
    put<WHOLE>(grad_bias + at.channel, sums.grad, at.left);
    put<WHOLE>(grad_weight + at.channel, sums.product, at.left);
  }
  const Four share(1.0f / static_cast<float>(r.rows));
  const Four grad_mean = sums.grad * share, product_mean = sums.product * share;
#pragma unroll
  for (int k = 0; k < ROWS; ++k) {
    const int64_t row = at.down + k * DOWN;
    if (row >= r.rows) break;
    put<WHOLE>(grad_x + row * r.channels + at.channel,
               batch_norm_backward(grads[k], values[k], grad_mean, product_mean, channel), at.left);
  }
}

std::tuple<Tensor, Tensor, Tensor> batch_norm_relu_op(const Tensor& x, const Tensor& weight,
                                                      const Tensor& bias,
                                                      const std::optional<Tensor>& skip, bool relu,
                                                      bool skip_after, double eps) {
  const Call call("batch_norm_relu", x, Takes::float32_or_half);
  check_batch_norm(call, x, weight, bias, skip, eps);
  const OnDevice device(x);
  const int64_t N = x.size(0), C = x.size(1);
  if (N == 0)
    return {empty(x, {N, C}), torch::stable::new_zeros(weight, {C}),
            torch::stable::new_zeros(weight, {C})};
  const Tensor out = empty(x, {N, C}), mean = empty(weight, {C}), var = empty(weight, {C});
  const bool few = N <= FEW * DOWN, one_launch = N <= MORE * DOWN;
  const Range r = one_launch ? one_range(N, C) : ranges_of(N, C);
  const Tensor partial = empty(weight, {one_launch ? 0 : r.count(), 2, C});
  const Parameters p{nullptr,
                     nullptr,
                     data<float>(weight),
                     data<float>(bias),
                     static_cast<float>(eps),
                     form_of(skip, relu, skip_after)};
  const int64_t blocks = r.count() * r.slices;
  with_storage_type(x, [&](auto zero) {
    using T = decltype(zero);
    const T *from = data<T>(x), *added = data<T>(skip);
    T* to = mutable_data<T>(out);
    with_wholeness(C, {from, added, to, p.weight, p.bias}, [&](auto whole) {
      constexpr bool W = decltype(whole)::value;
      if (one_launch) {
        device.launch(few ? few_rows_kernel<T, W, FEW> : few_rows_kernel<T, W, MORE>, blocks,
                      THREADS, THREADS * sizeof(Four), r, p, from, added, to,
                      mutable_data<float>(mean), mutable_data<float>(var));
        return;
      }
      device.launch(moments_kernel<T, W>, blocks, THREADS, THREADS * sizeof(Counted), r, from,
                    mutable_data<float>(partial));
      device.launch(apply_kernel<T, W>, blocks, THREADS, THREADS * sizeof(Counted), r, p, from,
                    added, data<float>(partial), to, mutable_data<float>(mean),
                    mutable_data<float>(var));
    });
  });
  return {out, mean, var};
}

std::tuple<Tensor, Tensor, Tensor, Tensor> batch_norm_relu_backward_op(
    const Tensor& grad, const Tensor& x, const Tensor& weight, const Tensor& bias,
    const std::optional<Tensor>& skip, const Tensor& mean, const Tensor& var, bool relu,
    bool skip_after, double eps) {
  const Call call("batch_norm_relu_backward", x, Takes::float32_or_half);
  check_batch_norm(call, x, weight, bias, skip, eps);
  call.has("grad", grad, {x.size(0), x.size(1)});
  call.has("mean", mean, call.wide(), {x.size(1)});
  call.has("var", var, call.wide(), {x.size(1)});
  const OnDevice device(x);
  const int64_t N = x.size(0), C = x.size(1);
  const Form form = form_of(skip, relu, skip_after);
  const Tensor grad_skip = form.skip_before ? empty(x, {N, C}) : empty(x, {0});
  if (N == 0)
    return {empty(x, {N, C}), torch::stable::new_zeros(weight, {C}),
            torch::stable::new_zeros(weight, {C}), grad_skip};
  const Tensor grad_x = empty(x, {N, C}), grad_weight = empty(weight, {C});
  const Tensor grad_bias = empty(weight, {C});
  const bool few = N <= FEW * DOWN, one_launch = N <= MORE * DOWN;
  const Range r = one_launch ? one_range(N, C) : ranges_of(N, C);
  const Tensor partial = empty(weight, {one_launch ? 0 : r.count(), 2, C});
  const Parameters p{data<float>(mean), data<float>(var),        data<float>(weight),
                     data<float>(bias), static_cast<float>(eps), form};
  const int64_t blocks = r.count() * r.slices;
  with_storage_type(x, [&](auto zero) {
    using T = decltype(zero);
    const T *incoming = data<T>(grad), *from = data<T>(x);
    const T* added = form.skip_before ? data<T>(skip) : nullptr;
    T *behind = mutable_data<T>(grad_skip), *to = mutable_data<T>(grad_x);
    with_wholeness(
        C, {incoming, from, added, behind, to, p.weight, p.bias, p.mean, p.var}, [&](auto whole) {
          constexpr bool W = decltype(whole)::value;
          if (one_launch) {
            const auto kernel =
                few ? few_rows_backward_kernel<T, W, FEW> : few_rows_backward_kernel<T, W, MORE>;
            device.launch(kernel, blocks, THREADS, THREADS * sizeof(Sums), r, p, incoming, from,
                          added, behind, to, mutable_data<float>(grad_weight),
                          mutable_data<float>(grad_bias));
            return;
          }
          device.launch(sums_kernel<T, W>, blocks, THREADS, THREADS * sizeof(Sums), r, p, incoming,
                        from, added, behind, mutable_data<float>(partial));
          // The gradient that the sums' kernel stored is already masked by the ReLU.
          Parameters rest = p;
          if (form.skip_before) rest.form = {false, false, false};
          device.launch(backward_apply_kernel<T, W>, blocks, THREADS, THREADS * sizeof(Sums), r,
                        rest, form.skip_before ? behind : incoming, from, data<float>(partial), to,
                        mutable_data<float>(grad_weight), mutable_data<float>(grad_bias));
        });
  });
  return {grad_x, grad_weight, grad_bias, grad_skip};
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(ites_cuda, m) {
  for (const char* schema : norm_schemas) m.def(schema);
}

STABLE_TORCH_LIBRARY_IMPL(ites_cuda, CUDA, m) {
  m.impl("batch_norm_relu", TORCH_BOX(&batch_norm_relu_op));
  m.impl("batch_norm_relu_backward", TORCH_BOX(&batch_norm_relu_backward_op));
}

}  // namespace ites
