// The loops for processors with AVX512. Nothing of the standard library may be compiled here out of
// line: the linker could take this copy for the one that every processor runs.
#if defined(__x86_64__) && defined(__GNUC__)
#ifdef __clang__
#pragma clang attribute push(                                                    \
    __attribute__((target("avx512f,avx512dq,avx512vl,avx512bw,avx2,fma,bmi2"))), \
    apply_to = function)
#else
#pragma GCC target("avx512f,avx512dq,avx512vl,avx512bw,avx2,fma,bmi2,prefer-vector-width=512")
#endif
#define ITES_SIMD avx512
#define ITES_LANE_BYTES 64
#include "cpu/all_loops.h"
#ifdef __clang__
#pragma clang attribute pop
#endif
#endif
