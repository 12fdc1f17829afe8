// Arguments of the graph family's kernels, and the skeleton's tables in shared memory.
#pragma once

#include "common/graph.h"
#include "cuda/channels.cuh"

namespace ites {

struct GraphShape {
  int64_t poses, channels, attended, stride;  // B, C, M, columns of a row of features
  int joints, edges, pairs;
  int slices;  // parts of the channels, whose sums for the edges' weights are kept apart

  __host__ __device__ int64_t theta_column() const { return 2 * (channels + attended); }
  __host__ __device__ int64_t used_columns() const { return theta_column() + (attended ? 1 : 0); }
  __host__ __device__ int64_t bias_size() const { return channels + (attended ? attended + 1 : 0); }
  // A row of partial sums: gradients of bias, v and, slice by slice, the edges' weights.
  __host__ __device__ int64_t partial_size() const {
    return bias_size() + attended + static_cast<int64_t>(slices) * edges;
  }
};

struct GraphTables {
  const float *logits, *bias, *v;          // [E], [C + M + 1], [M]
  const int *row_start, *columns, *pairs;  // [J + 1], [E], [P, 2]
};

// The block writes the softmax of the logits. A barrier must follow.
__device__ __forceinline__ void put_weights(const GraphShape& g, const GraphTables& tables,
                                            float* weights) {
  for (int i = threadIdx.x; i < g.joints; i += blockDim.x)
    softmax_row(tables.logits, tables.row_start[i], tables.row_start[i + 1], weights);
}

// The edges by source joint, self loops kept apart, with the weights: tables for gradients.
struct OutgoingEdges {
  float* weights;      // [E], by edge
  int* column_start;   // [J + 1]
  int *target, *edge;  // [E], by source
  int* self_edge;      // [J], -1 where there is none
  int *row, *key;      // [E], by edge: target, and source or, for a self loop, one beyond all

  __host__ __device__ static int64_t size(const GraphShape& g) {
    return 5 * static_cast<int64_t>(g.edges) + 2 * g.joints + 1;
  }

  __device__ OutgoingEdges(const GraphShape& g, float* shared) : weights(shared) {
    column_start = reinterpret_cast<int*>(weights + g.edges);
    target = column_start + g.joints + 1;
    edge = target + g.edges;
    self_edge = edge + g.edges;
    row = self_edge + g.joints;
    key = row + g.edges;
  }

  // By the whole block; ends with a barrier.
  __device__ void build(const GraphShape& g, const GraphTables& tables) const {
    put_weights(g, tables, weights);
    for (int i = threadIdx.x; i < g.joints; i += blockDim.x) {
      self_edge[i] = -1;
      for (int e = tables.row_start[i]; e < tables.row_start[i + 1]; ++e) {
        const int column = tables.columns[e];
        row[e] = i;
        key[e] = column == i ? g.joints : column;
        if (column == i) self_edge[i] = e;
      }
    }
    __syncthreads();
    for (int e = threadIdx.x; e < g.edges; e += blockDim.x) {
      const int mine = key[e];
      int rank = 0;
#pragma unroll 8
      for (int k = 0; k < g.edges; ++k) rank += key[k] < mine || (key[k] == mine && k < e);
      target[rank] = row[e];
      edge[rank] = e;
    }
    for (int j = threadIdx.x; j <= g.joints; j += blockDim.x) {
      int before = 0;
#pragma unroll 8
      for (int k = 0; k < g.edges; ++k) before += key[k] < j;
      column_start[j] = before;
    }
    __syncthreads();
  }
};

}  // namespace ites
