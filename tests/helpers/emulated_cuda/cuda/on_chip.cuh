// Stands for csrc/cuda/on_chip.cuh on a CPU: this folder comes first on the compiler's path.
#pragma once

#include <cstring>

namespace ites {

inline float* shared_floats() {
  return reinterpret_cast<float*>(emulated::shared_memory.data());
}

template <int BYTES>
void start_bytes(void* to, const void* from) {
  std::memcpy(to, from, BYTES);
}

inline void finish_copies() {}

}  // namespace ites
