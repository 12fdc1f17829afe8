// Matrix products of one thread. A block of the result stays in registers while its sums run over
// `inner`, in order. As many rows of b as L1 holds serve all rows of a before the next rows are
// read.
#pragma once

#include "cpu/channels.h"
#include "cpu/product.h"

namespace ites {
namespace ITES_SIMD {

constexpr int BLOCK_ROWS = ITES_LANE_BYTES == 64 ? 8 : 4;
constexpr int BLOCK_REGISTERS = 3;  // of columns: with the sums, all that the set has but a few

// Rows begin to begin + inner of b and a few registers of its columns: row s of register k at
// data + s * row + k * next.
template <class T>
struct Panel {
  const T* data;
  int64_t row, next, begin, inner;
};

template <class V>
ITES_FN void store_some(scalar_of<V>* to, V value, int64_t count) {
  if (count >= width_of<V>) return store<V>(to, value);
  scalar_of<V> all[width_of<V>];
  store<V>(all, value);
  for (int64_t k = 0; k < count; ++k) to[k] = all[k];
}

// R rows from i, K registers of columns from j, of which `count` columns exist.
template <class T, int R, int K>
ITES_FN void multiply_block(const Product<T>& p, const Panel<T>& panel, int64_t i, int64_t j,
                            int64_t count) {
  using V = lanes_of<T>;
  constexpr int width = width_of<V>;
  V sum[R][K];
  const int64_t out_row = p.out.row, a_row = p.a.row;
  const bool whole = count >= int64_t{K} * width;
  T* out = p.out.data + i * out_row + j;
  // Where the sums begin: earlier rows of b, another matrix, the bias, or zero.
  const T* from = panel.begin ? out
                  : p.start   ? p.start + i * out_row + j
                  : p.bias    ? p.bias + j
                              : nullptr;
  const int64_t from_row = panel.begin || p.start ? out_row : 0;
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 3
    for (int k = 0; k < K; ++k) {
      const int64_t at = int64_t{k} * width;
      sum[r][k] = !from   ? V(T(0))
                  : whole ? load<V>(from + r * from_row + at)
                          : load_some<V>(from + r * from_row + at, count - at);
    }
  const T *a = p.a.data + i * a_row + panel.begin * p.a.column, *b = panel.data;
  for (int64_t s = 0; s < panel.inner; ++s, a += p.a.column, b += panel.row) {
    V row[K];
#pragma GCC unroll 3
    for (int k = 0; k < K; ++k) row[k] = load<V>(b + k * panel.next);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const V factor(a[r * a_row]);
#pragma GCC unroll 3
      for (int k = 0; k < K; ++k) sum[r][k] += factor * row[k];
    }
  }
  if (whole) {
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 3
      for (int k = 0; k < K; ++k) store<V>(out + r * out_row + int64_t{k} * width, sum[r][k]);
    return;
  }
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 3
    for (int k = 0; k < K; ++k)
      store_some<V>(out + r * out_row + int64_t{k} * width, sum[r][k], count - int64_t{k} * width);
}

template <class T, int K>
ITES_FN void multiply_columns(const Product<T>& p, const Panel<T>& panel, int64_t j,
                              int64_t count) {
  int64_t i = 0;
  for (; i + BLOCK_ROWS <= p.out.rows; i += BLOCK_ROWS)
    multiply_block<T, BLOCK_ROWS, K>(p, panel, i, j, count);
  for (; i + 2 <= p.out.rows; i += 2) multiply_block<T, 2, K>(p, panel, i, j, count);
  for (; i < p.out.rows; ++i) multiply_block<T, 1, K>(p, panel, i, j, count);
}

// Copies part of b to a panel: rows a power of two apart, where b has them, would share a cache
// set.
template <class T>
ITES_FN void copy_panel(const Matrix<const T>& matrix, int64_t j, int64_t count,
                        const Panel<T>& panel, T* to) {
  using V = lanes_of<T>;
  constexpr int width = width_of<V>;
  const T* from = matrix.data + panel.begin * matrix.row + j * matrix.column;
  for (int64_t c = 0; c < count; c += width, from += width * matrix.column, to += panel.next) {
    const int64_t left = count - c;
    if (matrix.column == 1) {
      for (int64_t s = 0; s < panel.inner; ++s)
        store(to + s * width, load_some<V>(from + s * matrix.row, left));
    } else {  // absent columns repeat the last: no one looks at them
      load_rows(reinterpret_cast<V*>(to), from, matrix.column,
                static_cast<int>(left < width ? left : width), static_cast<int>(panel.inner));
    }
  }
}

// Calls body(panel, j, count, place) for every panel of a matrix; `place` is its own among all.
template <class T, class Body>
ITES_FN void over_panels(const Matrix<const T>& matrix, Body body) {
  constexpr int width = width_of<lanes_of<T>>, most = BLOCK_REGISTERS * width;
  static_assert(most <= MOST_PANEL);
  int64_t place = 0;
  for (int64_t begin = 0; begin == 0 || begin < matrix.rows; begin += BLOCK_INNER) {
    const int64_t left = matrix.rows - begin, inner = left < BLOCK_INNER ? left : BLOCK_INNER;
    for (int64_t j = 0; j < matrix.columns; j += most, place += most * BLOCK_INNER) {
      const int64_t rest = matrix.columns - j, count = rest < most ? rest : most;
      body(Panel<T>{nullptr, width, int64_t{width} * BLOCK_INNER, begin, inner}, j, count, place);
    }
  }
}

// All panels of b, to be shared by products; `to` has room for packed_size.
template <class T>
void pack(const Matrix<const T>& b, T* to) {
  over_panels<T>(
      b, [&](const Panel<T>& panel, int64_t j, int64_t count, int64_t place)
             __attribute__((always_inline)) { copy_panel(b, j, count, panel, to + place); });
}

template <class T>
void multiply(const Product<T>& p) {
  constexpr int width = width_of<lanes_of<T>>;
  alignas(64) T scratch[BLOCK_REGISTERS * width * BLOCK_INNER];
  over_panels<T>(p.b, [&](Panel<T> panel, int64_t j, int64_t count, int64_t place)
                          __attribute__((always_inline)) {
                            panel.data = p.packed ? p.packed + place : scratch;
                            if (!p.packed) copy_panel(p.b, j, count, panel, scratch);
                            if (count > int64_t{2} * width) {
                              multiply_columns<T, 3>(p, panel, j, count);
                            } else if (count > width) {
                              multiply_columns<T, 2>(p, panel, j, count);
                            } else {
                              multiply_columns<T, 1>(p, panel, j, count);
                            }
                          });
}

template void pack<float>(const Matrix<const float>&, float*);
template void pack<double>(const Matrix<const double>&, double*);
template void multiply<float>(const Product<float>&);
template void multiply<double>(const Product<double>&);

}  // namespace ITES_SIMD
}  // namespace ites
