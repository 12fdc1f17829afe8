// As much of CUDA as the kernels in csrc/cuda use, on a CPU: a block's threads are fibers that run
// in turn and change at barriers, blocks follow one another. With ITES_EMULATE_REVERSE=1 the
// fibers run in the reverse order. races.h checks every access.
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

constexpr size_t STACK = 256 << 10;  // bytes of a fiber's stack

struct Fiber {
  ucontext_t context;
  std::unique_ptr<char[]> stack;
  bool done;
};

inline std::vector<Fiber> fibers;
inline ucontext_t scheduler;
inline std::function<void()> body;
inline size_t current;

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

inline Barrier block_barrier, warp_barriers[32];

races_unwatched inline void enter() {
  races::watch(true);
  body();
  races::watch(false);
  fibers[current].done = true;
  yield();
}

races_unwatched inline void run_block(unsigned threads) {
  static const bool reverse = std::getenv("ITES_EMULATE_REVERSE") != nullptr;
  if (fibers.size() < threads) fibers.resize(threads);
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
      threadIdx.x = static_cast<unsigned>(current);
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
  races::at_barrier(threadIdx.x, file, line);
  emulated::block_barrier.wait(0, blockDim.x);
  threadIdx.x = static_cast<unsigned>(emulated::current);
  races::passed_block(threadIdx.x);
}

races_unwatched inline void __syncwarp(unsigned mask = ~0u, const char* file = __builtin_FILE(),
                                       int line = __builtin_LINE()) {
  const races::Aside aside;
  const unsigned warp = threadIdx.x / 32;
  for (unsigned lane = 0; lane < 32; ++lane)
    if (mask >> lane & 1)
      races::expect(warp * 32 + lane < blockDim.x && !emulated::fibers[warp * 32 + lane].done,
                    "a lane named in the mask has gone", file, line);
  emulated::warp_barriers[warp].wait(warp * 32, std::min(blockDim.x, warp * 32 + 32));
  threadIdx.x = static_cast<unsigned>(emulated::current);
  races::passed_warp(threadIdx.x);
}

namespace emulated {

inline uint64_t slots[1024];

// The shuffles order no memory: what is exchanged goes by no memory of the kernel's.
template <class T>
races_unwatched T exchange(T value, unsigned from, unsigned mask) {
  const unsigned mine = threadIdx.x;
  const races::Unordered shuffle(mine);
  races::watch(false);
  std::memcpy(&slots[mine], &value, sizeof value);
  __syncwarp(mask);
  T out;
  races::watch(false);
  std::memcpy(&out, &slots[from], sizeof out);
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
enum cudaDeviceAttr { cudaDevAttrMultiProcessorCount, cudaDevAttrMaxSharedMemoryPerBlockOptin };
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize };
struct cudaLaunchConfig_t {
  dim3 gridDim, blockDim;
  size_t dynamicSmemBytes;
  cudaStream_t stream;
};

inline cudaError_t cudaGetLastError() { return 0; }
inline cudaError_t cudaSetDevice(int) { return 0; }
inline cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
  *value = attribute == cudaDevAttrMultiProcessorCount ? 3 : 96 * 1024;
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
  races::begin_launch();
  for (unsigned y = 0; y < gridDim.y; ++y) {
    for (unsigned x = 0; x < gridDim.x; ++x) {
      blockIdx = dim3(x, y);
      // Fresh memory, full of NaN, exactly as large as asked for.
      races::begin_block(config->dynamicSmemBytes);
      emulated::run_block(config->blockDim.x);
      races::end_block();
    }
  }
  return 0;
}
