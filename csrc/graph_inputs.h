// The graph family's arguments, checked for either backend.
#pragma once

#include "check.h"

namespace ites {

// Refuses parameters and tables that do not fit x (B, J, any), of whose rows the layer uses
// `columns`. The tables' entries are checked where they lie: check_tables on a CPU, and for a GPU
// in Python, once for each skeleton.
inline void check_mix(const Call& call, const Tensor& x, int64_t columns, const Tensor& logits,
                      const Tensor& bias, const Tensor& v, const Tensor& row_start,
                      const Tensor& cols, const Tensor& pairs, int64_t channels) {
  call.has("row_start", row_start, ScalarType::Int, {x.size(1) + 1});
  call.has("columns", cols, ScalarType::Int, {ANY});
  call.has("pairs", pairs, ScalarType::Int, {ANY, 2});
  call.has("logits", logits, call.wide(), {cols.size(0)});
  call.has("v", v, call.wide(), {ANY});
  const int64_t attended = v.size(0), more = attended ? attended + 1 : 0;
  call.require(channels >= 0 && channels <= MOST_SIZE, "channels must not be negative, got ",
               channels);
  call.has("bias", bias, call.wide(), {channels + more});
  const int64_t least = 2 * channels + (attended ? 2 * attended + 1 : 0);
  call.require(columns >= least, "features must have at least ", least, " columns, got ", columns);
}

// Refuses tables on the host that lead out of the skeleton. Rows must start at 0, never descend and
// end at the number of edges. A row's columns must ascend, and all joints must exist.
inline void check_tables(const Call& call, const Tensor& row_start, const Tensor& cols,
                         const Tensor& pairs) {
  const int *rows = data<int>(row_start), *column = data<int>(cols), *pair = data<int>(pairs);
  const int64_t joints = row_start.size(0) - 1, edges = cols.size(0), ends = 2 * pairs.size(0);
  bool fits = rows[0] == 0 && rows[joints] == edges;
  for (int64_t i = 0; i < joints && fits; ++i) {
    fits = rows[i] < rows[i + 1] && rows[i + 1] <= edges;
    int before = -1;
    for (int e = rows[i]; fits && e < rows[i + 1]; ++e) {
      fits = before < column[e] && column[e] < joints;
      before = column[e];
    }
  }
  for (int64_t p = 0; p < ends; ++p) fits = fits && pair[p] >= 0 && pair[p] < joints;
  call.require(fits, "the graph's tables lead out of its ", joints, " joints or are out of order");
}

}  // namespace ites
