"""Write HDF5 files so that a full disk is an error, not the end of the process."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import h5py


class H5Writer(h5py.File):
    """A new HDF5 file, to be written; a context manager.

    HDF5 cannot close a file after a write that failed: the process crashes at its end. So HDF5
    never sees a failure here. What cannot be written is kept in memory, and the error is raised by
    `check` and by the end of the block.

    Args:
        path: the file; replaced if it exists.

    Raises:
        OSError: the file cannot be made, or at the end of the block, it could not be written.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._disk = _Disk(Path(path))
        super().__init__(self._disk, "w")

    def check(self) -> None:
        """Raise the error of a write that failed; call it after each large one."""
        if self._disk.error is not None:
            raise self._disk.error

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._disk.close()
        if error[0] is None:
            self.check()


class _Disk(io.RawIOBase):
    """A file, and in memory what it could not take; the methods are those that h5py calls."""

    def __init__(self, path: Path) -> None:
        self.error: BaseException | None = None
        self._file = path.open("w+b", buffering=0)
        self._kept: list[tuple[int, bytes]] = []
        self._place = self._size = 0

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._place, os.SEEK_END: self._size}[whence]
        self._place = start + offset
        return self._place

    def tell(self) -> int:
        return self._place

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        try:
            if self.error is None:
                _write_all(self._file.fileno(), view, self._place)
        except BaseException as error:  # an interrupt too must not come between HDF5's steps
            self.error = error
        if self.error is not None:
            self._kept.append((self._place, bytes(view)))
        self._place += len(view)
        self._size = max(self._size, self._place)
        return len(view)

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        start, view[:] = self._place, bytes(len(view))
        self._file.seek(start)
        self._file.readinto(view)
        for place, data in self._kept:
            first, last = max(place, start), min(place + len(data), start + len(view))
            if first < last:
                view[first - start : last - start] = data[first - place : last - place]
        self._place += len(view)
        return len(view)

    def truncate(self, size: int | None = None) -> int:
        size = self._place if size is None else size
        try:
            if self.error is None:
                os.ftruncate(self._file.fileno(), size)
        except BaseException as error:
            self.error = error
        self._size = size
        return size

    def close(self) -> None:
        self._file.close()
        super().close()


def _write_all(file: int, data: memoryview, place: int) -> None:
    while len(data):
        os.lseek(file, place, os.SEEK_SET)
        count = os.write(file, data)
        data, place = data[count:], place + count
