// The dictionary family in CUDA. A block stays on its multiprocessor and takes tile after tile of
// poses, with the dictionary, transposed, in shared memory. A thread reconstructs one joint of two
// poses at a time, so that each float4 of the dictionary that it reads serves twice. Each block
// sums the gradients of dictionary and mean over its tiles, in a fixed order. A second kernel sums
// over the blocks. Sizes of 17 joints and 12 atoms have kernels of their own.
#include "cuda/poses.cuh"
#include "dictionary_inputs.h"
#include "schemas.h"

namespace ites {
namespace {

constexpr int THREADS = 272;  // 16 pairs of poses of 17 joints
constexpr int SAMPLES = 4;    // views of a pose compared at a time

// The partition of a launch's work, and the layout of shared memory in floats.
struct Tile {
  int poses;         // an even number: the pairs are pose p and p + poses / 2
  int padded_atoms;  // K in whole float4s
  int pose_floats;   // a tile of poses, three coordinates per joint, in whole float4s
  int64_t shared_bytes, blocks;
};

// Poses first .. first + poses of the batch, their joints 0 .. poses * J.
struct Part {
  int64_t first;
  int poses;

  __device__ Part(int64_t tile_index, int64_t total, const Tile& tile)
      : first(tile_index * tile.poses),
        poses(static_cast<int>(total - first < tile.poses ? total - first : tile.poses)) {}
};

__device__ __forceinline__ float dot4(float4 a, float4 b) {
  return a.x * b.x + a.y * b.y + a.z * b.z + a.w * b.w;
}

// The sizes as the kernels see them: constants where JOINTS and ATOMS are not 0.
template <int JOINTS, int ATOMS>
struct Sizes {
  int joints, atoms, padded, columns;

  __device__ __forceinline__ explicit Sizes(const Dictionary<float>& d)
      : joints(JOINTS ? JOINTS : d.joint_count),
        atoms(ATOMS ? ATOMS : d.atoms),
        padded(in_float4s(atoms)),
        columns(3 * joints) {}
};

// The dictionary as (3 J, padded K), then the mean (3 J,).
template <class S>
__device__ void stage_dictionary(const Dictionary<float>& d, const S& size, float* shared) {
  for (int i = threadIdx.x; i < size.columns * size.padded; i += blockDim.x) {
    const int atom = i / size.columns, column = i - atom * size.columns;
    shared[column * size.padded + atom] = atom < size.atoms ? d.dictionary[i] : 0.0f;
  }
  float* const mean = shared + size.columns * size.padded;
  for (int i = threadIdx.x; i < size.columns; i += blockDim.x) mean[i] = d.mean[i];
}

// Rows of coefficients as (rows, padded K); absent rows up to `room` are zero.
template <class S>
__device__ void stage_coefficients(const float* from, const S& size, int rows, int room,
                                   float* shared) {
  if (size.padded == size.atoms) {
    block_copy(shared, from, rows * size.atoms);
    for (int i = rows * size.atoms + threadIdx.x; i < room * size.atoms; i += blockDim.x)
      shared[i] = 0.0f;
    return;
  }
  for (int i = threadIdx.x; i < room * size.padded; i += blockDim.x) {
    const int row = i / size.padded, atom = i - row * size.padded;
    shared[i] = row < rows && atom < size.atoms ? from[row * size.atoms + atom] : 0.0f;
  }
}

// Joint `joint` of two canonical poses, given where their coefficients lie.
template <class S>
__device__ __forceinline__ void reconstruct(const float* dictionary, const S& size, int joint,
                                            const float* first, const float* second,
                                            Vec3<float> (&out)[2]) {
  const float* const mean = dictionary + size.columns * size.padded;
  const float* const rows = dictionary + 3 * joint * size.padded;
  out[0] = out[1] = get(mean, joint);
#pragma unroll 3
  for (int k = 0; k < size.padded; k += 4) {
    const float4 a = *reinterpret_cast<const float4*>(first + k);
    const float4 b = *reinterpret_cast<const float4*>(second + k);
    const float4 x = *reinterpret_cast<const float4*>(rows + k);
    const float4 y = *reinterpret_cast<const float4*>(rows + size.padded + k);
    const float4 z = *reinterpret_cast<const float4*>(rows + 2 * size.padded + k);
    out[0].x += dot4(a, x);
    out[0].y += dot4(a, y);
    out[0].z += dot4(a, z);
    out[1].x += dot4(b, x);
    out[1].y += dot4(b, y);
    out[1].z += dot4(b, z);
  }
}

// The block writes the rotations of a part's poses to shared memory, by their vectors (B, 3).
__device__ __forceinline__ void stage_rotations(const float* vectors, const Part& part,
                                                float* shared) {
  for (int p = threadIdx.x; p < part.poses; p += blockDim.x) {
    const float* const w = vectors + (part.first + p) * 3;
    stage_rotation(so3_exp(Vec3<float>{w[0], w[1], w[2]}), shared + p * ROTATION);
  }
}

// out[i] = mean of the i-th run of `joints` numbers.
__device__ void store_means(const float* numbers, int runs, int joints, float* out) {
  for (int i = threadIdx.x; i < runs; i += blockDim.x) {
    float sum = 0.0f;
    for (int j = 0; j < joints; ++j) sum += numbers[i * joints + j];
    out[i] = sum / joints;
  }
}

template <int JOINTS, int ATOMS>
__global__ void __launch_bounds__(THREADS)
    dictionary_reprojection_kernel(const DictionaryReprojection<float> a, const Tile tile) {
  const Sizes<JOINTS, ATOMS> size(a.dictionary);
  float* const dictionary = shared_floats();
  float* const coefficients = dictionary + in_float4s(size.columns * (size.padded + 1));
  float* const rotations = coefficients + tile.poses * size.padded;
  float* const canonical = rotations + tile.poses * ROTATION;
  float* const camera = canonical + tile.pose_floats;
  float* const errors = camera + tile.pose_floats;
  const int half = tile.poses / 2;
  stage_dictionary(a.dictionary, size, dictionary);
  for (int64_t t = blockIdx.x; t * tile.poses < a.poses; t += gridDim.x) {
    const Part part(t, a.poses, tile);
    stage_coefficients(a.coefficients + part.first * size.atoms, size, part.poses, tile.poses,
                       coefficients);
    stage_rotations(a.rotation_vector, part, rotations);
    __syncthreads();
    for (int i = threadIdx.x; i < half * size.joints; i += blockDim.x) {
      const int p = i / size.joints, joint = i - p * size.joints;
      Vec3<float> pose[2];
      reconstruct(dictionary, size, joint, coefficients + p * size.padded,
                  coefficients + (p + half) * size.padded, pose);
#pragma unroll
      for (int k = 0; k < 2; ++k) {
        if (p + k * half >= part.poses) break;
        const int at = i + k * half * size.joints;
        const float2 target =
            reinterpret_cast<const float2*>(a.target)[part.first * size.joints + at];
        const Reprojection<float> r(pose[k], staged_rotation(rotations + (p + k * half) * ROTATION),
                                    target.x, target.y, a.distance);
        put(canonical, at, pose[k]);
        put(camera, at, r.camera);
        errors[at] = r.error;
      }
    }
    __syncthreads();
    block_copy(a.canonical + part.first * size.columns, canonical, part.poses * size.columns);
    block_copy(a.camera + part.first * size.columns, camera, part.poses * size.columns);
    store_means(errors, part.poses, size.joints, a.error + part.first);
  }
}

// The block's accumulators for the gradients of dictionary and mean over its tiles.
// In general: in shared memory, each element by one thread.
template <int JOINTS, int ATOMS>
struct DictionaryGradient {
  float* sums;  // (K + 1, 3 J)

  template <class S>
  __device__ DictionaryGradient(const S& size, float* shared) : sums(shared) {
    for (int i = threadIdx.x; i < (size.atoms + 1) * size.columns; i += blockDim.x) sums[i] = 0.0f;
  }
  static int shared_floats(int joints, int atoms) { return in_float4s((atoms + 1) * 3 * joints); }

  template <class S>
  __device__ void add(const S& size, const float* coefficients, const float* grad_pose, int poses) {
    for (int i = threadIdx.x; i < (size.atoms + 1) * size.columns; i += blockDim.x) {
      const int atom = i / size.columns, column = i - atom * size.columns;
      float sum = sums[i];
      for (int p = 0; p < poses; ++p) {
        const float g = grad_pose[p * size.columns + column];
        sum += atom < size.atoms ? coefficients[p * size.padded + atom] * g : g;
      }
      sums[i] = sum;
    }
  }
  template <class S>
  __device__ void store(const S& size, float* partial) const {
    for (int i = threadIdx.x; i < (size.atoms + 1) * size.columns; i += blockDim.x)
      partial[i] = sums[i];
  }
};

// For 17 joints and 12 atoms: in registers. A thread has one column and every fifth pose.
template <>
struct DictionaryGradient<17, 12> {
  static constexpr int COLUMNS = 51, ATOMS = 12, GROUPS = THREADS / COLUMNS;
  float* shared;  // (GROUPS, K + 1, 3 J), used at the end
  float sums[ATOMS + 1];
  int group, column;

  template <class S>
  __device__ DictionaryGradient(const S&, float* at)
      : shared(at), group(threadIdx.x / COLUMNS), column(threadIdx.x % COLUMNS) {
#pragma unroll
    for (float& sum : sums) sum = 0.0f;
  }
  static int shared_floats(int, int) { return in_float4s(GROUPS * (ATOMS + 1) * COLUMNS); }

  template <class S>
  __device__ void add(const S&, const float* coefficients, const float* grad_pose, int poses) {
    if (group >= GROUPS) return;
    for (int p = group; p < poses; p += GROUPS) {
      const float g = grad_pose[p * COLUMNS + column];
      const float4* a = reinterpret_cast<const float4*>(coefficients + p * ATOMS);
#pragma unroll
      for (int k = 0; k < ATOMS / 4; ++k) {
        const float4 four = a[k];
        sums[4 * k] += four.x * g;
        sums[4 * k + 1] += four.y * g;
        sums[4 * k + 2] += four.z * g;
        sums[4 * k + 3] += four.w * g;
      }
      sums[ATOMS] += g;
    }
  }
  template <class S>
  __device__ void store(const S&, float* partial) const {
    constexpr int count = (ATOMS + 1) * COLUMNS;
    if (group < GROUPS) {
#pragma unroll
      for (int k = 0; k <= ATOMS; ++k) shared[group * count + k * COLUMNS + column] = sums[k];
    }
    __syncthreads();
    for (int i = threadIdx.x; i < count; i += blockDim.x) {
      float sum = 0.0f;
#pragma unroll
      for (int g = 0; g < GROUPS; ++g) sum += shared[g * count + i];
      partial[i] = sum;
    }
  }
};

// grad_coefficients[p, k] = grad_pose[p] . dictionary[k], four atoms of one pose per thread.
template <class S>
__device__ void store_coefficient_gradient(const float* dictionary, const S& size,
                                           const float* grad_pose, int poses, float* out) {
  for (int i = threadIdx.x; i < poses * (size.padded / 4); i += blockDim.x) {
    const int four = i / poses, p = i - four * poses;
    const float* const grad = grad_pose + p * size.columns;
    const float* const atoms = dictionary + 4 * four;
    float4 sum = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
#pragma unroll 3
    for (int c = 0; c < size.columns; ++c) {
      const float4 d = *reinterpret_cast<const float4*>(atoms + c * size.padded);
      sum.x += d.x * grad[c];
      sum.y += d.y * grad[c];
      sum.z += d.z * grad[c];
      sum.w += d.w * grad[c];
    }
    float* const to = out + p * size.atoms + 4 * four;
    if (size.padded == size.atoms) {
      *reinterpret_cast<float4*>(to) = sum;
      continue;
    }
    const float values[4] = {sum.x, sum.y, sum.z, sum.w};
#pragma unroll
    for (int k = 0; k < 4; ++k)
      if (4 * four + k < size.atoms) to[k] = values[k];
  }
}

template <int JOINTS, int ATOMS>
__global__ void __launch_bounds__(THREADS, JOINTS ? 3 : 1)
    dictionary_reprojection_backward_kernel(const DictionaryReprojectionBackward<float> a,
                                            const Tile tile, float* partial) {
  const Sizes<JOINTS, ATOMS> size(a.dictionary);
  float* const dictionary = shared_floats();
  float* const coefficients = dictionary + in_float4s(size.columns * (size.padded + 1));
  float* const rotations = coefficients + tile.poses * size.padded;
  float* const canonical = rotations + tile.poses * ROTATION;
  float* const grad_camera = canonical + tile.pose_floats;
  float* const grad_pose = grad_camera + tile.pose_floats;
  DictionaryGradient<JOINTS, ATOMS> gradient(size, grad_pose + tile.pose_floats);
  const int half = tile.poses / 2;
  stage_dictionary(a.dictionary, size, dictionary);
  for (int64_t t = blockIdx.x; t * tile.poses < a.poses; t += gridDim.x) {
    const Part part(t, a.poses, tile);
    const int64_t first_joint = part.first * size.joints;
    stage_coefficients(a.coefficients + part.first * size.atoms, size, part.poses, tile.poses,
                       coefficients);
    stage_rotations(a.rotation_vector, part, rotations);
    if (a.grad_camera)
      block_copy(grad_camera, a.grad_camera + first_joint * 3, part.poses * size.columns);
    if (a.grad_canonical)
      block_copy(grad_pose, a.grad_canonical + first_joint * 3, part.poses * size.columns);
    __syncthreads();
    for (int i = threadIdx.x; i < half * size.joints; i += blockDim.x) {
      const int p = i / size.joints, joint = i - p * size.joints;
      Vec3<float> pose[2];
      reconstruct(dictionary, size, joint, coefficients + p * size.padded,
                  coefficients + (p + half) * size.padded, pose);
#pragma unroll 1  // both at once would need more registers than three blocks have
      for (int k = 0; k < 2; ++k) {
        const Vec3<float> joint_of_pose = k == 0 ? pose[0] : pose[1];
        const int pose_of_part = p + k * half;
        if (pose_of_part >= part.poses) break;
        const int at = i + k * half * size.joints;
        const Mat3<float> R = staged_rotation(rotations + pose_of_part * ROTATION);
        Vec3<float> grad{0.0f, 0.0f, 0.0f};
        if (a.grad_error) {
          const float2 target = reinterpret_cast<const float2*>(a.target)[first_joint + at];
          const Reprojection<float> r(joint_of_pose, R, target.x, target.y, a.distance);
          grad = r.vjp(a.grad_error[part.first + pose_of_part] / size.joints);
        }
        if (a.grad_camera) grad = add(grad, get(grad_camera, at));
        put(grad_camera, at, grad);
        put(canonical, at, joint_of_pose);
        grad = rotate_back(grad, R);
        put(grad_pose, at, a.grad_canonical ? add(grad, get(grad_pose, at)) : grad);
      }
    }
    __syncthreads();
    gradient.add(size, coefficients, grad_pose, part.poses);
    store_coefficient_gradient(dictionary, size, grad_pose, part.poses,
                               a.grad_coefficients + part.first * size.atoms);
    // The gradient of the rotation takes the rotation's place, row r of pose p by one thread. They
    // are counted from the block's last thread: the first are busy with the coefficients.
    for (int i = blockDim.x - 1 - threadIdx.x; i < 3 * part.poses; i += blockDim.x) {
      const int p = i / 3, r = i - 3 * p;
      Vec3<float> sum{0.0f, 0.0f, 0.0f};
      for (int j = p * size.joints; j < (p + 1) * size.joints; ++j) {
        const float x = canonical[3 * j + r];
        const Vec3<float> g = get(grad_camera, j);
        sum = {sum.x + x * g.x, sum.y + x * g.y, sum.z + x * g.z};
      }
      put(rotations + p * ROTATION, r, sum);
    }
    __syncthreads();
    for (int p = threadIdx.x; p < part.poses; p += blockDim.x) {
      const float* const w = a.rotation_vector + (part.first + p) * 3;
      Mat3<float> G;
#pragma unroll
      for (int k = 0; k < 9; ++k) G.m[k] = rotations[p * ROTATION + k];
      put(a.grad_rotation_vector + part.first * 3, p,
          so3_exp_vjp(G, Vec3<float>{w[0], w[1], w[2]}));
    }
  }
  gradient.store(size,
                 partial + static_cast<int64_t>(blockIdx.x) * (size.atoms + 1) * size.columns);
}

template <int JOINTS, int ATOMS>
__global__ void __launch_bounds__(THREADS)
    invariance_distance_kernel(const InvarianceDistance<float> a, const Tile tile) {
  const Sizes<JOINTS, ATOMS> size(a.dictionary);
  float* const dictionary = shared_floats();
  float* const canonical = dictionary + in_float4s(size.columns * (size.padded + 1));
  float* const coefficients = canonical + tile.pose_floats;
  float* const lengths = coefficients + SAMPLES * tile.poses * size.padded;
  const int half = tile.poses / 2, room = tile.poses * size.joints;
  stage_dictionary(a.dictionary, size, dictionary);
  for (int64_t t = blockIdx.x; t * tile.poses < a.poses; t += gridDim.x) {
    const Part part(t, a.poses, tile);
    block_copy(canonical, a.canonical + part.first * size.columns, part.poses * size.columns);
    for (int s0 = 0; s0 < a.samples; s0 += SAMPLES) {
      const int samples = min(SAMPLES, a.samples - s0);
      for (int s = 0; s < samples; ++s)
        stage_coefficients(a.coefficients + ((s0 + s) * a.poses + part.first) * size.atoms, size,
                           part.poses, tile.poses, coefficients + s * tile.poses * size.padded);
      __syncthreads();
      for (int i = threadIdx.x; i < samples * half * size.joints; i += blockDim.x) {
        const int s = i / (half * size.joints), at = i - s * half * size.joints;
        const int p = at / size.joints, joint = at - p * size.joints;
        const float* const rows = coefficients + (s * tile.poses + p) * size.padded;
        Vec3<float> pose[2];
        reconstruct(dictionary, size, joint, rows, rows + half * size.padded, pose);
#pragma unroll
        for (int k = 0; k < 2; ++k) {
          if (p + k * half >= part.poses) break;
          const int j = at + k * half * size.joints;
          lengths[s * room + j] = norm(subtract(pose[k], get(canonical, j)));
        }
      }
      __syncthreads();
      for (int s = 0; s < samples; ++s)
        store_means(lengths + s * room, part.poses, size.joints,
                    a.out + (s0 + s) * a.poses + part.first);
    }
  }
}

template <int JOINTS, int ATOMS>
__global__ void __launch_bounds__(THREADS, JOINTS ? 3 : 1)
    invariance_distance_backward_kernel(const InvarianceDistanceBackward<float> a, const Tile tile,
                                        float* partial) {
  const Sizes<JOINTS, ATOMS> size(a.dictionary);
  float* const dictionary = shared_floats();
  float* const coefficients = dictionary + in_float4s(size.columns * (size.padded + 1));
  float* const canonical = coefficients + tile.poses * size.padded;
  float* const grad_canonical = canonical + tile.pose_floats;
  float* const grad_pose = grad_canonical + tile.pose_floats;
  DictionaryGradient<JOINTS, ATOMS> gradient(size, grad_pose + tile.pose_floats);
  const int half = tile.poses / 2;
  stage_dictionary(a.dictionary, size, dictionary);
  for (int64_t t = blockIdx.x; t * tile.poses < a.poses; t += gridDim.x) {
    const Part part(t, a.poses, tile);
    block_copy(canonical, a.canonical + part.first * size.columns, part.poses * size.columns);
    for (int s = 0; s < a.samples; ++s) {
      const int64_t row = s * a.poses + part.first;
      stage_coefficients(a.coefficients + row * size.atoms, size, part.poses, tile.poses,
                         coefficients);
      __syncthreads();
      for (int i = threadIdx.x; i < half * size.joints; i += blockDim.x) {
        const int p = i / size.joints, joint = i - p * size.joints;
        Vec3<float> pose[2];
        reconstruct(dictionary, size, joint, coefficients + p * size.padded,
                    coefficients + (p + half) * size.padded, pose);
#pragma unroll
        for (int k = 0; k < 2; ++k) {
          if (p + k * half >= part.poses) break;
          const int at = i + k * half * size.joints;
          const Vec3<float> offset = subtract(pose[k], get(canonical, at));
          const Vec3<float> grad =
              norm_vjp(a.grad[row + p + k * half] / size.joints, offset, norm(offset));
          const Vec3<float> before = s ? get(grad_canonical, at) : Vec3<float>{0.0f, 0.0f, 0.0f};
          put(grad_pose, at, grad);
          put(grad_canonical, at, subtract(before, grad));
        }
      }
      __syncthreads();
      gradient.add(size, coefficients, grad_pose, part.poses);
      store_coefficient_gradient(dictionary, size, grad_pose, part.poses,
                                 a.grad_coefficients + row * size.atoms);
      __syncthreads();
    }
    block_copy(a.grad_canonical + part.first * size.columns, grad_canonical,
               part.poses * size.columns);
  }
  gradient.store(size,
                 partial + static_cast<int64_t>(blockIdx.x) * (size.atoms + 1) * size.columns);
}

constexpr int SLICES = 16;  // of the blocks' partial sums, added side by side

// Sums the blocks' results, 32 elements per block: first within slices, then over the slices.
__global__ void __launch_bounds__(32 * SLICES)
    sum_partials_kernel(const float* partial, int parts, int count, int columns,
                        float* grad_dictionary, float* grad_mean) {
  __shared__ float sums[SLICES][32];
  const int lane = threadIdx.x % 32, slice = threadIdx.x / 32;
  const int i = blockIdx.x * 32 + lane;
  float sum = 0.0f;
  if (i < count)
    for (int part = slice; part < parts; part += SLICES)
      sum += partial[static_cast<int64_t>(part) * count + i];
  sums[slice][lane] = sum;
  __syncthreads();
  if (slice != 0 || i >= count) return;
  for (int s = 1; s < SLICES; ++s) sum += sums[s][lane];
  if (i < count - columns) {
    grad_dictionary[i] = sum;
  } else {
    grad_mean[i - (count - columns)] = sum;
  }
}

// The largest tile whose shared memory fits, and as many blocks as the device holds of `kernel`,
// or fewer if there are fewer tiles. floats_for(tile) returns the shared memory of a tile.
template <class Kernel, class FloatsFor>
Tile tile_for(const OnDevice& device, Kernel kernel, const Dictionary<float>& d, int64_t poses,
              const FloatsFor& floats_for) {
  Tile tile{};
  tile.padded_atoms = in_float4s(d.atoms);
  for (tile.poses = poses < SMALL_BATCH ? FEW_POSES : MOST_POSES; tile.poses >= 2;
       tile.poses /= 2) {
    tile.pose_floats = in_float4s(tile.poses * 3 * d.joint_count);
    tile.shared_bytes = static_cast<int64_t>(floats_for(tile)) * sizeof(float);
    if (tile.shared_bytes <= device.most_shared()) break;
  }
  STD_TORCH_CHECK(tile.poses >= 2, "ites: the CUDA backend has no room for a dictionary of ",
                  d.atoms, " atoms and ", d.joint_count, " joints; use another backend");
  const int64_t tiles = (poses + tile.poses - 1) / tile.poses;
  const int64_t resident = device.resident_blocks(kernel, THREADS, tile.shared_bytes);
  tile.blocks = tiles < resident ? tiles : resident;
  return tile;
}

// Shared memory of every kernel: the dictionary, the mean, and a tile's coefficients.
int64_t common_floats(const Dictionary<float>& d, const Tile& tile) {
  const int64_t columns = 3 * static_cast<int64_t>(d.joint_count);
  return in_float4s(columns * (tile.padded_atoms + 1)) + tile.poses * tile.padded_atoms;
}

bool usual(const Dictionary<float>& d) { return d.joint_count == 17 && d.atoms == 12; }

int64_t gradient_floats(const Dictionary<float>& d) {
  return usual(d) ? DictionaryGradient<17, 12>::shared_floats(17, 12)
                  : DictionaryGradient<0, 0>::shared_floats(d.joint_count, d.atoms);
}

void sum_partials(const OnDevice& device, const Tensor& partial, const Dictionary<float>& d,
                  const Tensor& grad_dictionary, const Tensor& grad_mean) {
  const int columns = 3 * d.joint_count, count = (d.atoms + 1) * columns;
  device.launch(sum_partials_kernel, (count + 31) / 32, 32 * SLICES, 0, data<float>(partial),
                static_cast<int>(partial.size(0)), count, columns,
                mutable_data<float>(grad_dictionary), mutable_data<float>(grad_mean));
}

std::tuple<Tensor, Tensor, Tensor> dictionary_reprojection_op(
    const Tensor& coefficients, const Tensor& dictionary, const Tensor& mean,
    const Tensor& rotation_vector, const Tensor& target, double distance) {
  const Call call("dictionary_reprojection", target, Takes::float32);
  check_reprojection(call, coefficients, dictionary, mean, rotation_vector, target, distance);
  const OnDevice device(target);
  const int64_t B = coefficients.size(0), J = mean.size(0) / 3;
  const Tensor error = empty(target, {B});
  const Tensor canonical = empty(target, {B, J, 3});
  const Tensor camera = empty(target, {B, J, 3});
  const DictionaryReprojection<float> arguments = {dictionary_of<float>(dictionary, mean),
                                                   B,
                                                   static_cast<float>(distance),
                                                   data<float>(coefficients),
                                                   data<float>(rotation_vector),
                                                   data<float>(target),
                                                   mutable_data<float>(error),
                                                   mutable_data<float>(canonical),
                                                   mutable_data<float>(camera)};
  const Dictionary<float>& d = arguments.dictionary;
  const auto floats = [&](const Tile& tile) {
    return common_floats(d, tile) + tile.poses * (ROTATION + J) + 2 * tile.pose_floats;
  };
  const auto kernel =
      usual(d) ? dictionary_reprojection_kernel<17, 12> : dictionary_reprojection_kernel<0, 0>;
  const Tile tile = tile_for(device, kernel, d, B, floats);
  device.launch(kernel, tile.blocks, THREADS, tile.shared_bytes, arguments, tile);
  return {error, canonical, camera};
}

std::tuple<Tensor, Tensor, Tensor, Tensor> dictionary_reprojection_backward_op(
    const std::optional<Tensor>& grad_error, const std::optional<Tensor>& grad_canonical,
    const std::optional<Tensor>& grad_camera, const Tensor& coefficients, const Tensor& dictionary,
    const Tensor& mean, const Tensor& rotation_vector, const Tensor& target, double distance) {
  const Call call("dictionary_reprojection_backward", target, Takes::float32);
  check_reprojection(call, coefficients, dictionary, mean, rotation_vector, target, distance);
  const int64_t rows = coefficients.size(0), joints = mean.size(0) / 3;
  call.has("grad_error", grad_error, {rows});
  call.has("grad_canonical", grad_canonical, {rows, joints, 3});
  call.has("grad_camera", grad_camera, {rows, joints, 3});
  const OnDevice device(target);
  const int64_t B = coefficients.size(0), K = dictionary.size(0), columns = mean.size(0);
  const Tensor grad_coefficients = empty(target, {B, K});
  const Tensor grad_dictionary = empty(target, {K, columns});
  const Tensor grad_mean = empty(target, {columns});
  const Tensor grad_rotation_vector = empty(target, {B, 3});
  const DictionaryReprojectionBackward<float> arguments = {
      dictionary_of<float>(dictionary, mean),
      B,
      static_cast<float>(distance),
      data<float>(grad_error),
      data<float>(grad_canonical),
      data<float>(grad_camera),
      data<float>(coefficients),
      data<float>(rotation_vector),
      data<float>(target),
      mutable_data<float>(grad_coefficients),
      mutable_data<float>(grad_rotation_vector)};
  const Dictionary<float>& d = arguments.dictionary;
  const auto floats = [&](const Tile& tile) {
    return common_floats(d, tile) + tile.poses * ROTATION + 3 * tile.pose_floats +
           gradient_floats(d);
  };
  const auto kernel = usual(d) ? dictionary_reprojection_backward_kernel<17, 12>
                               : dictionary_reprojection_backward_kernel<0, 0>;
  const Tile tile = tile_for(device, kernel, d, B, floats);
  const Tensor partial = empty(target, {tile.blocks, (K + 1) * columns});
  device.launch(kernel, tile.blocks, THREADS, tile.shared_bytes, arguments, tile,
                mutable_data<float>(partial));
  sum_partials(device, partial, d, grad_dictionary, grad_mean);
  return {grad_coefficients, grad_dictionary, grad_mean, grad_rotation_vector};
}

Tensor invariance_distance_op(const Tensor& coefficients, const Tensor& dictionary,
                              const Tensor& mean, const Tensor& canonical) {
  const Call call("invariance_distance", coefficients, Takes::float32);
  const int samples = check_invariance(call, coefficients, dictionary, mean, canonical);
  const OnDevice device(coefficients);
  const int64_t B = canonical.size(0), rows = coefficients.size(0), J = mean.size(0) / 3;
  const Tensor out = empty(coefficients, {rows});
  const InvarianceDistance<float> arguments = {dictionary_of<float>(dictionary, mean),
                                               B,
                                               samples,
                                               data<float>(coefficients),
                                               data<float>(canonical),
                                               mutable_data<float>(out)};
  const Dictionary<float>& d = arguments.dictionary;
  const auto floats = [&](const Tile& tile) {
    return common_floats(d, tile) + (SAMPLES - 1) * tile.poses * tile.padded_atoms +
           tile.pose_floats + SAMPLES * tile.poses * J;
  };
  const auto kernel =
      usual(d) ? invariance_distance_kernel<17, 12> : invariance_distance_kernel<0, 0>;
  const Tile tile = tile_for(device, kernel, d, B, floats);
  device.launch(kernel, tile.blocks, THREADS, tile.shared_bytes, arguments, tile);
  return out;
}

std::tuple<Tensor, Tensor, Tensor, Tensor> invariance_distance_backward_op(
    const Tensor& grad, const Tensor& coefficients, const Tensor& dictionary, const Tensor& mean,
    const Tensor& canonical) {
  const Call call("invariance_distance_backward", coefficients, Takes::float32);
  const int samples = check_invariance(call, coefficients, dictionary, mean, canonical);
  call.has("grad", grad, {coefficients.size(0)});
  const OnDevice device(coefficients);
  const int64_t B = canonical.size(0), rows = coefficients.size(0), K = dictionary.size(0);
  const int64_t columns = mean.size(0);
  const Tensor grad_coefficients = empty(coefficients, {rows, K});
  const Tensor grad_dictionary = empty(coefficients, {K, columns});
  const Tensor grad_mean = empty(coefficients, {columns});
  const Tensor grad_canonical = empty(coefficients, {B, columns / 3, 3});
  const InvarianceDistanceBackward<float> arguments = {dictionary_of<float>(dictionary, mean),
                                                       B,
                                                       samples,
                                                       data<float>(grad),
                                                       data<float>(coefficients),
                                                       data<float>(canonical),
                                                       mutable_data<float>(grad_coefficients),
                                                       mutable_data<float>(grad_canonical)};
  const Dictionary<float>& d = arguments.dictionary;
  const auto floats = [&](const Tile& tile) {
    return common_floats(d, tile) + 3 * tile.pose_floats + gradient_floats(d);
  };
  const auto kernel = usual(d) ? invariance_distance_backward_kernel<17, 12>
                               : invariance_distance_backward_kernel<0, 0>;
  const Tile tile = tile_for(device, kernel, d, B, floats);
  const Tensor partial = empty(coefficients, {tile.blocks, (K + 1) * columns});
  device.launch(kernel, tile.blocks, THREADS, tile.shared_bytes, arguments, tile,
                mutable_data<float>(partial));
  sum_partials(device, partial, d, grad_dictionary, grad_mean);
  return {grad_coefficients, grad_dictionary, grad_mean, grad_canonical};
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(ites_cuda, m) {
  for (const char* schema : dictionary_schemas) m.def(schema);
}

STABLE_TORCH_LIBRARY_IMPL(ites_cuda, CUDA, m) {
  m.impl("dictionary_reprojection", TORCH_BOX(&dictionary_reprojection_op));
  m.impl("dictionary_reprojection_backward", TORCH_BOX(&dictionary_reprojection_backward_op));
  m.impl("invariance_distance", TORCH_BOX(&invariance_distance_op));
  m.impl("invariance_distance_backward", TORCH_BOX(&invariance_distance_backward_op));
}

}  // namespace ites
