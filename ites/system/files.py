"""Read what is a file; write a file wholly or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ites.errors import ItesError


def existing(path: str | os.PathLike[str]) -> Path:
    """The path of a file that is there.

    Raises:
        ItesError: nothing is there, or a folder.
    """
    path = Path(path)
    if not path.is_file():
        raise ItesError(f"{path}: " + ("a folder, not a file" if path.is_dir() else "no such file"))
    return path


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary path beside `path`; it takes that name when the block ends without an error.

    Missing folders are made. The data reach the disk before the name changes, so that after a
    crash `path` holds either the old file or the new one.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
