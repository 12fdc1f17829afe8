// Arguments of the graph family's loops.
#pragma once

#include <cstdint>

namespace ites {

// An edge seen from its target joint: weight, and the offset of its source's columns in a pose.
template <class T>
struct Incoming {
  T weight;
  int64_t offset;
};

// An edge between two joints, seen from its source: weight, target joint, index in the table.
template <class T>
struct Outgoing {
  T weight;
  int target, edge;
};

// The skeleton with the softmax of its logits.
template <class T>
struct EdgeTables {
  int joints, edges;
  const int* row_start;         // [J + 1]
  const Incoming<T>* incoming;  // [E], by target, self loops included
  const int* column_start;      // [J + 1]
  const Outgoing<T>* outgoing;  // by source, self loops left out
  const int* self_edge;         // [J], -1 where a joint has none
  const T* weights;             // [E]
};

template <class T>
struct GraphMix {
  EdgeTables<T> table;
  int64_t channels, attended, stride;  // C, M, columns of a row of features
  int pairs;
  const int* pair;  // [P, 2]
  const T *features, *bias, *v, *residual;
  T *y, *t;

  int64_t padded() const { return (attended + 15) / 16 * 16; }
  // Pooled g; scores and one joint's affinities.
  int64_t scratch_size() const { return pairs * (padded() + 2); }
};

template <class T>
struct GraphMixBackward {
  int64_t poses;
  EdgeTables<T> table;
  int64_t channels, attended, stride;
  int pairs;
  const int* pair;
  const T *grad_y, *grad_t, *features, *bias, *v;
  T* grad_features;
  T* partial;  // [units, partial_size()]: gradients of bias, v and the edges' weights

  static constexpr int unit = 16;   // poses that share a row of `partial`
  static constexpr int lanes = 16;  // at least those of a group
  int64_t units() const { return (poses + unit - 1) / unit; }
  int64_t bias_size() const { return channels + (attended ? attended + 1 : 0); }
  int64_t partial_size() const { return bias_size() + attended + table.edges; }
  int64_t padded() const { return (attended + 15) / 16 * 16; }
  // Lane sums of the edges' and the scores' gradients; pooled g and phi; affinities; scores and
  // their gradients.
  int64_t scratch_size() const {
    return (table.edges + pairs) * lanes + pairs * (2 * padded() + table.joints + 2);
  }
};

}  // namespace ites
