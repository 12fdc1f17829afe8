// The rotation family's arguments, checked and prepared for the loops of both backends.
#pragma once

#include "check.h"
#include "common/rotation_arguments.h"

namespace ites {

constexpr double MOST_ANGLE = 8192;                 // sine_cosine keeps its digits up to here
constexpr int64_t MOST_NUMBERS = int64_t(1) << 27;  // of an output that the samples multiply

struct RotationSizes {
  int64_t poses, joints, rows;  // B, J, n B
};

// Rejects counts that are negative, zero, or too large; `numbers` is the maximum per row.
inline int64_t check_rows(const Call& call, int64_t poses, int64_t samples, int64_t numbers) {
  call.require(samples >= 1, "samples must be at least 1, got ", samples);
  call.require(poses >= 0, "poses must not be negative, got ", poses);
  const int64_t most = MOST_NUMBERS / numbers;
  call.require(samples <= most && (poses == 0 || samples <= most / poses), samples,
               " samples of each of ", poses, " poses are too many: they fill more than ",
               MOST_NUMBERS, " numbers");
  return samples * poses;
}

// Refuses a draw that is not of a counter (3,), over axes 1 to 7; turns have both an elevation (B,)
// and a spread (2,).
inline void check_draw(const Call& call, const Tensor& counter,
                       const std::optional<Tensor>& elevation, const std::optional<Tensor>& spread,
                       int64_t poses, int64_t axes, double max_angle) {
  call.has("counter", counter, ScalarType::Long, {3});
  call.require(elevation.has_value() == spread.has_value(),
               "elevation and spread are given together");
  call.has("elevation", elevation, {poses});
  call.has("spread", spread, {2});
  call.require(axes >= 1 && axes <= 7, "axes must be a mask from 1 to 7, got ", axes);
  call.finite("max_angle", max_angle, 0, MOST_ANGLE);
}

// Refuses poses (B, J, 3) and their rotations, which are matrices (n B, 3, 3) or a draw.
inline RotationSizes check_poses(const Call& call, const Tensor& joints, const Tensor& rotations,
                                 const std::optional<Tensor>& elevation,
                                 const std::optional<Tensor>& spread, int64_t samples, int64_t axes,
                                 double max_angle, double distance) {
  call.has("joints", joints, {ANY, ANY, 3});
  const int64_t poses = joints.size(0), count = joints.size(1);
  call.require(count >= 1, "joints must hold at least one joint");
  const int64_t rows = check_rows(call, poses, samples, count < 3 ? 9 : 3 * count);
  if (rotations.scalar_type() == ScalarType::Long) {
    check_draw(call, rotations, elevation, spread, poses, axes, max_angle);
  } else {
    call.has("rotations", rotations, {rows, 3, 3});
    call.require(!elevation && !spread, "matrices take neither elevation nor spread");
  }
  call.finite("distance", distance);
  return {poses, count, rows};
}

// Refuses points (n B, J, 2) and depths (n B, J) that are not of the poses' rows.
inline void check_lifted(const Call& call, const RotationSizes& sizes, const Tensor& points,
                         const Tensor& depth) {
  call.has("points", points, {sizes.rows, sizes.joints, 2});
  call.has("depth", depth, {sizes.rows, sizes.joints});
}

template <class T>
RotationSource<T> rotation_source(const Tensor& rotations, const std::optional<Tensor>& elevation,
                                  const std::optional<Tensor>& spread, int64_t poses,
                                  int64_t samples, int64_t axes, double max_angle) {
  RotationSource<T> source{};
  source.samples = static_cast<int>(samples);
  source.poses = poses;
  if (rotations.scalar_type() == ScalarType::Long) {
    source.counter = data<int64_t>(rotations);
    source.elevation = data<T>(elevation);
    source.spread = data<T>(spread);
    source.draw = {static_cast<int>(axes), static_cast<T>(max_angle)};
  } else {
    source.matrices = data<T>(rotations);
  }
  return source;
}

}  // namespace ites
