// csrc/common/dictionary.h in float64, for tests.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <array>
#include <tuple>

#include "common/dictionary.h"

namespace py = pybind11;
using namespace ites;

namespace {

using Two = std::array<double, 2>;
using Three = std::array<double, 3>;
using Nine = std::array<double, 9>;

Reprojection<double> reprojection_of(const Three& v, const Nine& R, const Two& target,
                                     double distance) {
  Mat3<double> M;
  for (int i = 0; i < 9; ++i) M.m[i] = R[i];
  return {Vec3<double>{v[0], v[1], v[2]}, M, target[0], target[1], distance};
}

std::tuple<double, Three> reprojection(const Three& v, const Nine& R, const Two& target,
                                       double distance) {
  const Reprojection<double> r = reprojection_of(v, R, target, distance);
  return {r.error, {r.camera.x, r.camera.y, r.camera.z}};
}

Three reprojection_vjp(double g, const Three& v, const Nine& R, const Two& target,
                       double distance) {
  const Vec3<double> out = reprojection_of(v, R, target, distance).vjp(g);
  return {out.x, out.y, out.z};
}

Nine add_outer_product(const Nine& G, const Three& x, const Three& g) {
  Mat3<double> M;
  for (int i = 0; i < 9; ++i) M.m[i] = G[i];
  add_outer(M, Vec3<double>{x[0], x[1], x[2]}, Vec3<double>{g[0], g[1], g[2]});
  Nine out;
  for (int i = 0; i < 9; ++i) out[i] = M.m[i];
  return out;
}

}  // namespace

void bind_dictionary(py::module_& parent) {
  py::module_ m =
      parent.def_submodule("dictionary", "The math of csrc/common/dictionary.h, of one joint.");
  m.def("reprojection", &reprojection,
        "(canonical joint, R, target, distance) -> (error, camera-frame joint).");
  m.def("reprojection_vjp", &reprojection_vjp,
        "(g, canonical joint, R, target, distance) -> gradient of g error to the camera-frame "
        "joint.");
  m.def("add_outer", &add_outer_product, "(G, x, g) -> G + x^T g.");
}
