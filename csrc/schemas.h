// The ops' schemas, the same under ites_cpp (CPU) and ites_cuda. Inputs are contiguous, outputs
// new. `rotations` is either matrices (n B, 3, 3) or an int64 counter (3,) to draw them from. An
// elevation (B,) and a spread (2,), given together, make them turns.
#pragma once

namespace ites {

constexpr const char* rotation_schemas[] = {
    "so3_exp(Tensor w) -> Tensor",
    "so3_exp_backward(Tensor grad, Tensor w) -> Tensor",
    "philox(Tensor counter, int poses, int samples) -> Tensor",
    "draw_rotations(Tensor like, Tensor counter, Tensor? elevation, Tensor? spread, int poses, "
    "int samples, int axes, float max_angle) -> Tensor",
    "rotate_project(Tensor joints, Tensor rotations, Tensor? elevation, Tensor? spread, "
    "int samples, int axes, float max_angle, float distance, bool with_rotated) "
    "-> (Tensor, Tensor)",
    "rotate_project_backward(Tensor grad_points, Tensor? grad_rotated, Tensor joints, "
    "Tensor rotations, Tensor? elevation, Tensor? spread, int samples, int axes, "
    "float max_angle, float distance) -> (Tensor, Tensor)",
    "equivariance_distance(Tensor joints, Tensor points, Tensor depth, Tensor rotations, "
    "Tensor? elevation, Tensor? spread, int samples, int axes, float max_angle, "
    "float distance) -> Tensor",
    "equivariance_distance_backward(Tensor grad, Tensor joints, Tensor points, Tensor depth, "
    "Tensor rotations, Tensor? elevation, Tensor? spread, int samples, int axes, "
    "float max_angle, float distance) -> (Tensor, Tensor, Tensor, Tensor)",
};

constexpr const char* dictionary_schemas[] = {
    "dictionary_reprojection(Tensor coefficients, Tensor dictionary, Tensor mean, "
    "Tensor rotation_vector, Tensor target, float distance) -> (Tensor, Tensor, Tensor)",
    "dictionary_reprojection_backward(Tensor? grad_error, Tensor? grad_canonical, "
    "Tensor? grad_camera, Tensor coefficients, Tensor dictionary, Tensor mean, "
    "Tensor rotation_vector, Tensor target, float distance) -> (Tensor, Tensor, Tensor, Tensor)",
    "invariance_distance(Tensor coefficients, Tensor dictionary, Tensor mean, Tensor canonical) "
    "-> Tensor",
    "invariance_distance_backward(Tensor grad, Tensor coefficients, Tensor dictionary, "
    "Tensor mean, Tensor canonical) -> (Tensor, Tensor, Tensor, Tensor)",
};

constexpr const char* graph_schemas[] = {
    "graph_mix(Tensor features, Tensor logits, Tensor bias, Tensor v, Tensor? residual, "
    "Tensor row_start, Tensor columns, Tensor pairs, int channels) -> (Tensor, Tensor)",
    "graph_mix_backward(Tensor? grad_y, Tensor? grad_t, Tensor features, Tensor logits, "
    "Tensor bias, Tensor v, Tensor row_start, Tensor columns, Tensor pairs, int channels) "
    "-> (Tensor, Tensor, Tensor, Tensor)",
};

// ites_cpp alone: elsewhere a product and graph_mix are two calls.
constexpr const char* graph_project_schemas[] = {
    "graph_project_mix(Tensor x, Tensor projection, Tensor logits, Tensor bias, Tensor v, "
    "Tensor row_start, Tensor columns, Tensor pairs, int channels, bool residual, bool keep) "
    "-> (Tensor, Tensor, Tensor)",
    "graph_project_mix_backward(Tensor? grad_y, Tensor? grad_t, Tensor x, Tensor projection, "
    "Tensor features, Tensor logits, Tensor bias, Tensor v, Tensor row_start, Tensor columns, "
    "Tensor pairs, int channels, bool residual) -> (Tensor, Tensor, Tensor, Tensor, Tensor)",
};

// ites_cpp alone: a GPU's products are PyTorch's. A gradient is empty where it is not wanted.
constexpr const char* linear_schemas[] = {
    "linear(Tensor x, Tensor weight, Tensor? bias) -> Tensor",
    "linear_backward(Tensor grad, Tensor x, Tensor weight, bool to_x, bool to_weight) "
    "-> (Tensor, Tensor)",
};

constexpr const char* norm_schemas[] = {
    "batch_norm_relu(Tensor x, Tensor weight, Tensor bias, Tensor? skip, bool relu, "
    "bool skip_after, float eps) -> (Tensor, Tensor, Tensor)",
    "batch_norm_relu_backward(Tensor grad, Tensor x, Tensor weight, Tensor bias, Tensor? skip, "
    "Tensor mean, Tensor var, bool relu, bool skip_after, float eps) "
    "-> (Tensor, Tensor, Tensor, Tensor)",
};

// ites_cpp alone: elsewhere a product and the norms are calls of their own. Returned are the
// result, the product, the sum, and both norms' mean and variance (4, C).
constexpr const char* linear_nested_norm_schemas[] = {
    "linear_nested_norm_relu(Tensor x, Tensor matrix, Tensor inner_weight, Tensor inner_bias, "
    "Tensor added, Tensor weight, Tensor bias, Tensor? skip, float eps) "
    "-> (Tensor, Tensor, Tensor, Tensor)",
    "linear_nested_norm_relu_backward(Tensor grad, Tensor x, Tensor matrix, Tensor inner_weight, "
    "Tensor inner_bias, Tensor weight, Tensor bias, Tensor product, Tensor sum, "
    "Tensor statistics, float eps) "
    "-> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
};

// ites_cuda alone, where a layer's two norms as one save launches.
constexpr const char* nested_norm_schemas[] = {
    "nested_norm_relu(Tensor x, Tensor inner_weight, Tensor added, Tensor weight, Tensor bias, "
    "Tensor? skip, float eps) -> (Tensor, Tensor)",
    "nested_norm_relu_backward(Tensor grad, Tensor x, Tensor inner_weight, Tensor added, "
    "Tensor weight, Tensor bias, Tensor statistics, float eps) "
    "-> (Tensor, Tensor, Tensor, Tensor, Tensor)",
};

// ites_cuda alone, where each operator costs a launch. A shift is empty where there is none.
constexpr const char* running_schemas[] = {
    "move_running(Tensor(a!)[] running_means, Tensor(b!)[] running_vars, Tensor[] means, "
    "Tensor[] vars, Tensor[] shifts, float correction, float momentum) -> ()",
};

// ites_cuda alone: a chain of layers, a launch per layer and direction. Layer i adds the output of
// layer skips[i], none where that is -1. Running statistics, of all layers or of none, move as in
// move_running. Factors of products have so many bits of mantissa: 23, 10 or 7. Of every layer come
// output, product, mean and variance; the gradients of product, gamma and beta.
constexpr const char* linear_norm_schemas[] = {
    "linear_norm_relu(Tensor x, Tensor[] weights, Tensor[] gammas, Tensor[] betas, "
    "Tensor(a!)[] running_means, Tensor(b!)[] running_vars, Tensor[] shifts, int[] skips, "
    "float eps, float momentum, int bits) -> Tensor[]",
    "linear_norm_relu_backward(Tensor grad, Tensor[] weights, Tensor[] gammas, int[] skips, "
    "Tensor[] outputs, Tensor[] products, Tensor[] means, Tensor[] vars, float eps, int bits) "
    "-> Tensor[]",
};

// ites_cuda alone: grad^T input of every weight, added over `parts` lists of weights in a row.
constexpr const char* weight_gradients_schemas[] = {
    "weight_gradients(Tensor[] grads, Tensor[] inputs, int parts, int bits) -> Tensor[]",
};

constexpr const char* join_schemas[] = {
    "join_graph_layers(Tensor[] parameters, int columns) -> Tensor[]",
    "join_graph_layers_backward(Tensor[] grads, Tensor[] parameters) -> Tensor[]",
};

// ites_cuda alone, for lifting frame by frame.
constexpr const char* linear_relu_schemas[] = {
    "linear_relu(Tensor x, Tensor weight, Tensor? bias, Tensor? skip, Tensor? scaled, "
    "Tensor? scale, Tensor? after) -> Tensor",
};
constexpr const char* frame_schemas[] = {
    "frame_points(Tensor keypoints, Tensor? layout, Tensor? factor, Tensor(a!)? sizes, int root, "
    "int head, float length, float far, float spreads, float share) -> Tensor",
    "frame_metres(Tensor pose, Tensor bones, Tensor? weights, Tensor(a!) sizes, int root, "
    "int head, float metres, float spreads, float share) -> Tensor",
};

constexpr const char* mirrored_schemas[] = {
    "mirrored_input(Tensor points, Tensor shares, Tensor bones, Tensor mirror, float total, "
    "float factor) -> (Tensor, Tensor, Tensor)",
    "mirrored_output(Tensor points, Tensor scales, Tensor camera, Tensor direct, "
    "Tensor? original, Tensor? depth, Tensor mirror, int root, float distance, float noiseless, "
    "float most_moved) -> (Tensor, Tensor, Tensor)",
};

}  // namespace ites
