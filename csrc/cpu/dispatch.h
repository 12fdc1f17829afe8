// One source, three instruction sets. Files named *_loops.h hold the hot loops and know no torch;
// simd_baseline.cpp, simd_avx2.cpp and simd_avx512.cpp each compile all of them, into a namespace
// of that name. The ops declare a loop by ITES_SIMD_DECLARE and call it by ITES_SIMD_CALL, which
// takes the widest set that this processor has (ITES_SIMD=baseline|avx2|avx512 lowers it).
#pragma once

namespace ites {

enum class Simd { baseline, avx2, avx512 };

Simd simd();
const char* simd_name();

}  // namespace ites

#if defined(__x86_64__) && defined(__GNUC__)
#define ITES_SIMD_DECLARE(...) \
  namespace ites {             \
  namespace baseline {         \
  __VA_ARGS__;                 \
  }                            \
  }                            \
  namespace ites {             \
  namespace avx2 {             \
  __VA_ARGS__;                 \
  }                            \
  }                            \
  namespace ites {             \
  namespace avx512 {           \
  __VA_ARGS__;                 \
  }                            \
  }
#define ITES_SIMD_CALL(FUNCTION, ...)                                             \
  (::ites::simd() == ::ites::Simd::avx512 ? ::ites::avx512::FUNCTION(__VA_ARGS__) \
   : ::ites::simd() == ::ites::Simd::avx2 ? ::ites::avx2::FUNCTION(__VA_ARGS__)   \
                                          : ::ites::baseline::FUNCTION(__VA_ARGS__))
#else
#define ITES_SIMD_DECLARE(...) \
  namespace ites {             \
  namespace baseline {         \
  __VA_ARGS__;                 \
  }                            \
  }
#define ITES_SIMD_CALL(FUNCTION, ...) ::ites::baseline::FUNCTION(__VA_ARGS__)
#endif
