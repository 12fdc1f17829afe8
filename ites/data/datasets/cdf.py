"""Read a variable of a CDF file by cdflib, which trusts every size that a file declares."""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ites.errors import ItesError
from ites.system.files import EXPANSION, EXPANSION_FREE, reading, require_file

READS = 1000
"""Maximum reads of a file, beside one per 4 bytes; circular pointers would never end."""
DIMENSIONS = 32
"""Dimensions of a variable, at most."""
Z_VARIABLE = 8
"""The type of a record that describes a variable with dimensions of its own."""


class _Bounded(io.BytesIO):
    """The bytes of a file; reading past the end, or endlessly, is an error."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self._bytes, self._reads_left = len(data), READS + len(data) // 4

    def read(self, size: int | None = -1, /) -> bytes:
        self._reads_left -= 1
        if self._reads_left < 0:
            raise ValueError("more records than the file has bytes for")
        if size is not None and size > self._bytes:
            raise ValueError(f"a record of {size} bytes in a file of {self._bytes}")
        return super().read(size)


def read_variable(path: Path, name: str) -> NDArray[np.float64]:
    """A variable of a CDF file.

    Raises:
        ItesError: cdflib is not installed, the file is not a CDF file, or lacks the variable.
    """
    try:
        import cdflib
    except ImportError:
        raise ItesError("CDF files need the package cdflib: pip install 'ites[data]'") from None

    class Cdf(cdflib.CDF):
        """A CDF file whose sizes are checked against its bytes."""

        def _file_or_url_or_s3_handler(self, filename: str, *_: Any) -> _Bounded:
            return _Bounded(Path(filename).read_bytes())

        def _read_gdr(self, byte_loc: int) -> Any:
            self._check_dimensions(byte_loc + 8 + 48)
            return super()._read_gdr(byte_loc)

        def _read_gdr2(self, byte_loc: int) -> Any:
            self._check_dimensions(byte_loc + 4 + 32)
            return super()._read_gdr2(byte_loc)

        def _read_vdr3(self, byte_loc: int) -> Any:
            if self._number(byte_loc + 8) == Z_VARIABLE:
                self._check_dimensions(byte_loc + 8 + 332)
            return super()._read_vdr3(byte_loc)

        def _read_vdr2(self, byte_loc: int) -> Any:
            if self._number(byte_loc + 4) == Z_VARIABLE:
                self._check_dimensions(byte_loc + 4 + (124 if self._post25 is True else 252))
            return super()._read_vdr2(byte_loc)

        def _number(self, at: int) -> int:
            self._f.seek(at)
            return int.from_bytes(self._f.read(4), "big")

        def _check_dimensions(self, at: int) -> None:
            if (count := self._number(at)) > DIMENSIONS:
                raise ValueError(f"{count} dimensions, more than {DIMENSIONS}")

    path = require_file(path)
    with reading(path, f"a CDF file with a variable {name}"):
        file, size = Cdf(path), path.stat().st_size
        about = file.varinq(name)
        shape = (about.Last_Rec + 1, *about.Dim_Sizes, about.Num_Elements, 8)
        declared = math.prod(abs(int(count)) for count in shape)
        allowed = max(EXPANSION * size, EXPANSION_FREE)
        if declared > allowed:
            raise ItesError(
                f"{path}: {name}: expected at most {allowed:,} bytes in a file of its size, "
                f"got {declared:,} declared"
            )
        return np.asarray(file.varget(name), np.float64)
