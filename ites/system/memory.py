"""Retention of freed main memory between steps."""

from __future__ import annotations

import ctypes

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # from glibc's malloc.h
_KEPT = 1 << 30  # maximum bytes of free memory to keep
_LARGE = 32 << 20  # the largest that glibc allows: larger blocks are mapped each time


def keep_freed_memory() -> None:
    """Make glibc keep freed memory for the next step, which allocates the same amount.

    Otherwise glibc returns pages to the system after each step and faults them in again in the
    next. This costs a tenth of a student's step on a CPU. The setting affects the whole process;
    with another malloc it has no effect.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # TypeError: Windows has no CDLL(None)
        return
    mallopt(_MMAP_THRESHOLD, _LARGE)
    mallopt(_TRIM_THRESHOLD, _KEPT)
