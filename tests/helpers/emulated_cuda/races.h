// A checker of races for the emulated kernels: GCC's -fsanitize=thread tells races.cpp of every
// access to memory, in place of its own library.
#pragma once

#include <cstddef>
#include <cstdint>

#define races_unwatched __attribute__((no_sanitize("thread"), noinline))

namespace races {

char* shared();                             // a block's dynamic shared memory
bool left_out(const char* file, int line);  // whether this barrier or wait is the one left out
void begin_launch(bool beside);  // whether it may start before the launch before it has ended
void begin_cluster(unsigned blocks, size_t shared_bytes);
void end_cluster();
// Of the thread that runs.
void at_barrier(const char* file, int line);
void passed_block();
void passed_warp();
void arrived_at_cluster();
void passed_cluster();
void passed_launch_before();
bool may_still_run();  // the launch before
void expect(bool good, const char* what, const char* file, int line);

void watch(bool on);  // whether the accesses that follow are a kernel's

// A stretch of the emulator's own.
struct Aside {
  races_unwatched Aside() { watch(false); }
  races_unwatched ~Aside() { watch(true); }
};

// A shuffle: a warp's threads meet without ordering their memory.
struct Unordered {
  Unordered();
  ~Unordered();
};

// cp.async: bytes under way may not be touched; they land when their thread waits. Where nothing is
// given, zeros are copied. Copies belong to groups; a wait may leave the latest groups under way.
void start_copy(void* to, const void* from, size_t bytes, bool given = true);
void end_group();
void finish_groups_but(unsigned groups, const char* file, int line);
void finish_copies(const char* file, int line);

// Stores into the shared memory of a block of the cluster, at `to`'s place in this one's.
void store_to_block(void* to, unsigned block, const void* value, size_t bytes);
void load_from_block(const void* from, unsigned block, void* value, size_t bytes);

}  // namespace races
