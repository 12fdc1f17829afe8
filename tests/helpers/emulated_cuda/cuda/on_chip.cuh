// Stands for csrc/cuda/on_chip.cuh on a CPU: this folder comes first on the compiler's path.
#pragma once

namespace ites {

inline float* shared_floats() { return reinterpret_cast<float*>(races::shared()); }

template <int BYTES>
races_unwatched void start_bytes(void* to, const void* from) {
  races::start_copy(to, from, BYTES);
}

template <int BYTES>
races_unwatched void start_bytes_or_zero(void* to, const void* from, bool given) {
  races::start_copy(to, from, BYTES, given);
}

races_unwatched inline void end_group() { races::end_group(); }

template <int GROUPS>
races_unwatched void finish_groups_but(const char* file = __builtin_FILE(),
                                       int line = __builtin_LINE()) {
  races::finish_groups_but(GROUPS, file, line);
}

races_unwatched inline void finish_copies(const char* file = __builtin_FILE(),
                                          int line = __builtin_LINE()) {
  races::finish_copies(file, line);
}

races_unwatched inline void cluster_arrive() {
  const races::Aside aside;
  races::arrived_at_cluster();
  ++emulated::arrivals;
}
races_unwatched inline void cluster_wait(const char* file = __builtin_FILE(),
                                         int line = __builtin_LINE()) {
  const races::Aside aside;
  const size_t fiber = emulated::current, threads = emulated::running;
  ++emulated::waits[fiber];
  if (races::left_out(file, line)) return;
  while (emulated::arrivals < emulated::waits[fiber] * threads) emulated::yield();
  emulated::be_current();
  races::passed_cluster();
}

races_unwatched inline void store_to_block(float4* to, int block, float4 value) {
  races::store_to_block(to, static_cast<unsigned>(block), &value, sizeof value);
}

races_unwatched inline float4 load_from_block(const float4* from, int block) {
  float4 value;
  races::load_from_block(from, static_cast<unsigned>(block), &value, sizeof value);
  return value;
}

races_unwatched inline void wait_for_launch_before(const char* file = __builtin_FILE(),
                                                   int line = __builtin_LINE()) {
  if (!races::left_out(file, line)) races::passed_launch_before();
}
races_unwatched inline void let_launch_after_start(const char* file = __builtin_FILE(),
                                                   int line = __builtin_LINE()) {
  races::expect(!races::may_still_run(), "the launch after may start before this one's wait", file,
                line);
}

races_unwatched inline uint32_t to_tf32(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  return std::isfinite(x) ? (bits + 0x1000) & ~0x1FFFu : bits;  // ties go away from zero
}

races_unwatched inline uint32_t to_bfloat16(float first, float second) {
  const auto half = [](float x) {
    uint32_t bits;
    std::memcpy(&bits, &x, sizeof bits);
    return (std::isfinite(x) ? bits + 0x7FFF + (bits >> 16 & 1) : bits) >> 16;  // ties go to even
  };
  return half(second) << 16 | half(first);
}

// The factors of a warp's lanes.
struct Fragments {
  uint32_t a[4], b[2];
};
inline Fragments fragments[emulated::MOST_FIBERS];

// sum += a b of the warp; left(row, inner) and right(inner, column) look up its lanes' factors.
template <size_t A, size_t B, class Left, class Right>
races_unwatched void multiply_fragments(float (&sum)[4], const uint32_t (&a)[A],
                                        const uint32_t (&b)[B], const Left& left,
                                        const Right& right) {
  const races::Unordered warp;
  races::watch(false);
  const size_t lane = threadIdx.x % 32;
  Fragments& mine = fragments[emulated::current];
  std::memcpy(mine.a, a, sizeof a);
  std::memcpy(mine.b, b, sizeof b);
  __syncwarp();
  races::watch(false);
  const Fragments* const lanes = &fragments[emulated::current - lane];
  for (size_t k = 0; k < 4; ++k) {
    const size_t row = lane / 4 + k / 2 * 8, column = lane % 4 * 2 + k % 2;
    for (size_t inner = 0; inner < 8; ++inner) {
      const uint32_t bits[] = {left(lanes, row, inner), right(lanes, inner, column)};
      float factors[2];
      std::memcpy(factors, bits, sizeof bits);
      sum[k] += factors[0] * factors[1];
    }
  }
  __syncwarp();  // which watches again
}

// By the tables of the PTX manual.
races_unwatched inline void multiply_tf32(float (&sum)[4], const uint32_t (&a)[4],
                                          const uint32_t (&b)[2],
                                          const char* file = __builtin_FILE(),
                                          int line = __builtin_LINE()) {
  for (const uint32_t bits : {a[0], a[1], a[2], a[3], b[0], b[1]})
    races::expect(!(bits & 0x1FFF), "a factor is not rounded to TF32", file, line);
  multiply_fragments(
      sum, a, b,
      [](const Fragments* lanes, size_t row, size_t inner) {
        return lanes[row % 8 * 4 + inner % 4].a[row / 8 + inner / 4 * 2];
      },
      [](const Fragments* lanes, size_t inner, size_t column) {
        return lanes[column * 4 + inner % 4].b[inner / 4];
      });
}

races_unwatched inline void multiply_bfloat16(float (&sum)[4], const uint32_t (&a)[2],
                                              const uint32_t (&b)[1]) {
  const auto half = [](uint32_t pair, size_t k) { return pair >> 16 * k << 16; };
  multiply_fragments(
      sum, a, b,
      [&](const Fragments* lanes, size_t row, size_t inner) {
        return half(lanes[row % 8 * 4 + inner / 2].a[row / 8], inner % 2);
      },
      [&](const Fragments* lanes, size_t inner, size_t column) {
        return half(lanes[column * 4 + inner / 2].b[0], inner % 2);
      });
}

}  // namespace ites
