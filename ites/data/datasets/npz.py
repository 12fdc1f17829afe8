"""Safe reading of .npz files with pickles; only arrays and plain containers are accepted.

`numpy.load(allow_pickle=True)` executes arbitrary code from the file. No unpickler runs here: the
standard library's `pickletools` parses the pickle, and the loop below executes the few operations
for numbers, text, containers and arrays. A pickle may name only the functions by which numpy 1 and
2 write arrays; each is replaced by a function of this module.
"""

from __future__ import annotations

import io
import pickle
import pickletools
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from ites.errors import ItesError
from ites.system.files import EXPANSION_FREE, members_of, reading, require_file

OPERATIONS = 1_000_000
"""Maximum operations of a pickle."""
ENTRIES = 100_000
"""Maximum entries of all containers; a shared entry counts at every occurrence."""
DEPTH = 32
"""Maximum nesting depth of containers."""
SHARING = 8
"""Maximum ratio of referenced array bytes to stored bytes."""


def load_npz(path: Path) -> dict[str, Any]:
    """Read a .npz file.

    Args:
        path: the file. It may hold arrays of numbers or text. It may hold pickles of dict, list,
            tuple, set, str, bytes, int, float, bool and None, with such arrays in them.

    Returns:
        Each entry by its name: an array, perhaps read-only, or, of an object array of shape (), the
        object.

    Raises:
        ItesError: the file is not an .npz file, has other content, or declares or shares more
            than its size allows.
    """
    path = require_file(path)
    with reading(path, "an .npz file of arrays and dicts"), zipfile.ZipFile(path) as archive:
        members = members_of(path, archive, ".npy")
        if not members:
            raise ItesError(f"{path}: expected an .npz file of arrays, got a zip archive without")
        return {info.filename[: -len(".npy")]: _read_member(archive, info) for info in members}


def loads(data: bytes) -> Any:
    """Unpickle bytes by the rules of `load_npz`.

    Raises:
        pickle.UnpicklingError, ValueError: the bytes are damaged or have forbidden content.
    """
    try:
        return _Plain(len(data)).of(_unpickle(data))
    except (LookupError, TypeError, AttributeError) as error:
        raise pickle.UnpicklingError(f"a damaged pickle: {error!r}") from None


def _read_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Any:
    with archive.open(info) as file:
        version = npy.read_magic(file)
        read_header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, fortran, dtype = read_header(file)
        data = file.read()
    if not dtype.hasobject:
        return _array(data, dtype, shape, fortran)
    value = loads(data)
    return value[()] if isinstance(value, np.ndarray) and value.shape == () else value


# The operations of a pickle. Values below the topmost mark wait until the mark is closed.

_CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
    "EMPTY_DICT": dict,
    "EMPTY_SET": set,
}
_LITERALS = re.compile(
    "(BIN)?INT[12]?|LONG[14]?|(BIN)?FLOAT|(SHORT_|)(BIN)?(STRING|UNICODE|BYTES)8?|BYTEARRAY8"
)
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_PUT = frozenset(("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"))
_GET = frozenset(("GET", "BINGET", "LONG_BINGET"))
_KEYS = (str, bytes, int, float, bool, type(None), np.generic)


def _unpickle(data: bytes) -> Any:
    """Execute a pickle's operations; arrays stay placeholders, because their state comes later."""
    stack: list[Any] = []
    marks: list[int] = []
    memo: dict[int, Any] = {}

    def closed() -> list[Any]:
        start = marks.pop()
        items = stack[start:]
        del stack[start:]
        return items

    argument: Any
    for number, (operation, argument, _) in enumerate(pickletools.genops(io.BytesIO(data))):
        name = operation.name
        if number >= OPERATIONS:
            raise pickle.UnpicklingError(f"more than {OPERATIONS:,} operations")
        if _LITERALS.fullmatch(name):
            stack.append(argument)
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name]())
        elif name in _GET:
            stack.append(memo[int(argument)])
        elif name in _PUT:
            memo[len(memo) if name == "MEMOIZE" else int(argument)] = stack[-1]
        elif name == "MARK":
            marks.append(len(stack))
        elif name in _TUPLES:
            items = stack[-_TUPLES[name] :]
            del stack[-_TUPLES[name] :]
            stack.append(tuple(items))
        elif name == "TUPLE":
            stack.append(tuple(closed()))
        elif name == "LIST":
            stack.append(closed())
        elif name == "DICT":
            stack.append(_extended({}, closed()))
        elif name == "FROZENSET":
            stack.append(frozenset(_keys(closed())))
        elif name in ("APPEND", "APPENDS"):
            items = closed() if name == "APPENDS" else [stack.pop()]
            _typed(stack[-1], list).extend(items)
        elif name in ("SETITEM", "SETITEMS"):
            items = closed() if name == "SETITEMS" else [stack.pop(-2), stack.pop()]
            _extended(_typed(stack[-1], dict), items)
        elif name == "ADDITEMS":
            items = closed()
            _typed(stack[-1], set).update(_keys(items))
        elif name in ("GLOBAL", "STACK_GLOBAL"):
            if name == "STACK_GLOBAL":
                module, attribute = _typed(stack.pop(-2), str), _typed(stack.pop(), str)
            else:
                module, _, attribute = argument.partition(" ")
            stack.append(_named(module, attribute))
        elif name == "REDUCE":
            given = _typed(stack.pop(), tuple)
            stack.append(_typed(stack.pop(), _Named).function(*given))
        elif name == "BUILD":
            state = _typed(stack.pop(), tuple)
            _typed(stack[-1], _Dtype, _Array).build(state)
        elif name == "POP":
            stack.pop()
        elif name == "POP_MARK":
            closed()
        elif name == "DUP":
            stack.append(stack[-1])
        elif name == "STOP":
            return stack.pop()
        elif name not in ("PROTO", "FRAME"):
            raise pickle.UnpicklingError(f"operation {name} makes no array or plain container")
    raise pickle.UnpicklingError("no end")


def _typed(value: Any, *types: type) -> Any:
    if not isinstance(value, types):
        raise pickle.UnpicklingError(
            f"expected {' or '.join(t.__name__ for t in types)}, got {type(value).__name__}"
        )
    return value


def _keys(items: list[Any]) -> list[Any]:
    """Keys must be scalars: hashing nested tuples would recurse to their depth."""
    for item in items:
        _typed(item, *_KEYS)
    return items


def _extended(table: dict[Any, Any], items: list[Any]) -> dict[Any, Any]:
    table.update(zip(_keys(items[::2]), items[1::2], strict=True))
    return table


class _Named:
    """A function that a pickle may name, replaced by one of this module."""

    __slots__ = ("function",)

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function


def _named(module: str, name: str) -> _Named:
    # numpy 1 says numpy.core where numpy 2 says numpy._core.
    found = _ADMITTED.get((module.replace("numpy._core", "numpy.core"), name))
    if found is None:
        raise pickle.UnpicklingError(f"{module}.{name} is not an array or a plain container")
    return _Named(found)


class _Dtype:
    """Stands for `numpy.dtype`: of numbers, text or objects."""

    __slots__ = ("value",)

    def __init__(self, code: str, *_: object) -> None:
        if isinstance(code, bytes):
            code = code.decode("latin1")
        if not isinstance(code, str) or not re.fullmatch(r"[?biufSUO]\d{0,9}", code):
            raise pickle.UnpicklingError(f"an array of type {code}")
        self.value = np.dtype(code)

    def build(self, state: tuple[Any, ...]) -> None:
        """Set the byte order; structured types are rejected."""
        _, order, *structure = state[:5]
        if any(part is not None for part in structure):
            raise pickle.UnpicklingError("a structured array")
        self.value = self.value.newbyteorder(_typed(order, str))


class _Array:
    """Stands for `numpy.ndarray`, whose state comes after it."""

    __slots__ = ("state",)

    def __init__(self, *_: object) -> None:
        self.state: tuple[Any, ...] = ()

    def build(self, state: tuple[Any, ...]) -> None:
        """Set the state: version, shape, type, order and data."""
        self.state = state


def _scalar(dtype: _Dtype, data: bytes) -> Any:
    return _array(data, _typed(dtype, _Dtype).value, (1,), False)[0]


def _from_buffer(data: bytes, dtype: _Dtype, shape: tuple[int, ...], order: str) -> NDArray[Any]:
    return _array(data, _typed(dtype, _Dtype).value, shape, order == "F")


def _encode(text: str, encoding: str) -> bytes:
    """The encoding of bytes in pickles of protocol 2."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"bytes encoded as {encoding}")
    return _typed(text, str).encode("latin1")


def _no_bytes() -> bytes:
    """The encoding of empty bytes in pickles of protocol 2."""
    return b""


_ADMITTED: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Dtype,
    ("numpy.core.multiarray", "_reconstruct"): _Array,
    ("numpy.core.multiarray", "scalar"): _scalar,
    ("numpy.core.numeric", "_frombuffer"): _from_buffer,
    ("_codecs", "encode"): _encode,
    ("__builtin__", "bytes"): _no_bytes,
}


def _array(
    data: bytes | str, dtype: np.dtype[Any], shape: tuple[int, ...], fortran: bool
) -> NDArray[Any]:
    """An array with the memory `data`; numpy rejects types that hold references."""
    raw = data.encode("latin1") if isinstance(data, str) else data  # as Python 2 wrote it
    return np.frombuffer(raw, dtype).reshape(shape, order="F" if fortran else "C")


class _Plain:
    """Replaces placeholders by arrays, within bounds.

    Lists that each contain another list twice are small in a file but grow exponentially when
    expanded. Shared objects are therefore counted at every occurrence.
    """

    def __init__(self, size: int) -> None:
        self.entries, self.bytes = ENTRIES, SHARING * size + EXPANSION_FREE

    def of(self, value: Any, depth: int = 0) -> Any:
        self.entries -= 1
        if self.entries < 0 or depth > DEPTH:
            raise pickle.UnpicklingError(
                f"more than {ENTRIES:,} entries, or more than {DEPTH} containers within each other"
            )
        if isinstance(value, _Array):
            value = self.array(value, depth)
        if isinstance(value, np.ndarray):
            self.bytes -= value.nbytes
            if self.bytes < 0:
                raise pickle.UnpicklingError(f"arrays that are shared more than {SHARING} times")
            return value
        if isinstance(value, dict):
            return {key: self.of(entry, depth + 1) for key, entry in value.items()}
        if isinstance(value, (list, tuple)):
            return type(value)([self.of(entry, depth + 1) for entry in value])
        if isinstance(value, (_Dtype, _Named)):
            raise pickle.UnpicklingError("a bare numpy.dtype or function")
        return value

    def array(self, stand_in: _Array, depth: int) -> NDArray[Any]:
        """The array: raw bytes of numbers, or the list of an object array's entries."""
        _, shape, dtype, fortran, data = stand_in.state
        dtype = _typed(dtype, _Dtype).value
        if not dtype.hasobject:
            return _array(data, dtype, shape, fortran)
        if not isinstance(data, list):
            raise pickle.UnpicklingError("an object array of raw bytes")
        entries = np.empty(len(data), object)
        for index, entry in enumerate(data):
            entries[index] = self.of(entry, depth + 1)
        return entries.reshape(shape, order="F" if fortran else "C")
