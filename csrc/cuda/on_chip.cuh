// A block's dynamic shared memory, and copies into it that go on beside the arithmetic.
#pragma once

namespace ites {

__device__ __forceinline__ float* shared_floats() {
  extern __shared__ float4 ites_shared[];
  return reinterpret_cast<float*>(ites_shared);
}

// Starts a copy of 8 or 16 bytes into shared memory; both ends are aligned to as many.
template <int BYTES>
__device__ __forceinline__ void start_bytes(void* to, const void* from) {
  asm volatile("cp.async.ca.shared.global [%0], [%1], %2;" ::"r"(
                   static_cast<unsigned>(__cvta_generic_to_shared(to))),
               "l"(from), "n"(BYTES));
}

// Waits for all copies that this thread started.
__device__ __forceinline__ void finish_copies() { asm volatile("cp.async.wait_all;" ::: "memory"); }

}  // namespace ites
