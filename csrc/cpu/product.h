// Arguments of a matrix product's loops: out (rows, columns) = a (rows, inner) b (inner,
// columns).
#pragma once

#include <cstdint>

namespace ites {

// A strided matrix: element (i, j) at data[i * row + j * column].
template <class T>
struct Matrix {
  T* data;
  int64_t rows, columns, row, column;

  Matrix(T* data, int64_t rows, int64_t columns) : Matrix(data, rows, columns, columns, 1) {}
  Matrix(T* data, int64_t rows, int64_t columns, int64_t row, int64_t column)
      : data(data), rows(rows), columns(columns), row(row), column(column) {}

  Matrix transposed() const { return {data, columns, rows, column, row}; }
  // So many rows or columns from one on.
  Matrix some_rows(int64_t first, int64_t count) const {
    return {data + first * row, count, columns, row, column};
  }
  Matrix some_columns(int64_t first, int64_t count) const {
    return {data + first * column, rows, count, row, column};
  }
};

template <class T>
struct Product {
  Matrix<T> out;            // its columns are neighbours
  Matrix<const T> a, b;     // the rows of b, or its columns, lie in one piece
  const T* bias = nullptr;  // [columns], added to each row
  bool add = false;         // to what is in out already; there is no bias then
};

}  // namespace ites
