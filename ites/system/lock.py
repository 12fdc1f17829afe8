"""Exclude a second process from the same work; a process that dies leaves no lock behind."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ites.errors import ItesError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


@contextmanager
def lock(path: str | os.PathLike[str], what: str) -> Iterator[None]:
    """Hold a lock during the block through a file that contains this process's ID.

    The system frees the lock when the process ends, even by a crash. The end of the block removes
    the file, and empty folders that were made for it. Without locks in the system or the file
    system, nothing is held.

    Args:
        path: the lock file.
        what: the exclusive work, such as "run: a training".

    Raises:
        ItesError: another process holds the lock; the message has its process ID.
        OSError: the file cannot be made.
    """
    path = Path(path)
    made = [folder for folder in path.parents if not folder.exists()]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = _acquire(path, what)
        try:
            _write_id(handle, path)
            yield
        finally:
            if fcntl is None:
                os.close(handle)  # Windows removes no open file
            with suppress(OSError):
                path.unlink(missing_ok=True)  # still locked: no other process has it
            if fcntl is not None:
                os.close(handle)
    finally:
        for folder in made:
            with suppress(OSError):
                folder.rmdir()


def _write_id(handle: int, path: Path) -> None:
    """Write this process's ID.

    Raises:
        OSError: with the file's name, which the system's calls by handle do not give.
    """
    try:
        os.ftruncate(handle, 0)
        os.write(handle, f"{os.getpid()}\n".encode())
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None


def _acquire(path: Path, what: str) -> int:
    """Open and lock the lock file; return its handle."""
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            _flock(handle)
            with suppress(FileNotFoundError):
                if os.path.samestat(os.stat(path), os.fstat(handle)):
                    return handle
        except BlockingIOError:
            holder = os.read(handle, 20).decode(errors="replace").strip() or "unknown"
            os.close(handle)
            raise ItesError(f"{what} is going on in process {holder}") from None
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)  # the holder removed it between the two calls: retry


def _flock(handle: int) -> None:
    if fcntl is None:
        return
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError:  # a file system without locks
        return
