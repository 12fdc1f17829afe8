// As much of CUDA as the kernels in csrc/cuda use, on a CPU: a block's threads are fibers that run
// in turn and change at barriers, blocks follow one another. With ITES_EMULATE_REVERSE=1 the
// fibers run in the reverse order: a result that changes betrays a missing barrier.
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

#define __host__
#define __device__
#define __global__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __shared__ static
#define __restrict__

using std::max;
using std::min;

struct float2 {
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

struct Fiber {
  ucontext_t context;
  std::unique_ptr<char[]> stack;
  bool done;
};

inline std::vector<Fiber> fibers;
inline ucontext_t scheduler;
inline std::function<void()> body;
inline size_t current;
inline std::vector<float4> shared_memory;

inline void yield() { swapcontext(&fibers[current].context, &scheduler); }

// A barrier of threads [first, last) of the block: the last to come lets all go.
struct Barrier {
  unsigned waiting = 0, generation = 0;
  void wait(unsigned first, unsigned last) {
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

inline void enter() {
  body();
  fibers[current].done = true;
  yield();
}

inline void run_block(unsigned threads) {
  static const bool reverse = std::getenv("ITES_EMULATE_REVERSE") != nullptr;
  constexpr size_t stack_bytes = 256 * 1024;
  if (fibers.size() < threads) fibers.resize(threads);
  for (unsigned i = 0; i < threads; ++i) {
    Fiber& fiber = fibers[i];
    if (!fiber.stack) fiber.stack.reset(new char[stack_bytes]);
    fiber.done = false;
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = fiber.stack.get();
    fiber.context.uc_stack.ss_size = stack_bytes;
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

inline void __syncthreads() {
  emulated::block_barrier.wait(0, blockDim.x);
  threadIdx.x = static_cast<unsigned>(emulated::current);
}

inline void __syncwarp(unsigned = ~0u) {
  const unsigned warp = threadIdx.x / 32;
  emulated::warp_barriers[warp].wait(warp * 32, std::min(blockDim.x, warp * 32 + 32));
  threadIdx.x = static_cast<unsigned>(emulated::current);
}

namespace emulated {

inline uint64_t slots[1024];

template <class T>
T exchange(T value, unsigned from) {
  const unsigned mine = threadIdx.x;
  std::memcpy(&slots[mine], &value, sizeof value);
  __syncwarp();
  T out;
  std::memcpy(&out, &slots[from], sizeof out);
  __syncwarp();
  return out;
}

}  // namespace emulated

template <class T>
T __shfl_xor_sync(unsigned, T value, int mask, int = 32) {
  return emulated::exchange(value, threadIdx.x ^ mask);
}
template <class T>
T __shfl_sync(unsigned, T value, int lane, int = 32) {
  return emulated::exchange(value, threadIdx.x / 32 * 32 + lane);
}
template <class T>
T __shfl_down_sync(unsigned, T value, unsigned delta, int = 32) {
  const unsigned lane = threadIdx.x % 32;
  return emulated::exchange(value, lane + delta < 32 ? threadIdx.x + delta : threadIdx.x);
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
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Parameters...),
                               const Arguments&... arguments) {
  gridDim = config->gridDim;
  blockDim = config->blockDim;
  emulated::body = [&] { kernel(arguments...); };
  for (unsigned y = 0; y < gridDim.y; ++y) {
    for (unsigned x = 0; x < gridDim.x; ++x) {
      blockIdx = dim3(x, y);
      // Fresh memory, full of NaN, exactly as large as asked for.
      emulated::shared_memory.assign((config->dynamicSmemBytes + 15) / 16,
                                     float4{NAN, NAN, NAN, NAN});
      emulated::run_block(config->blockDim.x);
    }
  }
  return 0;
}
