// The norm family's arguments, checked and prepared for the loops of both backends.
#pragma once

#include "check.h"
#include "common/norm.h"

namespace ites {

inline void check_batch_norm(const Call& call, const Tensor& x, const Tensor& weight,
                             const Tensor& bias, const std::optional<Tensor>& skip, double eps) {
  call.has("x", x, {ANY, ANY});
  const int64_t rows = x.size(0), channels = x.size(1);
  call.has("weight", weight, call.wide(), {channels});
  call.has("bias", bias, call.wide(), {channels});
  call.has("skip", skip, {rows, channels});
  call.finite("eps", eps, 0);
}

inline Form form_of(const std::optional<Tensor>& skip, bool relu, bool skip_after) {
  const bool after = skip_after || !relu;  // the same thing without ReLU
  return {relu, skip.has_value() && !after, skip.has_value() && after};
}

}  // namespace ites
