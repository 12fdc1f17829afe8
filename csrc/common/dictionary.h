// Poses from a dictionary: the math of one joint. T is float, double or a group of lanes.
#pragma once

#include "common/rotation.h"

namespace ites {

// A canonical joint turned to the camera, projected, and its distance from the target in the image.
template <class T>
struct Reprojection {
  Vec3<T> camera;
  Projection<T> projection;
  T dx, dy, error;

  ITES_FN Reprojection(const Vec3<T>& canonical, const Mat3<T>& R, T target_x, T target_y,
                       T distance)
      : camera(rotate(canonical, R)), projection(camera, distance) {
    dx = projection.x - target_x;
    dy = projection.y - target_y;
    error = square_root(dx * dx + dy * dy);
  }

  // Gradient to the camera-frame joint, given that to the error; zero where the error is.
  ITES_FN Vec3<T> vjp(T g) const {
    const T scale = select(error > T(0.0f), g / error, T(0.0f));
    return projection.vjp(scale * dx, scale * dy);
  }
};

// G += x^T g: what v @ R adds to the gradient of R, for v = x and g the gradient to the product.
template <class T>
ITES_FN void add_outer(Mat3<T>& G, const Vec3<T>& x, const Vec3<T>& g) {
  G.m[0] += x.x * g.x;
  G.m[1] += x.x * g.y;
  G.m[2] += x.x * g.z;
  G.m[3] += x.y * g.x;
  G.m[4] += x.y * g.y;
  G.m[5] += x.y * g.z;
  G.m[6] += x.z * g.x;
  G.m[7] += x.z * g.y;
  G.m[8] += x.z * g.z;
}

}  // namespace ites
