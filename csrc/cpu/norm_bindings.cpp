// csrc/common/norm.h in float64, for tests.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <array>

#include "common/norm.h"

namespace py = pybind11;
using namespace ites;

namespace {

using ChannelNumbers = std::array<double, 4>;
using FormFlags = std::array<bool, 3>;

Channel<double> channel_of(const ChannelNumbers& c) { return {c[0], c[1], c[2], c[3]}; }
Form form_of(const FormFlags& f) { return {f[0], f[1], f[2]}; }

// Mean and sum of squared deviations: of each half by itself, then joined.
std::array<double, 2> moments(const std::array<double, 4>& first,
                              const std::array<double, 4>& second) {
  const double a[4] = {first[0], first[1], first[2], first[3]};
  const double b[4] = {second[0], second[1], second[2], second[3]};
  const Moments<double> both = join(moments_of(a), moments_of(b), 0.5, 2.0);
  return {both.mean, both.deviation};
}

double forward(double x, double skip, const ChannelNumbers& channel, const FormFlags& form) {
  return batch_norm_relu(x, skip, channel_of(channel), form_of(form));
}

double inner_vjp(double grad, double x, double skip, const ChannelNumbers& channel,
                 const FormFlags& form) {
  return before_relu_backward(grad, x, skip, channel_of(channel), form_of(form));
}

double vjp(double grad, double x, double grad_mean, double product_mean,
           const ChannelNumbers& channel) {
  return batch_norm_backward(grad, x, grad_mean, product_mean, channel_of(channel));
}

}  // namespace

void bind_norm(py::module_& parent) {
  py::module_ m = parent.def_submodule("norm", "The math of csrc/common/norm.h.");
  m.def("moments", &moments, "Mean and sum of squared deviations of two groups of four.");
  m.def("batch_norm_relu", &forward,
        "(x, skip, (mean, scale, weight, bias), (relu, skip_before, skip_after)) -> output.");
  m.def("before_relu_backward", &inner_vjp,
        "(grad, x, skip, channel, form) -> gradient of the ReLU's input.");
  m.def("batch_norm_backward", &vjp,
        "(that gradient, x, its mean, the mean of its product with x normalised, channel) -> "
        "gradient of x.");
}
