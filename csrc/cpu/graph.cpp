// The graph family on a CPU: arguments, threads, registration. The loops are in graph_loops.h.
#include "common/graph.h"

#include <vector>

#include "cpu/dispatch.h"
#include "cpu/graph_arguments.h"
#include "schemas.h"
#include "tensor.h"

ITES_SIMD_DECLARE(template <class T> void graph_mix(const GraphMix<T>&, T*, int64_t, int64_t))
ITES_SIMD_DECLARE(template <class T> void graph_mix_backward(const GraphMixBackward<T>&, T*, int64_t, int64_t))

namespace ites {
namespace {

constexpr int64_t LEAST_POSES = 32;  // a thread's worth

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
    const int joints = static_cast<int>(row_start.size(0)) - 1, edges = static_cast<int>(columns.size(0));
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
    tables = {joints, edges, rows, incoming.data(), column_start.data(), outgoing.data(),
              self_edge.data(), weights.data()};
  }
};

// Scratch for one thread, at a cache line's start.
template <class T>
class Scratch {
 public:
  explicit Scratch(int64_t size) : storage_(size + 16) {}
  T* data() {
    const auto at = reinterpret_cast<uintptr_t>(storage_.data());
    return reinterpret_cast<T*>((at + 63) / 64 * 64);
  }

 private:
  std::vector<T> storage_;
};

template <class T>
void mix(const GraphMix<T>& arguments, int64_t poses) {
  torch::stable::parallel_for(0, poses, LEAST_POSES, [&](int64_t begin, int64_t end) {
    Scratch<T> scratch(arguments.scratch_size());
    ITES_SIMD_CALL(graph_mix, arguments, scratch.data(), begin, end);
  });
}

std::tuple<Tensor, Tensor> graph_mix_op(const Tensor& features, const Tensor& logits, const Tensor& bias,
                                        const Tensor& v, const std::optional<Tensor>& residual,
                                        const Tensor& row_start, const Tensor& columns,
                                        const Tensor& pairs, int64_t channels) {
  const int64_t B = features.size(0), J = features.size(1), S = features.size(2), M = v.size(0);
  const Tensor y = empty(features, {B, J, channels}), t = empty(features, {B, J, M});
  with_floating(features, [&](auto zero) {
    using T = decltype(zero);
    const Graph<T> graph(logits, row_start, columns, channels, S);
    mix<T>({graph.tables, channels, M, S, static_cast<int>(pairs.size(0)), data<int>(pairs),
                   data<T>(features), data<T>(bias), data<T>(v),
                   data<T>(residual), mutable_data<T>(y), mutable_data<T>(t)},
                  B);
  });
  return {y, t};
}

// Fills grad_features, and the units' partial sums, which it returns added up.
template <class T>
std::vector<double> mix_backward(GraphMixBackward<T> arguments) {
  const int64_t units = (arguments.poses + arguments.unit - 1) / arguments.unit;
  const int64_t size = arguments.partial_size();
  std::vector<T> partial(units * size);
  arguments.partial = partial.data();
  torch::stable::parallel_for(0, units, LEAST_POSES / arguments.unit, [&](int64_t begin, int64_t end) {
    Scratch<T> scratch(arguments.scratch_size());
    ITES_SIMD_CALL(graph_mix_backward, arguments, scratch.data(), begin, end);
  });
  std::vector<double> sums(size);
  for (int64_t u = 0; u < units; ++u)
    for (int64_t k = 0; k < size; ++k) sums[k] += partial[u * size + k];
  return sums;
}

std::tuple<Tensor, Tensor, Tensor, Tensor> graph_mix_backward_op(
    const std::optional<Tensor>& grad_y, const std::optional<Tensor>& grad_t, const Tensor& features,
    const Tensor& logits, const Tensor& bias, const Tensor& v, const Tensor& row_start,
    const Tensor& columns, const Tensor& pairs, int64_t channels) {
  const int64_t B = features.size(0), J = features.size(1), S = features.size(2), M = v.size(0);
  const int64_t E = columns.size(0);
  const Tensor grad_features = empty(features, {B, J, S}), grad_logits = empty(logits, {E});
  const Tensor grad_bias = empty(bias, {bias.size(0)}), grad_v = empty(v, {M});
  with_floating(features, [&](auto zero) {
    using T = decltype(zero);
    const Graph<T> graph(logits, row_start, columns, channels, S);
    const std::vector<double> sums = mix_backward<T>(
        {B, graph.tables, channels, M, S, static_cast<int>(pairs.size(0)), data<int>(pairs),
         data<T>(grad_y), M ? data<T>(grad_t) : nullptr, data<T>(features),
         data<T>(bias), data<T>(v), mutable_data<T>(grad_features), nullptr});
    const double* sum = sums.data();
    for (int64_t k = 0; k < bias.size(0); ++k) mutable_data<T>(grad_bias)[k] = *sum++;
    for (int64_t k = 0; k < M; ++k) mutable_data<T>(grad_v)[k] = *sum++;
    const std::vector<T> grad_weights(sum, sum + E);
    for (int i = 0; i < graph.tables.joints; ++i)
      softmax_row_backward(graph.weights.data(), grad_weights.data(), graph.tables.row_start[i],
                           graph.tables.row_start[i + 1], mutable_data<T>(grad_logits));
  });
  return {grad_features, grad_logits, grad_bias, grad_v};
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(ites_cpp, m) {
  for (const char* schema : graph_schemas) m.def(schema);
}

STABLE_TORCH_LIBRARY_IMPL(ites_cpp, CPU, m) {
  m.impl("graph_mix", TORCH_BOX(&graph_mix_op));
  m.impl("graph_mix_backward", TORCH_BOX(&graph_mix_backward_op));
}

}  // namespace ites
