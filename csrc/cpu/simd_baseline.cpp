// The loops as every processor of this kind can run them.
#define ITES_SIMD baseline
#define ITES_LANE_BYTES 16
#include "cpu/all_loops.h"
