// The rotation family in CUDA. A block takes a tile of poses: their rotations are drawn once into
// shared memory, then each thread serves one joint of one pose for every sample. Points move as
// float2, joints through shared memory: all of it coalesced. Skeletons of 17 joints have kernels of
// their own, which divide an index by a constant. Turns have kernels of their own too, because
// their draw would cost the other rotations registers.
#include "cuda/poses.cuh"
#include "rotation_inputs.h"
#include "schemas.h"

namespace ites {
namespace {

constexpr int SAMPLES = 8;         // rotations of a pose held in shared memory at a time
constexpr int MOST_THREADS = 272;  // 16 poses of 17 joints

struct Tile {
  int poses, threads;
  int64_t blocks;
  size_t joint_floats;  // three coordinates of every joint of a tile, in whole float4s
};

Tile tile_for(int64_t poses, int64_t joint_count) {
  STD_TORCH_CHECK(joint_count <= 1024, "ites: the CUDA backend takes at most 1024 joints, got ",
                  joint_count);
  const int J = static_cast<int>(joint_count < 1 ? 1 : joint_count);
  int P = 2 * MOST_THREADS / J;
  const int most = poses < SMALL_BATCH ? FEW_POSES : MOST_POSES;
  P = P < 1 ? 1 : P > most ? most : P;
  const int threads = (P * J + 31) / 32 * 32;
  return {P, threads < MOST_THREADS ? threads : MOST_THREADS, (poses + P - 1) / P,
          static_cast<size_t>(in_float4s(P * J * 3))};
}

size_t rotation_floats(const Tile& tile, int samples) {
  return static_cast<size_t>(samples < SAMPLES ? samples : SAMPLES) * tile.poses * ROTATION;
}

// A number for every joint of a tile, for as many samples as are held.
size_t length_floats(const Tile& tile, int samples, int64_t joint_count) {
  return static_cast<size_t>(samples < SAMPLES ? samples : SAMPLES) * tile.poses * joint_count;
}

// The part of a block: poses [first, first + poses), as joints [0, count).
struct Part {
  int64_t first;
  int joints, poses, count;

  __device__ Part(int64_t total, int joint_count, const Tile& tile)
      : first(static_cast<int64_t>(blockIdx.x) * tile.poses), joints(joint_count) {
    poses = static_cast<int>(total - first < tile.poses ? total - first : tile.poses);
    count = poses * joints;
  }
};

template <bool TURN>
__device__ Mat3<float> rotation_of(const RotationSource<float>& source, int sample, int64_t pose) {
  if (!TURN && source.matrices) {
    Mat3<float> R;
    const float* from = source.matrices + (sample * source.poses + pose) * 9;
#pragma unroll
    for (int i = 0; i < 9; ++i) R.m[i] = from[i];
    return R;
  }
  uint32_t words[4];
  random_words(stream_at(source.counter), static_cast<uint32_t>(pose),
               static_cast<uint32_t>(sample), words);
  if (TURN)
    return random_turn<float>(words, source.elevation[pose], source.spread[0], source.spread[1]);
  return random_rotation<float>(words, source.draw);
}

// The block writes the rotations of samples [from, from + samples) of its poses to shared memory.
template <bool TURN>
__device__ void stage_rotations(const RotationSource<float>& source, const Part& part, int from,
                                int samples, float* shared) {
  for (int i = threadIdx.x; i < samples * part.poses; i += blockDim.x) {
    const int sample = i / part.poses, pose = i - sample * part.poses;
    const Mat3<float> R = rotation_of<TURN>(source, from + sample, part.first + pose);
    stage_rotation(R, shared, i);
  }
}

// Sums over the joints of each pose, scaled: of sample s to to[s * total], from values[s][joint].
__device__ __forceinline__ void put_sums(const Part& part, const float* values, int samples,
                                         float scale, float* to, int64_t total) {
  for (int i = threadIdx.x; i < samples * part.poses; i += blockDim.x) {
    const int s = i / part.poses, pose = i - s * part.poses;
    float sum = 0.0f;
    for (int j = 0; j < part.joints; ++j) sum += values[i * part.joints + j];
    to[s * total + part.first + pose] = sum * scale;
  }
}

// The gradient to the elevations of a part's poses, from that to their joints.
__device__ void put_elevation_vjp(const Part& part, const float* grad, const float* pose,
                                  float* to) {
  for (int p = threadIdx.x; p < part.poses; p += blockDim.x) {
    float sum = 0.0f;
    for (int i = p * part.joints; i < (p + 1) * part.joints; ++i)
      sum += elevation_vjp(get(grad, i), get(pose, i));
    to[part.first + p] = sum;
  }
}

__global__ void so3_exp_kernel(const float* w, float* R, int64_t count) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= count) return;
  const Mat3<float> out = so3_exp(Vec3<float>{w[3 * i], w[3 * i + 1], w[3 * i + 2]});
#pragma unroll
  for (int k = 0; k < 9; ++k) R[9 * i + k] = out.m[k];
}

__global__ void so3_exp_backward_kernel(const float* grad, const float* w, float* grad_w,
                                        int64_t count) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= count) return;
  Mat3<float> G;
#pragma unroll
  for (int k = 0; k < 9; ++k) G.m[k] = grad[9 * i + k];
  const Vec3<float> g = so3_exp_vjp(G, Vec3<float>{w[3 * i], w[3 * i + 1], w[3 * i + 2]});
  grad_w[3 * i] = g.x;
  grad_w[3 * i + 1] = g.y;
  grad_w[3 * i + 2] = g.z;
}

__global__ void philox_kernel(const int64_t* counter, int64_t poses, int64_t count, int64_t* out) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= count) return;
  uint32_t words[4];
  random_words(stream_at(counter), static_cast<uint32_t>(i % poses),
               static_cast<uint32_t>(i / poses), words);
#pragma unroll
  for (int k = 0; k < 4; ++k) out[4 * i + k] = words[k];
}

template <bool TURN>
__global__ void draw_rotations_kernel(const RotationSource<float> source, float* R, int64_t count) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= count) return;
  const Mat3<float> out =
      rotation_of<TURN>(source, static_cast<int>(i / source.poses), i % source.poses);
#pragma unroll
  for (int k = 0; k < 9; ++k) R[9 * i + k] = out.m[k];
}

template <int JOINTS, bool TURN>
__global__ void __launch_bounds__(MOST_THREADS)
    rotate_project_kernel(const RotateProject<float> a, const Tile tile) {
  const Part part(a.source.poses, JOINTS ? JOINTS : a.joint_count, tile);
  float* const pose = shared_floats();
  float* const rotated = pose + tile.joint_floats;
  float* const rotations = a.rotated ? rotated + tile.joint_floats : rotated;
  block_copy(pose, a.joints + part.first * part.joints * 3, part.count * 3);
  for (int s0 = 0; s0 < a.source.samples; s0 += SAMPLES) {
    const int samples = min(SAMPLES, a.source.samples - s0);
    stage_rotations<TURN>(a.source, part, s0, samples, rotations);
    __syncthreads();
    for (int s = 0; s < samples; ++s) {
      const int64_t row = ((s0 + s) * a.source.poses + part.first) * part.joints;
      for (int i = threadIdx.x; i < part.count; i += blockDim.x) {
        const Mat3<float> R = staged_rotation(rotations, s * part.poses + i / part.joints);
        const Vec3<float> turned = rotate(get(pose, i), R);
        const Projection<float> p(turned, a.distance);
        reinterpret_cast<float2*>(a.points)[row + i] = make_float2(p.x, p.y);
        if (a.rotated) put(rotated, i, turned);
      }
      if (a.rotated) {
        __syncthreads();
        block_copy(a.rotated + row * 3, rotated, part.count * 3);
        __syncthreads();
      }
    }
    __syncthreads();
  }
}

template <int JOINTS, bool TURN>
__global__ void __launch_bounds__(MOST_THREADS)
    rotate_project_backward_kernel(const RotateProjectBackward<float> a, const Tile tile) {
  const Part part(a.source.poses, JOINTS ? JOINTS : a.joint_count, tile);
  float* const pose = shared_floats();
  float* const grad = pose + tile.joint_floats;
  float* const rotations = grad + tile.joint_floats;
  block_copy(pose, a.joints + part.first * part.joints * 3, part.count * 3);
  for (int s0 = 0; s0 < a.source.samples; s0 += SAMPLES) {
    const int samples = min(SAMPLES, a.source.samples - s0);
    stage_rotations<TURN>(a.source, part, s0, samples, rotations);
    __syncthreads();
    for (int i = threadIdx.x; i < part.count; i += blockDim.x) {
      const Vec3<float> joint = get(pose, i);
      Vec3<float> sum = s0 ? get(grad, i) : Vec3<float>{0.0f, 0.0f, 0.0f};
      for (int s = 0; s < samples; ++s) {
        const int64_t row = ((s0 + s) * a.source.poses + part.first) * part.joints + i;
        const float2 g = reinterpret_cast<const float2*>(a.grad_points)[row];
        const Mat3<float> R = staged_rotation(rotations, s * part.poses + i / part.joints);
        Vec3<float> v = Projection<float>(rotate(joint, R), a.distance).vjp(g.x, g.y);
        if (a.grad_rotated) {
          const float* more = a.grad_rotated + row * 3;
          v = add(v, Vec3<float>{more[0], more[1], more[2]});
        }
        sum = add(sum, rotate_back(v, R));
      }
      put(grad, i, sum);
    }
    __syncthreads();
  }
  block_copy(a.grad_joints + part.first * part.joints * 3, grad, part.count * 3);
  if (TURN) put_elevation_vjp(part, grad, pose, a.grad_elevation);
}

template <int JOINTS, bool TURN>
__global__ void __launch_bounds__(MOST_THREADS)
    equivariance_distance_kernel(const EquivarianceDistance<float> a, const Tile tile) {
  const Part part(a.source.poses, JOINTS ? JOINTS : a.joint_count, tile);
  float* const pose = shared_floats();
  float* const rotations = pose + tile.joint_floats;
  float* const lengths = rotations + min(SAMPLES, a.source.samples) * tile.poses * ROTATION;
  const float scale = 1.0f / part.joints;
  block_copy(pose, a.joints + part.first * part.joints * 3, part.count * 3);
  for (int s0 = 0; s0 < a.source.samples; s0 += SAMPLES) {
    const int samples = min(SAMPLES, a.source.samples - s0);
    stage_rotations<TURN>(a.source, part, s0, samples, rotations);
    __syncthreads();
    for (int i = threadIdx.x; i < part.count; i += blockDim.x) {
      const Vec3<float> joint = get(pose, i);
      for (int s = 0; s < samples; ++s) {
        const int64_t row = ((s0 + s) * a.source.poses + part.first) * part.joints + i;
        const float2 point = reinterpret_cast<const float2*>(a.points)[row];
        const Vec3<float> lifted = backproject(point.x, point.y, a.depth[row], a.distance);
        const Mat3<float> R = staged_rotation(rotations, s * part.poses + i / part.joints);
        lengths[s * part.count + i] = norm(subtract(lifted, rotate(joint, R)));
      }
    }
    __syncthreads();
    put_sums(part, lengths, samples, scale, a.out + s0 * a.source.poses, a.source.poses);
  }
}

template <int JOINTS, bool TURN>
__global__ void __launch_bounds__(MOST_THREADS)
    equivariance_distance_backward_kernel(const EquivarianceDistanceBackward<float> a,
                                          const Tile tile) {
  const Part part(a.source.poses, JOINTS ? JOINTS : a.joint_count, tile);
  float* const pose = shared_floats();
  float* const grad = pose + tile.joint_floats;
  float* const rotations = grad + tile.joint_floats;
  const float scale = 1.0f / part.joints;
  block_copy(pose, a.joints + part.first * part.joints * 3, part.count * 3);
  for (int s0 = 0; s0 < a.source.samples; s0 += SAMPLES) {
    const int samples = min(SAMPLES, a.source.samples - s0);
    stage_rotations<TURN>(a.source, part, s0, samples, rotations);
    __syncthreads();
    for (int i = threadIdx.x; i < part.count; i += blockDim.x) {
      const int p = i / part.joints;
      const Vec3<float> joint = get(pose, i);
      Vec3<float> sum = s0 ? get(grad, i) : Vec3<float>{0.0f, 0.0f, 0.0f};
      for (int s = 0; s < samples; ++s) {
        const int64_t first = (s0 + s) * a.source.poses + part.first;
        const int64_t row = first * part.joints + i;
        const float2 point = reinterpret_cast<const float2*>(a.points)[row];
        const float depth = a.depth[row], g = a.grad[first + p] * scale;
        const Mat3<float> R = staged_rotation(rotations, s * part.poses + p);
        const Vec3<float> offset =
            subtract(backproject(point.x, point.y, depth, a.distance), rotate(joint, R));
        const Vec3<float> v = norm_vjp(g, offset, norm(offset));
        const Vec3<float> back = backproject_vjp(v, point.x, point.y, depth, a.distance);
        reinterpret_cast<float2*>(a.grad_points)[row] = make_float2(back.x, back.y);
        a.grad_depth[row] = back.z;
        sum = subtract(sum, rotate_back(v, R));
      }
      put(grad, i, sum);
    }
    __syncthreads();
  }
  block_copy(a.grad_joints + part.first * part.joints * 3, grad, part.count * 3);
  if (TURN) put_elevation_vjp(part, grad, pose, a.grad_elevation);
}

constexpr int THREADS = 256;  // of the kernels with one rotation per thread

int64_t blocks_for(int64_t count) { return (count + THREADS - 1) / THREADS; }

// The kernel for an op's J, 17 joints or any number, for turns or other rotations.
#define ITES_ROTATION_KERNEL(KERNEL)                            \
  (J == 17 ? (elevation ? KERNEL<17, true> : KERNEL<17, false>) \
           : (elevation ? KERNEL<0, true> : KERNEL<0, false>))

Tensor so3_exp_op(const Tensor& w) {
  const Call call("so3_exp", w, Takes::float32);
  call.has("w", w, {ANY, 3});
  const OnDevice device(w);
  const int64_t count = w.size(0);
  const Tensor out = empty(w, {count, 3, 3});
  device.launch(so3_exp_kernel, blocks_for(count), THREADS, 0, data<float>(w),
                mutable_data<float>(out), count);
  return out;
}

Tensor so3_exp_backward_op(const Tensor& grad, const Tensor& w) {
  const Call call("so3_exp_backward", w, Takes::float32);
  call.has("w", w, {ANY, 3});
  call.has("grad", grad, {w.size(0), 3, 3});
  const OnDevice device(w);
  const int64_t count = w.size(0);
  const Tensor out = empty(w, {count, 3});
  device.launch(so3_exp_backward_kernel, blocks_for(count), THREADS, 0, data<float>(grad),
                data<float>(w), mutable_data<float>(out), count);
  return out;
}

Tensor philox_op(const Tensor& counter, int64_t poses, int64_t samples) {
  const Call call("philox", counter);
  call.has("counter", counter, ScalarType::Long, {3});
  const int64_t rows = check_rows(call, poses, samples, 4);
  const OnDevice device(counter);
  const Tensor out = empty(counter, {rows, 4});
  device.launch(philox_kernel, blocks_for(rows), THREADS, 0, data<int64_t>(counter), poses, rows,
                mutable_data<int64_t>(out));
  return out;
}

Tensor draw_rotations_op(const Tensor& like, const Tensor& counter,
                         const std::optional<Tensor>& elevation,
                         const std::optional<Tensor>& spread, int64_t poses, int64_t samples,
                         int64_t axes, double max_angle) {
  const Call call("draw_rotations", like, Takes::float32);
  const int64_t rows = check_rows(call, poses, samples, 9);
  check_draw(call, counter, elevation, spread, poses, axes, max_angle);
  const OnDevice device(like);
  const Tensor out = empty(like, {rows, 3, 3});
  device.launch(elevation ? draw_rotations_kernel<true> : draw_rotations_kernel<false>,
                blocks_for(rows), THREADS, 0,
                rotation_source<float>(counter, elevation, spread, poses, samples, axes, max_angle),
                mutable_data<float>(out), rows);
  return out;
}

std::tuple<Tensor, Tensor> rotate_project_op(const Tensor& joints, const Tensor& rotations,
                                             const std::optional<Tensor>& elevation,
                                             const std::optional<Tensor>& spread, int64_t samples,
                                             int64_t axes, double max_angle, double distance,
                                             bool with_rotated) {
  const Call call("rotate_project", joints, Takes::float32);
  const RotationSizes sizes =
      check_poses(call, joints, rotations, elevation, spread, samples, axes, max_angle, distance);
  const auto B = sizes.poses, J = sizes.joints, rows = sizes.rows;
  const OnDevice device(joints);
  const Tensor points = empty(joints, {rows, J, 2});
  const Tensor rotated = with_rotated ? empty(joints, {rows, J, 3}) : empty(joints, {0});
  const RotateProject<float> arguments = {
      rotation_source<float>(rotations, elevation, spread, B, samples, axes, max_angle),
      static_cast<int>(J),
      static_cast<float>(distance),
      data<float>(joints),
      mutable_data<float>(points),
      with_rotated ? mutable_data<float>(rotated) : nullptr};
  const Tile tile = tile_for(B, J);
  const size_t floats =
      tile.joint_floats * (with_rotated ? 2 : 1) + rotation_floats(tile, arguments.source.samples);
  device.launch(ITES_ROTATION_KERNEL(rotate_project_kernel), tile.blocks, tile.threads,
                floats * sizeof(float), arguments, tile);
  return {points, rotated};
}

std::tuple<Tensor, Tensor> rotate_project_backward_op(const Tensor& grad_points,
                                                      const std::optional<Tensor>& grad_rotated,
                                                      const Tensor& joints, const Tensor& rotations,
                                                      const std::optional<Tensor>& elevation,
                                                      const std::optional<Tensor>& spread,
                                                      int64_t samples, int64_t axes,
                                                      double max_angle, double distance) {
  const Call call("rotate_project_backward", joints, Takes::float32);
  const RotationSizes sizes =
      check_poses(call, joints, rotations, elevation, spread, samples, axes, max_angle, distance);
  const auto B = sizes.poses, J = sizes.joints, rows = sizes.rows;
  call.has("grad_points", grad_points, {rows, J, 2});
  call.has("grad_rotated", grad_rotated, {rows, J, 3});
  const OnDevice device(joints);
  const Tensor grad_joints = empty(joints, {B, J, 3});
  const Tensor grad_elevation = empty(joints, {elevation ? B : 0});
  const RotateProjectBackward<float> arguments = {
      rotation_source<float>(rotations, elevation, spread, B, samples, axes, max_angle),
      static_cast<int>(J),
      static_cast<float>(distance),
      data<float>(grad_points),
      data<float>(grad_rotated),
      data<float>(joints),
      mutable_data<float>(grad_joints),
      mutable_data<float>(grad_elevation)};
  const Tile tile = tile_for(B, J);
  const size_t floats = tile.joint_floats * 2 + rotation_floats(tile, arguments.source.samples);
  device.launch(ITES_ROTATION_KERNEL(rotate_project_backward_kernel), tile.blocks, tile.threads,
                floats * sizeof(float), arguments, tile);
  return {grad_joints, grad_elevation};
}

Tensor equivariance_distance_op(const Tensor& joints, const Tensor& points, const Tensor& depth,
                                const Tensor& rotations, const std::optional<Tensor>& elevation,
                                const std::optional<Tensor>& spread, int64_t samples, int64_t axes,
                                double max_angle, double distance) {
  const Call call("equivariance_distance", joints, Takes::float32);
  const RotationSizes sizes =
      check_poses(call, joints, rotations, elevation, spread, samples, axes, max_angle, distance);
  const auto B = sizes.poses, J = sizes.joints, rows = sizes.rows;
  check_lifted(call, sizes, points, depth);
  const OnDevice device(joints);
  const Tensor out = empty(points, {rows});
  const EquivarianceDistance<float> arguments = {
      rotation_source<float>(rotations, elevation, spread, B, samples, axes, max_angle),
      static_cast<int>(J),
      static_cast<float>(distance),
      data<float>(joints),
      data<float>(points),
      data<float>(depth),
      mutable_data<float>(out)};
  const Tile tile = tile_for(B, J);
  const size_t floats = tile.joint_floats + rotation_floats(tile, arguments.source.samples) +
                        length_floats(tile, arguments.source.samples, J);
  device.launch(ITES_ROTATION_KERNEL(equivariance_distance_kernel), tile.blocks, tile.threads,
                floats * sizeof(float), arguments, tile);
  return out;
}

std::tuple<Tensor, Tensor, Tensor, Tensor> equivariance_distance_backward_op(
    const Tensor& grad, const Tensor& joints, const Tensor& points, const Tensor& depth,
    const Tensor& rotations, const std::optional<Tensor>& elevation,
    const std::optional<Tensor>& spread, int64_t samples, int64_t axes, double max_angle,
    double distance) {
  const Call call("equivariance_distance_backward", joints, Takes::float32);
  const RotationSizes sizes =
      check_poses(call, joints, rotations, elevation, spread, samples, axes, max_angle, distance);
  const auto B = sizes.poses, J = sizes.joints, rows = sizes.rows;
  check_lifted(call, sizes, points, depth);
  call.has("grad", grad, {rows});
  const OnDevice device(joints);
  const Tensor grad_joints = empty(joints, {B, J, 3});
  const Tensor grad_points = empty(joints, {rows, J, 2});
  const Tensor grad_depth = empty(joints, {rows, J});
  const Tensor grad_elevation = empty(joints, {elevation ? B : 0});
  const EquivarianceDistanceBackward<float> arguments = {
      rotation_source<float>(rotations, elevation, spread, B, samples, axes, max_angle),
      static_cast<int>(J),
      static_cast<float>(distance),
      data<float>(grad),
      data<float>(joints),
      data<float>(points),
      data<float>(depth),
      mutable_data<float>(grad_joints),
      mutable_data<float>(grad_points),
      mutable_data<float>(grad_depth),
      mutable_data<float>(grad_elevation)};
  const Tile tile = tile_for(B, J);
  const size_t floats = tile.joint_floats * 2 + rotation_floats(tile, arguments.source.samples);
  device.launch(ITES_ROTATION_KERNEL(equivariance_distance_backward_kernel), tile.blocks,
                tile.threads, floats * sizeof(float), arguments, tile);
  return {grad_joints, grad_points, grad_depth, grad_elevation};
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(ites_cuda, m) {
  for (const char* schema : rotation_schemas) m.def(schema);
}

STABLE_TORCH_LIBRARY_IMPL(ites_cuda, CUDA, m) {
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
