// Tensors of LibTorch's stable ABI: pointers, allocation and checks, for CPU and CUDA alike.
#pragma once

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>
#include <torch/headeronly/util/Exception.h>

#include <algorithm>
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

// A new uninitialised tensor of `like`'s device, and its dtype unless another is named. On a CPU it
// is made without the dispatcher, whose search takes as long as a small batch.
inline Tensor empty(const Tensor& like, std::initializer_list<int64_t> sizes,
                    std::optional<ScalarType> dtype = std::nullopt) {
  constexpr size_t most = 4;
  if (!like.is_cpu() || sizes.size() > most)
    return torch::stable::new_empty(like, {sizes.begin(), sizes.size()}, dtype);
  int64_t strides[most] = {}, stride = 1;
  for (size_t k = sizes.size(); k-- > 0; stride *= std::max<int64_t>(sizes.begin()[k], 1))
    strides[k] = stride;
  int32_t type = 0;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_dtype(like.get(), &type));
  if (dtype.has_value())
    type = torch::stable::detail::to<int32_t>(torch::stable::detail::from(*dtype));
  AtenTensorHandle made = nullptr;
  TORCH_ERROR_CODE_CHECK(aoti_torch_empty_strided(static_cast<int64_t>(sizes.size()), sizes.begin(),
                                                  strides, type, aoti_torch_device_type_cpu(), 0,
                                                  &made));
  return Tensor(made);
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
