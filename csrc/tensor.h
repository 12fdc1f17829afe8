// Tensors of LibTorch's stable ABI: pointers, allocation and checks, for CPU and CUDA alike.
#pragma once

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>
#include <torch/headeronly/util/Exception.h>

#include <cstdint>
#include <initializer_list>
#include <optional>
#include <tuple>

namespace ites {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

template <class T>
const T* data(const Tensor& tensor) {
  return static_cast<const T*>(tensor.data_ptr());
}
template <class T>
T* mutable_data(const Tensor& tensor) {
  return static_cast<T*>(tensor.data_ptr());
}
template <class T>
const T* data(const std::optional<Tensor>& tensor) {
  return tensor.has_value() ? data<T>(*tensor) : nullptr;
}

// A new uninitialised tensor of `like`'s device, and its dtype unless another is named.
inline Tensor empty(const Tensor& like, std::initializer_list<int64_t> sizes,
                    std::optional<ScalarType> dtype = std::nullopt) {
  return torch::stable::new_empty(like, {sizes.begin(), sizes.size()}, dtype);
}

inline bool is_double(const Tensor& tensor) { return tensor.scalar_type() == ScalarType::Double; }

// Calls body with a zero of the tensor's dtype: float, or double where it is float64.
template <class Body>
void with_floating(const Tensor& tensor, const Body& body) {
  if (is_double(tensor)) {  // NOLINT(bugprone-branch-clone): two types
    body(double());
  } else {
    body(float());
  }
}

}  // namespace ites
