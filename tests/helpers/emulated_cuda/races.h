// A checker of races for the emulated kernels: GCC's -fsanitize=thread tells races.cpp of every
// access to memory, in place of its own library.
#pragma once

#include <cstddef>
#include <cstdint>

#define races_unwatched __attribute__((no_sanitize("thread"), noinline))

namespace races {

char* shared();                             // a block's dynamic shared memory
bool left_out(const char* file, int line);  // whether this barrier or wait is the one left out
void begin_launch();
void begin_block(size_t shared_bytes);
void end_block();
void at_barrier(unsigned thread, const char* file, int line);
void passed_block(unsigned thread);
void passed_warp(unsigned thread);
void expect(bool good, const char* what, const char* file, int line);

void watch(bool on);  // whether the accesses that follow are a kernel's

// A stretch of the emulator's own.
struct Aside {
  races_unwatched Aside() { watch(false); }
  races_unwatched ~Aside() { watch(true); }
};

// A shuffle: a warp's threads meet without ordering their memory.
struct Unordered {
  explicit Unordered(unsigned thread);
  ~Unordered();
  unsigned thread;
};

// cp.async: bytes under way may not be touched; they land when their thread waits.
void start_copy(void* to, const void* from, size_t bytes);
void finish_copies(const char* file, int line);

}  // namespace races
