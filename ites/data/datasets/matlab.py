"""Read variables of a MATLAB 5 file by SciPy, after the sizes that it declares were checked."""

from __future__ import annotations

import io
import math
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ites.errors import ItesError
from ites.system.files import EXPANSION, EXPANSION_FREE, reading, require_file

HEADER = 128
"""Bytes before the first element; the last two tell the order of bytes, those before the version.

Source: MathWorks, MAT-File Format, version 5, for this and what follows.
"""
INT32, MATRIX, COMPRESSED = 5, 14, 15


def read_variables(path: Path, names: Sequence[str]) -> dict[str, Any]:
    """Some variables of a MATLAB 5 file.

    Raises:
        ItesError: the file is no MATLAB 5 file, it declares more than it holds, or it lacks one of
            the variables.
    """
    from scipy.io import loadmat  # here, as it takes long to import

    path, expected = require_file(path), f"a MATLAB 5 file of {' and '.join(names)}"
    with reading(path, expected):
        data = path.read_bytes()
        order = {b"IM": "<", b"MI": ">"}.get(data[126:HEADER])
        if order is None or struct.unpack(f"{order}H", data[124:126]) != (0x0100,):
            raise ItesError(f"{path}: expected {expected}, got another format")
        allowed = max(EXPANSION * len(data), EXPANSION_FREE)
        _check_elements(memoryview(data)[HEADER:], order, allowed)
        content = loadmat(io.BytesIO(data), variable_names=list(names))
        absent = [name for name in names if name not in content]
        if absent:
            raise ItesError(f"{path}: expected the variables {', '.join(names)}, not {absent[0]}")
        return {name: content[name] for name in names}


def _check_elements(data: memoryview, order: str, allowed: int) -> int:
    """Check elements that lie one after another, and those in them.

    Each is 8 bytes of type and size, then its data; or, where the upper half of the type is not 0,
    8 bytes in all. A matrix has at most as many entries as bytes.

    Returns:
        The bytes that may still be unpacked.
    """
    at = 0
    while at + 8 <= len(data):
        kind, size = struct.unpack_from(f"{order}II", data, at)
        at += 8
        if kind >> 16:
            continue
        if size > len(data) - at:
            raise ValueError(f"an element of {size:,} bytes, where {len(data) - at:,} are left")
        body = data[at : at + size]
        if kind == COMPRESSED:
            unpacker = zlib.decompressobj()
            unpacked = unpacker.decompress(body, max(1, allowed))  # 0 is no bound
            if unpacker.unconsumed_tail:
                raise ValueError(f"more than {allowed:,} bytes of compressed data")
            allowed = _check_elements(memoryview(unpacked), order, allowed - len(unpacked))
            at += size
            continue
        if kind == MATRIX and size:
            _check_shape(body, order)
            allowed = _check_elements(body, order, allowed)
        at += size + -size % 8
    return allowed


def _check_shape(matrix: memoryview, order: str) -> None:
    """Hold a matrix's shape, its second element, against its bytes."""
    kind, size = struct.unpack_from(f"{order}II", matrix, 16)
    if kind != INT32 or size > len(matrix) - 24:
        raise ValueError("a matrix without a shape")
    shape = struct.unpack_from(f"{order}{size // 4}i", matrix, 24)
    if min(shape, default=0) < 0 or math.prod(shape) > len(matrix):
        raise ValueError(f"a matrix of shape {shape} in {len(matrix):,} bytes")
