// The dictionary family on a CPU: arguments, threads, registration. Loops: dictionary_loops.h.
#include "cpu/dispatch.h"
#include "cpu/over_poses.h"
#include "dictionary_inputs.h"
#include "schemas.h"
#include "tensor.h"

#include <memory>
#include <new>

ITES_SIMD_DECLARE(template <class T> void dictionary_reprojection(const DictionaryReprojection<T>&,
                                                                  T*, int64_t, int64_t))
ITES_SIMD_DECLARE(template <class T>
                  void dictionary_reprojection_backward(const DictionaryReprojectionBackward<T>&,
                                                        T*, T*, int64_t, int64_t))
ITES_SIMD_DECLARE(template <class T>
                  void invariance_distance(const InvarianceDistance<T>&, T*, int64_t, int64_t))
ITES_SIMD_DECLARE(template <class T>
                  void invariance_distance_backward(const InvarianceDistanceBackward<T>&, T*, T*,
                                                    int64_t, int64_t))

namespace ites {
namespace {

constexpr Takes TAKES = Takes::float32_or_64;
constexpr int64_t LEAST_POSES = 256;  // minimum per thread
constexpr int64_t MOST_PARTS = 64;    // of a gradient that is summed over poses

struct FreeAligned {
  void operator()(void* memory) const { ::operator delete(memory, std::align_val_t(64)); }
};

constexpr int64_t MOST_LANE_BYTES = 64;  // of the widest instruction set's group of lanes

// Room for one group of lanes: coefficients, two poses, points, and with gradients those of the
// dictionary, the mean and one more pose.
template <class T>
std::unique_ptr<T[], FreeAligned> make_scratch(const Dictionary<T>& d, bool gradients) {
  const int64_t columns = 3 * d.joint_count;
  int64_t lanes = d.atoms + 2 * columns + 2 * d.joint_count;
  if (gradients) lanes += (d.atoms + 2) * columns;
  return std::unique_ptr<T[], FreeAligned>(
      static_cast<T*>(::operator new(lanes * MOST_LANE_BYTES, std::align_val_t(64))));
}

// Sums over poses in parts: loop(part's result, begin, end) for each, then the parts in order. The
// parts depend on the number of poses alone, not on the threads, so that the result repeats.
template <class T, class Loop>
void sum_over_poses(int64_t poses, const Dictionary<T>& d, T* grad_dictionary, T* grad_mean,
                    const Loop& loop) {
  const int64_t columns = 3 * d.joint_count, count = (d.atoms + 1) * columns;
  int64_t part = (poses + MOST_PARTS - 1) / MOST_PARTS;
  part = part < LEAST_POSES ? LEAST_POSES : (part + 15) / 16 * 16;
  const int64_t parts = (poses + part - 1) / part;
  const std::unique_ptr<T[]> partial(new T[parts * count]);
  torch::stable::parallel_for(0, parts, 1, [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i)
      loop(&partial[i * count], i * part, i + 1 < parts ? (i + 1) * part : poses);
  });
  for (int64_t c = 0; c < count; ++c) {
    double sum = 0;
    for (int64_t i = 0; i < parts; ++i) sum += partial[i * count + c];
    (c < count - columns ? grad_dictionary[c] : grad_mean[c - (count - columns)]) =
        static_cast<T>(sum);
  }
}

std::tuple<Tensor, Tensor, Tensor> dictionary_reprojection_op(
    const Tensor& coefficients, const Tensor& dictionary, const Tensor& mean,
    const Tensor& rotation_vector, const Tensor& target, double distance) {
  const Call call("dictionary_reprojection", target, TAKES);
  check_reprojection(call, coefficients, dictionary, mean, rotation_vector, target, distance);
  const int64_t B = coefficients.size(0), J = mean.size(0) / 3;
  const Tensor error = empty(target, {B});
  const Tensor canonical = empty(target, {B, J, 3});
  const Tensor camera = empty(target, {B, J, 3});
  with_floating(target, [&](auto zero) {
    using T = decltype(zero);
    const DictionaryReprojection<T> arguments = {dictionary_of<T>(dictionary, mean),
                                                 B,
                                                 static_cast<T>(distance),
                                                 data<T>(coefficients),
                                                 data<T>(rotation_vector),
                                                 data<T>(target),
                                                 mutable_data<T>(error),
                                                 mutable_data<T>(canonical),
                                                 mutable_data<T>(camera)};
    over_poses(B, LEAST_POSES, [&](int64_t begin, int64_t end) {
      const auto scratch = make_scratch(arguments.dictionary, false);
      ITES_SIMD_CALL(dictionary_reprojection, arguments, scratch.get(), begin, end);
    });
  });
  return {error, canonical, camera};
}

std::tuple<Tensor, Tensor, Tensor, Tensor> dictionary_reprojection_backward_op(
    const std::optional<Tensor>& grad_error, const std::optional<Tensor>& grad_canonical,
    const std::optional<Tensor>& grad_camera, const Tensor& coefficients, const Tensor& dictionary,
    const Tensor& mean, const Tensor& rotation_vector, const Tensor& target, double distance) {
  const Call call("dictionary_reprojection_backward", target, TAKES);
  check_reprojection(call, coefficients, dictionary, mean, rotation_vector, target, distance);
  const int64_t rows = coefficients.size(0), joints = mean.size(0) / 3;
  call.has("grad_error", grad_error, {rows});
  call.has("grad_canonical", grad_canonical, {rows, joints, 3});
  call.has("grad_camera", grad_camera, {rows, joints, 3});
  const int64_t B = coefficients.size(0), K = dictionary.size(0), columns = mean.size(0);
  const Tensor grad_coefficients = empty(target, {B, K});
  const Tensor grad_dictionary = empty(target, {K, columns});
  const Tensor grad_mean = empty(target, {columns});
  const Tensor grad_rotation_vector = empty(target, {B, 3});
  with_floating(target, [&](auto zero) {
    using T = decltype(zero);
    const DictionaryReprojectionBackward<T> arguments = {dictionary_of<T>(dictionary, mean),
                                                         B,
                                                         static_cast<T>(distance),
                                                         data<T>(grad_error),
                                                         data<T>(grad_canonical),
                                                         data<T>(grad_camera),
                                                         data<T>(coefficients),
                                                         data<T>(rotation_vector),
                                                         data<T>(target),
                                                         mutable_data<T>(grad_coefficients),
                                                         mutable_data<T>(grad_rotation_vector)};
    sum_over_poses(B, arguments.dictionary, mutable_data<T>(grad_dictionary),
                   mutable_data<T>(grad_mean), [&](T* partial, int64_t begin, int64_t end) {
                     const auto scratch = make_scratch(arguments.dictionary, true);
                     ITES_SIMD_CALL(dictionary_reprojection_backward, arguments, scratch.get(),
                                    partial, begin, end);
                   });
  });
  return {grad_coefficients, grad_dictionary, grad_mean, grad_rotation_vector};
}

Tensor invariance_distance_op(const Tensor& coefficients, const Tensor& dictionary,
                              const Tensor& mean, const Tensor& canonical) {
  const Call call("invariance_distance", coefficients, TAKES);
  const int samples = check_invariance(call, coefficients, dictionary, mean, canonical);
  const int64_t B = canonical.size(0), rows = coefficients.size(0);
  const Tensor out = empty(coefficients, {rows});
  with_floating(coefficients, [&](auto zero) {
    using T = decltype(zero);
    const InvarianceDistance<T> arguments = {dictionary_of<T>(dictionary, mean),
                                             B,
                                             samples,
                                             data<T>(coefficients),
                                             data<T>(canonical),
                                             mutable_data<T>(out)};
    over_poses(B, LEAST_POSES, [&](int64_t begin, int64_t end) {
      const auto scratch = make_scratch(arguments.dictionary, false);
      ITES_SIMD_CALL(invariance_distance, arguments, scratch.get(), begin, end);
    });
  });
  return out;
}

std::tuple<Tensor, Tensor, Tensor, Tensor> invariance_distance_backward_op(
    const Tensor& grad, const Tensor& coefficients, const Tensor& dictionary, const Tensor& mean,
    const Tensor& canonical) {
  const Call call("invariance_distance_backward", coefficients, TAKES);
  const int samples = check_invariance(call, coefficients, dictionary, mean, canonical);
  call.has("grad", grad, {coefficients.size(0)});
  const int64_t B = canonical.size(0), rows = coefficients.size(0), K = dictionary.size(0);
  const int64_t columns = mean.size(0);
  const Tensor grad_coefficients = empty(coefficients, {rows, K});
  const Tensor grad_dictionary = empty(coefficients, {K, columns});
  const Tensor grad_mean = empty(coefficients, {columns});
  const Tensor grad_canonical = empty(coefficients, {B, columns / 3, 3});
  with_floating(coefficients, [&](auto zero) {
    using T = decltype(zero);
    const InvarianceDistanceBackward<T> arguments = {dictionary_of<T>(dictionary, mean),
                                                     B,
                                                     samples,
                                                     data<T>(grad),
                                                     data<T>(coefficients),
                                                     data<T>(canonical),
                                                     mutable_data<T>(grad_coefficients),
                                                     mutable_data<T>(grad_canonical)};
    sum_over_poses(B, arguments.dictionary, mutable_data<T>(grad_dictionary),
                   mutable_data<T>(grad_mean), [&](T* partial, int64_t begin, int64_t end) {
                     const auto scratch = make_scratch(arguments.dictionary, true);
                     ITES_SIMD_CALL(invariance_distance_backward, arguments, scratch.get(), partial,
                                    begin, end);
                   });
  });
  return {grad_coefficients, grad_dictionary, grad_mean, grad_canonical};
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(ites_cpp, m) {
  for (const char* schema : dictionary_schemas) m.def(schema);
}

STABLE_TORCH_LIBRARY_IMPL(ites_cpp, CPU, m) {
  m.impl("dictionary_reprojection", TORCH_BOX(&dictionary_reprojection_op));
  m.impl("dictionary_reprojection_backward", TORCH_BOX(&dictionary_reprojection_backward_op));
  m.impl("invariance_distance", TORCH_BOX(&invariance_distance_op));
  m.impl("invariance_distance_backward", TORCH_BOX(&invariance_distance_backward_op));
}

}  // namespace ites
