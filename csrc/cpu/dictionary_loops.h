// Loops of the dictionary family over poses, a group of lanes at a time: lane l is pose b + l.
// `scratch` holds a group's rows transposed; see Scratch. The gradients of the dictionary and
// the mean are kept lane by lane for a range of poses, then summed into that range's partial
// result.
#pragma once

#include "common/dictionary_arguments.h"
#include "cpu/rotation_loops.h"

namespace ites {
namespace ITES_SIMD {

// Where the parts of the scratch begin, in lanes.
template <class V>
struct Scratch {
  V *coefficients, *pose, *points, *camera, *gradients;

  template <class T>
  ITES_FN Scratch(const Dictionary<T>& d, T* scratch) {
    coefficients = reinterpret_cast<V*>(scratch);
    pose = coefficients + d.atoms;
    points = pose + 3 * d.joint_count;
    camera = points + 2 * d.joint_count;
    gradients = camera + 3 * d.joint_count;
  }
};

// pose = coefficients @ dictionary + mean
template <class T, class V>
ITES_FN void reconstruct(const Dictionary<T>& d, const V* coefficients, V* pose) {
  const int columns = 3 * d.joint_count;
  for (int j = 0; j < columns; j += 3) {
    V x(d.mean[j]), y(d.mean[j + 1]), z(d.mean[j + 2]);
    for (int k = 0; k < d.atoms; ++k) {
      const T* atom = d.dictionary + k * columns + j;
      x += coefficients[k] * V(atom[0]);
      y += coefficients[k] * V(atom[1]);
      z += coefficients[k] * V(atom[2]);
    }
    put(pose + j, {x, y, z});
  }
}

// From a group's pose gradient: writes the gradient of its coefficients in their place, and adds to
// the gradients of the dictionary and the mean.
template <class T, class V>
ITES_FN void reconstruct_backward(const Dictionary<T>& d, const V* grad_pose, V* coefficients,
                                  V* gradients) {
  const int columns = 3 * d.joint_count;
  for (int k = 0; k < d.atoms; ++k) {
    const T* atom = d.dictionary + k * columns;
    const V coefficient = coefficients[k];
    V* grad_atom = gradients + k * columns;
    V sum[3] = {V(T(0)), V(T(0)), V(T(0))};  // three chains of additions, to hide their latency
    for (int c = 0; c < columns; c += 3) {
      for (int i = 0; i < 3; ++i) {
        sum[i] += grad_pose[c + i] * V(atom[c + i]);
        grad_atom[c + i] += grad_pose[c + i] * coefficient;
      }
    }
    coefficients[k] = sum[0] + sum[1] + sum[2];
  }
  V* grad_mean = gradients + d.atoms * columns;
  for (int c = 0; c < columns; ++c) grad_mean[c] += grad_pose[c];
}

template <class T, class V>
ITES_FN void sum_lanes(const Dictionary<T>& d, const V* gradients, T* partial) {
  const int count = (d.atoms + 1) * 3 * d.joint_count;
  for (int i = 0; i < count; ++i) {
    T sum = 0;
    for (int lane = 0; lane < V::count; ++lane) sum += gradients[i].v[lane];
    partial[i] = sum;
  }
}

template <class T, class V>
ITES_FN void clear_gradients(const Dictionary<T>& d, V* gradients) {
  const int count = (d.atoms + 1) * 3 * d.joint_count;
  for (int i = 0; i < count; ++i) gradients[i] = V(T(0));
}

// As load_rows, with zeros in absent lanes: what a gradient must be there.
template <class T, int N>
ITES_FN void load_gradient(Lanes<T, N>* tile, const T* from, int64_t stride, int rows, int width) {
  load_rows(tile, from, stride, rows, width);
  if (rows == N) return;
  for (int k = 0; k < width; ++k)
    for (int lane = rows; lane < N; ++lane) tile[k].v[lane] = T(0);
}

template <class V>
ITES_FN int rows_from(int64_t b, int64_t end) {
  return end - b < V::count ? static_cast<int>(end - b) : V::count;
}

template <class T>
void dictionary_reprojection(const DictionaryReprojection<T>& a, T* scratch, int64_t begin,
                             int64_t end) {
  using V = lanes_of<T>;
  const Scratch<V> at(a.dictionary, scratch);
  const int K = a.dictionary.atoms, J = a.dictionary.joint_count;
  for (int64_t b = begin; b < end; b += V::count) {
    const int rows = rows_from<V>(b, end);
    V w[3], error(T(0));
    load_rows(at.coefficients, a.coefficients + b * K, K, rows, K);
    load_rows(w, a.rotation_vector + b * 3, 3, rows, 3);
    load_rows(at.points, a.target + b * J * 2, J * 2, rows, J * 2);
    reconstruct(a.dictionary, at.coefficients, at.pose);
    const Mat3<V> R = ites::so3_exp(vec3(w));
    for (int j = 0; j < J; ++j) {
      const Reprojection<V> r(vec3(at.pose + 3 * j), R, at.points[2 * j], at.points[2 * j + 1],
                              V(a.distance));
      put(at.camera + 3 * j, r.camera);
      error += r.error;
    }
    error = error * V(T(1) / J);
    store_rows(&error, a.error + b, 1, rows, 1);
    store_rows(at.pose, a.canonical + b * J * 3, J * 3, rows, J * 3);
    store_rows(at.camera, a.camera + b * J * 3, J * 3, rows, J * 3);
  }
}

template <class T>
void dictionary_reprojection_backward(const DictionaryReprojectionBackward<T>& a, T* scratch,
                                      T* partial, int64_t begin, int64_t end) {
  using V = lanes_of<T>;
  const Scratch<V> at(a.dictionary, scratch);
  const int K = a.dictionary.atoms, J = a.dictionary.joint_count;
  clear_gradients(a.dictionary, at.gradients);
  for (int64_t b = begin; b < end; b += V::count) {
    const int rows = rows_from<V>(b, end);
    V w[3], g(T(0));
    load_rows(at.coefficients, a.coefficients + b * K, K, rows, K);
    load_rows(w, a.rotation_vector + b * 3, 3, rows, 3);
    load_rows(at.points, a.target + b * J * 2, J * 2, rows, J * 2);
    if (a.grad_error) load_gradient(&g, a.grad_error + b, 1, rows, 1);
    if (a.grad_camera) load_gradient(at.camera, a.grad_camera + b * J * 3, J * 3, rows, J * 3);
    reconstruct(a.dictionary, at.coefficients, at.pose);
    g = g * V(T(1) / J);
    const Mat3<V> R = ites::so3_exp(vec3(w));
    Mat3<V> G;
    for (V& element : G.m) element = V(T(0));
    for (int j = 0; j < J; ++j) {
      const Vec3<V> canonical = vec3(at.pose + 3 * j);
      const Reprojection<V> r(canonical, R, at.points[2 * j], at.points[2 * j + 1], V(a.distance));
      Vec3<V> grad = r.vjp(g);
      if (a.grad_camera) grad = add(grad, vec3(at.camera + 3 * j));
      add_outer(G, canonical, grad);
      put(at.pose + 3 * j, rotate_back(grad, R));
    }
    if (a.grad_canonical) {
      load_gradient(at.camera, a.grad_canonical + b * J * 3, J * 3, rows, J * 3);
      for (int c = 0; c < 3 * J; ++c) at.pose[c] += at.camera[c];
    }
    reconstruct_backward(a.dictionary, at.pose, at.coefficients, at.gradients);
    put(w, so3_exp_vjp(G, vec3(w)));
    store_rows(at.coefficients, a.grad_coefficients + b * K, K, rows, K);
    store_rows(w, a.grad_rotation_vector + b * 3, 3, rows, 3);
  }
  sum_lanes(a.dictionary, at.gradients, partial);
}

template <class T>
void invariance_distance(const InvarianceDistance<T>& a, T* scratch, int64_t begin, int64_t end) {
  using V = lanes_of<T>;
  const Scratch<V> at(a.dictionary, scratch);
  const int K = a.dictionary.atoms, J = a.dictionary.joint_count;
  for (int64_t b = begin; b < end; b += V::count) {
    const int rows = rows_from<V>(b, end);
    load_rows(at.camera, a.canonical + b * J * 3, J * 3, rows, J * 3);
    for (int s = 0; s < a.samples; ++s) {
      const int64_t row = s * a.poses + b;
      load_rows(at.coefficients, a.coefficients + row * K, K, rows, K);
      reconstruct(a.dictionary, at.coefficients, at.pose);
      V sum(T(0));
      for (int j = 0; j < 3 * J; j += 3)
        sum += norm(subtract(vec3(at.pose + j), vec3(at.camera + j)));
      sum = sum * V(T(1) / J);
      store_rows(&sum, a.out + row, 1, rows, 1);
    }
  }
}

template <class T>
void invariance_distance_backward(const InvarianceDistanceBackward<T>& a, T* scratch, T* partial,
                                  int64_t begin, int64_t end) {
  using V = lanes_of<T>;
  const Scratch<V> at(a.dictionary, scratch);
  const int K = a.dictionary.atoms, J = a.dictionary.joint_count;
  V* grad_canonical = at.gradients + (K + 1) * 3 * J;
  clear_gradients(a.dictionary, at.gradients);
  for (int64_t b = begin; b < end; b += V::count) {
    const int rows = rows_from<V>(b, end);
    load_rows(at.camera, a.canonical + b * J * 3, J * 3, rows, J * 3);
    for (int c = 0; c < 3 * J; ++c) grad_canonical[c] = V(T(0));
    for (int s = 0; s < a.samples; ++s) {
      const int64_t row = s * a.poses + b;
      V g;
      load_rows(at.coefficients, a.coefficients + row * K, K, rows, K);
      load_gradient(&g, a.grad + row, 1, rows, 1);
      g = g * V(T(1) / J);
      reconstruct(a.dictionary, at.coefficients, at.pose);
      for (int j = 0; j < 3 * J; j += 3) {
        const Vec3<V> offset = subtract(vec3(at.pose + j), vec3(at.camera + j));
        const Vec3<V> grad = norm_vjp(g, offset, norm(offset));
        put(at.pose + j, grad);
        put(grad_canonical + j, subtract(vec3(grad_canonical + j), grad));
      }
      reconstruct_backward(a.dictionary, at.pose, at.coefficients, at.gradients);
      store_rows(at.coefficients, a.grad_coefficients + row * K, K, rows, K);
    }
    store_rows(grad_canonical, a.grad_canonical + b * J * 3, J * 3, rows, J * 3);
  }
  sum_lanes(a.dictionary, at.gradients, partial);
}

#define ITES_INSTANTIATE(T)                                                                       \
  template void dictionary_reprojection<T>(const DictionaryReprojection<T>&, T*, int64_t,         \
                                           int64_t);                                              \
  template void dictionary_reprojection_backward<T>(const DictionaryReprojectionBackward<T>&, T*, \
                                                    T*, int64_t, int64_t);                        \
  template void invariance_distance<T>(const InvarianceDistance<T>&, T*, int64_t, int64_t);       \
  template void invariance_distance_backward<T>(const InvarianceDistanceBackward<T>&, T*, T*,     \
                                                int64_t, int64_t);
ITES_INSTANTIATE(float)
ITES_INSTANTIATE(double)
#undef ITES_INSTANTIATE

}  // namespace ITES_SIMD
}  // namespace ites
