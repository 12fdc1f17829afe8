// Arguments of a matrix product's loops: out (rows, columns) = a (rows, inner) b (inner,
// columns), on top of a bias or of another matrix.
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
  Matrix<T> out;              // its columns are neighbours
  Matrix<const T> a, b;       // the rows of b, or its columns, lie in one piece
  const T* bias = nullptr;    // [columns], added to each row
  const T* start = nullptr;   // like out, or out itself: added to; there is no bias then
  const T* packed = nullptr;  // b as `pack` leaves it, for products that share it
};

// Rows of b that a packed panel holds, and numbers of a packed b: columns padded to a panel's.
constexpr int64_t BLOCK_INNER = 160;
constexpr int64_t MOST_PANEL = 48;  // columns
inline int64_t packed_size(int64_t inner, int64_t columns) {
  return (inner + BLOCK_INNER - 1) / BLOCK_INNER * BLOCK_INNER * (columns + MOST_PANEL);
}

}  // namespace ites
