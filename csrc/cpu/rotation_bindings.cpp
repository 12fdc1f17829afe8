// csrc/common/rotation.h and philox.h in float64, for tests.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <array>

#include "common/rotation.h"

namespace py = pybind11;
using namespace ites;

namespace {

using Two = std::array<double, 2>;
using Three = std::array<double, 3>;
using Nine = std::array<double, 9>;
using FourWords = std::array<uint32_t, 4>;

Vec3<double> vec3(const Three& v) { return {v[0], v[1], v[2]}; }
Three array(const Vec3<double>& v) { return {v.x, v.y, v.z}; }
Mat3<double> mat3(const Nine& m) {
  Mat3<double> out;
  for (int i = 0; i < 9; ++i) out.m[i] = m[i];
  return out;
}
Nine array(const Mat3<double>& M) {
  Nine out;
  for (int i = 0; i < 9; ++i) out[i] = M.m[i];
  return out;
}

FourWords philox_words(FourWords counter, const std::array<uint32_t, 2>& key) {
  uint32_t words[4] = {counter[0], counter[1], counter[2], counter[3]};
  philox(words, key[0], key[1]);
  return {words[0], words[1], words[2], words[3]};
}

FourWords draw_words(const std::array<int64_t, 3>& counter, uint32_t pose, uint32_t sample) {
  uint32_t words[4];
  random_words(stream_at(counter.data()), pose, sample, words);
  return {words[0], words[1], words[2], words[3]};
}

Nine rotation_of_words(const FourWords& words, int axes, double max_angle) {
  const uint32_t w[4] = {words[0], words[1], words[2], words[3]};
  return array(random_rotation<double>(w, Draw<double>{axes, max_angle}));
}

Nine turn_of_words(const FourWords& words, double elevation, const Two& spread) {
  const uint32_t w[4] = {words[0], words[1], words[2], words[3]};
  return array(random_turn<double>(w, elevation, spread[0], spread[1]));
}

std::array<float, 2> sine_cosine_of(float angle) {
  float sine, cosine;
  sine_cosine(angle, sine, cosine);
  return {sine, cosine};
}

Two project(const Three& v, double distance) {
  const Projection<double> p(vec3(v), distance);
  return {p.x, p.y};
}

}  // namespace

void bind_rotation(py::module_& parent) {
  py::module_ m = parent.def_submodule(
      "rotation", "The math of csrc/common/rotation.h: vectors of 3, matrices of 9 row by row.");
  m.def("philox", &philox_words, "Philox 4x32-10: (counter of 4 words, key of 2) -> 4 words.");
  m.def("random_words", &draw_words, "((seed, offset, first pose), pose, sample) -> 4 words.");
  m.def("random_rotation", &rotation_of_words, "(4 words, axes mask, max_angle) -> R.");
  m.def("random_turn", &turn_of_words, "(4 words, elevation, (mean, deviation)) -> R.");
  m.def(
      "turn_seen", [](double e, double a, double f) { return array(turn_seen(e, a, f)); },
      "(elevation, azimuth, new elevation) -> R.");
  m.def(
      "elevation_vjp",
      [](const Three& g, const Three& v) { return elevation_vjp(vec3(g), vec3(v)); },
      "(gradient to v, v) -> gradient of v @ turn_seen(e, a, f) to e.");
  m.def(
      "logarithm", [](float x) { return logarithm(x); },
      "The single precision logarithm of C++ and CUDA.");
  m.def("sine_cosine", &sine_cosine_of, "The single precision sin and cos of all backends.");
  m.def("so3_exp", [](const Three& w) { return array(so3_exp(vec3(w))); }, "w -> R.");
  m.def(
      "so3_exp_vjp",
      [](const Nine& G, const Three& w) { return array(so3_exp_vjp(mat3(G), vec3(w))); },
      "(gradient to R, w) -> gradient to w.");
  m.def(
      "rotate", [](const Three& v, const Nine& R) { return array(rotate(vec3(v), mat3(R))); },
      "(v, R) -> v @ R.");
  m.def(
      "rotate_back",
      [](const Three& g, const Nine& R) { return array(rotate_back(vec3(g), mat3(R))); },
      "(g, R) -> g @ R^T, the gradient of v @ R to v.");
  m.def(
      "norm_vjp",
      [](double g, const Three& v) { return array(norm_vjp(g, vec3(v), norm(vec3(v)))); },
      "(g, v) -> gradient of g |v| to v.");
  m.def("project", &project, "(v, distance) -> its projection.");
  m.def(
      "project_vjp",
      [](const Two& g, const Three& v, double distance) {
        return array(Projection<double>(vec3(v), distance).vjp(g[0], g[1]));
      },
      "(gradient to the projection, v, distance) -> gradient to v.");
  m.def(
      "backproject",
      [](const Two& p, double depth, double distance) {
        return array(backproject(p[0], p[1], depth, distance));
      },
      "(projection, depth, distance) -> the point.");
  m.def(
      "backproject_vjp",
      [](const Three& g, const Two& p, double depth, double distance) {
        return array(backproject_vjp(vec3(g), p[0], p[1], depth, distance));
      },
      "(gradient to the point, projection, depth, distance) -> to projection and depth.");
}
