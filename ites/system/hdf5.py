"""Read HDF5 files, whatever their bytes are: what a file declares is held against its size."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager

import h5py

from ites.errors import ItesError
from ites.system.files import EXPANSION, EXPANSION_FREE, existing, reading


@contextmanager
def opened(path: str | os.PathLike[str], expected: str) -> Iterator[h5py.File]:
    """Open an HDF5 file to read; whatever is raised in the block names the file.

    Args:
        path: the file.
        expected: what it should be, such as "a pose store".

    Raises:
        ItesError: the file is absent or is no HDF5 file, or the block raised an error of any kind.
    """
    path = existing(path)
    with reading(path, expected):
        if not h5py.is_hdf5(path):
            raise ItesError(f"{path}: expected {expected}, got another file than HDF5")
        with h5py.File(path, "r") as file:
            yield file


def dataset(group: h5py.Group, name: str, who: str, kinds: str = "fiu") -> h5py.Dataset:
    """A dataset that can be read: its declared size is believable and its data lie in the file.

    Args:
        group: where to look; a file is a group.
        name: the dataset's path in it.
        who: the file, and where in it, for messages.
        kinds: the letters of numpy's kinds of type that are expected; "O" is text.

    Raises:
        ItesError: there is no such dataset, it has another type, its data lie in another file, or
            it declares more than `EXPANSION` times the file's bytes.
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
        if math.prod(shape) * item > allowed:
            raise ItesError(
                f"{who}: {name}: expected at most {allowed:,} bytes in a file of its size, got "
                f"{what} of {math.prod(shape) * item:,} declared"
            )
    return found
