// Arguments of the rotation family's loops and kernels. B poses (source.poses), n samples,
// rows sample-major: s B + b.
#pragma once

#include "common/rotation.h"

namespace ites {

// Rotations: given as matrices (n B, 3, 3), or drawn.
template <class T>
struct RotationSource {
  const T* matrices;       // null: draw
  const int64_t* counter;  // (3,), see stream_at
  const T* elevation;      // (B,), and spread (2,) of the drawn one: draw turns; null: by `draw`
  const T* spread;
  Draw<T> draw;
  int samples;
  int64_t poses;
};

template <class T>
struct RotateProject {
  RotationSource<T> source;
  int joint_count;
  T distance;
  const T* joints;  // (B, J, 3)
  T* points;        // (n B, J, 2)
  T* rotated;       // (n B, J, 3) or null
};

template <class T>
struct RotateProjectBackward {
  RotationSource<T> source;
  int joint_count;
  T distance;
  const T* grad_points;   // (n B, J, 2)
  const T* grad_rotated;  // (n B, J, 3) or null
  const T* joints;        // (B, J, 3)
  T* grad_joints;         // (B, J, 3)
  T* grad_elevation;      // (B,), of turns
};

template <class T>
struct EquivarianceDistance {
  RotationSource<T> source;
  int joint_count;
  T distance;
  const T* joints;  // (B, J, 3)
  const T* points;  // (n B, J, 2)
  const T* depth;   // (n B, J)
  T* out;           // (n B,)
};

template <class T>
struct EquivarianceDistanceBackward {
  RotationSource<T> source;
  int joint_count;
  T distance;
  const T* grad;      // (n B,)
  const T* joints;    // (B, J, 3)
  const T* points;    // (n B, J, 2)
  const T* depth;     // (n B, J)
  T* grad_joints;     // (B, J, 3)
  T* grad_points;     // (n B, J, 2)
  T* grad_depth;      // (n B, J)
  T* grad_elevation;  // (B,), of turns
};

}  // namespace ites
