// The running statistics of many norms moved towards a pass's in one launch: a thread per channel,
// a row of blocks per norm. The norms' pointers are the kernel's argument.
#include <vector>

#include "check.h"
#include "cuda/norm_blocks.cuh"
#include "schemas.h"

namespace ites {
namespace {

constexpr int MOST_NORMS = 32;

struct Norm {
  Running running;
  const float *mean, *var;
  int64_t channels;
};
struct Norms {
  Norm norm[MOST_NORMS];
};

__global__ void __launch_bounds__(THREADS) move_running_kernel(const Norms norms) {
  const Norm& n = norms.norm[blockIdx.y];
  const int64_t c = static_cast<int64_t>(blockIdx.x) * THREADS + threadIdx.x;
  if (c < n.channels) n.running.move(c, n.mean[c], n.var[c]);
}

void move_running_op(const std::vector<Tensor>& running_means,
                     const std::vector<Tensor>& running_vars, const std::vector<Tensor>& means,
                     const std::vector<Tensor>& vars, const std::vector<Tensor>& shifts,
                     double correction, double momentum) {
  const size_t count = running_means.size();
  if (count == 0) return;
  const Call call("move_running", running_means[0], Takes::float32);
  call.require(running_vars.size() == count && means.size() == count && vars.size() == count &&
                   shifts.size() == count,
               "expected ", count, " of each tensor");
  call.finite("correction", correction, 0);
  call.finite("momentum", momentum, 0, 1);
  const OnDevice device(running_means[0]);
  for (size_t first = 0; first < count; first += MOST_NORMS) {
    Norms norms{};
    const size_t some = count - first < MOST_NORMS ? count - first : MOST_NORMS;
    int64_t widest = 0;
    for (size_t k = 0; k < some; ++k) {
      const size_t i = first + k;
      call.has("running mean", running_means[i], {ANY});
      const int64_t C = running_means[i].size(0);
      call.has("running var", running_vars[i], {C});
      call.has("mean", means[i], {C});
      call.has("var", vars[i], {C});
      const bool shifted = shifts[i].numel() > 0;
      if (shifted) call.has("shift", shifts[i], {C});
      norms.norm[k] = {{mutable_data<float>(running_means[i]), mutable_data<float>(running_vars[i]),
                        shifted ? data<float>(shifts[i]) : nullptr, static_cast<float>(correction),
                        static_cast<float>(momentum)},
                       data<float>(means[i]),
                       data<float>(vars[i]),
                       C};
      widest = C > widest ? C : widest;
    }
    if (widest)
      device.launch_rows(move_running_kernel, (widest + THREADS - 1) / THREADS, some, THREADS,
                         norms);
  }
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(ites_cuda, m) {
  for (const char* schema : running_schemas) m.def(schema);
}

STABLE_TORCH_LIBRARY_IMPL(ites_cuda, CUDA, m) {
  m.impl("move_running", TORCH_BOX(&move_running_op));
}

}  // namespace ites
