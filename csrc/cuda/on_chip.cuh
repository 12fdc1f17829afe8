// The instructions that C++ has no words for: dynamic shared memory and asynchronous copies into
// it, a cluster's barrier and its distributed shared memory, dependent launches, tensor cores.
// Clusters and dependent launches need sm_90.
#pragma once

#include <cstdint>

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

// The same of 4, 8 or 16 bytes, or zeros in their place where `given` is false.
template <int BYTES>
__device__ __forceinline__ void start_bytes_or_zero(void* to, const void* from, bool given) {
  asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;" ::"r"(
                   static_cast<unsigned>(__cvta_generic_to_shared(to))),
               "l"(from), "n"(BYTES), "r"(given ? BYTES : 0));
}

// Ends a group of copies of this thread, which may be empty.
__device__ __forceinline__ void end_group() { asm volatile("cp.async.commit_group;" ::: "memory"); }

// Waits until at most GROUPS groups of this thread's copies, the latest, are under way.
template <int GROUPS>
__device__ __forceinline__ void finish_groups_but() {
  asm volatile("cp.async.wait_group %0;" ::"n"(GROUPS) : "memory");
}

// Waits for all copies that this thread started.
__device__ __forceinline__ void finish_copies() { asm volatile("cp.async.wait_all;" ::: "memory"); }

// A barrier of all threads of a cluster, in two halves: no thread goes on from the wait before all
// have arrived. What was written before, to shared memory as well, is visible after.
__device__ __forceinline__ void cluster_arrive() {
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900
  asm volatile("barrier.cluster.arrive;" ::: "memory");
#endif
}
__device__ __forceinline__ void cluster_wait() {
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900
  asm volatile("barrier.cluster.wait;" ::: "memory");
#endif
}

// Stores into the shared memory of a block of the cluster, at the place that `to` has in this one.
__device__ __forceinline__ void store_to_block(float4* to, int block, float4 value) {
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900
  asm volatile(
      "{ .reg .u32 there; mapa.shared::cluster.u32 there, %0, %1;\n"
      "st.shared::cluster.v4.f32 [there], {%2, %3, %4, %5}; }" ::"r"(
          static_cast<unsigned>(__cvta_generic_to_shared(to))),
      "r"(block), "f"(value.x), "f"(value.y), "f"(value.z), "f"(value.w)
      : "memory");
#endif
}

// Loads from the shared memory of a block of the cluster, at the place that `from` has in this one.
__device__ __forceinline__ float4 load_from_block(const float4* from, int block) {
  float4 value{};
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900
  asm volatile(
      "{ .reg .u32 there; mapa.shared::cluster.u32 there, %4, %5;\n"
      "ld.shared::cluster.v4.f32 {%0, %1, %2, %3}, [there]; }"
      : "=f"(value.x), "=f"(value.y), "=f"(value.z), "=f"(value.w)
      : "r"(static_cast<unsigned>(__cvta_generic_to_shared(from))), "r"(block)
      : "memory");
#endif
  return value;
}

// In a dependent launch, waits until the launch before has ended; see OnDevice::launch_beside.
// Until then nothing may be written, and nothing read that the launch before writes.
__device__ __forceinline__ void wait_for_launch_before() {
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

// Lets the dependent launch after this one start when all blocks have come here. Blocks come here
// after their own wait, so that at most two launches run at once.
__device__ __forceinline__ void let_launch_after_start() {
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

// The nearest number of 10 bits of mantissa, which tensor cores multiply exactly.
__device__ __forceinline__ uint32_t to_tf32(float x) {
  uint32_t bits;
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(x));
  return bits;
}

// sum += a b of a warp: 16 x 8 times 8 x 8. With lane = 4 group + member, a thread holds of a the
// rows group and group + 8 in columns member and member + 4, columns last; of b the rows member and
// member + 4 of column group; of the sum row group, columns 2 member and 2 member + 1, then row
// group + 8.  (PTX ISA, mma.m16n8k8)
__device__ __forceinline__ void multiply_tf32(float (&sum)[4], const uint32_t (&a)[4],
                                              const uint32_t (&b)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
      "{%8, %9}, {%0, %1, %2, %3};"
      : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// The nearest numbers of 7 bits of mantissa, bfloat16, the first in the lower half.
__device__ __forceinline__ uint32_t to_bfloat16(float first, float second) {
  uint32_t bits;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(bits) : "f"(second), "f"(first));
  return bits;
}

// The same product of bfloat16: a register has two places of the inner dimension, 2 member and
// 2 member + 1; of a in row group, then in row group + 8.  (PTX ISA, mma.m16n8k8)
__device__ __forceinline__ void multiply_bfloat16(float (&sum)[4], const uint32_t (&a)[2],
                                                  const uint32_t (&b)[1]) {
  asm volatile(
      "mma.sync.aligned.m16n8k8.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5}, {%6}, "
      "{%0, %1, %2, %3};"
      : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
      : "r"(a[0]), "r"(a[1]), "r"(b[0]));
}

}  // namespace ites
