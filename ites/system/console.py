"""What a person reads of a command: lines, and numbers in words."""

from __future__ import annotations

import os

from rich.console import Console


class _SteadyConsole(Console):
    """A console that falls silent where the reader of its output has gone, as `| head` does."""

    def on_broken_pipe(self) -> None:
        """Send what follows nowhere, at the process's exit too."""
        self.quiet = True
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self.file.fileno())
        os.close(nowhere)


def command_console() -> Console:
    """Standard output; the work goes on in silence where its reader has gone."""
    return _SteadyConsole()


def say(console: Console, line: str) -> None:
    """Print a line as it is: not wrapped, not coloured."""
    console.print(line, highlight=False, soft_wrap=True, markup=False)


def duration(seconds: float) -> str:
    """A duration in words: 42 s, 3:05 min, 2:03 h."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    if seconds < 3600:
        return f"{int(seconds) // 60}:{int(seconds) % 60:02d} min"
    return f"{int(seconds) // 3600}:{int(seconds) // 60 % 60:02d} h"
