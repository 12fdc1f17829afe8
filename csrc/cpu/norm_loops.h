// Loops of the norm family over rows, a few at a time.
#pragma once

#include <type_traits>

#include "cpu/channels.h"
#include "cpu/norm_arguments.h"

namespace ites {
namespace ITES_SIMD {

// Rows that are summed at once, of one tensor and of several that are read and written together.
// More rows of several, a power of two bytes apart, would share a cache set and evict each other.
constexpr int SUMMED = 8, STREAMED = 2;

// Calls body(Rows, r) for groups of R rows, then for single rows.
template <int R, class Body>
ITES_FN void over_rows(int64_t begin, int64_t end, Body body) {
  int64_t r = begin;
  for (; r + R <= end; r += R) body(std::integral_constant<int, R>{}, r);
  for (; r < end; ++r) body(std::integral_constant<int, 1>{}, r);
}

template <class T>
ITES_FN int64_t unit_end(const BatchNorm<T>& a, int64_t u) {
  return (u + 1) * a.unit < a.rows ? (u + 1) * a.unit : a.rows;
}

// Mean and sum of squared deviations of each channel over each unit of rows.
template <class T>
void batch_moments(const BatchNorm<T>& a, T* partial, int64_t begin, int64_t end) {
  for (int64_t u = begin; u < end; ++u) {
    const int64_t first = u * a.unit;
    T *mean = partial + u * 2 * a.channels, *deviation = mean + a.channels;
    over_rows<SUMMED>(
        first, unit_end(a, u), [&](auto rows, int64_t r) __attribute__((always_inline)) {
          constexpr int R = decltype(rows)::value;
          const T before = T(r - first), share = R / (before + R);
          over_channels<T>(a.channels, [&](auto stride, int64_t c) __attribute__((always_inline)) {
            using V = typename decltype(stride)::Value;
            for (int k = 0; k < decltype(stride)::values; ++k, c += width_of<V>) {
              V x[R];
              for (int i = 0; i < R; ++i) x[i] = load<V>(a.x + (r + i) * a.channels + c);
              Moments<V> moments = moments_of(x);
              if (r > first)
                moments = join({load<V>(mean + c), load<V>(deviation + c)}, moments, share,
                               before * share);
              store(mean + c, moments.mean);
              store(deviation + c, moments.deviation);
            }
          });
        });
  }
}

template <class V>
ITES_FN Channel<V> channel_at(const BatchNorm<scalar_of<V>>& a, int64_t c) {
  return {load<V>(a.mean + c), load<V>(a.scale + c), load<V>(a.weight + c), load<V>(a.bias + c)};
}

template <bool relu, bool skip_before, bool skip_after>
struct FixedForm {
  static constexpr Form value{relu, skip_before, skip_after};
};

// Calls body with the form as a type, so that each has a loop of its own.
template <class Body>
ITES_FN void with_form(Form form, Body body) {
  if (form.relu && form.skip_before) return body(FixedForm<true, true, false>{});
  if (form.relu && form.skip_after) return body(FixedForm<true, false, true>{});
  if (form.relu) return body(FixedForm<true, false, false>{});
  if (form.skip_after) return body(FixedForm<false, false, true>{});
  body(FixedForm<false, false, false>{});
}

// Calls body(V, at, c) for all elements of units [begin, end), the last unit first: it was the last
// to be read and is still in cache. `at` is the place in (N, C), c the channel.
template <class T, class Body>
ITES_FN void over_elements(const BatchNorm<T>& a, int64_t begin, int64_t end, Body body) {
  for (int64_t u = end - 1; u >= begin; --u) {
    over_rows<STREAMED>(
        u * a.unit, unit_end(a, u), [&](auto rows, int64_t r) __attribute__((always_inline)) {
          over_channels<T>(a.channels, [&](auto stride, int64_t c) __attribute__((always_inline)) {
            using V = typename decltype(stride)::Value;
            for (int k = 0; k < decltype(stride)::values; ++k, c += width_of<V>)
              body(rows, V{}, r * a.channels + c, c);
          });
        });
  }
}

template <class T>
void batch_norm_apply(const BatchNorm<T>& a, T* out, int64_t begin, int64_t end) {
  with_form(a.form, [&](auto fixed) {
    constexpr Form form = decltype(fixed)::value;
    over_elements(a, begin, end,
                  [&](auto rows, auto zero, int64_t at, int64_t c) __attribute__((always_inline)) {
                    using V = decltype(zero);
                    const Channel<V> channel = channel_at<V>(a, c);
                    for (int i = 0; i < decltype(rows)::value; ++i, at += a.channels) {
                      const V skip =
                          form.skip_before || form.skip_after ? load<V>(a.skip + at) : zero;
                      store(out + at, batch_norm_relu(load<V>(a.x + at), skip, channel, form));
                    }
                  });
  });
}

// Sums over each unit, for each channel, of the gradient of the ReLU's input, and of its
// product with the normalised value.
template <class T>
void batch_norm_sums(const BatchNorm<T>& a, const BatchNormGrads<T>& g, T* partial, int64_t begin,
                     int64_t end) {
  with_form(a.form, [&](auto fixed) {
    constexpr Form form = decltype(fixed)::value;
    for (int64_t u = begin; u < end; ++u) {
      T *sums = partial + u * 2 * a.channels, *products = sums + a.channels;
      for (int64_t c = 0; c < 2 * a.channels; ++c) sums[c] = 0;
      over_elements(
          a, u, u + 1,
          [&](auto rows, auto zero, int64_t at, int64_t c) __attribute__((always_inline)) {
            using V = decltype(zero);
            const Channel<V> channel = channel_at<V>(a, c);
            V sum = zero, product = zero;
            for (int i = 0; i < decltype(rows)::value; ++i, at += a.channels) {
              const V x = load<V>(a.x + at), skip = form.skip_before ? load<V>(a.skip + at) : zero;
              const V grad = before_relu_backward(load<V>(g.grad + at), x, skip, channel, form);
              if (form.relu && form.skip_before) store(g.grad_sum + at, grad);
              sum += grad;
              product += grad * normalised(x, channel);
            }
            store(sums + c, load<V>(sums + c) + sum);
            store(products + c, load<V>(products + c) + product);
          });
    }
  });
}

template <class T>
void batch_norm_backward_apply(const BatchNorm<T>& a, const BatchNormGrads<T>& g, int64_t begin,
                               int64_t end) {
  // Where the sums' pass has stored the gradient of the ReLU's input, it is taken from there.
  const bool stored = a.form.relu && a.form.skip_before;
  const T* incoming = stored ? g.grad_sum : g.grad;
  const Form remaining = stored ? Form{false, false, false} : a.form;
  with_form(remaining, [&](auto fixed) {
    constexpr Form form = decltype(fixed)::value;
    over_elements(
        a, begin, end,
        [&](auto rows, auto zero, int64_t at, int64_t c) __attribute__((always_inline)) {
          using V = decltype(zero);
          const Channel<V> channel = channel_at<V>(a, c);
          const V grad_mean = load<V>(g.grad_mean + c), product_mean = load<V>(g.product_mean + c);
          for (int i = 0; i < decltype(rows)::value; ++i, at += a.channels) {
            const V x = load<V>(a.x + at);
            const V grad = before_relu_backward(load<V>(incoming + at), x, zero, channel, form);
            store(g.grad_x + at, batch_norm_backward(grad, x, grad_mean, product_mean, channel));
          }
        });
  });
}

#define ITES_INSTANTIATE(T)                                                                    \
  template void batch_moments<T>(const BatchNorm<T>&, T*, int64_t, int64_t);                   \
  template void batch_norm_apply<T>(const BatchNorm<T>&, T*, int64_t, int64_t);                \
  template void batch_norm_sums<T>(const BatchNorm<T>&, const BatchNormGrads<T>&, T*, int64_t, \
                                   int64_t);                                                   \
  template void batch_norm_backward_apply<T>(const BatchNorm<T>&, const BatchNormGrads<T>&,    \
                                             int64_t, int64_t);
ITES_INSTANTIATE(float)
ITES_INSTANTIATE(double)
#undef ITES_INSTANTIATE

}  // namespace ITES_SIMD
}  // namespace ites
