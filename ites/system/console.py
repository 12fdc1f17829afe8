"""How numbers are told to people."""

from __future__ import annotations


def duration(seconds: float) -> str:
    """A duration in words: 42 s, 3:05 min, 2:03 h."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    if seconds < 3600:
        return f"{int(seconds) // 60}:{int(seconds) % 60:02d} min"
    return f"{int(seconds) // 3600}:{int(seconds) // 60 % 60:02d} h"
