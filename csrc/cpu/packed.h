// A matrix that the products of many units of rows share, and scratch for their threads.
#pragma once

#include <algorithm>
#include <cstdint>
#include <map>
#include <vector>

#include "cpu/dispatch.h"
#include "cpu/product.h"

ITES_SIMD_DECLARE(template <class T> void pack(const Matrix<const T>&, T*))
ITES_SIMD_DECLARE(template <class T> void multiply(const Product<T>&))

namespace ites {

// Scratch for one thread, at a cache line's start.
template <class T>
class Scratch {
 public:
  explicit Scratch(int64_t size) : storage_(size + 16) {}
  T* data() {
    const auto at = reinterpret_cast<uintptr_t>(storage_.data());
    return reinterpret_cast<T*>((at + 63) / 64 * 64);
  }

 private:
  std::vector<T> storage_;
};

// A matrix as the products of all units take it.
template <class T>
class Packed {
 public:
  explicit Packed(const Matrix<const T>& matrix)
      : matrix_(matrix), panels_(packed_size(matrix.rows, matrix.columns)) {
    ITES_SIMD_CALL(pack, matrix, panels_.data());
  }
  // out = a matrix + start
  void multiply(const Matrix<T>& out, const Matrix<const T>& a, const T* start = nullptr) {
    const Product<T> product = {out, a, matrix_, nullptr, start, panels_.data()};
    ITES_SIMD_CALL(multiply, product);
  }

 private:
  Matrix<const T> matrix_;
  Scratch<T> panels_;
};

// Adds up what the ranges of units have found, in their order.
template <class T>
void add_ranges(const std::map<int64_t, std::vector<T>>& of_ranges, T* sum, int64_t size) {
  std::fill(sum, sum + size, T(0));
  for (const auto& [begin, own] : of_ranges)
    for (int64_t k = 0; k < size; ++k) sum[k] += own[k];
}

}  // namespace ites
