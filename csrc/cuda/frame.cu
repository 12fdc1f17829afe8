// What a stream's frame needs before and after the network, one launch each: which keypoints are
// possible, their map to the skeleton, root and scale; then metres. One block has all frames, so
// that it can take the robust mean of their sizes and of those before.
#include "check.h"
#include "cuda/warp.cuh"
#include "schemas.h"

namespace ites {
namespace {

constexpr int THREADS = 512, WARPS = THREADS / 32, MOST_KEYPOINTS = 192, MOST_WINDOW = 1024;

// The lower median of the values that are not nan, for all lanes of a warp; nan without any.
__device__ __forceinline__ float warp_median(const float* values, int count) {
  float found = NAN;
  int owner = -1;
  const int lane = threadIdx.x % 32;
  for (int i = lane; i < count; i += 32) {
    const float v = values[i];
    int rank = 0, there = 0;
    for (int k = 0; k < count; ++k) {
      const float other = values[k];
      there += other == other;
      rank += other < v || (other == v && k < i);
    }
    if (v == v && rank == (there - 1) / 2) {
      found = v;
      owner = lane;
    }
  }
#pragma unroll
  for (int lanes = 16; lanes > 0; lanes /= 2)
    owner = max(owner, __shfl_xor_sync(0xFFFFFFFFu, owner, lanes));
  return __shfl_sync(0xFFFFFFFFu, found, owner < 0 ? 0 : owner);
}

// The block sorts `count` floats of shared memory, a power of two.
__device__ __forceinline__ void block_sort(float* values, int count) {
  for (int size = 2; size <= count; size *= 2) {
    for (int away = size / 2; away > 0; away /= 2) {
      __syncthreads();
      for (int pair = threadIdx.x; pair < count / 2; pair += THREADS) {
        const int i = 2 * pair - (pair & (away - 1));
        const float a = values[i], b = values[i + away];
        const bool rising = (i & size) == 0;
        if ((a > b) == rising) {
          values[i] = b;
          values[i + away] = a;
        }
      }
    }
  }
  __syncthreads();
}

// The median of sorted values, of which the first `finite` count: the mean of the middle two where
// their number is even; nan without any.
__device__ __forceinline__ float median_of(const float* sorted, int finite) {
  if (finite == 0) return NAN;
  return (sorted[(finite - 1) / 2] + sorted[finite / 2]) / 2.0f;
}

// The sizes of the last frames, and the limits of their robust mean: a value counts within
// `spreads` median absolute deviations of the median, or within `share` of the median.
struct Window {
  float* sizes;        // global, newest last
  int length, padded;  // the latter a power of two
  float spreads, share;
};

// Shared memory of window_mean, floats.
inline int window_floats(const Window& w) { return 3 * w.padded + WARPS + 1; }

// Moves the finite ones of `count` fresh values into the window. Its values go to `values` too, inf
// where there is none. `old` is room for the window before.
__device__ __forceinline__ void move_window(const Window& w, const float* fresh, int count,
                                            float* old, float* values) {
  for (int i = threadIdx.x; i < w.length; i += THREADS) old[i] = w.sizes[i];
  __syncthreads();  // of the fresh values too
  int fresh_finite = 0;
  for (int k = 0; k < count; ++k) fresh_finite += is_finite(fresh[k]);
  for (int i = threadIdx.x; i < w.padded; i += THREADS)
    if (i >= w.length) values[i] = INFINITY;
  for (int i = threadIdx.x; i < w.length; i += THREADS) {
    if (i >= fresh_finite) {
      const float v = old[i];
      w.sizes[i - fresh_finite] = v;
      values[i - fresh_finite] = v == v ? v : INFINITY;
    }
  }
  for (int i = threadIdx.x; i < count; i += THREADS) {
    if (!is_finite(fresh[i])) continue;
    int place = w.length - fresh_finite;
    for (int k = 0; k < i; ++k) place += is_finite(fresh[k]);
    w.sizes[place] = fresh[i];
    values[place] = fresh[i];
  }
}

// The block's mean of a thread's `sum` of `counted` values; nan where there are none at all.
__device__ __forceinline__ float block_mean(float sum, float counted, float* sums, float* counts) {
  sum = warp_sum(sum);
  counted = warp_sum(counted);
  const int warp = threadIdx.x / 32;
  if (threadIdx.x % 32 == 0) {
    sums[warp] = sum;
    counts[warp] = counted;
  }
  __syncthreads();
  sum = counted = 0.0f;
  for (int k = 0; k < WARPS; ++k) {
    sum += sums[k];
    counted += counts[k];
  }
  return sum / counted;
}

// Moves the finite ones of `count` fresh values into the window; the robust mean of what it holds.
__device__ __forceinline__ float window_mean(const Window& w, const float* fresh, int count,
                                             float* shared) {
  float *values = shared, *away = values + w.padded, *old = away + w.padded;
  float *sums = old + w.padded, *finite_count = sums + WARPS;
  move_window(w, fresh, count, old, values);
  block_sort(values, w.padded);
  for (int i = threadIdx.x; i < w.padded; i += THREADS) {
    const bool here = values[i] < INFINITY, next = i + 1 < w.padded && values[i + 1] < INFINITY;
    if (here && !next) *finite_count = static_cast<float>(i + 1);
    if (i == 0 && !here) *finite_count = 0.0f;
  }
  __syncthreads();
  const int finite = static_cast<int>(*finite_count);
  const float median = median_of(values, finite);
  for (int i = threadIdx.x; i < w.padded; i += THREADS)
    away[i] = i < finite ? fabsf(values[i] - median) : INFINITY;
  block_sort(away, w.padded);
  const float spread = w.spreads * median_of(away, finite), share = w.share * fabsf(median);
  const float limit = spread > share ? spread : share;
  float sum = 0.0f, counted = 0.0f;
  for (int i = threadIdx.x; i < finite; i += THREADS) {
    if (fabsf(values[i] - median) > limit) continue;
    sum += values[i];
    counted += 1.0f;
  }
  return block_mean(sum, counted, sums, old);
}

struct Frames {
  int64_t frames;
  int keypoints, joints, root, head, choices;
  float far;
};

// The warp loads the keypoints of a frame into shared memory, nan where one is missing, or further
// from their median than `far` times the median distance from there. `away` is room for as many.
__device__ __forceinline__ void load_possible(const Frames& f, const float* from, float* x,
                                              float* y, float* away) {
  const int lane = threadIdx.x % 32, K = f.keypoints;
  __syncwarp();
  for (int k = lane; k < K; k += 32) {
    x[k] = from[2 * k];
    y[k] = from[2 * k + 1];
  }
  __syncwarp();
  const float middle_x = warp_median(x, K), middle_y = warp_median(y, K);
  for (int k = lane; k < K; k += 32) {
    const float dx = x[k] - middle_x, dy = y[k] - middle_y;
    away[k] = sqrtf(dx * dx + dy * dy);
  }
  __syncwarp();
  const float size = warp_median(away, K);
  __syncwarp();
  for (int k = lane; k < K; k += 32)
    if (away[k] > f.far * size && size > 0.0f) x[k] = y[k] = NAN;
  __syncwarp();
}

// Joint `j` of a frame's keypoints: the first of the layout's weighted sums whose keypoints are all
// there, nan where there is none. Without a layout, keypoint `j`.
__device__ __forceinline__ void map_joint(const Frames& f, const float* layout, const float* x,
                                          const float* y, int j, float& px, float& py) {
  if (!layout) {
    px = x[j];
    py = y[j];
    return;
  }
  for (int choice = 0; choice < f.choices; ++choice) {
    const float* weights = layout + (choice * f.joints + j) * f.keypoints;
    bool whole = true, any = false;
    px = py = 0.0f;
    for (int k = 0; k < f.keypoints; ++k) {
      if (weights[k] == 0.0f) continue;
      any = true;
      whole &= is_finite(x[k]) && is_finite(y[k]);
      px += weights[k] * x[k];
      py += weights[k] * y[k];
    }
    if (any && whole) return;
  }
  px = py = NAN;
}

// MODE 0: pixels; 1: relative to the root, times `factor`; 2: scaled by the window.
template <int MODE>
__global__ void __launch_bounds__(THREADS, 1)
    frame_points_kernel(const Frames f, const Window w, const float* __restrict__ given,
                        const float* __restrict__ layout, const float* __restrict__ factor,
                        float length, float* __restrict__ out) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, K = f.keypoints;
  float* const own = shared_floats() + warp * 3 * K;
  float* const fresh = shared_floats() + WARPS * 3 * K;
  float *const x = own, *const y = own + K, *const away = own + 2 * K;
  const int64_t first = f.frames > w.length ? f.frames - w.length : 0;  // that the window takes
  for (int64_t b = warp; b < f.frames; b += WARPS) {
    load_possible(f, given + b * K * 2, x, y, away);
    const auto joint = [&](int j, float& px, float& py) { map_joint(f, layout, x, y, j, px, py); };
    float root_x = 0.0f, root_y = 0.0f;
    if (MODE > 0) joint(f.root, root_x, root_y);
    for (int j = lane; j < f.joints; j += 32) {
      float px, py;
      joint(j, px, py);
      px -= root_x;
      py -= root_y;
      if (MODE == 1) {
        px *= factor[0];
        py *= factor[1];
      }
      out[(b * f.joints + j) * 2] = px;
      out[(b * f.joints + j) * 2 + 1] = py;
    }
    if (MODE == 2 && lane == 0 && b >= first) {
      float head_x, head_y;
      joint(f.head, head_x, head_y);
      head_x -= root_x;
      head_y -= root_y;
      fresh[b - first] = sqrtf(head_x * head_x + head_y * head_y);
    }
  }
  if constexpr (MODE == 2) {
    const int count = static_cast<int>(f.frames - first);
    const float scale = length / window_mean(w, fresh, count, fresh + w.length);
    const int64_t entries = f.frames * f.joints * 2;
    for (int64_t i = threadIdx.x; i < entries; i += THREADS) out[i] *= scale;
  }
}

struct Bones {
  const int64_t* ends;   // (2, count): each bone's joint and its parent
  const float* weights;  // null: the known length is the distance from root to head
  int count;
  float metres;
};

// The summed length of a pose's bones, and the length that decides the metres.
__device__ __forceinline__ void lengths_of(const Frames& f, const Bones& bones, const float* pose,
                                           float& whole, float& known) {
  const auto length = [&](int64_t a, int64_t b) {
    const float x = pose[3 * a] - pose[3 * b], y = pose[3 * a + 1] - pose[3 * b + 1],
                z = pose[3 * a + 2] - pose[3 * b + 2];
    return sqrtf(x * x + y * y + z * z);
  };
  whole = known = 0.0f;
  for (int k = threadIdx.x % 32; k < bones.count; k += 32) {
    const float bone = length(bones.ends[k], bones.ends[bones.count + k]);
    whole += bone;
    if (bones.weights) known += bones.weights[k] * bone;
  }
  whole = at_least(warp_sum(whole), 1e-6f);
  known = bones.weights ? warp_sum(known) : length(f.head, f.root);
}

__global__ void __launch_bounds__(THREADS, 1)
    frame_metres_kernel(const Frames f, const Window w, const Bones bones,
                        const float* __restrict__ pose, float* __restrict__ out) {
  float* const fresh = shared_floats();
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int64_t first = f.frames > w.length ? f.frames - w.length : 0;
  float whole, known;
  for (int64_t b = first + warp; b < f.frames; b += WARPS) {
    lengths_of(f, bones, pose + b * f.joints * 3, whole, known);
    if (lane == 0) fresh[b - first] = known / whole;
  }
  const int count = static_cast<int>(f.frames - first);
  const float mean = at_least(window_mean(w, fresh, count, fresh + w.length), 1e-6f);
  for (int64_t b = warp; b < f.frames; b += WARPS) {
    const float *from = pose + b * f.joints * 3, *root = from + 3 * f.root;
    lengths_of(f, bones, from, whole, known);
    const float factor = bones.metres / mean / whole;
    for (int i = lane; i < 3 * f.joints; i += 32)
      out[b * f.joints * 3 + i] = (from[i] - root[i % 3]) * factor;
  }
}

Window window_of(const Call& call, const std::optional<Tensor>& sizes, double spreads,
                 double share) {
  call.finite("spreads", spreads, 0);
  call.finite("share", share, 0);
  Window w{nullptr, 0, 0, static_cast<float>(spreads), static_cast<float>(share)};
  if (!sizes.has_value()) return w;
  call.has("sizes", *sizes, {ANY});
  w.sizes = mutable_data<float>(*sizes);
  w.length = static_cast<int>(sizes->numel());
  call.require(w.length >= 32 && w.length <= MOST_WINDOW, "sizes must hold 32 to ", MOST_WINDOW,
               " values, got ", w.length);
  for (w.padded = 32; w.padded < w.length;) w.padded *= 2;
  return w;
}

Tensor frame_points_op(const Tensor& keypoints, const std::optional<Tensor>& layout,
                       const std::optional<Tensor>& factor, const std::optional<Tensor>& sizes,
                       int64_t root, int64_t head, double length, double far, double spreads,
                       double share) {
  const Call call("frame_points", keypoints, Takes::float32);
  call.has("keypoints", keypoints, {ANY, ANY, 2});
  const int64_t B = keypoints.size(0), K = keypoints.size(1);
  call.require(K > 0 && K <= MOST_KEYPOINTS, "expected 1 to ", MOST_KEYPOINTS, " keypoints, got ",
               K);
  int64_t J = K, choices = 0;
  if (layout.has_value()) {
    call.has("layout", *layout, {ANY, ANY, K});
    choices = layout->size(0);
    J = layout->size(1);
    call.require(choices * J * K <= MOST_SIZE, "layout is too large");
  }
  call.has("factor", factor, {2});
  call.require(!factor.has_value() || !sizes.has_value(), "factor and sizes exclude each other");
  call.require(root >= 0 && root < J && head >= 0 && head < J, "root and head must be joints 0 to ",
               J - 1, ", got ", root, " and ", head);
  call.finite("length", length, 0);
  call.finite("far", far, 0);
  const Window w = window_of(call, sizes, spreads, share);
  const Frames f{B,
                 static_cast<int>(K),
                 static_cast<int>(J),
                 static_cast<int>(root),
                 static_cast<int>(head),
                 static_cast<int>(choices),
                 static_cast<float>(far)};
  Tensor out = empty(keypoints, {B, J, 2});
  const OnDevice device(keypoints);
  const int floats = WARPS * 3 * f.keypoints + (w.length ? w.length + window_floats(w) : 0);
  const auto launch = [&](auto kernel) {
    device.launch(kernel, B > 0 ? 1 : 0, THREADS, floats * sizeof(float), f, w,
                  data<float>(keypoints), data<float>(layout), data<float>(factor),
                  static_cast<float>(length), mutable_data<float>(out));
  };
  if (factor.has_value()) {
    launch(frame_points_kernel<1>);
  } else if (sizes.has_value()) {
    launch(frame_points_kernel<2>);
  } else {
    launch(frame_points_kernel<0>);
  }
  return out;
}

Tensor frame_metres_op(const Tensor& pose, const Tensor& bones,
                       const std::optional<Tensor>& weights, const Tensor& sizes, int64_t root,
                       int64_t head, double metres, double spreads, double share) {
  const Call call("frame_metres", pose, Takes::float32);
  call.has("pose", pose, {ANY, ANY, 3});
  const int64_t B = pose.size(0), J = pose.size(1);
  call.has("bones", bones, ScalarType::Long, {2, ANY});
  const int64_t count = bones.size(1);
  call.has("weights", weights, {count});
  call.require(root >= 0 && root < J && head >= 0 && head < J, "root and head must be joints 0 to ",
               J - 1, ", got ", root, " and ", head);
  call.finite("metres", metres, 0);
  const Window w = window_of(call, sizes, spreads, share);
  const Frames f{B, 0, static_cast<int>(J), static_cast<int>(root), static_cast<int>(head), 0, 0};
  Tensor out = empty(pose, {B, J, 3});
  const OnDevice device(pose);
  device.launch(frame_metres_kernel, B > 0 ? 1 : 0, THREADS,
                (w.length + window_floats(w)) * sizeof(float), f, w,
                Bones{data<int64_t>(bones), data<float>(weights), static_cast<int>(count),
                      static_cast<float>(metres)},
                data<float>(pose), mutable_data<float>(out));
  return out;
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(ites_cuda, m) {
  for (const char* schema : frame_schemas) m.def(schema);
}

STABLE_TORCH_LIBRARY_IMPL(ites_cuda, CUDA, m) {
  m.impl("frame_points", TORCH_BOX(&frame_points_op));
  m.impl("frame_metres", TORCH_BOX(&frame_metres_op));
}

}  // namespace ites
