// As much of CUDA as the kernels in csrc/cuda use, on a CPU: the threads of a block, or of a
// cluster's blocks, are fibers that run in turn and change at barriers. Clusters follow one
// another; a block of a launch without them is a cluster of its own. With ITES_EMULATE_REVERSE=1
// the fibers run in the reverse order. races.h checks every access.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <vector>

#include <ucontext.h>

#include "races.h"

#define __host__
#define __device__
#define __global__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __shared__ static __attribute__((section("ites_shared")))
#define __restrict__

using std::max;
using std::min;

struct alignas(8) float2 {
  float x, y;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }

struct dim3 {
  unsigned x, y, z;
  dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};

inline dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace emulated {

constexpr size_t STACK = 256 << 10;                       // bytes of a fiber's stack
constexpr unsigned MOST_BLOCKS = 8, MOST_THREADS = 1024;  // of a cluster, of a block
constexpr unsigned MOST_FIBERS = MOST_BLOCKS * MOST_THREADS;

struct Fiber {
  ucontext_t context;
  std::unique_ptr<char[]> stack;
  bool done;
};

inline std::vector<Fiber> fibers;
inline ucontext_t scheduler;
inline std::function<void()> body;
inline size_t current;
inline unsigned first_block;  // of the cluster that runs
inline size_t running;        // its threads

inline unsigned block_now() { return static_cast<unsigned>(current) / blockDim.x; }

// Makes the built-in variables those of the fiber that runs.
inline void be_current() {
  threadIdx.x = static_cast<unsigned>(current) % blockDim.x;
  blockIdx.x = first_block + block_now();
}

races_unwatched inline void yield() { swapcontext(&fibers[current].context, &scheduler); }

// A barrier of threads [first, last) of the block: the last to come lets all go.
struct Barrier {
  unsigned waiting = 0, generation = 0;
  races_unwatched void wait(unsigned first, unsigned last) {
    unsigned alive = 0;
    for (unsigned i = first; i < last; ++i) alive += !fibers[i].done;
    if (++waiting == alive) {
      waiting = 0;
      ++generation;
      return;
    }
    for (const unsigned mine = generation; mine == generation;) yield();
  }
};

inline Barrier block_barriers[MOST_BLOCKS], warp_barriers[MOST_FIBERS / 32];
inline uint64_t arrivals;            // of the cluster's threads at its barrier
inline uint64_t waits[MOST_FIBERS];  // of each of them

races_unwatched inline void enter() {
  races::watch(true);
  body();
  races::watch(false);
  fibers[current].done = true;
  yield();
}

races_unwatched inline void run_cluster(unsigned threads) {
  static const bool reverse = std::getenv("ITES_EMULATE_REVERSE") != nullptr;
  if (fibers.size() < threads) fibers.resize(threads);
  running = threads;
  arrivals = 0;
  std::fill(waits, waits + threads, 0);
  for (unsigned i = 0; i < threads; ++i) {
    Fiber& fiber = fibers[i];
    if (!fiber.stack) fiber.stack.reset(new char[STACK]);
    fiber.done = false;
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = fiber.stack.get();
    fiber.context.uc_stack.ss_size = STACK;
    fiber.context.uc_link = nullptr;
    makecontext(&fiber.context, enter, 0);
  }
  for (unsigned left = threads; left > 0;) {
    for (unsigned k = 0; k < threads; ++k) {
      current = reverse ? threads - 1 - k : k;
      if (fibers[current].done) continue;
      be_current();
      swapcontext(&scheduler, &fibers[current].context);
      left -= fibers[current].done;
    }
  }
}

}  // namespace emulated

races_unwatched inline void __syncthreads(const char* file = __builtin_FILE(),
                                          int line = __builtin_LINE()) {
  const races::Aside aside;
  if (races::left_out(file, line)) return;
  races::at_barrier(file, line);
  const unsigned block = emulated::block_now(), first = block * blockDim.x;
  emulated::block_barriers[block].wait(first, first + blockDim.x);
  emulated::be_current();
  races::passed_block();
}

races_unwatched inline void __syncwarp(unsigned mask = ~0u, const char* file = __builtin_FILE(),
                                       int line = __builtin_LINE()) {
  const races::Aside aside;
  const unsigned block = emulated::block_now() * blockDim.x;  // its first fiber
  const unsigned first = block + threadIdx.x / 32 * 32, end = block + blockDim.x;
  for (unsigned lane = 0; lane < 32; ++lane)
    if (mask >> lane & 1)
      races::expect(first + lane < end && !emulated::fibers[first + lane].done,
                    "a lane named in the mask has gone", file, line);
  emulated::warp_barriers[emulated::block_now() * (emulated::MOST_THREADS / 32) + threadIdx.x / 32]
      .wait(first, std::min(end, first + 32));
  emulated::be_current();
  races::passed_warp();
}

namespace emulated {

inline uint64_t slots[MOST_FIBERS];

// The shuffles order no memory: what is exchanged goes by no memory of the kernel's.
template <class T>
races_unwatched T exchange(T value, unsigned from, unsigned mask) {
  const races::Unordered shuffle;
  races::watch(false);
  const size_t block = current - threadIdx.x;  // its first fiber
  std::memcpy(&slots[current], &value, sizeof value);
  __syncwarp(mask);
  T out;
  races::watch(false);
  std::memcpy(&out, &slots[block + from], sizeof out);
  __syncwarp(mask);  // which watches again
  return out;
}

}  // namespace emulated

template <class T>
T __shfl_xor_sync(unsigned lanes, T value, int mask, int = 32) {
  return emulated::exchange(value, threadIdx.x ^ mask, lanes);
}
template <class T>
T __shfl_sync(unsigned lanes, T value, int lane, int = 32) {
  return emulated::exchange(value, threadIdx.x / 32 * 32 + lane, lanes);
}
template <class T>
T __shfl_down_sync(unsigned lanes, T value, unsigned delta, int = 32) {
  const unsigned lane = threadIdx.x % 32;
  return emulated::exchange(value, lane + delta < 32 ? threadIdx.x + delta : threadIdx.x, lanes);
}
template <class T>
T __ldg(const T* p) {
  return *p;
}
template <class T>
void __stwb(T* p, T value) {
  *p = value;
}

using cudaStream_t = void*;
using cudaError_t = int;
enum cudaDeviceAttr {
  cudaDevAttrMultiProcessorCount,
  cudaDevAttrMaxSharedMemoryPerBlockOptin,
  cudaDevAttrComputeCapabilityMajor
};
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize };
enum cudaLaunchAttributeID {
  cudaLaunchAttributeClusterDimension,
  cudaLaunchAttributeProgrammaticStreamSerialization
};
struct cudaLaunchAttribute {
  cudaLaunchAttributeID id;
  struct {
    dim3 clusterDim;
    int programmaticStreamSerializationAllowed;
  } val;
};
struct cudaLaunchConfig_t {
  dim3 gridDim, blockDim;
  size_t dynamicSmemBytes;
  cudaStream_t stream;
  cudaLaunchAttribute* attrs;
  unsigned numAttrs;
};

inline cudaError_t cudaGetLastError() { return 0; }
inline cudaError_t cudaSetDevice(int) { return 0; }
inline cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
  switch (attribute) {
    case cudaDevAttrMultiProcessorCount: *value = 3; break;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin: *value = 96 * 1024; break;
    case cudaDevAttrComputeCapabilityMajor: *value = 9; break;
  }
  return 0;
}
template <class Kernel>
cudaError_t cudaFuncSetAttribute(Kernel, cudaFuncAttribute, int) {
  return 0;
}
template <class Kernel>
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, Kernel, int, size_t) {
  *blocks = 2;
  return 0;
}
template <class... Parameters, class... Arguments>
races_unwatched cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config,
                                               void (*kernel)(Parameters...),
                                               const Arguments&... arguments) {
  gridDim = config->gridDim;
  blockDim = config->blockDim;
  emulated::body = [&] { kernel(arguments...); };
  unsigned cluster = 1;
  bool beside = false;
  for (unsigned i = 0; i < config->numAttrs; ++i) {
    const cudaLaunchAttribute& attribute = config->attrs[i];
    if (attribute.id == cudaLaunchAttributeClusterDimension) cluster = attribute.val.clusterDim.x;
    if (attribute.id == cudaLaunchAttributeProgrammaticStreamSerialization)
      beside = attribute.val.programmaticStreamSerializationAllowed;
  }
  if (cluster > emulated::MOST_BLOCKS || gridDim.x % cluster) return 1;
  races::begin_launch(beside);
  for (unsigned y = 0; y < gridDim.y; ++y) {
    for (unsigned x = 0; x < gridDim.x; x += cluster) {
      blockIdx = dim3(x, y);
      emulated::first_block = x;
      // Fresh memory, full of NaN, exactly as large as asked for.
      races::begin_cluster(cluster, config->dynamicSmemBytes);
      emulated::run_cluster(cluster * config->blockDim.x);
      races::end_cluster();
    }
  }
  return 0;
}
