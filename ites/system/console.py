"""Console output: lines, and durations in words."""

from __future__ import annotations

import os

from rich.console import Console

from ites.errors import one_line


class _SteadyConsole(Console):
    """A console that becomes silent when its output pipe closes, as with `| head`."""

    def on_broken_pipe(self) -> None:
        """Discard all further output, including that at the process's exit."""
        self.quiet = True
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self.file.fileno())
        os.close(nowhere)


def command_console() -> Console:
    """Standard output; the work continues silently after the pipe closes."""
    return _SteadyConsole()


def say(console: Console, line: str) -> None:
    """Print a line without wrapping or colour."""
    console.print(one_line(line), highlight=False, soft_wrap=True, markup=False)


def duration(seconds: float) -> str:
    """A duration in words: 42 s, 3:05 min, 2:03 h."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    if seconds < 3600:
        return f"{int(seconds) // 60}:{int(seconds) % 60:02d} min"
    return f"{int(seconds) // 3600}:{int(seconds) // 60 % 60:02d} h"
