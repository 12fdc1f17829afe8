// Arguments of the norm family's loops. Rows are processed in units of `unit`. Each unit fills a
// row of `partial`: two numbers per channel.
#pragma once

#include "common/norm.h"

namespace ites {

template <class T>
struct BatchNorm {
  static constexpr int unit = 128;
  int64_t rows, channels;
  Form form;
  const T *x, *skip;  // (N, C)
  // (C,): mean, 1 / sqrt(var + eps), weight, bias
  const T *mean, *scale, *weight, *bias;
};

template <class T>
struct BatchNormGrads {
  const T* grad;                      // (N, C)
  const T *grad_mean, *product_mean;  // (C,)
  T* grad_sum;                        // (N, C) or null: gradient of the ReLU's input
  T* grad_x;                          // (N, C)
};

}  // namespace ites
