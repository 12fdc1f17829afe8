// Threads over poses, by torch's own pool.
#pragma once

#include "tensor.h"

namespace ites {

// Runs loop(begin, end) over [0, poses) in parallel, at least `least` poses per thread, in ranges
// that start at whole groups of lanes.
template <class Loop>
void over_poses(int64_t poses, int64_t least, const Loop& loop) {
  constexpr int64_t group = 16;
  torch::stable::parallel_for(0, (poses + group - 1) / group, (least + group - 1) / group,
                              [&](int64_t begin, int64_t end) {
                                loop(begin * group, end * group < poses ? end * group : poses);
                              });
}

}  // namespace ites
