#include "cpu/dispatch.h"

#include <cstdlib>
#include <cstring>

namespace ites {

namespace {

Simd widest() {
#if defined(__x86_64__) && defined(__GNUC__)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bw"))
    return Simd::avx512;
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return Simd::avx2;
#endif
  return Simd::baseline;
}

const char* const names[] = {"baseline", "avx2", "avx512"};

Simd choose() {
  const Simd best = widest();
  const char* wish = std::getenv("ITES_SIMD");
  for (int set = 0; wish && set < static_cast<int>(best); ++set)
    if (!std::strcmp(wish, names[set])) return static_cast<Simd>(set);
  return best;
}

}  // namespace

Simd simd() {
  static const Simd chosen = choose();
  return chosen;
}

const char* simd_name() { return names[static_cast<int>(simd())]; }

}  // namespace ites
