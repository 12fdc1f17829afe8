// Every byte of shared memory, and every half word of global memory, remembers who touched it last.
// Two accesses by different threads, one of them a write, are a race unless both threads passed a
// barrier between them: the block's, the warp's for threads of one warp, or the cluster's. Blocks
// of different clusters are never ordered. Reported as well: reads of shared memory that nothing
// wrote, accesses beyond it, wide accesses that are not aligned, accesses to bytes that an
// asynchronous copy has under way, barriers that threads of one block reach at different lines,
// accesses to another block's shared memory before that block is known to run or after it may have
// ended, and in a launch that starts beside the one before it, before its wait, writes to global
// memory and reads of what the launch before wrote.
#include "races.h"

#include <dlfcn.h>
#include <unistd.h>

#include <cmath>
#include <cstdio>
#include <cstring>
#include <string>
#include <unordered_map>
#include <vector>

#include "cuda_runtime.h"

// The bounds of the section that __shared__ variables are put into.
extern "C" char __start_ites_shared[] __attribute__((weak));
extern "C" char __stop_ites_shared[] __attribute__((weak));

namespace races {
namespace {

using emulated::MOST_BLOCKS;
using emulated::MOST_FIBERS;

constexpr size_t ARENA = 128 << 10, GUARD = 16 << 10, WHOLE = ARENA + 2 * GUARD;
constexpr int CAUGHT = 42;  // exit status of a process that leaves out a barrier

struct Stamp {
  uint32_t block = 0;  // counted from the start of the process; 0: never
  uint32_t barriers = 0, warps = 0, arrivals = 0, passes = 0;  // the latter two of the cluster's
  uint16_t thread = 0;
  const void* place = nullptr;
};
struct Shadow {
  Stamp write, read, other;  // the last write, and reads by two threads
  bool pending = false;      // an asynchronous copy is under way
};
struct Copy {
  char* to;
  char data[16];
  size_t bytes;
  unsigned group;
};
struct Site {
  const char* file;
  int line;
};

alignas(16) char arenas[MOST_BLOCKS * WHOLE];  // one per block of the cluster
Shadow shadows[MOST_BLOCKS * WHOLE];
std::unordered_map<uintptr_t, Shadow> global, fixed;  // by half word; by byte of __shared__
std::unordered_map<uintptr_t, Shadow> before;         // `global` of the launch before
std::vector<Copy> copies[MOST_FIBERS];
unsigned groups[MOST_FIBERS];  // that are ended
uint32_t barriers[MOST_FIBERS], warps[MOST_FIBERS], quiet[MOST_FIBERS];
uint32_t arrivals[MOST_FIBERS], passes[MOST_FIBERS];
bool alone[MOST_FIBERS];        // the launch before has ended
int64_t met_at[MOST_BLOCKS];    // the latest arrivals of a thread that accessed a block's; or -1
bool starts_beside;             // this launch, the one before it
size_t bytes_of_block;
unsigned blocks = 1;   // of the cluster
uint32_t first_block;  // its first, counted from the start of the process
bool inside;           // a kernel
bool busy;             // the checker itself, whose accesses do not count
std::vector<std::string> reports;
std::string leave_out;

size_t fiber_now() { return emulated::current; }

// Whether an address is in the thread's stack or one of the built-in variables.
bool own(const char* address) {
  const char* const stack = emulated::fibers[emulated::current].stack.get();
  const auto of = [&](const dim3& d) {
    return address >= reinterpret_cast<const char*>(&d) &&
           address < reinterpret_cast<const char*>(&d + 1);
  };
  return (address >= stack && address < stack + emulated::STACK) || of(threadIdx) || of(blockIdx) ||
         of(blockDim) || of(gridDim);
}

void tell(const std::string& what) {
  if (!leave_out.empty()) _exit(CAUGHT);
  for (const std::string& report : reports)
    if (report == what) return;
  reports.push_back(what);
}

std::string at(const void* place) {
  Dl_info info{};
  char text[64];
  if (!dladdr(place, &info)) return "?";
  std::snprintf(text, sizeof text, "@%zx",
                static_cast<const char*>(place) - static_cast<const char*>(info.dli_fbase));
  return text;
}

bool ordered(const Stamp& a, const Stamp& b) {
  if (a.block == 0 || (a.block == b.block && a.thread == b.thread)) return true;
  if (a.block < first_block) return false;
  if (b.passes > a.arrivals) return true;
  if (a.block != b.block) return false;
  return a.barriers != b.barriers || (a.thread / 32 == b.thread / 32 && a.warps != b.warps);
}

void check(Shadow& s, const Stamp& now, bool write, const char* memory) {
  const auto race = [&](const Stamp& before, const char* kinds) {
    tell(std::string("race in ") + memory + " memory, " + kinds + ": " + at(before.place) +
         " and " + at(now.place));
  };
  if (s.pending) tell("an asynchronous copy is under way, not waited for: " + at(now.place));
  if (!ordered(s.write, now)) race(s.write, write ? "write and write" : "write and read");
  if (write) {
    if (!ordered(s.read, now)) race(s.read, "read and write");
    if (!ordered(s.other, now)) race(s.other, "read and write");
    s.write = now;
    return;
  }
  if (s.read.block != now.block || s.read.thread != now.thread) s.other = s.read;
  s.read = now;
}

void access_shared(Shadow& s, const Stamp& now, bool write) {
  if (s.write.block < first_block) {  // of an earlier cluster
    if (s.read.block < first_block) {
      const bool pending = s.pending;
      s = Shadow{};
      s.pending = pending;
    }
    if (!write && !s.pending) tell("shared memory read that nothing wrote: " + at(now.place));
  }
  check(s, now, write, "shared");
}

void access(const void* address, size_t size, bool write, const void* place, bool wide = false) {
  if (!inside || busy) return;
  busy = true;
  const size_t fiber = fiber_now();
  const unsigned block = emulated::block_now();
  const auto from = reinterpret_cast<uintptr_t>(address);
  const char* const bytes = static_cast<const char*>(address);
  if (wide && size >= 8 && from % size) tell("a wide access is not aligned: " + at(place));
  const Stamp now{first_block + block,
                  barriers[fiber],
                  warps[fiber],
                  arrivals[fiber],
                  passes[fiber],
                  static_cast<uint16_t>(fiber - block * blockDim.x),
                  place};
  if (bytes >= arenas && bytes < arenas + sizeof arenas) {
    const size_t first = bytes - arenas, owner = first / WHOLE, within = first % WHOLE;
    if (owner >= blocks || within < GUARD || within + size > GUARD + bytes_of_block) {
      tell("beyond shared memory: " + at(place));
    } else {
      for (size_t k = first; k < first + size; ++k) access_shared(shadows[k], now, write);
      if (owner != block) {
        if (!passes[fiber]) tell("an access to a block that may not run yet: " + at(place));
        met_at[owner] = std::max<int64_t>(met_at[owner], arrivals[fiber]);
      }
    }
  } else if (bytes >= __start_ites_shared && bytes < __stop_ites_shared) {
    for (size_t k = 0; k < size; ++k) access_shared(fixed[from + k], now, write);
  } else if (!own(bytes)) {
    for (uintptr_t k = from & ~uintptr_t(1); k < from + size; k += 2) {
      check(global[k], now, write, "global");
      if (alone[fiber]) continue;
      const auto found = before.find(k);
      if (write || (found != before.end() && found->second.write.block))
        tell("the launch before may still run: " + at(place));
    }
  }
  busy = false;
}

}  // namespace

char* shared() { return arenas + emulated::block_now() * WHOLE + GUARD; }

bool left_out(const char* file, int line) {
  if (leave_out.empty()) return false;
  const char* name = std::strrchr(file, '/');
  return leave_out == std::string(name ? name + 1 : file) + ":" + std::to_string(line);
}

void begin_launch(bool beside) {
  before.swap(global);
  global.clear();
  starts_beside = beside;
}

void begin_cluster(unsigned number, size_t shared_bytes) {
  first_block += blocks;
  blocks = number;
  bytes_of_block = shared_bytes;
  const float nan = NAN;
  for (size_t k = 0; k < number * WHOLE; k += sizeof nan) std::memcpy(arenas + k, &nan, sizeof nan);
  for (auto* counts : {barriers, warps, arrivals, passes, groups})
    std::fill(counts, counts + MOST_FIBERS, 0);
  std::fill(alone, alone + MOST_FIBERS, !starts_beside);
  std::fill(met_at, met_at + MOST_BLOCKS, -1);
}

void watch(bool on) { inside = on; }

void end_cluster() {
  for (auto& list : copies) {
    if (!list.empty()) tell("a block ended with asynchronous copies under way");
    for (const Copy& copy : list)
      for (size_t k = 0; k < copy.bytes; ++k) shadows[copy.to - arenas + k].pending = false;
    list.clear();
  }
  for (unsigned block = 0; block < blocks; ++block) {
    const uint32_t* const first = passes + block * blockDim.x;
    if (met_at[block] >= *std::max_element(first, first + blockDim.x))
      tell("a block may end while another accesses its shared memory");
  }
}

// All threads of a block must wait at the same line.
void at_barrier(const char* file, int line) {
  static uint32_t generations[MOST_BLOCKS], of_cluster[MOST_BLOCKS];
  static Site places[MOST_BLOCKS];
  const unsigned block = emulated::block_now();
  uint32_t &generation = generations[block], count = barriers[fiber_now()];
  Site& place = places[block];
  if (of_cluster[block] != first_block || generation != count) {
    of_cluster[block] = first_block;
    generation = count;
    place = {file, line};
  } else if (place.line != line || std::strcmp(place.file, file) != 0) {
    tell("threads of a block wait at different barriers: lines " + std::to_string(place.line) +
         " and " + std::to_string(line));
  }
}
void passed_block() { ++barriers[fiber_now()]; }
void passed_warp() {
  if (!quiet[fiber_now()]) ++warps[fiber_now()];
}
void arrived_at_cluster() { ++arrivals[fiber_now()]; }
void passed_cluster() { ++passes[fiber_now()]; }
void passed_launch_before() { alone[fiber_now()] = true; }
bool may_still_run() { return !alone[fiber_now()]; }
void expect(bool good, const char* what, const char* file, int line) {
  if (!good) tell(std::string(what) + ": " + file + ":" + std::to_string(line));
}

Unordered::Unordered() { ++quiet[fiber_now()]; }
Unordered::~Unordered() { --quiet[fiber_now()]; }

void start_copy(void* to, const void* from, size_t bytes, bool given) {
  const void* const place = __builtin_return_address(0);
  if (given) access(from, bytes, false, place);
  access(to, bytes, true, place);
  if (reinterpret_cast<uintptr_t>(to) % bytes || reinterpret_cast<uintptr_t>(from) % bytes)
    tell("an asynchronous copy is not aligned: " + at(place));
  char* const there = static_cast<char*>(to);
  for (size_t k = 0; k < bytes; ++k) shadows[there - arenas + k].pending = true;
  Copy copy{there, {}, bytes, groups[fiber_now()]};
  if (given) std::memcpy(copy.data, from, bytes);
  std::memset(to, 0xFF, bytes);  // NaN until it lands
  copies[fiber_now()].push_back(copy);
}

void end_group() { ++groups[fiber_now()]; }

// Lets the copies of the groups before `end` land.
static void finish(unsigned end, const void* place) {
  auto& mine = copies[fiber_now()];
  std::vector<Copy> left;
  for (const Copy& copy : mine) {
    if (copy.group >= end) {
      left.push_back(copy);
      continue;
    }
    std::memcpy(copy.to, copy.data, copy.bytes);
    for (size_t k = 0; k < copy.bytes; ++k) shadows[copy.to - arenas + k].pending = false;
    access(copy.to, copy.bytes, true, place);
  }
  mine = left;
}

void finish_groups_but(unsigned count, const char* file, int line) {
  const unsigned ended = groups[fiber_now()];
  if (!left_out(file, line)) finish(ended > count ? ended - count : 0, __builtin_return_address(0));
}

void finish_copies(const char* file, int line) {
  if (!left_out(file, line)) finish(~0u, __builtin_return_address(0));
}

void store_to_block(void* to, unsigned block, const void* value, size_t bytes) {
  const size_t within = (static_cast<char*>(to) - arenas) % WHOLE;
  char* const there = arenas + block * WHOLE + within;
  access(there, bytes, true, __builtin_return_address(0), true);
  std::memcpy(there, value, bytes);
}

void load_from_block(const void* from, unsigned block, void* value, size_t bytes) {
  const size_t within = (static_cast<const char*>(from) - arenas) % WHOLE;
  const char* const there = arenas + block * WHOLE + within;
  access(there, bytes, false, __builtin_return_address(0), true);
  std::memcpy(value, there, bytes);
}

}  // namespace races

#define ITES_EXPORT extern "C" __attribute__((visibility("default")))

// For Python: the barrier "file:line" to leave out, "" for none; the reports so far.
ITES_EXPORT void races_leave_out(const char* site) { races::leave_out = site; }
ITES_EXPORT int races_count() { return static_cast<int>(races::reports.size()); }
ITES_EXPORT const char* races_report(int i) { return races::reports[i].c_str(); }
ITES_EXPORT void races_forget() { races::reports.clear(); }

// What GCC calls before each access.
#define ITES_WATCH(SIZE)                                              \
  extern "C" void __tsan_read##SIZE(void* p) {                        \
    races::access(p, SIZE, false, __builtin_return_address(0), true); \
  }                                                                   \
  extern "C" void __tsan_write##SIZE(void* p) {                       \
    races::access(p, SIZE, true, __builtin_return_address(0), true);  \
  }                                                                   \
  extern "C" void __tsan_unaligned_read##SIZE(void* p) {              \
    races::access(p, SIZE, false, __builtin_return_address(0));       \
  }                                                                   \
  extern "C" void __tsan_unaligned_write##SIZE(void* p) {             \
    races::access(p, SIZE, true, __builtin_return_address(0));        \
  }
ITES_WATCH(1)
ITES_WATCH(2)
ITES_WATCH(4)
ITES_WATCH(8)
ITES_WATCH(16)
#undef ITES_WATCH

extern "C" {
void __tsan_read_range(void* p, size_t n) {
  races::access(p, n, false, __builtin_return_address(0));
}
void __tsan_write_range(void* p, size_t n) {
  races::access(p, n, true, __builtin_return_address(0));
}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_init() {}
void __tsan_vptr_update(void**, void*) {}
void __tsan_vptr_read(void**) {}
int __tsan_atomic32_fetch_add(volatile int* p, int v, int) { return __atomic_fetch_add(p, v, 5); }
int __tsan_atomic32_load(const volatile int* p, int) { return __atomic_load_n(p, 5); }
char __tsan_atomic8_load(const volatile char* p, int) { return __atomic_load_n(p, 5); }
}
