// Linear layers on a CPU: three matrix products, each shared out among the threads. The loops are
// in product_loops.h.
#include <algorithm>

#include "check.h"
#include "cpu/dispatch.h"
#include "cpu/product.h"
#include "schemas.h"
#include "tensor.h"

ITES_SIMD_DECLARE(template <class T> void multiply(const Product<T>&))

namespace ites {
namespace {

constexpr int64_t LEAST_FLOP = 1 << 20;  // minimum work per thread
constexpr int64_t MOST_ROWS = 512;       // of a at once, so that a block of them stays in L2
constexpr int64_t STEP = 16;

// Threads take rows, or columns where there are more. Every sum is one thread's, so that the result
// does not depend on how many there are.
template <class T>
void share_out(const Product<T>& all) {
  const int64_t rows = all.out.rows, columns = all.out.columns;
  const int64_t flop = 2 * rows * columns * all.a.columns;
  const int64_t threads =
      std::min<int64_t>(torch::stable::get_num_threads(), 1 + flop / LEAST_FLOP);
  const bool by_rows = rows >= columns;
  const int64_t size = by_rows ? rows : columns;
  int64_t share = (size / threads + STEP) / STEP * STEP;
  if (by_rows) share = std::min(share, MOST_ROWS);
  torch::stable::parallel_for(0, (size + share - 1) / share, 1, [&](int64_t begin, int64_t end) {
    for (int64_t part = begin; part < end; ++part) {
      const int64_t first = part * share, count = std::min(share, size - first);
      Product<T> mine = all;
      mine.out = by_rows ? all.out.some_rows(first, count) : all.out.some_columns(first, count);
      if (by_rows) {
        mine.a = all.a.some_rows(first, count);
      } else {
        mine.b = all.b.some_columns(first, count);
        if (all.bias) mine.bias = all.bias + first;
      }
      ITES_SIMD_CALL(multiply, mine);
    }
  });
}

template <class T>
Matrix<const T> matrix(const Tensor& tensor) {
  return {data<T>(tensor), tensor.size(0), tensor.size(1)};
}
template <class T>
Matrix<T> mutable_matrix(const Tensor& tensor) {
  return {mutable_data<T>(tensor), tensor.size(0), tensor.size(1)};
}

Tensor linear_op(const Tensor& x, const Tensor& weight, const std::optional<Tensor>& bias) {
  const Call call("linear", x, Takes::float32_or_64);
  call.has("x", x, {ANY, ANY});
  call.has("weight", weight, {ANY, x.size(1)});
  call.has("bias", bias, {weight.size(0)});
  const Tensor y = empty(x, {x.size(0), weight.size(0)});
  with_floating(x, [&](auto zero) {
    using T = decltype(zero);
    share_out<T>(
        {mutable_matrix<T>(y), matrix<T>(x), matrix<T>(weight).transposed(), data<T>(bias)});
  });
  return y;
}

std::tuple<Tensor, Tensor> linear_backward_op(const Tensor& grad, const Tensor& x,
                                              const Tensor& weight, bool to_x, bool to_weight) {
  const Call call("linear_backward", x, Takes::float32_or_64);
  call.has("x", x, {ANY, ANY});
  call.has("weight", weight, {ANY, x.size(1)});
  call.has("grad", grad, {x.size(0), weight.size(0)});
  const int64_t rows = x.size(0), inputs = x.size(1), outputs = weight.size(0);
  const Tensor grad_x = empty(x, {to_x ? rows : 0, inputs});
  const Tensor grad_weight = empty(weight, {to_weight ? outputs : 0, inputs});
  with_floating(x, [&](auto zero) {
    using T = decltype(zero);
    const Matrix<const T> g = matrix<T>(grad);
    if (to_x) share_out<T>({mutable_matrix<T>(grad_x), g, matrix<T>(weight)});
    if (to_weight) share_out<T>({mutable_matrix<T>(grad_weight), g.transposed(), matrix<T>(x)});
  });
  return {grad_x, grad_weight};
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(ites_cpp, m) {
  for (const char* schema : linear_schemas) m.def(schema);
}

STABLE_TORCH_LIBRARY_IMPL(ites_cpp, CPU, m) {
  m.impl("linear", TORCH_BOX(&linear_op));
  m.impl("linear_backward", TORCH_BOX(&linear_backward_op));
}

}  // namespace ites
