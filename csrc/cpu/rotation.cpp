// The rotation family on a CPU: arguments, threads, registration. The loops are in
// rotation_loops.h.
#include "cpu/dispatch.h"
#include "cpu/over_poses.h"
#include "rotation_inputs.h"
#include "schemas.h"
#include "tensor.h"

ITES_SIMD_DECLARE(template <class T> void so3_exp(const T*, T*, int64_t, int64_t))
ITES_SIMD_DECLARE(template <class T>
                  void so3_exp_backward(const T*, const T*, T*, int64_t, int64_t))
ITES_SIMD_DECLARE(template <class T>
                  void draw_rotations(const RotationSource<T>&, T*, int64_t, int64_t))
ITES_SIMD_DECLARE(template <class T> void rotate_project(const RotateProject<T>&, int64_t, int64_t))
ITES_SIMD_DECLARE(template <class T>
                  void rotate_project_backward(const RotateProjectBackward<T>&, int64_t, int64_t))
ITES_SIMD_DECLARE(template <class T>
                  void equivariance_distance(const EquivarianceDistance<T>&, int64_t, int64_t))
ITES_SIMD_DECLARE(template <class T>
                  void equivariance_distance_backward(const EquivarianceDistanceBackward<T>&,
                                                      int64_t, int64_t))

namespace ites {
namespace {

constexpr Takes TAKES = Takes::float32_or_64;
constexpr int64_t LEAST_POSES = 512;       // minimum per thread: poses, all samples
constexpr int64_t LEAST_ROTATIONS = 4096;  // of single rotations

Tensor so3_exp_op(const Tensor& w) {
  const Call call("so3_exp", w, TAKES);
  call.has("w", w, {ANY, 3});
  const Tensor out = empty(w, {w.size(0), 3, 3});
  with_floating(w, [&](auto zero) {
    using T = decltype(zero);
    over_poses(w.size(0), LEAST_ROTATIONS, [&](int64_t begin, int64_t end) {
      ITES_SIMD_CALL(so3_exp, data<T>(w), mutable_data<T>(out), begin, end);
    });
  });
  return out;
}

Tensor so3_exp_backward_op(const Tensor& grad, const Tensor& w) {
  const Call call("so3_exp_backward", w, TAKES);
  call.has("w", w, {ANY, 3});
  call.has("grad", grad, {w.size(0), 3, 3});
  const Tensor out = empty(w, {w.size(0), 3});
  with_floating(w, [&](auto zero) {
    using T = decltype(zero);
    over_poses(w.size(0), LEAST_ROTATIONS, [&](int64_t begin, int64_t end) {
      ITES_SIMD_CALL(so3_exp_backward, data<T>(grad), data<T>(w), mutable_data<T>(out), begin, end);
    });
  });
  return out;
}

Tensor philox_op(const Tensor& counter, int64_t poses, int64_t samples) {
  const Call call("philox", counter);
  call.has("counter", counter, ScalarType::Long, {3});
  const int64_t rows = check_rows(call, poses, samples, 4);
  const Tensor out = empty(counter, {rows, 4});
  const Stream stream = stream_at(data<int64_t>(counter));
  int64_t* to = mutable_data<int64_t>(out);
  for (int64_t s = 0; s < samples; ++s) {
    for (int64_t b = 0; b < poses; ++b) {
      uint32_t words[4];
      random_words(stream, static_cast<uint32_t>(b), static_cast<uint32_t>(s), words);
      for (uint32_t word : words) *to++ = word;
    }
  }
  return out;
}

Tensor draw_rotations_op(const Tensor& like, const Tensor& counter,
                         const std::optional<Tensor>& elevation,
                         const std::optional<Tensor>& spread, int64_t poses, int64_t samples,
                         int64_t axes, double max_angle) {
  const Call call("draw_rotations", like, TAKES);
  const int64_t rows = check_rows(call, poses, samples, 9);
  check_draw(call, counter, elevation, spread, poses, axes, max_angle);
  const Tensor out = empty(like, {rows, 3, 3});
  with_floating(like, [&](auto zero) {
    using T = decltype(zero);
    const auto source =
        rotation_source<T>(counter, elevation, spread, poses, samples, axes, max_angle);
    over_poses(poses, LEAST_POSES, [&](int64_t begin, int64_t end) {
      ITES_SIMD_CALL(draw_rotations, source, mutable_data<T>(out), begin, end);
    });
  });
  return out;
}

std::tuple<Tensor, Tensor> rotate_project_op(const Tensor& joints, const Tensor& rotations,
                                             const std::optional<Tensor>& elevation,
                                             const std::optional<Tensor>& spread, int64_t samples,
                                             int64_t axes, double max_angle, double distance,
                                             bool with_rotated) {
  const Call call("rotate_project", joints, TAKES);
  const RotationSizes sizes =
      check_poses(call, joints, rotations, elevation, spread, samples, axes, max_angle, distance);
  const auto B = sizes.poses, J = sizes.joints, rows = sizes.rows;
  const Tensor points = empty(joints, {rows, J, 2});
  const Tensor rotated = with_rotated ? empty(joints, {rows, J, 3}) : empty(joints, {0});
  with_floating(joints, [&](auto zero) {
    using T = decltype(zero);
    const RotateProject<T> arguments = {
        rotation_source<T>(rotations, elevation, spread, B, samples, axes, max_angle),
        static_cast<int>(J),
        static_cast<T>(distance),
        data<T>(joints),
        mutable_data<T>(points),
        with_rotated ? mutable_data<T>(rotated) : nullptr};
    over_poses(B, LEAST_POSES, [&](int64_t begin, int64_t end) {
      ITES_SIMD_CALL(rotate_project, arguments, begin, end);
    });
  });
  return {points, rotated};
}

std::tuple<Tensor, Tensor> rotate_project_backward_op(const Tensor& grad_points,
                                                      const std::optional<Tensor>& grad_rotated,
                                                      const Tensor& joints, const Tensor& rotations,
                                                      const std::optional<Tensor>& elevation,
                                                      const std::optional<Tensor>& spread,
                                                      int64_t samples, int64_t axes,
                                                      double max_angle, double distance) {
  const Call call("rotate_project_backward", joints, TAKES);
  const RotationSizes sizes =
      check_poses(call, joints, rotations, elevation, spread, samples, axes, max_angle, distance);
  const auto B = sizes.poses, J = sizes.joints, rows = sizes.rows;
  call.has("grad_points", grad_points, {rows, J, 2});
  call.has("grad_rotated", grad_rotated, {rows, J, 3});
  const Tensor grad_joints = empty(joints, {B, J, 3});
  const Tensor grad_elevation = empty(joints, {elevation ? B : 0});
  with_floating(joints, [&](auto zero) {
    using T = decltype(zero);
    const RotateProjectBackward<T> arguments = {
        rotation_source<T>(rotations, elevation, spread, B, samples, axes, max_angle),
        static_cast<int>(J),
        static_cast<T>(distance),
        data<T>(grad_points),
        data<T>(grad_rotated),
        data<T>(joints),
        mutable_data<T>(grad_joints),
        mutable_data<T>(grad_elevation)};
    over_poses(B, LEAST_POSES, [&](int64_t begin, int64_t end) {
      ITES_SIMD_CALL(rotate_project_backward, arguments, begin, end);
    });
  });
  return {grad_joints, grad_elevation};
}

Tensor equivariance_distance_op(const Tensor& joints, const Tensor& points, const Tensor& depth,
                                const Tensor& rotations, const std::optional<Tensor>& elevation,
                                const std::optional<Tensor>& spread, int64_t samples, int64_t axes,
                                double max_angle, double distance) {
  const Call call("equivariance_distance", joints, TAKES);
  const RotationSizes sizes =
      check_poses(call, joints, rotations, elevation, spread, samples, axes, max_angle, distance);
  const auto B = sizes.poses, J = sizes.joints, rows = sizes.rows;
  check_lifted(call, sizes, points, depth);
  const Tensor out = empty(points, {rows});
  with_floating(joints, [&](auto zero) {
    using T = decltype(zero);
    const EquivarianceDistance<T> arguments = {
        rotation_source<T>(rotations, elevation, spread, B, samples, axes, max_angle),
        static_cast<int>(J),
        static_cast<T>(distance),
        data<T>(joints),
        data<T>(points),
        data<T>(depth),
        mutable_data<T>(out)};
    over_poses(B, LEAST_POSES, [&](int64_t begin, int64_t end) {
      ITES_SIMD_CALL(equivariance_distance, arguments, begin, end);
    });
  });
  return out;
}

std::tuple<Tensor, Tensor, Tensor, Tensor> equivariance_distance_backward_op(
    const Tensor& grad, const Tensor& joints, const Tensor& points, const Tensor& depth,
    const Tensor& rotations, const std::optional<Tensor>& elevation,
    const std::optional<Tensor>& spread, int64_t samples, int64_t axes, double max_angle,
    double distance) {
  const Call call("equivariance_distance_backward", joints, TAKES);
  const RotationSizes sizes =
      check_poses(call, joints, rotations, elevation, spread, samples, axes, max_angle, distance);
  const auto B = sizes.poses, J = sizes.joints, rows = sizes.rows;
  check_lifted(call, sizes, points, depth);
  call.has("grad", grad, {rows});
  const Tensor grad_joints = empty(joints, {B, J, 3});
  const Tensor grad_points = empty(joints, {rows, J, 2});
  const Tensor grad_depth = empty(joints, {rows, J});
  const Tensor grad_elevation = empty(joints, {elevation ? B : 0});
  with_floating(joints, [&](auto zero) {
    using T = decltype(zero);
    const EquivarianceDistanceBackward<T> arguments = {
        rotation_source<T>(rotations, elevation, spread, B, samples, axes, max_angle),
        static_cast<int>(J),
        static_cast<T>(distance),
        data<T>(grad),
        data<T>(joints),
        data<T>(points),
        data<T>(depth),
        mutable_data<T>(grad_joints),
        mutable_data<T>(grad_points),
        mutable_data<T>(grad_depth),
        mutable_data<T>(grad_elevation)};
    over_poses(B, LEAST_POSES, [&](int64_t begin, int64_t end) {
      ITES_SIMD_CALL(equivariance_distance_backward, arguments, begin, end);
    });
  });
  return {grad_joints, grad_points, grad_depth, grad_elevation};
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(ites_cpp, m) {
  for (const char* schema : rotation_schemas) m.def(schema);
}

STABLE_TORCH_LIBRARY_IMPL(ites_cpp, CPU, m) {
  m.impl("so3_exp", TORCH_BOX(&so3_exp_op));
  m.impl("so3_exp_backward", TORCH_BOX(&so3_exp_backward_op));
  m.impl("philox", TORCH_BOX(&philox_op));
  m.impl("draw_rotations", TORCH_BOX(&draw_rotations_op));
  m.impl("rotate_project", TORCH_BOX(&rotate_project_op));
  m.impl("rotate_project_backward", TORCH_BOX(&rotate_project_backward_op));
  m.impl("equivariance_distance", TORCH_BOX(&equivariance_distance_op));
  m.impl("equivariance_distance_backward", TORCH_BOX(&equivariance_distance_backward_op));
}

}  // namespace ites
