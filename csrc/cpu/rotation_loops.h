// Loops of the rotation family over poses, a group of lanes at a time: lane l is pose b + l.
// Poses come and go as rows; a tile holds them transposed, JOINTS joints at a time, on the stack.
#pragma once

#include "common/rotation_arguments.h"
#include "cpu/lanes.h"

namespace ites {
namespace ITES_SIMD {

constexpr int JOINTS = 32;

template <class V>
ITES_FN Vec3<V> vec3(const V* v) {
  return {v[0], v[1], v[2]};
}
template <class V>
ITES_FN void put(V* to, const Vec3<V>& v) {
  to[0] = v.x;
  to[1] = v.y;
  to[2] = v.z;
}

template <class T, int N>
ITES_FN void words_at(const RotationSource<T>& source, int sample, int64_t b,
                      Words<N> (&words)[4]) {
  random_words(stream_at(source.counter), Words<N>(static_cast<uint32_t>(b)) + lane_numbers<N>(),
               static_cast<uint32_t>(sample), words);
}

// Apart, so that the loops compile for the other rotations as they would without turns.
template <class T, class V = lanes_of<T>>
__attribute__((noinline)) void turns_at(const RotationSource<T>& source, int sample, int64_t b,
                                        int rows, Mat3<V>& R) {
  Words<V::count> words[4];
  words_at(source, sample, b, words);
  V elevation;
  load_rows(&elevation, source.elevation + b, 1, rows, 1);
  R = random_turn<V>(words, elevation, V(source.spread[0]), V(source.spread[1]));
}

// Rotations of sample `sample` of poses b, b + 1, ...; `rows` of them exist.
template <class T, class V = lanes_of<T>>
ITES_FN Mat3<V> rotations_at(const RotationSource<T>& source, int sample, int64_t b, int rows) {
  if (source.matrices) {
    Mat3<V> R;
    load_rows(R.m, source.matrices + (sample * source.poses + b) * 9, 9, rows, 9);
    return R;
  }
  if (source.elevation) {
    Mat3<V> R;
    turns_at(source, sample, b, rows, R);
    return R;
  }
  Words<V::count> words[4];
  words_at(source, sample, b, words);
  return random_rotation<V>(words, source.draw);
}

// Sums over joints that come a tile at a time: adds to what stands for poses b, b + 1, ...
template <class T, class V = lanes_of<T>>
ITES_FN void add_rows(V sum, T* to, bool first, int rows) {
  if (!first) {
    V before;
    load_rows(&before, to, 1, rows, 1);
    sum += before;
  }
  store_rows(&sum, to, 1, rows, 1);
}

// The gradient to the elevations of poses b, b + 1, ... from those to their joints.
template <class T, class V = lanes_of<T>>
ITES_FN void add_elevation_vjp(const V* grad, const V* pose, int joints, T* to, bool first,
                               int rows) {
  V sum(T(0));
  for (int j = 0; j < joints; ++j) sum += elevation_vjp(vec3(grad + 3 * j), vec3(pose + 3 * j));
  add_rows(sum, to, first, rows);
}

// Calls body(b, rows, j, joints) for each group of poses in [begin, end) and chunk of joints.
template <class T, class Body>
ITES_FN void for_each_tile(int64_t begin, int64_t end, int joints, const Body& body) {
  constexpr int N = lanes_of<T>::count;
  for (int64_t b = begin; b < end; b += N) {
    const int rows = end - b < N ? static_cast<int>(end - b) : N;
    for (int j = 0; j < joints; j += JOINTS)
      body(b, rows, j, joints - j < JOINTS ? joints - j : JOINTS);
  }
}

template <class T>
void so3_exp(const T* w, T* R, int64_t begin, int64_t end) {
  using V = lanes_of<T>;
  for (int64_t b = begin; b < end; b += V::count) {
    const int rows = end - b < V::count ? static_cast<int>(end - b) : V::count;
    V v[3];
    load_rows(v, w + b * 3, 3, rows, 3);
    const Mat3<V> out = ites::so3_exp(vec3(v));
    store_rows(out.m, R + b * 9, 9, rows, 9);
  }
}

template <class T>
void so3_exp_backward(const T* grad, const T* w, T* grad_w, int64_t begin, int64_t end) {
  using V = lanes_of<T>;
  for (int64_t b = begin; b < end; b += V::count) {
    const int rows = end - b < V::count ? static_cast<int>(end - b) : V::count;
    Mat3<V> G;
    V v[3];
    load_rows(G.m, grad + b * 9, 9, rows, 9);
    load_rows(v, w + b * 3, 3, rows, 3);
    put(v, so3_exp_vjp(G, vec3(v)));
    store_rows(v, grad_w + b * 3, 3, rows, 3);
  }
}

template <class T>
void draw_rotations(const RotationSource<T>& source, T* R, int64_t begin, int64_t end) {
  using V = lanes_of<T>;
  for (int64_t b = begin; b < end; b += V::count) {
    const int rows = end - b < V::count ? static_cast<int>(end - b) : V::count;
    for (int s = 0; s < source.samples; ++s) {
      const Mat3<V> out = rotations_at(source, s, b, rows);
      store_rows(out.m, R + (s * source.poses + b) * 9, 9, rows, 9);
    }
  }
}

template <class T>
void rotate_project(const RotateProject<T>& a, int64_t begin, int64_t end) {
  using V = lanes_of<T>;
  for_each_tile<T>(begin, end, a.joint_count, [&](int64_t b, int rows, int j0, int joints) {
    V pose[JOINTS * 3], points[JOINTS * 2], rotated[JOINTS * 3];
    load_rows(pose, a.joints + (b * a.joint_count + j0) * 3, a.joint_count * 3, rows, joints * 3);
    for (int s = 0; s < a.source.samples; ++s) {
      const Mat3<V> R = rotations_at(a.source, s, b, rows);
      for (int j = 0; j < joints; ++j) {
        const Vec3<V> turned = rotate(vec3(pose + 3 * j), R);
        const Projection<V> p(turned, V(a.distance));
        points[2 * j] = p.x;
        points[2 * j + 1] = p.y;
        put(rotated + 3 * j, turned);
      }
      const int64_t row = (s * a.source.poses + b) * a.joint_count + j0;
      store_rows(points, a.points + row * 2, a.joint_count * 2, rows, joints * 2);
      if (a.rotated) store_rows(rotated, a.rotated + row * 3, a.joint_count * 3, rows, joints * 3);
    }
  });
}

template <class T>
void rotate_project_backward(const RotateProjectBackward<T>& a, int64_t begin, int64_t end) {
  using V = lanes_of<T>;
  for_each_tile<T>(begin, end, a.joint_count, [&](int64_t b, int rows, int j0, int joints) {
    V pose[JOINTS * 3], grad[JOINTS * 3], points[JOINTS * 2], rotated[JOINTS * 3];
    load_rows(pose, a.joints + (b * a.joint_count + j0) * 3, a.joint_count * 3, rows, joints * 3);
    for (int k = 0; k < joints * 3; ++k) grad[k] = V(T(0));
    for (int s = 0; s < a.source.samples; ++s) {
      const Mat3<V> R = rotations_at(a.source, s, b, rows);
      const int64_t row = (s * a.source.poses + b) * a.joint_count + j0;
      load_rows(points, a.grad_points + row * 2, a.joint_count * 2, rows, joints * 2);
      if (a.grad_rotated)
        load_rows(rotated, a.grad_rotated + row * 3, a.joint_count * 3, rows, joints * 3);
      for (int j = 0; j < joints; ++j) {
        const Projection<V> p(rotate(vec3(pose + 3 * j), R), V(a.distance));
        Vec3<V> g = p.vjp(points[2 * j], points[2 * j + 1]);
        if (a.grad_rotated) g = add(g, vec3(rotated + 3 * j));
        put(grad + 3 * j, add(vec3(grad + 3 * j), rotate_back(g, R)));
      }
    }
    store_rows(grad, a.grad_joints + (b * a.joint_count + j0) * 3, a.joint_count * 3, rows,
               joints * 3);
    if (a.source.elevation)
      add_elevation_vjp(grad, pose, joints, a.grad_elevation + b, j0 == 0, rows);
  });
}

template <class T>
void equivariance_distance(const EquivarianceDistance<T>& a, int64_t begin, int64_t end) {
  using V = lanes_of<T>;
  const V scale(T(1) / T(a.joint_count));
  for_each_tile<T>(begin, end, a.joint_count, [&](int64_t b, int rows, int j0, int joints) {
    V pose[JOINTS * 3], points[JOINTS * 2], depth[JOINTS];
    load_rows(pose, a.joints + (b * a.joint_count + j0) * 3, a.joint_count * 3, rows, joints * 3);
    for (int s = 0; s < a.source.samples; ++s) {
      const Mat3<V> R = rotations_at(a.source, s, b, rows);
      const int64_t row = (s * a.source.poses + b) * a.joint_count + j0;
      load_rows(points, a.points + row * 2, a.joint_count * 2, rows, joints * 2);
      load_rows(depth, a.depth + row, a.joint_count, rows, joints);
      V sum(T(0));
      for (int j = 0; j < joints; ++j) {
        const Vec3<V> turned = rotate(vec3(pose + 3 * j), R);
        const Vec3<V> lifted =
            backproject(points[2 * j], points[2 * j + 1], depth[j], V(a.distance));
        sum += norm(subtract(lifted, turned));
      }
      add_rows(sum * scale, a.out + s * a.source.poses + b, j0 == 0, rows);
    }
  });
}

template <class T>
void equivariance_distance_backward(const EquivarianceDistanceBackward<T>& a, int64_t begin,
                                    int64_t end) {
  using V = lanes_of<T>;
  const V scale(T(1) / T(a.joint_count));
  for_each_tile<T>(begin, end, a.joint_count, [&](int64_t b, int rows, int j0, int joints) {
    V pose[JOINTS * 3], grad[JOINTS * 3], points[JOINTS * 2], depth[JOINTS];
    load_rows(pose, a.joints + (b * a.joint_count + j0) * 3, a.joint_count * 3, rows, joints * 3);
    for (int k = 0; k < joints * 3; ++k) grad[k] = V(T(0));
    for (int s = 0; s < a.source.samples; ++s) {
      const Mat3<V> R = rotations_at(a.source, s, b, rows);
      const int64_t row = (s * a.source.poses + b) * a.joint_count + j0;
      load_rows(points, a.points + row * 2, a.joint_count * 2, rows, joints * 2);
      load_rows(depth, a.depth + row, a.joint_count, rows, joints);
      V g;
      load_rows(&g, a.grad + s * a.source.poses + b, 1, rows, 1);
      g = g * scale;
      for (int j = 0; j < joints; ++j) {
        const V px = points[2 * j], py = points[2 * j + 1], d = depth[j];
        const Vec3<V> offset =
            subtract(backproject(px, py, d, V(a.distance)), rotate(vec3(pose + 3 * j), R));
        const Vec3<V> go = norm_vjp(g, offset, norm(offset));
        const Vec3<V> gp = backproject_vjp(go, px, py, d, V(a.distance));
        points[2 * j] = gp.x;
        points[2 * j + 1] = gp.y;
        depth[j] = gp.z;
        put(grad + 3 * j, subtract(vec3(grad + 3 * j), rotate_back(go, R)));
      }
      store_rows(points, a.grad_points + row * 2, a.joint_count * 2, rows, joints * 2);
      store_rows(depth, a.grad_depth + row, a.joint_count, rows, joints);
    }
    store_rows(grad, a.grad_joints + (b * a.joint_count + j0) * 3, a.joint_count * 3, rows,
               joints * 3);
    if (a.source.elevation)
      add_elevation_vjp(grad, pose, joints, a.grad_elevation + b, j0 == 0, rows);
  });
}

#define ITES_INSTANTIATE(T)                                                                        \
  template void so3_exp<T>(const T*, T*, int64_t, int64_t);                                        \
  template void so3_exp_backward<T>(const T*, const T*, T*, int64_t, int64_t);                     \
  template void draw_rotations<T>(const RotationSource<T>&, T*, int64_t, int64_t);                 \
  template void rotate_project<T>(const RotateProject<T>&, int64_t, int64_t);                      \
  template void rotate_project_backward<T>(const RotateProjectBackward<T>&, int64_t, int64_t);     \
  template void equivariance_distance<T>(const EquivarianceDistance<T>&, int64_t, int64_t);        \
  template void equivariance_distance_backward<T>(const EquivarianceDistanceBackward<T>&, int64_t, \
                                                  int64_t);
ITES_INSTANTIATE(float)
ITES_INSTANTIATE(double)
#undef ITES_INSTANTIATE

}  // namespace ITES_SIMD
}  // namespace ites
