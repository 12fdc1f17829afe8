// The loops as every processor of this kind can run them.
#define ITES_SIMD baseline
#include "cpu/all_loops.h"
