// Matrix products inside a parallel loop: PyTorch's own, which there takes the one thread it is
// called from.
#pragma once

#include <torch/csrc/inductor/aoti_torch/generated/c_shim_cpu.h>

#include "tensor.h"

namespace ites {

// A matrix that lies somewhere: element (i, j) at data[i * row + j * column].
template <class T>
struct Matrix {
  const T* data;
  int64_t rows, columns, row, column;

  Matrix(const T* data, int64_t rows, int64_t columns)
      : data(data), rows(rows), columns(columns), row(columns), column(1) {}

  Matrix transposed() const {
    Matrix other = *this;
    std::swap(other.rows, other.columns);
    std::swap(other.row, other.column);
    return other;
  }
  Tensor tensor() const {
    const int64_t sizes[] = {rows, columns}, strides[] = {row, column};
    return torch::stable::from_blob(const_cast<T*>(data), {sizes, 2}, {strides, 2},
                                    torch::stable::Device(torch::headeronly::DeviceType::CPU),
                                    sizeof(T) == 8 ? ScalarType::Double : ScalarType::Float);
  }
};

// out = a b, plus what is there already where `add` says so.
template <class T>
void product(Matrix<T> out, Matrix<T> a, Matrix<T> b, bool add) {
  const Tensor to = out.tensor();
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_cpu_addmm_out(
      to.get(), to.get(), a.tensor().get(), b.tensor().get(), add ? 1.0 : 0.0, 1.0));
}

}  // namespace ites
