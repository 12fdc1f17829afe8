"""The exit of the command line: every error is printed as one line."""

from __future__ import annotations

import errno
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from ites.cli.hints import hint_of
from ites.errors import ItesError, shorten

LONG = ("demo", "fit", "train")
"""Commands whose result is worth more than their output: they continue after its pipe closes."""
TRACEBACK = "ITES_TRACEBACK"
"""The environment variable that adds the traceback."""
USERS = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG)
"""Errors of the system that a wrong path causes; others are faults of the machine."""

NO_MEMORY = ("not enough memory", "can't allocate memory")
"""How PyTorch says that main memory does not suffice."""


def run(app: Callable[..., Any], args: Sequence[str] | None = None) -> None:
    """Run the command line and leave the process.

    Exit code 2 stands for a mistake of the user. Exit code 1 stands for a fault of the machine: a
    full disk, no memory, no permission, a closed output.

    Args:
        app: the Typer application.
        args: words of the command line; None: of this process.

    Raises:
        SystemExit: always.
    """
    words = sys.argv[1:] if args is None else list(args)
    if words[:1] == ["--"]:  # keeps torchrun from taking our options for its own
        words = words[1:]
    with _guarded_output(endures=words[:1] != [] and words[0] in LONG):
        try:
            code = app(words, prog_name="ites", standalone_mode=False)
            if sys.stdout is not None:
                sys.stdout.flush()
        except BrokenPipeError:  # the reader of our output has gone, as `| head` does
            _silence(sys.stdout)
            sys.exit(1)
        except Exception as error:
            sys.exit(_print_error(error))
    sys.exit(code if isinstance(code, int) else 0)


def _print_error(error: Exception) -> int:
    """Print an error's line; its exit code."""
    if os.environ.get(TRACEBACK):
        traceback.print_exception(error)
    if type(error).__name__ == "NoArgsIsHelpError":
        error.show()  # type: ignore[attr-defined]
        return 2
    code, line = describe(error)
    with suppress(OSError, ValueError):
        print(shorten(f"ites: {line}", 300), file=sys.stderr, flush=True)
    if isinstance(error, OSError) and error.filename == _NAME:
        _silence(sys.stdout)  # or the flush at the end of the process fails again
    return code


def describe(error: Exception) -> tuple[int, str]:
    """The exit code and the line of an error."""
    if isinstance(error, ItesError):
        return 2, f"{error}{hint_of(error)}"
    if hasattr(error, "format_message"):  # Typer's own, of a wrong option or argument
        context = getattr(error, "ctx", None)
        path = getattr(context, "command_path", "ites").removeprefix("ites").strip()
        where = f"{path}: " if path else ""
        return 2, f"{where}{error.format_message()} See: ites {path} --help".replace("  ", " ")
    if isinstance(error, OSError):
        reason = error.strerror or str(error)
        name = f"{error.filename}: " if error.filename is not None else ""
        return (2 if error.errno in USERS else 1), f"{name}{reason}"
    if isinstance(error, MemoryError) or any(words in str(error) for words in NO_MEMORY):
        return 1, f"not enough memory {f'({error})' if str(error) else ''}".strip()
    if type(error).__name__ in ("OutOfMemoryError", "Abort"):
        return 1, str(error) or "aborted"
    kind = type(error).__name__
    return 1, f"unexpected {kind}: {error} (its traceback: {TRACEBACK}=1 ites ...)"


_NAME = "standard output"


class _Output:
    """Standard output whose errors name it, and which may outlive its reader."""

    def __init__(self, stream: Any, endures: bool) -> None:
        self._stream, self._endures = stream, endures

    def write(self, text: Any) -> int:
        with self._guard():
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with self._guard():
            self._stream.flush()

    @contextmanager
    def _guard(self) -> Iterator[None]:
        try:
            yield
        except BrokenPipeError:
            if not self._endures:
                raise
            _silence(self._stream)
        except OSError as error:
            raise OSError(error.errno, error.strerror, _NAME) from None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def _guarded_output(endures: bool) -> Iterator[None]:
    """Put `_Output` in place of standard output, and of standard error where it should endure."""
    before = sys.stdout, sys.stderr
    if sys.stdout is not None:
        sys.stdout = _Output(sys.stdout, endures)  # type: ignore[assignment]
    if sys.stderr is not None and endures:
        sys.stderr = _Output(sys.stderr, endures)  # type: ignore[assignment]
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


def _silence(stream: Any) -> None:
    """Discard all further output of a stream, and what its buffer still holds."""
    with suppress(OSError, ValueError, AttributeError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
