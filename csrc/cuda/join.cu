// The weights of all graph layers joined in one launch, and their gradients in another: one thread
// per entry of a layer's result. The layers' pointers are the kernel's argument.
#include "common/join.h"

#include <vector>

#include "check.h"
#include "cuda/launch.cuh"
#include "schemas.h"

namespace ites {
namespace {

constexpr int THREADS = 256, MOST_LAYERS = 16, PARAMETERS = 9, JOINED = 3;

template <class T>
struct Layer {
  LayerParameters<const float> parameters;
  JoinedWeights<T> joined;
  LayerParameters<float> gradients;
};
template <class T>
struct Layers {
  Layer<T> layer[MOST_LAYERS];
};

__global__ void __launch_bounds__(THREADS)
    join_kernel(const JoinShape shape, const Layers<float> layers) {
  const Layer<float>& layer = layers.layer[blockIdx.y];
  const int i = blockIdx.x * THREADS + threadIdx.x;
  if (i < shape.joined_size()) join_entry(shape, layer.parameters, i, layer.joined);
}

__global__ void __launch_bounds__(THREADS)
    join_backward_kernel(const JoinShape shape, const Layers<const float> layers) {
  const Layer<const float>& layer = layers.layer[blockIdx.y];
  const int i = blockIdx.x * THREADS + threadIdx.x;
  if (i < shape.parameters_size())
    join_backward_entry(shape, layer.parameters, layer.joined, i, layer.gradients);
}

// A layer's parameters in a list of all layers', after checking them.
LayerParameters<const float> parameters_of(const Call& call, const Tensor* p, int64_t C,
                                           int64_t M) {
  call.has("conv.weight", p[0], {2, C, C});
  call.has("conv.bias", p[1], {C});
  const char* names[] = {"g.weight",   "g.bias",     "theta.weight",
                         "theta.bias", "phi.weight", "phi.bias"};
  for (int k = 0; k < 6; k += 2) {
    call.has(names[k], p[2 + k], {M, C});
    call.has(names[k + 1], p[3 + k], {M});
  }
  call.has("affinity", p[8], {2, M});
  return {data<float>(p[0]), data<float>(p[1]), data<float>(p[2]),
          data<float>(p[3]), data<float>(p[4]), data<float>(p[5]),
          data<float>(p[6]), data<float>(p[7]), data<float>(p[8])};
}

JoinShape shape_of(const Call& call, const std::vector<Tensor>& parameters, int64_t columns) {
  call.require(parameters.size() % PARAMETERS == 0, "parameters must be ", PARAMETERS,
               " per layer, got ", parameters.size());
  call.require(parameters[1].dim() == 1 && parameters[3].dim() == 1,
               "the biases must have one dimension");
  const int64_t C = parameters[1].size(0), M = parameters[3].size(0);
  call.require(C > 0 && M > 0 && C <= 4096 && M <= 4096, "expected 1 to 4096 channels, got ", C,
               " and ", M);
  call.require(columns > 2 * (C + M) && columns <= 65536, "columns must be more than ", 2 * (C + M),
               " and at most 65536, got ", columns);
  return {static_cast<int>(C), static_cast<int>(M), static_cast<int>(columns)};
}

const Tensor& first_of(const char* op, const std::vector<Tensor>& tensors) {
  if (tensors.empty()) throw std::runtime_error(std::string(op) + ": expected a layer, got none");
  return tensors[0];
}

std::vector<Tensor> join_graph_layers_op(const std::vector<Tensor>& parameters, int64_t columns) {
  const Tensor& like = first_of("join_graph_layers", parameters);
  const Call call("join_graph_layers", like, Takes::float32);
  const JoinShape shape = shape_of(call, parameters, columns);
  const OnDevice device(like);
  std::vector<Tensor> joined;
  const size_t count = parameters.size() / PARAMETERS;
  for (size_t first = 0; first < count; first += MOST_LAYERS) {
    Layers<float> layers{};
    const size_t some = count - first < MOST_LAYERS ? count - first : MOST_LAYERS;
    for (size_t k = 0; k < some; ++k) {
      layers.layer[k].parameters = parameters_of(call, &parameters[(first + k) * PARAMETERS],
                                                 shape.channels, shape.attended);
      joined.push_back(empty(like, {shape.channels, columns}));
      joined.push_back(empty(like, {shape.channels + shape.attended + 1}));
      joined.push_back(empty(like, {shape.attended}));
      const Tensor* to = &joined[joined.size() - JOINED];
      layers.layer[k].joined = {mutable_data<float>(to[0]), mutable_data<float>(to[1]),
                                mutable_data<float>(to[2])};
    }
    device.launch_rows(join_kernel, (shape.joined_size() + THREADS - 1) / THREADS, some, THREADS,
                       shape, layers);
  }
  return joined;
}

std::vector<Tensor> join_graph_layers_backward_op(const std::vector<Tensor>& grads,
                                                  const std::vector<Tensor>& parameters) {
  const Tensor& like = first_of("join_graph_layers_backward", parameters);
  const Call call("join_graph_layers_backward", like, Takes::float32);
  const size_t count = parameters.size() / PARAMETERS;
  call.require(count && grads.size() == count * JOINED, "expected ", count * JOINED,
               " gradients, got ", grads.size());
  call.require(grads[0].dim() == 2, "a projection's gradient must have two dimensions");
  const JoinShape shape = shape_of(call, parameters, grads[0].size(1));
  const int64_t C = shape.channels, M = shape.attended;
  const OnDevice device(like);
  std::vector<Tensor> results;
  for (size_t first = 0; first < count; first += MOST_LAYERS) {
    Layers<const float> layers{};
    const size_t some = count - first < MOST_LAYERS ? count - first : MOST_LAYERS;
    for (size_t k = 0; k < some; ++k) {
      Layer<const float>& layer = layers.layer[k];
      layer.parameters = parameters_of(call, &parameters[(first + k) * PARAMETERS], C, M);
      const Tensor* grad = &grads[(first + k) * JOINED];
      call.has("grad of projection", grad[0], {C, shape.columns});
      call.has("grad of bias", grad[1], {C + M + 1});
      call.has("grad of v", grad[2], {M});
      layer.joined = {data<float>(grad[0]), data<float>(grad[1]), data<float>(grad[2])};
      results.push_back(empty(like, {2, C, C}));
      results.push_back(empty(like, {C}));
      for (int pair = 0; pair < 3; ++pair) {
        results.push_back(empty(like, {M, C}));
        results.push_back(empty(like, {M}));
      }
      results.push_back(empty(like, {2, M}));
      float* to[PARAMETERS];
      for (int n = 0; n < PARAMETERS; ++n)
        to[n] = mutable_data<float>(results[results.size() - PARAMETERS + n]);
      layer.gradients = {to[0], to[1], to[2], to[3], to[4], to[5], to[6], to[7], to[8]};
    }
    device.launch_rows(join_backward_kernel, (shape.parameters_size() + THREADS - 1) / THREADS,
                       some, THREADS, shape, layers);
  }
  return results;
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(ites_cuda, m) {
  for (const char* schema : join_schemas) m.def(schema);
}

STABLE_TORCH_LIBRARY_IMPL(ites_cuda, CUDA, m) {
  m.impl("join_graph_layers", TORCH_BOX(&join_graph_layers_op));
  m.impl("join_graph_layers_backward", TORCH_BOX(&join_graph_layers_backward_op));
}

}  // namespace ites
