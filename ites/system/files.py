"""Robust reading of files with any content; atomic writing of files."""

from __future__ import annotations

import ast
import errno
import hashlib
import json
import math
import os
import re
import sys
import time
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any

from ites.errors import ItesError, shorten

if TYPE_CHECKING:  # the command line's help works without numpy
    import numpy as np
    from numpy.typing import NDArray

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

__all__ = [
    "FileWriter",
    "atomic_write",
    "check_expansion",
    "members_of",
    "kind_of",
    "load_json",
    "load_npy",
    "load_npz",
    "reading",
    "remove_orphans",
    "require_file",
    "shorten",
    "stamp",
]

JSON_BYTES = 1 << 29
"""The largest JSON file that is read; its objects take up to 30 times as much memory."""
JSON_DEPTH = 64
"""Maximum nesting depth of lists and objects in a JSON file."""
EXPANSION = 200
"""Maximum ratio of a compressed file's declared size to its own size."""
EXPANSION_FREE = 1 << 24
"""Declared bytes that any compressed file may have, even a small one."""
NPY_HEADER = 10_000
"""Maximum bytes of an .npy header."""
NPY_DIMENSIONS = 32
"""Maximum dimensions of an array: the limit that all numpy versions support."""


def stamp(path: str | os.PathLike[str]) -> list[int | str]:
    """What tells a later call that a file, or any file of a folder, is another.

    Returns:
        Size and time of change of a file; of a folder the number of its files, and a digest of
        their names, sizes and times.
    """
    path = Path(path)
    if not path.is_dir():
        found = path.stat()
        return [found.st_size, found.st_mtime_ns]
    held = [
        (file.relative_to(path).as_posix(), *stamp(file))
        for file in path.rglob("*")
        if file.is_file()
    ]
    return [len(held), hashlib.sha256(repr(sorted(held)).encode()).hexdigest()]


def require_file(path: str | os.PathLike[str]) -> Path:
    """The path of an existing file.

    Raises:
        ItesError: the path does not exist or is a folder.
    """
    path = Path(path)
    if not path.is_file():
        raise ItesError(f"{path}: " + ("a folder, not a file" if path.is_dir() else "no such file"))
    return path


@contextmanager
def reading(path: str | os.PathLike[str], expected: str) -> Iterator[None]:
    """Turn any exception of a parser in the block into one line that names the file.

    Args:
        path: the file that is read in the block.
        expected: its expected kind, such as "a BVH file".

    Raises:
        ItesError: the block raised any exception. An ItesError passes through; the path is put
            in front of it if it does not name the file.
    """
    try:
        yield
    except (KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except ItesError as error:
        if not _names(str(error), Path(path)):
            error.args = (shorten(f"{path}: {error}"),)  # its class and code stay
        raise
    except BaseException as error:  # a panic of a Rust parser is not an Exception
        raise ItesError(f"{path}: {_reason(error, expected)}") from None


def _names(message: str, path: Path) -> bool:
    """Whether a message names a file; a long name has lost its middle there.

    A name without an ending may be an ordinary word, so only its whole path counts.
    """
    names = [str(path), path.name] if path.suffix else [str(path)]
    return any(shorten(name)[:200] in message for name in names)


def _reason(error: BaseException, expected: str) -> str:
    if isinstance(error, FileNotFoundError):
        return f"expected {expected}, got no such file"
    if isinstance(error, IsADirectoryError):
        return f"expected {expected}, got a folder"
    if isinstance(error, OSError) and error.strerror and error.errno is not None:
        return f"expected {expected}, which cannot be read: {error.strerror}"
    if isinstance(error, MemoryError):
        return f"expected {expected}, got one that needs more memory than there is"
    if isinstance(error, RecursionError):
        return f"expected {expected}, got one that is nested too deeply"
    if isinstance(error, UnicodeDecodeError):
        return f"expected {expected}, got bytes that are no text in {error.encoding}"
    return f"expected {expected}, got a damaged or another one ({type(error).__name__}: {error})"


def load_json(path: str | os.PathLike[str]) -> Any:
    """Read a JSON file in UTF-8, or in UTF-16 with a byte order mark.

    Raises:
        ItesError: the file is absent, no JSON, larger than `JSON_BYTES` or nested deeper than
            `JSON_DEPTH`.
    """
    with reading(path, "a JSON file"):
        return json.loads(_json_text(require_file(path)))


def load_json_lines(path: str | os.PathLike[str]) -> list[Any]:
    """Read a JSON Lines file: one JSON value per line; empty lines are skipped.

    Raises:
        ItesError: as for `load_json`; or a line is no JSON.
    """
    path = require_file(path)
    with reading(path, "a JSON Lines file"):
        values = []
        for number, line in enumerate(_json_text(path).splitlines(), 1):
            if line.strip():
                try:
                    values.append(json.loads(line))
                except json.JSONDecodeError as error:
                    raise ItesError(
                        f"{path}: line {number}: expected one JSON value per line, got "
                        f"{error.msg.lower()} at character {error.pos}"
                    ) from None
        return values


def is_json_lines(path: str | os.PathLike[str]) -> bool:
    """Whether a file's first line that is not empty is a JSON list or object, and more follow."""
    path = require_file(path)
    with path.open("rb") as file:
        start = file.read(1 << 20)
    first, _, rest = start.decode("utf-8-sig", "replace").lstrip().partition("\n")
    if not rest.strip() or first.strip()[-1:] not in ("]", "}"):
        return False
    try:
        json.loads(first)
    except (ValueError, RecursionError):
        return False
    return rest.lstrip()[:1] in ("[", "{")


def _json_text(path: Path) -> str:
    """A JSON file's text, if its size and its nesting are plausible."""
    size = path.stat().st_size
    if size > JSON_BYTES:
        raise ItesError(f"{path}: expected at most {JSON_BYTES:,} bytes of JSON, got {size:,}")
    data = path.read_bytes()
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        data = data.decode("utf-16").encode()
    depth = _json_depth(data)
    if depth > JSON_DEPTH:
        raise ItesError(f"{path}: expected JSON nested at most {JSON_DEPTH} deep, got {depth} deep")
    return data.decode("utf-8-sig")


def _json_depth(data: bytes) -> int:
    """The nesting depth of lists and objects, found without building them."""
    outside = data.replace(rb"\\", b"").replace(rb"\"", b"").split(b'"')[::2]
    brackets = b"".join(part.translate(None, _NO_BRACKET) for part in outside)
    if not brackets:
        return 0
    import numpy as np

    steps = np.frombuffer(brackets.translate(_STEPS), np.int8)
    return int(np.cumsum(steps, dtype=np.int64).max())


_NO_BRACKET = bytes(set(range(256)) - set(b"[]{}"))
_STEPS = bytes.maketrans(b"[{]}", b"\x01\x01\xff\xff")


def load_npz(path: str | os.PathLike[str]) -> dict[str, NDArray[Any]]:
    """Read the arrays of an .npz file; nothing is unpickled.

    The declared size is checked before memory is allocated: at most `EXPANSION` times the file's
    bytes, or `EXPANSION_FREE` if that is more.

    Returns:
        The arrays by name; writable.

    Raises:
        ItesError: the file is absent, damaged, not an .npz file, or not limited to plain arrays.
    """
    path, expected = require_file(path), "an .npz file of plain arrays"
    with reading(path, expected):
        with path.open("rb") as file:
            if file.read(2) != b"PK":
                raise ItesError(f"{path}: expected {expected}, got {kind_of(path)}")
        with zipfile.ZipFile(path) as archive:
            members = members_of(path, archive, ".npy")
            if not members:
                message = f"expected {expected}, got a zip archive without any; unpack it first"
                raise ItesError(f"{path}: {message}")
            arrays = {}
            for info in members:
                name = info.filename.removesuffix(".npy")
                with archive.open(info) as member:
                    arrays[name] = _read_npy(member, info.file_size, f"{path}: {shorten(name, 60)}")
                    member.read(1)  # read to the end, where the checksum is verified
            return arrays


def load_npy(path: str | os.PathLike[str]) -> NDArray[Any]:
    """Read the array of an .npy file, writable; nothing is unpickled.

    Raises:
        ItesError: the file is absent, damaged, not an .npy file, or not a plain array.
    """
    path = require_file(path)
    with reading(path, "an .npy file of a plain array"), path.open("rb") as file:
        return _read_npy(file, path.stat().st_size, str(path))


def members_of(path: Path, archive: zipfile.ZipFile, ending: str) -> list[zipfile.ZipInfo]:
    """The members of a zip archive whose names end so, where they can be unpacked safely.

    LZMA takes as much memory as a member declares, up to 4 GiB, whatever its size.

    Raises:
        ItesError: one is compressed by another method than deflate, or they declare too much; see
            `check_expansion`.
    """
    members = [info for info in archive.infolist() if info.filename.endswith(ending)]
    for info in members:
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ItesError(
                f"{path}: {shorten(info.filename, 60)}: expected data that are stored or deflated, "
                f"got compression method {info.compress_type}"
            )
        if info.compress_size > path.stat().st_size:
            raise ItesError(
                f"{path}: {shorten(info.filename, 60)}: expected at most the file's own "
                f"{path.stat().st_size:,} bytes, got {info.compress_size:,} declared"
            )
    check_expansion(path, sum(info.file_size for info in members))
    return members


def check_expansion(path: Path, declared: int) -> None:
    """Check the bytes that a file declares against its own size.

    Raises:
        ItesError: they exceed both `EXPANSION` times the file's size and `EXPANSION_FREE`.
    """
    allowed = max(EXPANSION * path.stat().st_size, EXPANSION_FREE)
    if declared > allowed:
        raise ItesError(
            f"{path}: expected at most {allowed:,} bytes of arrays in a file of its size, "
            f"got {declared:,} declared"
        )


def _read_npy(file: IO[bytes], size: int, who: str) -> NDArray[Any]:
    """Read an array of `size` bytes, header included."""
    import numpy as np

    start = file.read(12)
    if start[:6] != b"\x93NUMPY":
        raise ItesError(f"{who}: expected a plain array as .npy, got {_kind(start)}")
    version, wide = tuple(start[6:8]), start[6:7] != b"\x01"
    if version not in ((1, 0), (2, 0), (3, 0)) or len(start) < 12:
        raise ItesError(f"{who}: expected .npy of version 1.0 to 3.0, got {version}")
    length = int.from_bytes(start[8 : 12 if wide else 10], "little")
    if length > min(NPY_HEADER, size):
        raise ItesError(
            f"{who}: expected an .npy header of at most {min(NPY_HEADER, size)} bytes, "
            f"got {length} declared"
        )
    header = (b"" if wide else start[10:]) + file.read(length - (0 if wide else 2))
    text = header.decode("utf-8" if version == (3, 0) else "latin1")
    dtype, fortran, shape = _npy_header(text, who)
    count, left = math.prod(shape) * dtype.itemsize, size - (12 if wide else 10) - length
    if count > left:
        raise ItesError(f"{who}: expected {count:,} bytes of {dtype} {shape}, got {left:,}")
    if dtype.itemsize > max(left, NPY_HEADER):  # of an empty array, whose type takes memory too
        raise ItesError(f"{who}: expected elements of at most {NPY_HEADER:,} bytes, got {dtype}")
    data = bytearray(count)
    got = file.readinto(data) if count else 0  # type: ignore[attr-defined]
    if got != count:
        raise ItesError(f"{who}: expected {count:,} bytes of {dtype} {shape}, got {got:,}")
    if not count:
        return np.zeros(shape, dtype)
    array = np.frombuffer(data, dtype)
    if dtype.kind == "U" and array.view(f"{dtype.byteorder}u4").max() > sys.maxunicode:
        raise ItesError(f"{who}: expected text, got characters that do not exist")
    return array.reshape(shape, order="F" if fortran else "C")


def _npy_header(text: str, who: str) -> tuple[np.dtype[Any], bool, tuple[int, ...]]:
    """The dtype, the Fortran order flag and the shape in an .npy header."""
    import numpy as np

    try:
        header = ast.literal_eval(text.strip())
        code, fortran, shape = header["descr"], header["fortran_order"], header["shape"]
    except Exception as error:
        raise ItesError(
            f"{who}: expected an .npy header, got {type(error).__name__} of {text[:60]!r}"
        ) from None
    if not isinstance(code, str) or not _PLAIN.fullmatch(code):
        held = f"{code!r}"
        if code in ("|O", "O"):
            held = "Python objects; save them as numbers, by array.astype(float)"
        raise ItesError(f"{who}: expected a plain array of numbers or text, got {held}")
    if (
        type(fortran) is not bool
        or type(shape) is not tuple
        or len(shape) > NPY_DIMENSIONS
        or not all(type(n) is int and 0 <= n <= sys.maxsize for n in shape)
    ):
        raise ItesError(f"{who}: expected an array's shape in the header, got {shape!r}")
    return np.dtype(code), fortran, shape


def kind_of(path: str | os.PathLike[str]) -> str:
    """The kind of a file by its first bytes, in words, such as "a text file"."""
    with Path(path).open("rb") as file:
        return _kind(file.read(256))


def _kind(start: bytes) -> str:
    """The kind of a file that begins with these bytes, in words."""
    if not start:
        return "an empty file"
    for mark, kind in _KINDS:
        if start.startswith(mark):
            return kind
    if start[4:8] == b"ftyp":
        return "a video"
    text = all(byte >= 32 or byte in b"\t\n\r\f" for byte in start)
    return "a text file" if text else "other bytes"


_PLAIN = re.compile(r"[<>|=]?(b1|[iuf][1248]|c8|c16|[SU]\d{1,9})")
_KINDS = (
    (b"PK", "a zip archive"),
    (b"\x93NUMPY", "an .npy file"),
    (b"\x89HDF", "an HDF5 file"),
    (b"\x1f\x8b", "a gzip file"),
    (b"\xfd7zXZ", "an xz file, unpack it first"),
    (b"BZh", "a bzip2 file, unpack it first"),
    (b"\x28\xb5\x2f\xfd", "a zstd file, unpack it first"),
    (b"7z\xbc\xaf", "a 7-Zip archive, unpack it first"),
    (b"MATLAB 5", "a MATLAB 5 file"),
    (b"\xff\xd8\xff", "a JPEG picture"),
    (b"\x89PNG", "a PNG picture"),
    (b"RIFF", "a video"),
    (b"\x1aE\xdf\xa3", "a video"),
)


def keep_source(source: str | os.PathLike[str], out: str | os.PathLike[str]) -> None:
    """Refuse to overwrite the input or a folder.

    Raises:
        ItesError: `out` is a folder, or `source` itself.
    """
    if os.path.isdir(out):
        raise ItesError(f"{out}: expected a file's name to write to, got a folder's")
    with suppress(OSError):
        if os.path.samefile(source, out):
            raise ItesError(f"{out}: the output would overwrite the input; choose another name")


@contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside `path`; it is renamed to `path` if the block succeeds.

    Missing folders are made. The data reach the disk before the name, so after a crash `path` holds
    either the old file or the new one. Incomplete files of killed processes in that folder are
    removed.

    Raises:
        OSError: the file cannot be written; it names `path`.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_orphans(path.parent)
        with _locked(temporary):
            yield temporary
            with temporary.open("r+b") as file:  # Windows flushes only what it may write
                os.fsync(file.fileno())
            os.replace(temporary, path)
        _sync_folder(path.parent)
    except OSError as error:
        where = error.filename
        if error.errno in _OF_THE_PLACE and (where is None or str(where) == str(temporary)):
            raise OSError(error.errno, error.strerror, str(path)) from None
        raise
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


_OF_THE_PLACE = (
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EROFS,
    errno.EACCES,
    errno.EPERM,
    errno.EIO,
    errno.EFBIG,
    errno.ENAMETOOLONG,
)


class FileWriter(ABC):
    """A context manager that completes its file where the block raises nothing.

    Contexts on `_stack`, such as `atomic_write`, receive the block's error and leave no file.
    """

    def __init__(self) -> None:
        self._stack = ExitStack()

    @abstractmethod
    def _finish(self) -> None:
        """Write what is left to write."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is not None:
            self._stack.__exit__(kind, error, traceback)
            return
        with self._stack:
            self._finish()


def remove_orphans(folder: Path) -> None:
    """Remove files `.NAME.PID.tmp` whose process has died; scans each folder once.

    The writer of such a file holds a lock on it, which other machines see too. Without locks a file
    stays while its process lives. A process that began after the file was written has reused the
    ID, so the file is removed.
    """
    if fcntl is None or folder in _looked_into:
        return
    _looked_into.add(folder)
    for path in folder.glob(".*.tmp"):
        match = _TEMPORARY.fullmatch(path.name)
        with suppress(OSError):
            if match and path.is_file() and not _is_alive(int(match[1]), path.stat().st_mtime):
                with path.open("rb") as file:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    path.unlink()


_looked_into: set[Path] = set()
_TEMPORARY = re.compile(r"\..+\.(\d{1,9})\.tmp")


def _is_alive(process: int, since: float) -> bool:
    """Whether a process with this ID lives and began before a time, seconds since 1970."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # another user's process
        pass
    try:
        numbers = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        up = float(Path("/proc/uptime").read_text().split()[0])
        began = time.time() - up + int(numbers[19]) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError):  # no /proc here
        return True
    return began <= since + 5


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Make a file and hold a lock on it if the system supports locks."""
    with path.open("ab") as file:
        if fcntl is None:  # Windows renames no open file
            file.close()
        else:
            with suppress(OSError):  # a file system without locks
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield


def _sync_folder(folder: Path) -> None:
    """Flush the names in a folder to disk if the system supports it."""
    if os.name != "posix":
        return
    with suppress(PermissionError):  # a folder that is writable but not readable
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
