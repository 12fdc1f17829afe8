// Kernel launches: on the tensor's device, on torch's current stream, checked.
#pragma once

#include <cuda_runtime.h>
#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/macros.h>

#include "cuda/on_chip.cuh"
#include "tensor.h"

namespace ites {

constexpr int MOST_BLOCKS = 8;  // of a cluster

// Makes a tensor's device current for as long as it lives, and knows the current stream there.
class OnDevice {
 public:
  explicit OnDevice(const Tensor& tensor) : index_(tensor.get_device_index()), guard_(index_) {
    STD_CUDA_CHECK(cudaSetDevice(index_));  // the guard speaks to torch's own CUDA runtime
    void* stream = nullptr;
    TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(index_, &stream));
    stream_ = static_cast<cudaStream_t>(stream);
  }

  // The number of resident blocks of a kernel on the device.
  template <class... Parameters>
  int64_t resident_blocks(void (*kernel)(Parameters...), int threads, size_t shared_bytes) const {
    allow_shared(kernel, shared_bytes);
    int processors = 0, blocks = 0;
    STD_CUDA_CHECK(cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, index_));
    STD_CUDA_CHECK(
        cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, kernel, threads, shared_bytes));
    return static_cast<int64_t>(processors) * blocks;
  }

  // The device's compute capability, the number before its point.
  int capability() const {
    int major = 0;
    STD_CUDA_CHECK(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, index_));
    return major;
  }

  // The maximum shared memory per block, in bytes.
  int64_t most_shared() const {
    int bytes = 0;
    STD_CUDA_CHECK(cudaDeviceGetAttribute(&bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, index_));
    return bytes;
  }

  // Starts kernel(arguments...) in `blocks` blocks; does nothing for zero blocks.
  template <class... Parameters, class... Arguments>
  void launch(void (*kernel)(Parameters...), int64_t blocks, int threads, size_t shared_bytes,
              const Arguments&... arguments) const {
    if (blocks == 0) return;
    STD_TORCH_CHECK(blocks <= 0x7FFFFFFF, "ites: a launch of ", blocks, " blocks is too large");
    start(kernel, dim3(static_cast<unsigned>(blocks)), {}, threads, shared_bytes, arguments...);
  }
  // A dependent launch of the same call (programmatic dependent launch): it may start when every
  // block of the launch before has called let_launch_after_start, and runs beside that one until
  // its own wait_for_launch_before. From sm_90 on; on older GPUs one launch follows the other.
  template <class... Parameters, class... Arguments>
  void launch_beside(void (*kernel)(Parameters...), int64_t blocks, int threads,
                     size_t shared_bytes, const Arguments&... arguments) const {
    start(kernel, dim3(static_cast<unsigned>(blocks)), {1, capability() >= 9}, threads,
          shared_bytes, arguments...);
  }
  // A launch in clusters of `cluster` blocks, at most MOST_BLOCKS; a dependent one where `beside`.
  // sm_90 and later.
  template <class... Parameters, class... Arguments>
  void launch_clusters(void (*kernel)(Parameters...), int64_t clusters, int cluster, bool beside,
                       int threads, size_t shared_bytes, const Arguments&... arguments) const {
    start(kernel, dim3(static_cast<unsigned>(clusters * cluster)), {cluster, beside}, threads,
          shared_bytes, arguments...);
  }
  // A launch of a grid of `blocks` x `rows`, both small, without shared memory.
  template <class... Parameters, class... Arguments>
  void launch_rows(void (*kernel)(Parameters...), size_t blocks, size_t rows, int threads,
                   const Arguments&... arguments) const {
    start(kernel, dim3(static_cast<unsigned>(blocks), static_cast<unsigned>(rows)), {}, threads, 0,
          arguments...);
  }

 private:
  struct Manner {
    int cluster = 1;
    bool beside = false;
  };

  template <class... Parameters, class... Arguments>
  void start(void (*kernel)(Parameters...), dim3 blocks, Manner manner, int threads,
             size_t shared_bytes, const Arguments&... arguments) const {
    allow_shared(kernel, shared_bytes);
    cudaLaunchConfig_t config{};
    config.gridDim = blocks;
    config.blockDim = dim3(static_cast<unsigned>(threads));
    config.dynamicSmemBytes = shared_bytes;
    config.stream = stream_;
    cudaLaunchAttribute attributes[2]{};
    config.attrs = attributes;
    if (manner.cluster > 1) {
      cudaLaunchAttribute& attribute = attributes[config.numAttrs++];
      attribute.id = cudaLaunchAttributeClusterDimension;
      attribute.val.clusterDim.x = static_cast<unsigned>(manner.cluster);
      attribute.val.clusterDim.y = attribute.val.clusterDim.z = 1;
    }
    if (manner.beside) {
      cudaLaunchAttribute& attribute = attributes[config.numAttrs++];
      attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
      attribute.val.programmaticStreamSerializationAllowed = 1;
    }
    STD_CUDA_CHECK(cudaLaunchKernelEx(&config, kernel, arguments...));
  }

  template <class... Parameters>
  static void allow_shared(void (*kernel)(Parameters...), size_t bytes) {
    if (bytes > 48 * 1024)
      STD_CUDA_CHECK(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                          static_cast<int>(bytes)));
  }

  int index_;
  torch::stable::accelerator::DeviceGuard guard_;
  cudaStream_t stream_;
};

// A number of floats, rounded up to whole float4s.
template <class Integer>
__host__ __device__ constexpr Integer in_float4s(Integer floats) {
  return (floats + 3) / 4 * 4;
}

// The block copies `count` floats, sixteen bytes per thread if both alignments allow it.
__device__ __forceinline__ void block_copy(float* to, const float* from, int count) {
  const bool aligned =
      ((reinterpret_cast<uintptr_t>(to) | reinterpret_cast<uintptr_t>(from)) & 15) == 0;
  const int vectors = aligned ? count / 4 : 0;
  for (int i = threadIdx.x; i < vectors; i += blockDim.x)
    reinterpret_cast<float4*>(to)[i] = reinterpret_cast<const float4*>(from)[i];
  for (int i = vectors * 4 + threadIdx.x; i < count; i += blockDim.x) to[i] = from[i];
}

}  // namespace ites
