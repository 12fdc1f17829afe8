// Checks of an op's arguments on the host, before a pointer is taken. Every call of
// torch.ops.ites_cpp and torch.ops.ites_cuda is either computed or rejected in one line.
#pragma once

#include <cfloat>
#include <cmath>
#include <sstream>
#include <stdexcept>
#include <string>
#include <utility>

#include "tensor.h"

namespace ites {

constexpr int64_t ANY = -1;                // matches any size
constexpr int64_t MOST_SIZE = 0x7FFFFFFF;  // of a dimension: kernels count by int

// The floating dtypes that a kernel computes in or stores.
enum class Takes { float32, float32_or_64, float32_or_half };

inline std::string shape_text(torch::headeronly::IntHeaderOnlyArrayRef sizes) {
  std::ostringstream text;
  text << '(';
  for (size_t i = 0; i < sizes.size(); ++i) {
    if (i) text << ", ";
    if (sizes[i] == ANY) {
      text << "any";
    } else {
      text << sizes[i];
    }
  }
  text << (sizes.size() == 1 ? ",)" : ")");
  return text.str();
}

// One call of an op. Its first tensor sets the device, and the dtype unless another is named.
class Call {
 public:
  using Sizes = std::initializer_list<int64_t>;

  Call(const char* op, const Tensor& first, Takes takes) : Call(op, first) {
    using S = ScalarType;
    const bool taken =
        dtype_ == S::Float || (takes == Takes::float32_or_64 && dtype_ == S::Double) ||
        (takes == Takes::float32_or_half && (dtype_ == S::Half || dtype_ == S::BFloat16));
    require(taken, "this backend does not take ", torch::headeronly::toString(dtype_));
  }
  Call(const char* op, const Tensor& first)
      : op_(op), dtype_(first.scalar_type()), device_(device_of(first)) {}

  // Of parameters and statistics: float32 where the first tensor is of a half type.
  ScalarType wide() const { return dtype_ == ScalarType::Double ? dtype_ : ScalarType::Float; }

  void has(const char* name, const Tensor& tensor, Sizes sizes) const {
    has(name, tensor, dtype_, sizes);
  }
  void has(const char* name, const std::optional<Tensor>& tensor, Sizes sizes) const {
    if (tensor.has_value()) has(name, *tensor, dtype_, sizes);
  }
  // Refuses a tensor of another device, dtype or shape, one that is not contiguous, and one whose
  // storage ends before it does.
  void has(const char* name, const Tensor& tensor, ScalarType dtype, Sizes sizes) const {
    const auto given = tensor.sizes();
    bool fits = given.size() == sizes.size() && tensor.scalar_type() == dtype &&
                device_of(tensor) == device_ && tensor.is_contiguous();
    if (fits) {
      int64_t count = 1;
      auto size = given.begin();
      for (const int64_t want : sizes) {
        fits &= (want == ANY || want == *size) && *size <= MOST_SIZE;
        count *= *size++;
      }
      fits &= count == 0 || in_storage(tensor, count);
    }
    if (!fits) refuse(name, tensor, dtype, sizes);
  }

  void finite(const char* name, double value, double least = -FLT_MAX,
              double most = FLT_MAX) const {
    require(value >= least && value <= most, name, " must be a finite number from ", least, " to ",
            most, ", got ", value);
  }

  template <class... Parts>
  void require(bool condition, const Parts&... message) const {
    if (!condition) fail(message...);
  }

 private:
  using Device = std::pair<int32_t, int32_t>;

  static Device device_of(const Tensor& tensor) {
    Device device;
    TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_type(tensor.get(), &device.first));
    TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_index(tensor.get(), &device.second));
    return device;
  }

  static bool in_storage(const Tensor& tensor, int64_t count) {
    int64_t bytes = 0;
    TORCH_ERROR_CODE_CHECK(aoti_torch_get_storage_size(tensor.get(), &bytes));
    const auto size = static_cast<int64_t>(tensor.element_size());
    return count <= bytes / size - tensor.storage_offset();
  }

  template <class... Parts>
  [[noreturn]] __attribute__((noinline, cold)) void fail(const Parts&... message) const {
    std::ostringstream text;
    text << op_ << ": ";
    (text << ... << message);
    throw std::runtime_error(text.str());
  }

  [[noreturn]] __attribute__((noinline, cold)) void refuse(const char* name, const Tensor& tensor,
                                                           ScalarType dtype, Sizes sizes) const {
    const auto given = tensor.sizes();
    bool alike = given.size() == sizes.size() && tensor.scalar_type() == dtype;
    for (size_t i = 0; alike && i < given.size(); ++i) {
      const int64_t want = sizes.begin()[i];
      alike = (want == ANY || want == given[i]) && given[i] <= MOST_SIZE;
    }
    const char* why = !tensor.is_contiguous()        ? ", not contiguous"
                      : device_of(tensor) != device_ ? ", on another device"
                      : alike                        ? ", its storage too small"
                                                     : "";
    fail(name, " must be contiguous ", torch::headeronly::toString(dtype), " of shape ",
         shape_text({sizes.begin(), sizes.size()}), ", got ",
         torch::headeronly::toString(tensor.scalar_type()), " ", shape_text(given), why);
  }

  const char* op_;
  ScalarType dtype_;
  Device device_;
};

}  // namespace ites
