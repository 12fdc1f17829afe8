// Faults of a process's files, for `benchmarks.reliability.warm`, by LD_PRELOAD.
//
// Counts the calls that change a file below a folder: making, writing, syncing, cutting, renaming
// and removing. At a chosen call the process is killed, stopped, or told that the disk is full.
// A write that is killed has written half of its bytes.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/time.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum { NONE, KILL, FULL, STOP };

static int fault = NONE;
static long chosen = -1, calls = 0, ticks = 0;
static int backwards = 0;
static char folder[PATH_MAX];

// Take a fault at call number `at`, counted from 0, for files below `place`; count anew.
void faults_set(int kind, long at, const char* place, int clock_backwards) {
  fault = kind;
  chosen = at;
  snprintf(folder, sizeof folder, "%s", place);
  backwards = clock_backwards;
  __atomic_store_n(&calls, 0, __ATOMIC_SEQ_CST);
}

long faults_count(void) { return __atomic_load_n(&calls, __ATOMIC_SEQ_CST); }

static int below(const char* path) {
  const size_t length = strlen(folder);
  return length && strncmp(path, folder, length) == 0;
}

static int path_counts(int at, const char* path) {
  char whole[PATH_MAX], link[64];
  if (!folder[0] || !path) return 0;
  if (path[0] == '/') return below(path);
  ssize_t length;
  if (at == AT_FDCWD) {
    if (!getcwd(whole, sizeof whole)) return 0;
    length = strlen(whole);
  } else {
    snprintf(link, sizeof link, "/proc/self/fd/%d", at);
    length = readlink(link, whole, sizeof whole - 1);
    if (length < 0) return 0;
  }
  snprintf(whole + length, sizeof whole - length, "/%s", path);
  return below(whole);
}

static int handle_counts(int handle) {
  char link[64], whole[PATH_MAX];
  if (!folder[0]) return 0;
  snprintf(link, sizeof link, "/proc/self/fd/%d", handle);
  const ssize_t length = readlink(link, whole, sizeof whole - 1);
  if (length < 0) return 0;
  whole[length] = 0;
  return below(whole);
}

// Counts a call; whether it is the one to be killed in, or must fail.
static int reached(int needs_room, int* kill_now) {
  const long number = __atomic_fetch_add(&calls, 1, __ATOMIC_SEQ_CST);
  *kill_now = 0;
  if (fault == KILL && number == chosen) *kill_now = 1;
  if (fault == STOP && number == chosen) raise(SIGSTOP);
  if (fault == FULL && number >= chosen && needs_room) {
    errno = ENOSPC;
    return 1;
  }
  return 0;
}

static void die(void) {
  kill(getpid(), SIGKILL);
  for (;;) pause();
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
#define GUARD(counts, needs_room)                   \
  do {                                              \
    int kill_now;                                   \
    if (counts) {                                   \
      if (reached(needs_room, &kill_now)) return -1; \
      if (kill_now) die();                          \
    }                                               \
  } while (0)

ssize_t write(int handle, const void* data, size_t size) {
  int kill_now;
  if (handle_counts(handle)) {
    if (reached(1, &kill_now)) return -1;
    if (kill_now) {
      REAL(write)(handle, data, size / 2);
      die();
    }
  }
  return REAL(write)(handle, data, size);
}

ssize_t pwrite(int handle, const void* data, size_t size, off_t at) {
  int kill_now;
  if (handle_counts(handle)) {
    if (reached(1, &kill_now)) return -1;
    if (kill_now) {
      REAL(pwrite)(handle, data, size / 2, at);
      die();
    }
  }
  return REAL(pwrite)(handle, data, size, at);
}

ssize_t pwrite64(int handle, const void* data, size_t size, off64_t at) {
  return pwrite(handle, data, size, at);
}

ssize_t writev(int handle, const struct iovec* parts, int count) {
  GUARD(handle_counts(handle), 1);
  return REAL(writev)(handle, parts, count);
}

static mode_t mode_of(int flags, va_list more) {
  return flags & (O_CREAT | O_TMPFILE) ? va_arg(more, mode_t) : 0;
}

#define OPEN(name)                                               \
  int name(const char* path, int flags, ...) {                   \
    va_list more;                                                \
    va_start(more, flags);                                       \
    const mode_t mode = mode_of(flags, more);                    \
    va_end(more);                                                \
    GUARD((flags & O_CREAT) && path_counts(AT_FDCWD, path), 1);  \
    return REAL(name)(path, flags, mode);                        \
  }
#define OPEN_AT(name)                                            \
  int name(int at, const char* path, int flags, ...) {           \
    va_list more;                                                \
    va_start(more, flags);                                       \
    const mode_t mode = mode_of(flags, more);                    \
    va_end(more);                                                \
    GUARD((flags & O_CREAT) && path_counts(at, path), 1);        \
    return REAL(name)(at, path, flags, mode);                    \
  }
OPEN(open)
OPEN(open64)
OPEN_AT(openat)
OPEN_AT(openat64)

int rename(const char* from, const char* to) {
  GUARD(path_counts(AT_FDCWD, to), 1);
  return REAL(rename)(from, to);
}

int renameat(int from_at, const char* from, int to_at, const char* to) {
  GUARD(path_counts(to_at, to), 1);
  return REAL(renameat)(from_at, from, to_at, to);
}

int unlink(const char* path) {
  GUARD(path_counts(AT_FDCWD, path), 0);
  return REAL(unlink)(path);
}

int unlinkat(int at, const char* path, int flags) {
  GUARD(path_counts(at, path), 0);
  return REAL(unlinkat)(at, path, flags);
}

int rmdir(const char* path) {
  GUARD(path_counts(AT_FDCWD, path), 0);
  return REAL(rmdir)(path);
}

int mkdir(const char* path, mode_t mode) {
  GUARD(path_counts(AT_FDCWD, path), 1);
  return REAL(mkdir)(path, mode);
}

int ftruncate(int handle, off_t size) {
  GUARD(handle_counts(handle), 1);
  return REAL(ftruncate)(handle, size);
}

int ftruncate64(int handle, off64_t size) { return ftruncate(handle, size); }

int fsync(int handle) {
  GUARD(handle_counts(handle), 1);
  return REAL(fsync)(handle);
}

// A clock that goes backwards: an hour behind, and each call a minute before the last one.
int clock_gettime(clockid_t clock, struct timespec* now) {
  const int result = REAL(clock_gettime)(clock, now);
  if (backwards && clock == CLOCK_REALTIME && result == 0)
    now->tv_sec -= 3600 + 60 * __atomic_fetch_add(&ticks, 1, __ATOMIC_SEQ_CST);
  return result;
}
