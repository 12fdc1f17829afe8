// Philox 4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011):
// 128 random bits as a function of a counter and a key, with no state.
#pragma once

#include "common/scalar.h"

namespace ites {

ITES_FN uint32_t high_product(uint32_t a, uint32_t b) {
  return static_cast<uint32_t>((static_cast<uint64_t>(a) * b) >> 32);
}

// Replaces the counter by its random words. W is uint32_t, or lanes of it.
template <class W>
ITES_FN void philox(W (&words)[4], uint32_t key0, uint32_t key1) {
  for (int round = 0; round < 10; ++round) {
    const W high0 = high_product(words[0], W(0xD2511F53u)), low0 = words[0] * W(0xD2511F53u);
    const W high1 = high_product(words[2], W(0xCD9E8D57u)), low1 = words[2] * W(0xCD9E8D57u);
    words[0] = high1 ^ words[1] ^ W(key0);
    words[1] = low1;
    words[2] = high0 ^ words[3] ^ W(key1);
    words[3] = low0;
    key0 += 0x9E3779B9u;
    key1 += 0xBB67AE85u;
  }
}

// The place of a stream of draws: the counter tensor (seed, offset, first_pose).
struct Stream {
  uint32_t key0, key1, offset0, offset1, first_pose;
};

ITES_FN Stream stream_at(const int64_t* counter) {
  const uint64_t seed = static_cast<uint64_t>(counter[0]),
                 offset = static_cast<uint64_t>(counter[1]);
  return {static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32),
          static_cast<uint32_t>(offset), static_cast<uint32_t>(offset >> 32),
          static_cast<uint32_t>(counter[2])};
}

// The four random words of pose `pose` of the batch and its sample `sample`.
template <class W>
ITES_FN void random_words(const Stream& stream, W pose, uint32_t sample, W (&words)[4]) {
  words[0] = pose + W(stream.first_pose);
  words[1] = W(sample);
  words[2] = W(stream.offset0);
  words[3] = W(stream.offset1);
  philox(words, stream.key0, stream.key1);
}

}  // namespace ites
