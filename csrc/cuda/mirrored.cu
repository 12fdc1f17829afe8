// Before and after the network of recipe "general", which sees each pose and its mirror image: the
// pose's own scale and its missing joints; then the mean of both estimates, completed and denoised.
// A warp per pose.
#include "check.h"
#include "cuda/warp.cuh"
#include "schemas.h"

namespace ites {
namespace {

constexpr int THREADS = 128, WARPS = THREADS / 32;

// v within [least, most]; nan stays nan.
__device__ __forceinline__ float within(float v, float least, float most) {
  return v < least ? least : v > most ? most : v;
}

struct Skeleton {
  const int64_t *bones, *mirror;  // (2, count): each bone's joint and its parent; (J,)
  int joints, count, root;
};

// A joint without one of its coordinates is missing.
__device__ __forceinline__ bool is_seen(const float* p, int64_t j) {
  return is_finite(p[2 * j]) && is_finite(p[2 * j + 1]);
}

__global__ void __launch_bounds__(THREADS)
    mirrored_input_kernel(const Skeleton s, int64_t poses, float total, float factor,
                          const float* __restrict__ points, const float* __restrict__ shares,
                          float* __restrict__ input, float* __restrict__ missing,
                          float* __restrict__ scales) {
  const int lane = threadIdx.x % 32, J = s.joints;
  const int64_t b = static_cast<int64_t>(blockIdx.x) * WARPS + threadIdx.x / 32;
  if (b >= poses) return;
  const float* const p = points + b * J * 2;
  float expected = 0.0f, length = 0.0f;
  for (int k = lane; k < s.count; k += 32) {
    const int64_t i = s.bones[k], parent = s.bones[s.count + k];
    const float x = p[2 * i] - p[2 * parent], y = p[2 * i + 1] - p[2 * parent + 1];
    const float bone = sqrtf(x * x + y * y);
    if (!is_finite(bone)) continue;
    expected += shares[k];
    length += bone;
  }
  expected = warp_sum(expected);
  length = warp_sum(length);
  const float scale = expected > 0.0f ? total * expected / within(length, 1e-9f, INFINITY) : 1.0f;
  float count = 0.0f, mean_x = 0.0f, mean_y = 0.0f;
  for (int j = lane; j < J; j += 32) {
    if (!is_seen(p, j)) continue;
    count += 1.0f;
    mean_x += p[2 * j] * scale;
    mean_y += p[2 * j + 1] * scale;
  }
  count = within(warp_sum(count), 1.0f, INFINITY);
  mean_x = warp_sum(mean_x) / count;
  mean_y = warp_sum(mean_y) / count;
  if (lane == 0) scales[b] = scale;
  for (int j = lane; j < J; j += 32) {
    const int other = static_cast<int>(s.mirror[j]);
    const bool seen = is_seen(p, j), image_seen = is_seen(p, other);
    const int64_t own = b * J + j, image = (poses + b) * J + j;
    missing[own] = seen ? 0.0f : 1.0f;
    missing[image] = image_seen ? 0.0f : 1.0f;
    input[2 * own] = seen ? factor * (p[2 * j] * scale - mean_x) : 0.0f;
    input[2 * own + 1] = seen ? factor * (p[2 * j + 1] * scale - mean_y) : 0.0f;
    input[2 * image] = image_seen ? factor * (mean_x - p[2 * other] * scale) : 0.0f;
    input[2 * image + 1] = image_seen ? factor * (p[2 * other + 1] * scale - mean_y) : 0.0f;
  }
}

struct Estimates {
  const float *camera, *direct;  // (2 B, J, 3) and (2 B, J): of the poses, then of their images
};

// A joint's projection and depth.
struct Joint {
  float x, y, depth;
};

// The estimate of a joint, not yet relative to the root.
__device__ __forceinline__ Joint estimate(const Estimates& e, int64_t joint, float distance) {
  const float* const camera = e.camera + 3 * joint;
  const float z = within(camera[2] + distance, 1.0f, INFINITY);
  return {camera[0] / z, camera[1] / z, camera[2] + e.direct[joint]};
}

// The mean of the estimates of pose `b` and of its image, relative to the root.
struct MeanEstimate {
  const Estimates& e;
  const int64_t* mirror;
  int64_t own, image;  // first joints of the pose and of its image
  float distance;
  Joint root, image_root;

  __device__ __forceinline__ MeanEstimate(const Skeleton& s, const Estimates& e, int64_t poses,
                                          int64_t b, float distance)
      : e(e),
        mirror(s.mirror),
        own(b * s.joints),
        image((poses + b) * s.joints),
        distance(distance),
        root(estimate(e, own + s.root, distance)),
        image_root(estimate(e, image + s.root, distance)) {}

  __device__ __forceinline__ Joint operator()(int j) const {
    const Joint a = estimate(e, own + j, distance), m = estimate(e, image + mirror[j], distance);
    return {((a.x - root.x) - (m.x - image_root.x)) / 2.0f,
            ((a.y - root.y) + (m.y - image_root.y)) / 2.0f,
            ((a.depth - root.depth) + (m.depth - image_root.depth)) / 2.0f};
  }
};

// A pose's points at its own scale, of which some are missing, and where the estimates belong among
// them: an estimate + `away` is a place in the image, `origin` is the root's.
struct Placed {
  const float* p;
  float scale, away_x, away_y, origin_x, origin_y;
  float seen;     // joints seen whole, at least 1
  Joint at_root;  // the root's estimate

  __device__ __forceinline__ Placed(const Skeleton& s, const MeanEstimate& mean, const float* p,
                                    float scale)
      : p(p), scale(scale), at_root(mean(s.root)) {
    away_x = away_y = seen = 0.0f;
    for (int j = threadIdx.x % 32; j < s.joints; j += 32) {
      if (!is_seen(p, j)) continue;
      const Joint guess = mean(j);
      away_x += p[2 * j] * scale - guess.x;
      away_y += p[2 * j + 1] * scale - guess.y;
      seen += 1.0f;
    }
    seen = within(warp_sum(seen), 1.0f, INFINITY);
    away_x = warp_sum(away_x) / seen;
    away_y = warp_sum(away_y) / seen;
    origin_x = at_root.x + away_x;
    origin_y = at_root.y + away_y;
    if (is_seen(p, s.root)) {  // it decides itself, otherwise the joints that are seen
      origin_x = p[2 * s.root] * scale;
      origin_y = p[2 * s.root + 1] * scale;
      away_x = origin_x - at_root.x;
      away_y = origin_y - at_root.y;
    }
  }

  // Joint `j` relative to the root, completed by its estimate, and the way from there to the
  // estimate where it is seen.
  __device__ __forceinline__ void complete(int j, const Joint& guess, float& x, float& y,
                                           float& to_x, float& to_y) const {
    const bool there = is_seen(p, j);
    x = (there ? p[2 * j] * scale : guess.x + away_x) - origin_x;
    y = (there ? p[2 * j + 1] * scale : guess.y + away_y) - origin_y;
    to_x = there ? guess.x - x : 0.0f;
    to_y = there ? guess.y - y : 0.0f;
  }
};

struct Limits {
  float distance, noiseless, most_moved;
};

__global__ void __launch_bounds__(THREADS)
    mirrored_output_kernel(const Skeleton s, int64_t poses, const Limits l, const Estimates e,
                           const float* __restrict__ points, const float* __restrict__ scales,
                           const float* __restrict__ original,
                           const float* __restrict__ depth_before, float* __restrict__ complete,
                           float* __restrict__ depths, float* __restrict__ pose) {
  const int lane = threadIdx.x % 32, J = s.joints;
  const int64_t b = static_cast<int64_t>(blockIdx.x) * WARPS + threadIdx.x / 32;
  if (b >= poses) return;
  const float* const p = points + b * J * 2;
  const float scale = scales[b];
  const int64_t own = b * J;
  const MeanEstimate mean(s, e, poses, b, l.distance);
  const Placed placed(s, mean, p, scale);
  float square = 0.0f, x, y, to_x, to_y;  // square: of the ways of the joints that are seen
  bool whole = true;                      // no joint was missing
  for (int j = lane; j < J; j += 32) {
    placed.complete(j, mean(j), x, y, to_x, to_y);
    square += to_x * to_x + to_y * to_y;
    if (original) {
      whole &= is_seen(original, own + j);
    }
  }
  square = within(warp_sum(square) / placed.seen, 1e-12f, INFINITY);
  const bool kept = original && warp_sum(whole ? 0.0f : 1.0f) == 0.0f;
  // Each joint moves by a share of its way: what noise does not explain stays.
  const float share = within(1.0f - l.noiseless / square, 0.0f, l.most_moved);
  placed.complete(s.root, placed.at_root, x, y, to_x, to_y);
  const float end_x = x + share * to_x, end_y = y + share * to_y;
  for (int j = lane; j < J; j += 32) {
    const Joint guess = mean(j);
    placed.complete(j, guess, x, y, to_x, to_y);
    const int64_t at = own + j;
    const float px = original ? p[2 * j] : (x + share * to_x - end_x) / scale,
                py = original ? p[2 * j + 1] : (y + share * to_y - end_y) / scale;
    const float depth = kept ? depth_before[at] : guess.depth / scale;
    const float factor = within(depth + l.distance, 1.0f, INFINITY);
    complete[2 * at] = px;
    complete[2 * at + 1] = py;
    depths[at] = depth;
    pose[3 * at] = px * factor;
    pose[3 * at + 1] = py * factor;
    pose[3 * at + 2] = depth;
  }
}

Skeleton skeleton_of(const Call& call, const Tensor& points, const Tensor& mirror, int64_t root) {
  call.has("points", points, {ANY, ANY, 2});
  const int64_t J = points.size(1);
  call.has("mirror", mirror, ScalarType::Long, {J});
  call.require(root >= 0 && root < J, "root must be a joint 0 to ", J - 1, ", got ", root);
  return {nullptr, data<int64_t>(mirror), static_cast<int>(J), 0, static_cast<int>(root)};
}

std::tuple<Tensor, Tensor, Tensor> mirrored_input_op(const Tensor& points, const Tensor& shares,
                                                     const Tensor& bones, const Tensor& mirror,
                                                     double total, double factor) {
  const Call call("mirrored_input", points, Takes::float32);
  Skeleton s = skeleton_of(call, points, mirror, 0);
  call.has("bones", bones, ScalarType::Long, {2, ANY});
  call.has("shares", shares, {bones.size(1)});
  call.finite("total", total, 0);
  call.finite("factor", factor);
  s.bones = data<int64_t>(bones);
  s.count = static_cast<int>(bones.size(1));
  const int64_t B = points.size(0), J = points.size(1);
  Tensor input = empty(points, {2 * B, J, 2}), missing = empty(points, {2 * B, J}),
         scales = empty(points, {B});
  const OnDevice device(points);
  device.launch(mirrored_input_kernel, (B + WARPS - 1) / WARPS, THREADS, 0, s, B,
                static_cast<float>(total), static_cast<float>(factor), data<float>(points),
                data<float>(shares), mutable_data<float>(input), mutable_data<float>(missing),
                mutable_data<float>(scales));
  return {input, missing, scales};
}

std::tuple<Tensor, Tensor, Tensor> mirrored_output_op(
    const Tensor& points, const Tensor& scales, const Tensor& camera, const Tensor& direct,
    const std::optional<Tensor>& original, const std::optional<Tensor>& depth, const Tensor& mirror,
    int64_t root, double distance, double noiseless, double most_moved) {
  const Call call("mirrored_output", points, Takes::float32);
  const Skeleton s = skeleton_of(call, points, mirror, root);
  const int64_t B = points.size(0), J = points.size(1);
  call.has("scales", scales, {B});
  call.has("camera", camera, {2 * B, J, 3});
  call.has("direct", direct, {2 * B, J});
  call.has("original", original, {B, J, 2});
  call.has("depth", depth, {B, J, 1});
  call.require(original.has_value() == depth.has_value(), "original and depth go together");
  call.finite("distance", distance);
  call.finite("noiseless", noiseless, 0);
  call.finite("most_moved", most_moved, 0, 1);
  Tensor complete = empty(points, {B, J, 2}), depths = empty(points, {B, J, 1}),
         pose = empty(points, {B, J, 3});
  const OnDevice device(points);
  const Limits limits{static_cast<float>(distance), static_cast<float>(noiseless),
                      static_cast<float>(most_moved)};
  device.launch(mirrored_output_kernel, (B + WARPS - 1) / WARPS, THREADS, 0, s, B, limits,
                Estimates{data<float>(camera), data<float>(direct)}, data<float>(points),
                data<float>(scales), data<float>(original), data<float>(depth),
                mutable_data<float>(complete), mutable_data<float>(depths),
                mutable_data<float>(pose));
  return {complete, depths, pose};
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(ites_cuda, m) {
  for (const char* schema : mirrored_schemas) m.def(schema);
}

STABLE_TORCH_LIBRARY_IMPL(ites_cuda, CUDA, m) {
  m.impl("mirrored_input", TORCH_BOX(&mirrored_input_op));
  m.impl("mirrored_output", TORCH_BOX(&mirrored_output_op));
}

}  // namespace ites
