"""Calls in a process of their own, for libraries that a damaged file can end or stall.

HDF5 trusts much of a file: a damaged byte can end the process by a wrong access, or keep it busy
without end. A file from elsewhere is therefore read by a child process, which hands over arrays. If
the child dies, the file is refused in one line.
"""

from __future__ import annotations

import importlib
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar, cast

from ites.errors import ItesError

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

SECONDS, SECONDS_PER_MB = 30.0, 0.2
"""Processor time that a call may take: in any case, and more by the file's size."""
WAIT = 20
"""Times as long a call may last, on a busy machine."""
MEMORY, MEMORY_PER_BYTE = 2 << 30, 200
"""Bytes that a call may take beyond those at its start: in any case, and by the file's size."""
_CHILD = """import sys
sys.path[:] = sys.argv[1:]
from ites.system.isolated import serve
serve()
"""
"""A child's program. It finds modules where its parent does, not first in the current folder."""
_inside = False
"""Whether calls are made in this process: in a child, and where a test asks for it."""

Result = TypeVar("Result")


def isolated(function: Callable[..., Result], path: str | os.PathLike[str], *given: Any) -> Result:
    """Return `function(path, *given)`, called in a child process.

    Args:
        function: of a module, not nested; its result and arguments can be pickled.
        path: the file or folder to read, for the limits and the messages.
        given: more arguments.

    Raises:
        ItesError: the function raised it, or the child died or exceeded its limits.
        OSError: the child cannot be started.
    """
    if _inside or not sys.executable:  # a program that embeds Python may not know which
        return function(path, *given)
    size = _bytes(Path(path))
    seconds = SECONDS + SECONDS_PER_MB * size / 1e6
    limits = int(seconds), max(MEMORY, MEMORY_PER_BYTE * size)
    request = pickle.dumps((function.__module__, function.__name__, path, given, limits))
    command = [sys.executable, "-c", _CHILD, *sys.path]
    try:
        ended = subprocess.run(command, input=request, capture_output=True, timeout=WAIT * seconds)
    except subprocess.TimeoutExpired:
        raise ItesError(f"{path}: expected a sound file, got one that takes too long") from None
    try:
        refused, value = pickle.loads(ended.stdout)
    except Exception:  # no answer, or half of one
        message = f"{path}: expected a sound file, got one that {_end(ended)}"
        raise ItesError(message) from None
    if refused is not None:
        raise refused
    return cast("Result", value)


def refuse_elsewhere(path: str | os.PathLike[str], reader: Callable[..., Any]) -> None:
    """Let a child process say why a reader refuses a file; in a child, do nothing.

    Args:
        path: the file, which is not one that the reader takes.
        reader: a class or function that raises an ItesError for it.

    Raises:
        ItesError: what the reader says.
    """
    if not _inside:
        isolated(_read_and_forget, path, reader)


def _read_and_forget(path: str | os.PathLike[str], reader: Callable[..., Any]) -> None:
    reader(path)


def _end(ended: subprocess.CompletedProcess[bytes]) -> str:
    """How a child ended that gave no answer, in words that follow "one that"."""
    if ended.returncode in (-_signal("SIGXCPU"), -_signal("SIGKILL")):
        return "takes too long or too much memory"
    line = ended.stderr.decode("utf-8", "replace").strip().splitlines()[-1:]
    if ended.returncode < 0:
        line = [f"signal {-ended.returncode}"]
    return f"ends its reader: {''.join(line)[:100] or f'exit code {ended.returncode}'}"


def _signal(name: str) -> int:
    return int(getattr(signal, name, 0))


def _bytes(path: Path) -> int:
    """The size of a file, or of the files in a folder."""
    with suppress(OSError):
        if path.is_dir():
            return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
        return path.stat().st_size
    return 0


def _limit(seconds: int, memory: int) -> None:
    """Limit this process's processor time and memory, where the system can."""
    if resource is None:
        return
    with suppress(OSError, ValueError, AttributeError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 5))
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + memory, used + memory))


def serve() -> None:
    """Answer the request on standard input; what is printed meanwhile goes to standard error."""
    global _inside
    _inside = True
    answer = os.dup(1)
    os.dup2(2, 1)
    name, function, path, given, limits = pickle.load(sys.stdin.buffer)
    call = getattr(importlib.import_module(name), function)
    _limit(*limits)
    try:
        reply: tuple[ItesError | None, Any] = None, call(path, *given)
    except ItesError as error:
        reply = error, None
    with os.fdopen(answer, "wb") as stream:
        stream.write(pickle.dumps(reply))
        stream.flush()
        os._exit(0)  # what a damaged file has left of HDF5 is not closed
