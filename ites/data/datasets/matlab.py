"""Read variables of a MATLAB 5 file by SciPy, after a check of their structure.

SciPy trusts the types and sizes that a file declares. A wrong type causes out-of-bounds reads, and
a large cell array allocates memory before its cells are read. The variables are therefore checked
first: only arrays of numbers, or cells of these, with consistent sizes are accepted.
Source of the format: MathWorks, MAT-File Format, version 5.
"""

from __future__ import annotations

import io
import math
import struct
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ites.errors import ItesError
from ites.system.files import EXPANSION, EXPANSION_FREE, reading, require_file

HEADER = 128
"""Bytes before the first element; the last four give the version and the byte order."""
INT8, INT32, UINT32, MATRIX, COMPRESSED = 1, 5, 6, 14, 15
ITEM_SIZES = {1: 1, 2: 1, 3: 2, 4: 2, 5: 4, 6: 4, 7: 4, 9: 8, 12: 8, 13: 8}
"""Bytes per number, by the type of an element."""
CELL, NUMBERS = 1, range(6, 16)
"""Classes of a matrix."""
DIMENSIONS, DEPTH = 8, 4

Element = tuple[int, memoryview]
"""The type and the data of an element."""


def read_variables(path: Path, names: Sequence[str]) -> dict[str, Any]:
    """Read variables of a MATLAB 5 file, arrays of numbers or cells of these.

    Raises:
        ItesError: the file is not a MATLAB 5 file, it declares more than it contains, or a
            variable is absent or of another kind.
    """
    from scipy.io import loadmat  # imported here because the import is slow

    path, expected = require_file(path), f"a MATLAB 5 file of {' and '.join(names)}"
    with reading(path, expected):
        data = path.read_bytes()
        order = {b"IM": "<", b"MI": ">"}.get(data[126:HEADER])
        if order is None or struct.unpack(f"{order}H", data[124:126]) != (0x0100,):
            raise ItesError(f"{path}: expected {expected}, got another format")
        allowed = max(EXPANSION * len(data), EXPANSION_FREE)
        for kind, body in _elements(memoryview(data)[HEADER:], order):
            if kind == COMPRESSED:
                unpacker = zlib.decompressobj()
                unpacked = unpacker.decompress(body, max(1, allowed))  # 0 is no bound
                if unpacker.unconsumed_tail:
                    raise ValueError(f"more than {allowed:,} bytes of compressed data")
                allowed -= len(unpacked)
                (kind, body), *_ = _elements(memoryview(unpacked), order)
            if kind != MATRIX:
                raise ValueError(f"a variable of type {kind}")
            _check_matrix(body, order, names)
        content = loadmat(io.BytesIO(data), variable_names=list(names))
        absent = [name for name in names if name not in content]
        if absent:
            raise ItesError(f"{path}: expected the variables {', '.join(names)}, not {absent[0]}")
        return {name: content[name] for name in names}


def _elements(data: memoryview, order: str) -> Iterator[Element]:
    """The consecutive elements: 8 bytes of type and size, then the data.

    A non-zero upper half of the type is the size; the data are then the last 4 bytes.
    """
    at = 0
    while at < len(data):
        kind, size = struct.unpack_from(f"{order}II", data, at)
        at += 8
        if kind >> 16:
            if kind >> 16 > 4:
                raise ValueError(f"a small element of {kind >> 16} bytes")
            yield kind & 0xFFFF, data[at - 4 : at - 4 + (kind >> 16)]
            continue
        if size > len(data) - at:
            raise ValueError(f"an element of {size:,} bytes, where {len(data) - at:,} are left")
        yield kind, data[at : at + size]
        at += size if kind == COMPRESSED else size + -size % 8


def _check_matrix(data: memoryview, order: str, names: Sequence[str], depth: int = 0) -> None:
    """Check a matrix: flags, shape, name, then its numbers or cells.

    A variable outside `names` is not read, so only its first three parts are checked.
    """
    if depth and not len(data):  # an empty cell
        return
    elements = _elements(data, order)
    parts = [next(elements, (0, data[:0])) for _ in range(3)]
    (flags_kind, flags), (shape_kind, dims), (name_kind, name) = parts
    if (flags_kind, shape_kind, name_kind) != (UINT32, INT32, INT8) or len(flags) != 8:
        raise ValueError("a matrix without flags, shape and name")
    if not 8 <= len(dims) <= 4 * DIMENSIONS or len(dims) % 4:
        raise ValueError(f"a matrix of {len(dims) // 4} dimensions")
    if not depth and bytes(name).decode("latin1") not in names:
        return
    shape = struct.unpack(f"{order}{len(dims) // 4}i", dims)
    (word,) = struct.unpack_from(f"{order}I", flags)
    count, kind, is_complex = math.prod(shape), word & 0xFF, word & 0x0800
    if min(shape) < 0 or count > len(data):
        raise ValueError(f"a matrix of shape {shape} in {len(data):,} bytes")
    if kind == CELL and depth < DEPTH:
        cells = list(elements)
        if len(cells) != count or any(kind != MATRIX for kind, _ in cells):
            raise ValueError(f"{len(cells)} cells in an array of shape {shape}")
        for _, cell in cells:
            _check_matrix(cell, order, names, depth + 1)
        return
    numbers = list(elements)
    sizes = [ITEM_SIZES.get(kind, 0) for kind, _ in numbers]
    if kind not in NUMBERS or is_complex or len(numbers) != 1 or not sizes[0]:
        raise ValueError(f"a matrix of class {kind}, expected real numbers or cells of them")
    if len(numbers[0][1]) != count * sizes[0]:
        raise ValueError(f"{len(numbers[0][1]):,} bytes of numbers for shape {shape}")
