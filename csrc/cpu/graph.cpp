// The graph family on a CPU: arguments, threads, registration. The loops are in graph_loops.h.
#include "common/graph.h"

#include <algorithm>
#include <map>
#include <mutex>
#include <vector>

#include "cpu/dispatch.h"
#include "cpu/graph_arguments.h"
#include "cpu/packed.h"
#include "graph_inputs.h"
#include "schemas.h"
#include "tensor.h"

ITES_SIMD_DECLARE(template <class T> void graph_mix(const GraphMix<T>&, T*, int64_t, int64_t))
ITES_SIMD_DECLARE(template <class T>
                  void graph_mix_backward(const GraphMixBackward<T>&, T*, int64_t, int64_t))

namespace ites {
namespace {

constexpr Takes TAKES = Takes::float32_or_64;
constexpr int64_t LEAST_POSES = 32;  // minimum per thread

// The skeleton as the loops want it, and the softmax of its logits.
template <class T>
struct Graph {
  std::vector<T> weights;
  std::vector<Incoming<T>> incoming;
  std::vector<Outgoing<T>> outgoing;
  std::vector<int> column_start, self_edge;
  EdgeTables<T> tables;

  Graph(const Tensor& logits, const Tensor& row_start, const Tensor& columns, int64_t channels,
        int64_t stride) {
    const int joints = static_cast<int>(row_start.size(0)) - 1,
              edges = static_cast<int>(columns.size(0));
    const int *rows = data<int>(row_start), *cols = data<int>(columns);
    weights.resize(edges);
    self_edge.assign(joints, -1);
    for (int i = 0; i < joints; ++i) {
      softmax_row(data<T>(logits), rows[i], rows[i + 1], weights.data());
      for (int e = rows[i]; e < rows[i + 1]; ++e) {
        if (cols[e] == i) self_edge[i] = e;
        incoming.push_back({weights[e], cols[e] * stride + (cols[e] == i ? 0 : channels)});
      }
    }
    for (int j = 0; j < joints; ++j) {
      column_start.push_back(static_cast<int>(outgoing.size()));
      for (int i = 0; i < joints; ++i)
        for (int e = rows[i]; e < rows[i + 1]; ++e)
          if (cols[e] == j && i != j) outgoing.push_back({weights[e], i, e});
    }
    column_start.push_back(static_cast<int>(outgoing.size()));
    tables = {joints,
              edges,
              rows,
              incoming.data(),
              column_start.data(),
              outgoing.data(),
              self_edge.data(),
              weights.data()};
  }
};

template <class T>
void mix(const GraphMix<T>& arguments, int64_t poses) {
  torch::stable::parallel_for(0, poses, LEAST_POSES, [&](int64_t begin, int64_t end) {
    Scratch<T> scratch(arguments.scratch_size());
    ITES_SIMD_CALL(graph_mix, arguments, scratch.data(), begin, end);
  });
}

std::tuple<Tensor, Tensor> graph_mix_op(const Tensor& features, const Tensor& logits,
                                        const Tensor& bias, const Tensor& v,
                                        const std::optional<Tensor>& residual,
                                        const Tensor& row_start, const Tensor& columns,
                                        const Tensor& pairs, int64_t channels) {
  const Call call("graph_mix", features, TAKES);
  call.has("features", features, {ANY, ANY, ANY});
  check_mix(call, features, features.size(2), logits, bias, v, row_start, columns, pairs, channels);
  call.has("residual", residual, {features.size(0), features.size(1), channels});
  check_tables(call, row_start, columns, pairs);
  const int64_t B = features.size(0), J = features.size(1), S = features.size(2), M = v.size(0);
  const Tensor y = empty(features, {B, J, channels}), t = empty(features, {B, J, M});
  with_floating(features, [&](auto zero) {
    using T = decltype(zero);
    const Graph<T> graph(logits, row_start, columns, channels, S);
    mix<T>({graph.tables, channels, M, S, static_cast<int>(pairs.size(0)), data<int>(pairs),
            data<T>(features), data<T>(bias), data<T>(v), data<T>(residual), mutable_data<T>(y),
            mutable_data<T>(t)},
           B);
  });
  return {y, t};
}

// The rows of `partial`, added up.
template <class T>
std::vector<double> total(const std::vector<T>& partial, int64_t size) {
  std::vector<double> sums(size);
  for (size_t at = 0; at < partial.size(); ++at) sums[at % size] += partial[at];
  return sums;
}

// Fills grad_features, and the units' partial sums, which it returns added up.
template <class T>
std::vector<double> mix_backward(GraphMixBackward<T> arguments) {
  const int64_t units = arguments.units();
  std::vector<T> partial(units * arguments.partial_size());
  arguments.partial = partial.data();
  torch::stable::parallel_for(
      0, units, LEAST_POSES / arguments.unit, [&](int64_t begin, int64_t end) {
        Scratch<T> scratch(arguments.scratch_size());
        ITES_SIMD_CALL(graph_mix_backward, arguments, scratch.data(), begin, end);
      });
  return total(partial, arguments.partial_size());
}

// Gives the sums over the batch to the tensors that they are the gradients of.
template <class T>
void hand_out(const std::vector<double>& sums, const Graph<T>& graph, const Tensor& grad_bias,
              const Tensor& grad_v, const Tensor& grad_logits) {
  const double *v = sums.data() + grad_bias.size(0), *weights = v + grad_v.size(0);
  std::copy(sums.data(), v, mutable_data<T>(grad_bias));
  std::copy(v, weights, mutable_data<T>(grad_v));
  const std::vector<T> grad_weights(weights, weights + grad_logits.size(0));
  T* to_logits = mutable_data<T>(grad_logits);
  for (int i = 0; i < graph.tables.joints; ++i)
    softmax_row_backward(graph.weights.data(), grad_weights.data(), graph.tables.row_start[i],
                         graph.tables.row_start[i + 1], to_logits);
}

std::tuple<Tensor, Tensor, Tensor, Tensor> graph_mix_backward_op(
    const std::optional<Tensor>& grad_y, const std::optional<Tensor>& grad_t,
    const Tensor& features, const Tensor& logits, const Tensor& bias, const Tensor& v,
    const Tensor& row_start, const Tensor& columns, const Tensor& pairs, int64_t channels) {
  const Call call("graph_mix_backward", features, TAKES);
  call.has("features", features, {ANY, ANY, ANY});
  check_mix(call, features, features.size(2), logits, bias, v, row_start, columns, pairs, channels);
  call.has("grad_y", grad_y, {features.size(0), features.size(1), channels});
  call.has("grad_t", grad_t, {features.size(0), features.size(1), v.size(0)});
  check_tables(call, row_start, columns, pairs);
  const int64_t B = features.size(0), J = features.size(1), S = features.size(2), M = v.size(0);
  const int64_t E = columns.size(0);
  const Tensor grad_features = empty(features, {B, J, S}), grad_logits = empty(logits, {E});
  const Tensor grad_bias = empty(bias, {bias.size(0)}), grad_v = empty(v, {M});
  with_floating(features, [&](auto zero) {
    using T = decltype(zero);
    const Graph<T> graph(logits, row_start, columns, channels, S);
    const std::vector<double> sums = mix_backward<T>(
        {B, graph.tables, channels, M, S, static_cast<int>(pairs.size(0)), data<int>(pairs),
         data<T>(grad_y), M ? data<T>(grad_t) : nullptr, data<T>(features), data<T>(bias),
         data<T>(v), mutable_data<T>(grad_features), nullptr});
    hand_out(sums, graph, grad_bias, grad_v, grad_logits);
  });
  return {grad_features, grad_logits, grad_bias, grad_v};
}

// Selects one unit of poses from the arguments of all.
template <class T>
GraphMix<T> unit_of(const GraphMix<T>& all, int64_t first) {
  GraphMix<T> unit = all;
  const int64_t row = first * all.table.joints;
  unit.residual += all.residual ? row * all.channels : 0;
  unit.y += row * all.channels;
  unit.t += row * all.attended;
  return unit;
}
template <class T>
GraphMixBackward<T> unit_of(const GraphMixBackward<T>& all, int64_t u) {
  GraphMixBackward<T> unit = all;
  const int64_t first = u * all.unit, row = first * all.table.joints;
  unit.poses = all.poses - first < all.unit ? all.poses - first : all.unit;
  unit.grad_y += all.grad_y ? row * all.channels : 0;
  unit.grad_t += all.grad_t ? row * all.attended : 0;
  unit.features += row * all.stride;
  unit.partial += u * all.partial_size();
  return unit;
}

// graph_mix(x @ projection, residual: x or none), a few poses at a time: their features are mixed
// while they are in the cache. They are written to memory where the backward pass will want them.
std::tuple<Tensor, Tensor, Tensor> graph_project_mix_op(const Tensor& x, const Tensor& projection,
                                                        const Tensor& logits, const Tensor& bias,
                                                        const Tensor& v, const Tensor& row_start,
                                                        const Tensor& columns, const Tensor& pairs,
                                                        int64_t channels, bool residual,
                                                        bool keep) {
  const Call call("graph_project_mix", x, TAKES);
  call.has("x", x, {ANY, ANY, ANY});
  call.has("projection", projection, {x.size(2), ANY});
  check_mix(call, x, projection.size(1), logits, bias, v, row_start, columns, pairs, channels);
  call.require(!residual || x.size(2) == channels, "x must have ", channels,
               " channels to be added to y, got ", x.size(2));
  check_tables(call, row_start, columns, pairs);
  const int64_t B = x.size(0), J = x.size(1), C = x.size(2), S = projection.size(1), M = v.size(0);
  const Tensor y = empty(x, {B, J, channels}), t = empty(x, {B, J, M});
  const Tensor features = empty(x, {keep ? B : 0, J, S});
  with_floating(x, [&](auto zero) {
    using T = decltype(zero);
    constexpr int64_t size = GraphMixBackward<T>::unit;
    const Graph<T> graph(logits, row_start, columns, channels, S);
    const GraphMix<T> all = {graph.tables,
                             channels,
                             M,
                             S,
                             static_cast<int>(pairs.size(0)),
                             data<int>(pairs),
                             nullptr,
                             data<T>(bias),
                             data<T>(v),
                             residual ? data<T>(x) : nullptr,
                             mutable_data<T>(y),
                             mutable_data<T>(t)};
    Packed<T> weights(Matrix<const T>(data<T>(projection), C, S));
    torch::stable::parallel_for(
        0, (B + size - 1) / size, LEAST_POSES / size, [&](int64_t begin, int64_t end) {
          Scratch<T> scratch(all.scratch_size()), passing(keep ? 0 : size * J * S);
          for (int64_t u = begin; u < end; ++u) {
            const int64_t first = u * size, poses = B - first < size ? B - first : size;
            T* rows = keep ? mutable_data<T>(features) + first * J * S : passing.data();
            const Matrix<const T> own(data<T>(x) + first * J * C, poses * J, C);
            weights.multiply({rows, poses * J, S}, own);
            GraphMix<T> unit = unit_of(all, first);
            unit.features = rows;
            ITES_SIMD_CALL(graph_mix, unit, scratch.data(), 0, poses);
          }
        });
  });
  return {y, t, features};
}

// Its gradients, likewise: those of the features never leave the cache.
std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> graph_project_mix_backward_op(
    const std::optional<Tensor>& grad_y, const std::optional<Tensor>& grad_t, const Tensor& x,
    const Tensor& projection, const Tensor& features, const Tensor& logits, const Tensor& bias,
    const Tensor& v, const Tensor& row_start, const Tensor& columns, const Tensor& pairs,
    int64_t channels, bool residual) {
  const Call call("graph_project_mix_backward", x, TAKES);
  call.has("x", x, {ANY, ANY, ANY});
  call.has("projection", projection, {x.size(2), ANY});
  check_mix(call, x, projection.size(1), logits, bias, v, row_start, columns, pairs, channels);
  call.require(!residual || x.size(2) == channels, "x must have ", channels,
               " channels to be added to y, got ", x.size(2));
  call.has("features", features, {x.size(0), x.size(1), projection.size(1)});
  call.has("grad_y", grad_y, {x.size(0), x.size(1), channels});
  call.has("grad_t", grad_t, {x.size(0), x.size(1), v.size(0)});
  check_tables(call, row_start, columns, pairs);
  const int64_t B = x.size(0), J = x.size(1), C = x.size(2), S = projection.size(1), M = v.size(0);
  const Tensor grad_x = empty(x, {B, J, C}), grad_projection = empty(projection, {C, S});
  const Tensor grad_logits = empty(logits, {columns.size(0)}), grad_v = empty(v, {M});
  const Tensor grad_bias = empty(bias, {bias.size(0)});
  with_floating(x, [&](auto zero) {
    using T = decltype(zero);
    const Graph<T> graph(logits, row_start, columns, channels, S);
    GraphMixBackward<T> all = {B,
                               graph.tables,
                               channels,
                               M,
                               S,
                               static_cast<int>(pairs.size(0)),
                               data<int>(pairs),
                               data<T>(grad_y),
                               M ? data<T>(grad_t) : nullptr,
                               data<T>(features),
                               data<T>(bias),
                               data<T>(v),
                               nullptr,
                               nullptr};
    std::vector<T> partial(all.units() * all.partial_size());
    all.partial = partial.data();
    const bool add = residual && grad_y.has_value();
    Packed<T> weights(Matrix<const T>(data<T>(projection), C, S).transposed());
    std::map<int64_t, std::vector<T>> of_ranges;  // grad_projection, by a range's first unit
    std::mutex guard;
    torch::stable::parallel_for(
        0, all.units(), LEAST_POSES / all.unit, [&](int64_t begin, int64_t end) {
          Scratch<T> scratch(all.scratch_size()), passing(all.unit * J * S);
          std::vector<T> own(C * S);
          for (int64_t u = begin; u < end; ++u) {
            GraphMixBackward<T> unit = unit_of(all, u);
            unit.grad_features = passing.data();
            ITES_SIMD_CALL(graph_mix_backward, unit, scratch.data(), 0, 1);
            const int64_t at = u * all.unit * J * C, rows = unit.poses * J;
            const Matrix<const T> passed(passing.data(), rows, S), inputs(data<T>(x) + at, rows, C);
            weights.multiply({mutable_data<T>(grad_x) + at, rows, C}, passed,
                             add ? unit.grad_y : nullptr);
            const Product<T> to_weights = {{own.data(), C, S},
                                           inputs.transposed(),
                                           passed,
                                           nullptr,
                                           u > begin ? own.data() : nullptr};
            ITES_SIMD_CALL(multiply, to_weights);
          }
          const std::lock_guard<std::mutex> lock(guard);
          of_ranges[begin] = std::move(own);
        });
    add_ranges(of_ranges, mutable_data<T>(grad_projection), C * S);
    hand_out(total(partial, all.partial_size()), graph, grad_bias, grad_v, grad_logits);
  });
  return {grad_x, grad_projection, grad_logits, grad_bias, grad_v};
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(ites_cpp, m) {
  for (const char* schema : graph_schemas) m.def(schema);
  for (const char* schema : graph_project_schemas) m.def(schema);
}

STABLE_TORCH_LIBRARY_IMPL(ites_cpp, CPU, m) {
  m.impl("graph_mix", TORCH_BOX(&graph_mix_op));
  m.impl("graph_mix_backward", TORCH_BOX(&graph_mix_backward_op));
  m.impl("graph_project_mix", TORCH_BOX(&graph_project_mix_op));
  m.impl("graph_project_mix_backward", TORCH_BOX(&graph_project_mix_backward_op));
}

}  // namespace ites
