"""What main memory does with what a step frees."""

from __future__ import annotations

import ctypes

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # glibc's malloc.h
_KEPT = 1 << 30  # most bytes of free memory that are kept
_LARGE = 32 << 20  # the largest that glibc allows: what is larger is mapped each time


def keep_freed_memory() -> None:
    """Have glibc keep freed memory for the next step, which takes as much again.

    Otherwise it gives pages back to the system at the end of a step and gets them again, cleared
    one by one, in the next: a tenth of a student's step on a CPU. It holds for the whole process;
    where malloc is not glibc's, nothing is done.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return
    mallopt(_MMAP_THRESHOLD, _LARGE)
    mallopt(_TRIM_THRESHOLD, _KEPT)
