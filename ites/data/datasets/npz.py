"""Read .npz files that hold pickles, admitting nothing but arrays and plain containers.

`numpy.load(allow_pickle=True)` runs whatever the file tells it to. Here a pickle may name only the
few functions by which numpy 1 and 2 write arrays, and each of them is replaced by a stand-in that
makes numbers of bytes: no function or class of numpy or of any other package is within its reach.
"""

from __future__ import annotations

import io
import pickle
import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from ites.errors import ItesError


def load_npz(path: Path) -> dict[str, Any]:
    """Read a .npz file.

    Args:
        path: the file. It may hold arrays of numbers or text, and pickles of dict, list, tuple,
            set, str, bytes, int, float, bool and None with such arrays in them.

    Returns:
        Each entry by its name: an array, perhaps read-only, or, of an object array of shape (), the
        object.

    Raises:
        ItesError: the file is no .npz file, or holds anything else.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name for name in archive.namelist() if name.endswith(".npy")]
            return {name[: -len(".npy")]: _read_member(archive, name) for name in names}
    except FileNotFoundError:
        raise ItesError(f"{path}: no such file") from None
    except Exception as error:  # a broken pickle may raise anything
        raise ItesError(f"{path}: expected an .npz file of arrays and dicts ({error})") from None


def loads(data: bytes) -> Any:
    """Unpickle bytes by the rules of `load_npz`; any error may come of what is not admitted."""
    return _plain(_Unpickler(io.BytesIO(data)).load())


def _read_member(archive: zipfile.ZipFile, name: str) -> Any:
    with archive.open(name) as file:
        version = npy.read_magic(file)
        read_header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, fortran, dtype = read_header(file)
        if not dtype.hasobject:
            return _array(file.read(), dtype, shape, fortran)
        value = _plain(_Unpickler(file).load())
        return value[()] if isinstance(value, np.ndarray) and value.shape == () else value


class _Unpickler(pickle.Unpickler):
    """An unpickler that knows the stand-ins below and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        # numpy 1 says numpy.core where numpy 2 says numpy._core.
        found = _ADMITTED.get((module.replace("numpy._core", "numpy.core"), name))
        if found is None:
            raise pickle.UnpicklingError(f"{module}.{name} is not an array or a plain container")
        return found


class _Dtype:
    """Stands for `numpy.dtype`: booleans, numbers, text and object references; no structures."""

    def __init__(self, code: str, align: bool = False, copy: bool = False) -> None:
        if not re.fullmatch(r"[?biufSUO]\d*", code):
            raise pickle.UnpicklingError(f"an array of type {code}")
        self.value = np.dtype(code)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, order, *structure = state[:5]
        if any(part is not None for part in structure):
            raise pickle.UnpicklingError("a structured array")
        self.value = self.value.newbyteorder(order)


class _Array:
    """Stands for `numpy.ndarray`, whose state comes after it."""

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.state = state

    def value(self) -> NDArray[Any]:
        """The array: raw bytes of numbers, or the list of an object array's entries."""
        _, shape, dtype, fortran, data = self.state
        if not dtype.value.hasobject:
            return _array(data, dtype.value, shape, fortran)
        if not isinstance(data, list):
            raise pickle.UnpicklingError("an object array of raw bytes")
        entries = np.empty(len(data), object)
        for index, entry in enumerate(data):
            entries[index] = _plain(entry)
        return entries.reshape(shape, order="F" if fortran else "C")


def _reconstruct(*_: object) -> _Array:
    return _Array()


def _scalar(dtype: _Dtype, data: bytes) -> Any:
    return _array(data, dtype.value, (1,), False)[0]


def _from_buffer(data: bytes, dtype: _Dtype, shape: tuple[int, ...], order: str) -> NDArray[Any]:
    return _array(data, dtype.value, shape, order == "F")


def _encode(text: str, encoding: str) -> bytes:
    """How pickles of protocol 2 hold bytes."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"bytes encoded as {encoding}")
    return text.encode("latin1")


def _no_bytes() -> bytes:
    """How pickles of protocol 2 hold empty bytes."""
    return b""


_ADMITTED: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Dtype,
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy.core.multiarray", "scalar"): _scalar,
    ("numpy.core.numeric", "_frombuffer"): _from_buffer,
    ("_codecs", "encode"): _encode,
    ("__builtin__", "bytes"): _no_bytes,
}


def _array(
    data: bytes, dtype: np.dtype[Any], shape: tuple[int, ...], fortran: bool
) -> NDArray[Any]:
    """The array whose memory `data` is; numpy refuses types that hold references."""
    return np.frombuffer(data, dtype).reshape(shape, order="F" if fortran else "C")


def _plain(value: Any) -> Any:
    """Put the arrays in place of their stand-ins."""
    if isinstance(value, _Array):
        return value.value()
    if isinstance(value, dict):
        return {_plain(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_plain(entry) for entry in value)
    if isinstance(value, _Dtype):
        raise pickle.UnpicklingError("a bare numpy.dtype")
    return value
