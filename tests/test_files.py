"""Readers on any bytes: one line that names the file; whole files or none."""

from __future__ import annotations

import io
import json
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ites.errors import LIMIT, ItesError, shorten
from ites.system.files import load_json, load_npy, load_npz, reading


def refused(path: Path, read: Any) -> str:
    """The message with which `read` refuses a file: one line that names it."""
    with pytest.raises(ItesError) as caught:
        read(path)
    line = str(caught.value)
    assert path.name in line and line.isprintable() and len(line) <= LIMIT
    return line


def test_a_message_is_one_line_of_300_characters() -> None:
    line = str(ItesError("a.npz: expected numbers,\n got " + "x\x1b" * 10**6 + " in the end"))
    assert line.startswith("a.npz: expected numbers, got x?x?") and line.endswith(" in the end")
    assert len(line) == LIMIT and line.isprintable()
    assert shorten("short\ttext") == "short text"


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RecursionError("maximum recursion depth exceeded"),
        zlib.error("Error -3 while decompressing"),
        zipfile.BadZipFile("bad\nmagic"),
        NotImplementedError("compression"),
        OverflowError("too large"),
        KeyError("x" * 5000),
        OSError("h5py: unable to open"),
        PermissionError(13, "Permission denied"),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"),
        BaseException("a panic"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_any_error_of_a_parser_becomes_a_line(tmp_path: Path, error: BaseException) -> None:
    def read(path: Path) -> None:
        with reading(path, "a BVH file"):
            raise error

    assert ": expected a BVH file, " in refused(tmp_path / "walk.bvh", read)


def test_an_error_without_the_files_name_gets_it(tmp_path: Path) -> None:
    path = tmp_path / "walk.bvh"
    with pytest.raises(ItesError) as caught, reading(path, "a BVH file"):
        raise ItesError("expected a root")
    assert str(caught.value) == f"{path}: expected a root"
    with pytest.raises(ItesError) as caught, reading(path, "a BVH file"):
        raise ItesError(f"{path}: expected a root")
    assert str(caught.value) == f"{path}: expected a root"
    with pytest.raises(KeyboardInterrupt), reading(path, "a BVH file"):
        raise KeyboardInterrupt


@pytest.mark.parametrize("value", [[1, 2.5, None], {"a": [{"b": 'x"]]]\\"'}]}, "text", 3])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_json_is_read(tmp_path: Path, value: Any, encoding: str) -> None:
    path = tmp_path / "x.json"
    path.write_text(json.dumps(value), encoding=encoding)
    assert load_json(path) == value


def test_broken_json_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    for content, what in (
        (b"", "expected a JSON file"),
        (b"[" * 100_000, "nested at most 64 deep, got 100000 deep"),
        (b'{"a":' * 90 + b"1" + b"}" * 90, "got 90 deep"),
        (b'["' + b'\\"' * 10**6, "expected a JSON file"),
        (b"\xff\xff", "no text in utf-8"),
        (b"1" * 10_000, "expected a JSON file"),
    ):
        path.write_bytes(content)
        assert what in refused(path, load_json), content[:20]
    path.unlink()
    assert "no such file" in refused(path, load_json)


ARRAYS = {
    "numbers": np.arange(6.0, dtype=np.float32).reshape(2, 3),
    "columns": np.asfortranarray(np.arange(6).reshape(2, 3)),
    "big_end": np.arange(3, dtype=">f8"),
    "text": np.array(["a", "bé"]),
    "scalar": np.array(25.0),
    "yes": np.array([True, False]),
    "empty": np.zeros((0, 17, 2)),
}


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_plain_arrays_are_read(tmp_path: Path, save: Any) -> None:
    save(tmp_path / "x.npz", **ARRAYS)
    loaded = load_npz(tmp_path / "x.npz")
    assert loaded.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        np.save(tmp_path / "x.npy", array)
        for read in (loaded[name], load_npy(tmp_path / "x.npy")):
            assert read.dtype == array.dtype and read.flags.writeable
            np.testing.assert_array_equal(read, array)


def npy(header: str, data: bytes = b"", length: int | None = None) -> bytes:
    text = header.encode("latin1")
    return b"\x93NUMPY\x01\x00" + (length or len(text)).to_bytes(2, "little") + text + data


HOSTILE_NPY = {
    "an empty file": (b"", "got an empty file"),
    "text": (b"1.0 2.0\n3.0 4.0\n", "got a text file"),
    "a huge shape": (
        npy("{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000, 17, 2)}"),
        "expected 136,000,000,000 bytes",
    ),
    "a shape beyond 64 bits": (
        npy(f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({2**62}, {2**62})}}"),
        "bytes of float32",
    ),
    "a negative shape": (
        npy("{'descr': '<f4', 'fortran_order': False, 'shape': (-1, 2)}"),
        "expected an array's shape",
    ),
    "a shape of floats": (
        npy("{'descr': '<f4', 'fortran_order': False, 'shape': (1.0, 2)}"),
        "expected an array's shape",
    ),
    "a cut header": (npy("{'descr': '<f4', 'fortr"), "expected an .npy header"),
    "a nested header": (npy("(" * 5000), "expected an .npy header"),
    "a header that is a list": (npy("[1, 2]"), "expected an .npy header"),
    "a header beyond the end": (npy("{}", length=60_000), "got 60000 declared"),
    "objects": (
        npy("{'descr': '|O', 'fortran_order': False, 'shape': (1,)}", b"x" * 50),
        "got Python objects",
    ),
    "a structure": (
        npy("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (1,)}", b"x" * 50),
        "expected a plain array",
    ),
    "characters that do not exist": (
        npy("{'descr': '<U1', 'fortran_order': False, 'shape': (1,)}", b"\xff" * 4),
        "characters that do not exist",
    ),
    "version 9": (b"\x93NUMPY\x09\x00" + bytes(50), "expected .npy of version"),
}


@pytest.mark.parametrize("name", HOSTILE_NPY)
def test_hostile_arrays_are_refused(tmp_path: Path, name: str) -> None:
    data, what = HOSTILE_NPY[name]
    (tmp_path / "x.npy").write_bytes(data)
    line = refused(tmp_path / "x.npy", load_npy)
    assert what in line and "pickle" not in line
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("keypoints.npy", data)
    line = refused(tmp_path / "x.npz", load_npz)
    assert what in line and "keypoints" in line and "pickle" not in line


def test_a_zip_bomb_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    zeros = io.BytesIO()
    np.save(zeros, np.zeros(1 << 22))
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for index in range(4):
            archive.writestr(f"a{index}.npy", zeros.getvalue())
    assert "expected at most 67,108,864 bytes" in refused(path, load_npz)


def test_a_damaged_archive_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    np.savez(path, a=np.arange(1000))
    whole = path.read_bytes()
    for damaged in (whole[:100], whole[:500] + b"\xff" + whole[501:], b"PK" + bytes(100)):
        path.write_bytes(damaged)
        refused(path, load_npz)
    path.write_text("x,y\n1,2\n")
    assert "got a text file" in refused(path, load_npz)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.txt", "hello")
    assert "a zip archive without any" in refused(path, load_npz)
