// Arguments of the dictionary family's loops and kernels. K atoms, J joints, 3 J columns.
#pragma once

#include "common/dictionary.h"

namespace ites {

template <class T>
struct Dictionary {
  int atoms, joint_count;
  const T* dictionary;  // (K, 3 J)
  const T* mean;        // (3 J,)
};

template <class T>
struct DictionaryReprojection {
  Dictionary<T> dictionary;
  int64_t poses;
  T distance;
  const T* coefficients;     // (B, K)
  const T* rotation_vector;  // (B, 3)
  const T* target;           // (B, J, 2)
  T* error;                  // (B,)
  T* canonical;              // (B, J, 3)
  T* camera;                 // (B, J, 3)
};

template <class T>
struct DictionaryReprojectionBackward {
  Dictionary<T> dictionary;
  int64_t poses;
  T distance;
  const T* grad_error;       // (B,) or null
  const T* grad_canonical;   // (B, J, 3) or null
  const T* grad_camera;      // (B, J, 3) or null
  const T* coefficients;     // (B, K)
  const T* rotation_vector;  // (B, 3)
  const T* target;           // (B, J, 2)
  T* grad_coefficients;      // (B, K)
  T* grad_rotation_vector;   // (B, 3)
};

template <class T>
struct InvarianceDistance {
  Dictionary<T> dictionary;
  int64_t poses;
  int samples;
  const T* coefficients;  // (n B, K)
  const T* canonical;     // (B, J, 3)
  T* out;                 // (n B,)
};

template <class T>
struct InvarianceDistanceBackward {
  Dictionary<T> dictionary;
  int64_t poses;
  int samples;
  const T* grad;          // (n B,)
  const T* coefficients;  // (n B, K)
  const T* canonical;     // (B, J, 3)
  T* grad_coefficients;   // (n B, K)
  T* grad_canonical;      // (B, J, 3)
};

}  // namespace ites
