"""Robust reading and writing of HDF5 files: damaged content and full disks.

The declared sizes are checked against the file's size. A full disk raises an error and does not
crash the process.
"""

from __future__ import annotations

import io
import math
import mmap
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import h5py

from ites.errors import ItesError
from ites.system.files import EXPANSION, EXPANSION_FREE, reading, require_file

_PLAIN = (h5py.h5t.STRING, h5py.h5t.INTEGER, h5py.h5t.FLOAT, h5py.h5t.ENUM)  # bool is an enum
HEAP = b"GCOL\x01\0\0\0"
_PLAIN = (h5py.h5t.STRING, h5py.h5t.INTEGER, h5py.h5t.FLOAT, h5py.h5t.ENUM)  # a bool is an enum


@contextmanager
def opened(path: str | os.PathLike[str], expected: str) -> Iterator[h5py.File]:
    """Open an HDF5 file for reading; errors of the block name the file.

    Args:
        path: the file.
        expected: its expected kind, such as "a pose store".

    Raises:
        ItesError: the file is absent or is not an HDF5 file, or the block raised any error.
    """
    path = require_file(path)
    with reading(path, expected):
        if not h5py.is_hdf5(path):
            raise ItesError(f"{path}: expected {expected}, got another file than HDF5")
        check_heaps(path)
        with h5py.File(path, "r") as file:
            yield file


def check_heaps(path: str | os.PathLike[str]) -> None:
    """Refuse a file with a damaged heap of texts, in which HDF5 2.0 looks for a text without end.

    A global heap begins with "GCOL", version 1 and its size. An object has 16 bytes of index, count
    and size, then data padded to a multiple of 8. Free space has index 0, and its size counts the
    16 bytes.

    Raises:
        ItesError: an object ends before it begins, or heaps overlap.
    """
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        start, left = data.find(HEAP), len(data) // 16
        while 0 <= start <= len(data) - 16:
            (size,) = struct.unpack_from("<Q", data, start + 8)
            left -= _check_heap(Path(path), data, start, min(start + size, len(data)), left)
            start = data.find(HEAP, start + len(HEAP))


def _check_heap(path: Path, data: mmap.mmap, start: int, stop: int, most: int) -> int:
    """Check the objects of a heap, at most so many; their number."""
    at, count = start + 16, 0
    while at + 16 <= stop:
        count += 1
        if count > most:  # heaps within heaps would take the square of the file's size
            raise ItesError(f"{path}: expected a sound HDF5 file, got heaps that overlap")
        index, size = struct.unpack_from("<H6xQ", data, at)
        if index == 0 and size < 16:
            raise ItesError(f"{path}: expected a sound HDF5 file, got a damaged heap of texts")
        at += size if index == 0 else 16 + size + -size % 8
    return count


def dataset(group: h5py.Group, name: str, who: str, kinds: str = "fiu") -> h5py.Dataset:
    """A readable dataset: its declared size is plausible and its data lie in the file.

    Args:
        group: the group that contains it; a file is a group.
        name: the dataset's path in the group.
        who: the file and the location in it, for messages.
        kinds: the expected letters of numpy's dtype kinds; "O" is text.

    Raises:
        ItesError: the dataset is absent, has another type, keeps its data in another file, or
            declares more than `EXPANSION` times the file's bytes.
    """
    found = group.get(name)
    if not isinstance(found, h5py.Dataset):
        raise ItesError(
            f"{who}: expected a dataset {name}, got {'none' if found is None else 'a group'}"
        )
    if found.dtype.kind not in kinds:
        wanted = "text" if kinds == "O" else "numbers"
        raise ItesError(f"{who}: {name}: expected {wanted}, got {found.dtype}")
    if kinds == "O" and h5py.check_string_dtype(found.dtype) is None:
        raise ItesError(f"{who}: {name}: expected text, got references or lists")
    if found.shape is None:
        raise ItesError(f"{who}: {name}: expected an array, got a dataset without a shape")
    if found.is_virtual or found.external or found.file.filename != group.file.filename:
        raise ItesError(f"{who}: {name}: expected data in the file itself, got a link to another")
    allowed = max(EXPANSION * group.file.id.get_filesize(), EXPANSION_FREE)
    item = found.dtype.itemsize
    for what, shape in (("values", found.shape), ("chunks", found.chunks or ())):
        if max(math.prod(shape), 1) * item > allowed:
            raise ItesError(
                f"{who}: {name}: expected at most {allowed:,} bytes in a file of its size, got "
                f"{what} of {math.prod(shape) * item:,} declared"
            )
    check_filters(found, f"{who}: {name}")
    return found


def children(group: h5py.Group) -> list[tuple[str, Any]]:
    """The groups and datasets of a group, by name.

    `Group.items` holds h5py's lock until its loop ends. An error inside the loop keeps the lock in
    its traceback, and every other thread that uses h5py then waits forever.
    """
    return [(name, group.get(name)) for name in group]


def attribute(group: h5py.Group | h5py.Dataset, name: str, who: str, default: Any = None) -> Any:
    """An attribute: text or numbers.

    HDF5 2.0 crashes on lists of variable length, a type that one damaged byte makes of a text. It
    checks the sizes of attributes itself.

    Args:
        group: whose attribute it is.
        name: of the attribute.
        who: the file and the location in it, for messages.
        default: the value if there is no such attribute.

    Raises:
        ItesError: the attribute has another type.
    """
    if name not in group.attrs:
        return default
    if group.attrs.get_id(name).get_type().get_class() not in _PLAIN:
        raise ItesError(f"{who}: attribute {name}: expected text or numbers, got another type")
    return group.attrs[name]


def check_filters(found: h5py.Dataset, who: str) -> None:
    """Make sure that the filters of a dataset's chunks are there; load them if need be.

    DeepLabCut and pandas compress by Blosc, which HDF5 itself does not contain.

    Raises:
        ItesError: a filter needs the package hdf5plugin, which is not installed or lacks it.
    """
    plist = found.id.get_create_plist()
    for number in range(plist.get_nfilters()):
        code, _, _, told = plist.get_filter(number)
        if h5py.h5z.filter_avail(code):
            continue
        with suppress(ImportError):
            import hdf5plugin  # noqa: F401 - registers its filters
        if not h5py.h5z.filter_avail(code):
            name = told.decode("utf-8", "replace").split(";")[0][:40] or f"filter {code}"
            raise ItesError(f"{who}: compressed by {name}, which needs: pip install 'ites[data]'")


class H5Writer(h5py.File):
    """A new HDF5 file for writing; a context manager.

    HDF5 cannot close a file after a failed write: the process crashes at exit. This class
    therefore hides failures from HDF5. Unwritten data stay in memory; `check` and the end of the
    block raise the error.

    Args:
        path: the file; replaced if it exists.

    Raises:
        OSError: the file cannot be made, or, at the end of the block, could not be written.
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
    """A file, with unwritten data kept in memory; the methods are those that h5py calls."""

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
        except BaseException as error:  # an interrupt must not split HDF5's steps either
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
