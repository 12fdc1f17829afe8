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
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import h5py

from ites.errors import ItesError
from ites.system.files import EXPANSION, EXPANSION_FREE, reading, require_file

HEAP = b"GCOL\x01\0\0\0"
_FLOATS = (
    *(h5py.h5t.IEEE_F16LE, h5py.h5t.IEEE_F32LE, h5py.h5t.IEEE_F64LE),
    *(h5py.h5t.IEEE_F16BE, h5py.h5t.IEEE_F32BE, h5py.h5t.IEEE_F64BE),
)


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


def is_plain(kind: h5py.h5t.TypeID) -> bool:
    """Whether a type is text, an integer, an IEEE float, an enumeration, or a table or array of it.

    A damaged byte makes other types, such as a float of 8 bytes with another bias. h5py takes that
    for one of 16 bytes, and HDF5 then writes past the end of the array.
    """
    family, size = kind.get_class(), kind.get_size()
    if family == h5py.h5t.STRING:
        return True
    if family == h5py.h5t.INTEGER:
        whole = size in (1, 2, 4, 8) and (kind.get_precision(), kind.get_offset()) == (8 * size, 0)
        return bool(whole)
    if family == h5py.h5t.FLOAT:
        return any(kind.equal(known) for known in _FLOATS)
    if family in (h5py.h5t.ENUM, h5py.h5t.ARRAY):
        base = kind.get_super()
        length = math.prod(kind.get_array_dims()) if family == h5py.h5t.ARRAY else 1
        return is_plain(base) and size == length * base.get_size()
    if family != h5py.h5t.COMPOUND:
        return False
    end, members = 0, range(kind.get_nmembers())
    for member in sorted(members, key=kind.get_member_offset):
        inner = kind.get_member_type(member)
        if kind.get_member_offset(member) < end or not is_plain(inner):
            return False
        end = kind.get_member_offset(member) + inner.get_size()
    return bool(end <= size)


def holds(path: str | os.PathLike[str], text: str) -> bool:
    """Whether a file holds a text; HDF5 does not see the file."""
    with (
        suppress(OSError, ValueError),  # an empty file has no map
        open(path, "rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data,
    ):
        return data.find(text.encode()) >= 0
    return False


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
    plain = is_plain(found.id.get_type())
    if not plain and kinds != "O":
        raise ItesError(f"{who}: {name}: expected standard numbers, got another type")
    if plain and found.dtype.kind not in kinds:
        wanted = "text" if kinds == "O" else "numbers"
        raise ItesError(f"{who}: {name}: expected {wanted}, got {found.dtype}")
    if not plain:
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
    if kinds == "O":
        _check_texts(group.file, _text_blocks(found), f"{who}: {name}")
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
    takes the memory that a text of variable length declares, up to 4 GiB, before it looks for the
    text. It checks the sizes of other attributes itself.

    Args:
        group: whose attribute it is.
        name: of the attribute.
        who: the file and the location in it, for messages.
        default: the value if there is no such attribute.

    Raises:
        ItesError: the attribute has another type, or a text is shorter than it declares.
    """
    if name not in group.attrs:
        return default
    kind = group.attrs.get_id(name).get_type()
    if not is_plain(kind):
        raise ItesError(f"{who}: attribute {name}: expected text or numbers, got another type")
    if kind.get_class() == h5py.h5t.STRING and kind.is_variable_str():
        start = h5py.h5o.get_info(group.id).addr
        _check_texts(group.file, [(start, name)], f"{who}: attribute {name}")
    return group.attrs[name]


def _text_blocks(found: h5py.Dataset) -> list[tuple[int, int]]:
    """Where the references to a dataset's texts lie: (address, bytes); none if compressed."""
    if found.id.get_create_plist().get_nfilters():
        return []
    if found.chunks is None:
        start = found.id.get_offset()
        return [] if start is None else [(start, found.id.get_storage_size())]
    chunks = (found.id.get_chunk_info(index) for index in range(found.id.get_num_chunks()))
    return [(chunk.byte_offset, chunk.size) for chunk in chunks]


def _check_texts(file: h5py.File, places: Sequence[tuple[int, int | str]], who: str) -> None:
    """Compare the lengths of texts with what their heaps hold.

    Args:
        file: that holds the texts.
        places: of references: (address, bytes); or an object header's address and the name of an
            attribute.
        who: for messages.

    Raises:
        ItesError: a text is shorter than it declares.
    """
    if not os.path.isfile(file.filename):
        return
    base, heaps = file.userblock_size, dict[int, dict[int, int]]()
    with open(file.filename, "rb") as raw, mmap.mmap(raw.fileno(), 0, access=mmap.ACCESS_READ) as d:
        for place, extent in places:
            if isinstance(extent, str):
                begin, size = _value_of(d, base, place, extent.encode())
            else:
                begin, size = place, extent  # h5py counts from the file's first byte
            references = d[begin : begin + size]
            whole = len(references) // 16 * 16
            for length, heap, index in struct.iter_unpack("<IQI", references[:whole]):
                if heap not in heaps:
                    heaps[heap] = _sizes(d, base + heap)
                held = heaps[heap].get(index, 0)
                if length > held:
                    raise ItesError(
                        f"{who}: expected a text of at most {held:,} bytes, which the file holds, "
                        f"got {length:,} declared"
                    )


def _sizes(data: mmap.mmap, start: int) -> dict[int, int]:
    """The sizes of a heap's objects by index; empty where there is no heap."""
    if data[start : start + len(HEAP)] != HEAP or start + 16 > len(data):
        return {}
    (size,) = struct.unpack_from("<Q", data, start + 8)
    at, stop, found = start + 16, min(start + size, len(data)), dict[int, int]()
    while at + 16 <= stop:
        index, held = struct.unpack_from("<H6xQ", data, at)
        if index == 0:
            break  # free space is last
        found[index] = min(held, max(0, stop - at - 16))
        at += 16 + held + -held % 8
    return found


def _value_of(data: mmap.mmap, base: int, header: int, name: bytes) -> tuple[int, int]:
    """Where an attribute's value lies, and its bytes; (0, 0) if not in the object header.

    Source: HDF5 File Format Specification 3.0, IV.A.2.m "The Attribute Message".
    """
    for kind, at, size in _messages(data, base, header):
        if kind != _ATTRIBUTE or size < 8:
            continue
        version = data[at]
        sizes = struct.unpack_from("<HHH", data, at + 2)
        begin = at + (9 if version == 3 else 8)
        if data[begin : begin + len(name) + 1] == name + b"\0":
            begin += sum(length + -length % 8 if version == 1 else length for length in sizes)
            return begin, max(0, at + size - begin)
    return 0, 0


def _messages(data: mmap.mmap, base: int, header: int) -> Iterator[tuple[int, int, int]]:
    """The messages of an object header: type, place and bytes; of version 1 or 2."""
    at = base + header
    if data[at : at + 4] == b"OHDR":
        flags = data[at + 5]
        width = 1 << (flags & 3)
        begin = at + 6 + 16 * bool(flags & 0x20) + 4 * bool(flags & 0x10)
        blocks = [(begin + width, int.from_bytes(data[begin : begin + width], "little"))]
        form, step = "<BH", 4 + 2 * bool(flags & 4)
    else:
        blocks = [(at + 16, int.from_bytes(data[at + 8 : at + 12], "little"))]
        form, step = "<HH", 8
    for number, (place, size) in enumerate(blocks):
        stop = min(place + size, len(data))
        while place + step <= stop:
            kind, length = struct.unpack_from(form, data, place)
            place += step
            yield kind, place, min(length, stop - place)
            if kind == _CONTINUATION and length >= 16 and place + 16 <= stop and number < 1000:
                start, long = struct.unpack_from("<QQ", data, place)
                trim = 4 if step != 8 else 0  # "OCHK" in front, a checksum behind
                blocks.append((base + start + trim, max(0, long - 2 * trim)))
            place += length


_ATTRIBUTE, _CONTINUATION = 0x0C, 0x10
"""Types of messages of an object header."""


def check_filters(found: h5py.Dataset, who: str) -> None:
    """Make sure that the filters of a dataset's chunks are there; load them if need be.

    DeepLabCut and pandas compress by Blosc, which HDF5 itself does not contain.

    Raises:
        ItesError: a filter needs the package hdf5plugin, which is not installed or lacks it.
    """
    plist = found.id.get_create_plist()
    for number in range(plist.get_nfilters()):
        code, _, _, text = plist.get_filter(number)
        if h5py.h5z.filter_avail(code):
            continue
        with suppress(ImportError):
            import hdf5plugin  # noqa: F401 - registers its filters
        if not h5py.h5z.filter_avail(code):
            name = text.decode("utf-8", "replace").split(";")[0][:40] or f"filter {code}"
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
