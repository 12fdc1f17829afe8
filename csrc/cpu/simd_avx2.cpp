// The loops for processors with AVX2. Nothing of the standard library may be compiled here out of
// line: the linker could take this copy for the one that every processor runs.
#if defined(__x86_64__) && defined(__GNUC__)
#ifdef __clang__
#pragma clang attribute push(__attribute__((target("avx2,fma,bmi2"))), apply_to = function)
#else
#pragma GCC target("avx2,fma,bmi2")
#endif
#define ITES_SIMD avx2
#define ITES_LANE_BYTES 32
#include "cpu/all_loops.h"
#ifdef __clang__
#pragma clang attribute pop
#endif
#endif
