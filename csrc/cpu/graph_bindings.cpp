// csrc/common/graph.h in float64, for tests.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <array>
#include <vector>

#include "common/graph.h"

namespace py = pybind11;
using namespace ites;

namespace {

using Numbers = std::vector<double>;

Numbers softmax_of(const Numbers& logits) {
  Numbers weights(logits.size());
  softmax_row(logits.data(), 0, static_cast<int>(logits.size()), weights.data());
  return weights;
}

Numbers softmax_vjp(const Numbers& weights, const Numbers& grad) {
  Numbers out(weights.size());
  softmax_row_backward(weights.data(), grad.data(), 0, static_cast<int>(weights.size()),
                       out.data());
  return out;
}

std::array<double, 2> pool_pair_vjp(double first, double second, double grad) {
  std::array<double, 2> out;
  pool_pair_backward(first, second, grad, out[0], out[1]);
  return out;
}

}  // namespace

void bind_graph(py::module_& parent) {
  py::module_ m = parent.def_submodule("graph", "The math of csrc/common/graph.h.");
  m.def("softmax", &softmax_of, "Softmax of one joint's logits.");
  m.def("softmax_vjp", &softmax_vjp, "(weights, grad) -> gradient of the logits.");
  m.def("pool_pair", &pool_pair<double>, "The larger of two, NaN if either is.");
  m.def("pool_pair_vjp", &pool_pair_vjp, "(first, second, grad) -> both gradients.");
  m.def("affinity", &affinity<double>, "relu(theta + score) * inverse_pairs.");
  m.def("affinity_slope", &affinity_slope<double>, "Its derivative to theta.");
}
