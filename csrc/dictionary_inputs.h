// The dictionary family's arguments, checked and prepared for the loops of both backends.
#pragma once

#include "check.h"
#include "common/dictionary_arguments.h"

namespace ites {

constexpr int64_t MOST_ATOMS = 1 << 20, MOST_ENTRIES = 1 << 26;  // of a dictionary

// Refuses coefficients (N, K), a dictionary (K, 3 J) and a mean (3 J,) that do not fit.
inline void check_dictionary(const Call& call, const Tensor& coefficients, const Tensor& dictionary,
                             const Tensor& mean) {
  call.has("dictionary", dictionary, {ANY, ANY});
  const int64_t atoms = dictionary.size(0), columns = dictionary.size(1);
  call.require(columns >= 3 && columns % 3 == 0,
               "dictionary must have 3 columns for each of at least one joint, got ", columns);
  call.require(atoms <= MOST_ATOMS && columns <= MOST_ENTRIES / (atoms + 1), "a dictionary of ",
               atoms, " atoms and ", columns, " columns is too large");
  call.has("mean", mean, {columns});
  call.has("coefficients", coefficients, {ANY, atoms});
}

inline void check_reprojection(const Call& call, const Tensor& coefficients,
                               const Tensor& dictionary, const Tensor& mean,
                               const Tensor& rotation_vector, const Tensor& target,
                               double distance) {
  check_dictionary(call, coefficients, dictionary, mean);
  const int64_t poses = coefficients.size(0);
  call.has("rotation_vector", rotation_vector, {poses, 3});
  call.has("target", target, {poses, mean.size(0) / 3, 2});
  call.finite("distance", distance);
}

// Rejects coefficients whose rows are not a multiple of the canonical poses (B, J, 3); returns n.
inline int check_invariance(const Call& call, const Tensor& coefficients, const Tensor& dictionary,
                            const Tensor& mean, const Tensor& canonical) {
  check_dictionary(call, coefficients, dictionary, mean);
  call.has("canonical", canonical, {ANY, mean.size(0) / 3, 3});
  const int64_t rows = coefficients.size(0), poses = canonical.size(0);
  call.require(poses ? rows > 0 && rows % poses == 0 : rows == 0,
               "coefficients must hold a multiple of the ", poses, " poses, got ", rows);
  return static_cast<int>(poses ? rows / poses : 0);
}

template <class T>
Dictionary<T> dictionary_of(const Tensor& dictionary, const Tensor& mean) {
  return {static_cast<int>(dictionary.size(0)), static_cast<int>(mean.size(0) / 3),
          data<T>(dictionary), data<T>(mean)};
}

}  // namespace ites
