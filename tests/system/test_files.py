"""Readers on any bytes: one line that names the file; whole files or none."""

from __future__ import annotations

import errno
import fcntl
import io
import json
import os
import stat
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from ites.data.lifted import ClipsWriter
from ites.data.store import PoseStoreWriter
from ites.errors import LIMIT, ItesError, one_line, shorten
from ites.pose.skeleton import HUMAN36M
from ites.system import files as files_module
from ites.system import hdf5
from ites.system.files import atomic_write, load_json, load_npy, load_npz, reading, remove_orphans
from ites.system.hdf5 import H5Writer
from ites.system.parts import Parts

ROOT = Path(__file__).parents[2]


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
    "name",
    ["a\nb\tc.npz", "\x1b[31mred.npz", "x" * 240 + ".npz", "n\udcffn.npz", "plain", "expected"],
)
def test_a_file_is_named_once_whatever_its_name(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    for text in ("expected numbers, got text", f"{path}: expected numbers, got text"):
        with pytest.raises(ItesError) as caught, reading(path, "an .npz file"):
            raise ItesError(text, code="units")
        line = str(caught.value)
        assert line.isprintable() and len(line) <= LIMIT and "\n" not in line
        assert line.startswith(shorten(path)[:100]) and line.endswith(
            ": expected numbers, got text"
        )
        assert line.count(" expected numbers") == 1 and line.count(str(tmp_path)) == 1
        assert caught.value.code == "units"


def test_a_line_keeps_its_length_and_its_spaces() -> None:
    assert one_line("  train: a\nb\x1b[0m  c") == "  train: a b?[0m  c"
    assert one_line("x" * 1000) == "x" * 1000


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
    "an empty array of wide texts": (
        npy("{'descr': '<U99999999', 'fortran_order': False, 'shape': (0, 17, 2)}"),
        "expected elements of at most 10,000 bytes, got <U99999999",
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
    assert "got 134,218,240 declared" in refused(path, load_npz)


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


def dead_process() -> int:
    """The number of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_orphans_of_dead_processes_are_removed(tmp_path: Path) -> None:
    dead = tmp_path / f".other.h5.{dead_process()}.tmp"
    alive = tmp_path / f".other.h5.{os.getppid()}.tmp"
    reused = tmp_path / f".reused.h5.{os.getppid()}.tmp"
    foreign = [tmp_path / name for name in (".x.tmp", "x.1.tmp", f"y.{dead_process()}.tmp")]
    for path in (dead, alive, reused, *foreign):
        path.write_text("half")
    os.utime(reused, (0, 0))  # before the process with this number began
    with atomic_write(tmp_path / "new.txt") as temporary:
        temporary.write_text("whole")
    assert not dead.exists() and not reused.exists()
    assert alive.exists() and all(path.exists() for path in foreign)
    assert (tmp_path / "new.txt").read_text() == "whole"


def test_orphans_where_there_is_no_proc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """macOS does not tell when a process began: a file stays while its number is in use."""
    read = Path.read_text

    def without_proc(path: Path, *given: Any, **options: Any) -> str:
        if path.is_relative_to("/proc"):
            raise FileNotFoundError(2, "No such file or directory", str(path))
        return read(path, *given, **options)

    def another_users(process: int, number: int) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(Path, "read_text", without_proc)
    dead, alive, locked = (
        tmp_path / f".x.h5.{process}.tmp" for process in (dead_process(), os.getppid(), 999999999)
    )
    for path in (dead, alive, locked):
        path.write_text("half")
        os.utime(path, (0, 0))
    with locked.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        remove_orphans(tmp_path)
    assert not dead.exists() and alive.exists() and locked.exists()
    other = tmp_path / "folder" / f".x.h5.{dead_process()}.tmp"
    other.parent.mkdir()
    other.write_text("half")
    monkeypatch.setattr(os, "kill", another_users)
    remove_orphans(other.parent)
    assert other.exists()


def test_no_process_is_signalled_where_that_would_end_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On Windows `os.kill(process, 0)` is a Ctrl+C; there are no locks, and orphans stay."""

    def kill(process: int, number: int) -> None:
        raise AssertionError(f"process {process} is signalled")

    monkeypatch.setattr(files_module, "fcntl", None)
    monkeypatch.setattr(os, "kill", kill)
    orphan = tmp_path / f".x.h5.{dead_process()}.tmp"
    orphan.write_text("half")
    with atomic_write(tmp_path / "new.txt") as temporary:
        temporary.write_text("whole")
    assert orphan.exists() and (tmp_path / "new.txt").read_text() == "whole"


def test_a_locked_file_is_no_orphan(tmp_path: Path) -> None:
    """The process may live on another machine, where its number means nothing here."""
    path = tmp_path / f".other.h5.{dead_process()}.tmp"
    path.write_text("half")
    with path.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        remove_orphans(tmp_path)
        assert path.exists()


def test_a_file_reaches_the_disk_before_its_name_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    fsync, replace = os.fsync, os.replace

    def note_fsync(handle: int) -> None:
        done.append("folder" if stat.S_ISDIR(os.fstat(handle).st_mode) else "file")
        fsync(handle)

    def note_replace(*names: Any) -> None:
        done.append("name")
        replace(*names)

    monkeypatch.setattr(os, "fsync", note_fsync)
    monkeypatch.setattr(os, "replace", note_replace)
    with atomic_write(tmp_path / "new" / "x.txt") as temporary:
        temporary.write_text("whole")
    assert done == ["file", "name", "folder"]


@pytest.mark.parametrize("writer", [PoseStoreWriter, ClipsWriter])
def test_hdf5_without_room_for_a_name_is_reported_by_the_file(
    writer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path) -> Any:
        raise OSError(errno.ENOSPC, "No space left on device", path)

    monkeypatch.setattr(hdf5, "_Disk", full)
    given = (HUMAN36M, "a", "b") if writer is PoseStoreWriter else ()
    with pytest.raises(OSError) as caught, writer(tmp_path / "x.h5", *given):
        pass
    assert caught.value.filename == str(tmp_path / "x.h5")
    assert not list(tmp_path.iterdir())


def test_a_disk_without_room_for_a_name_is_reported_by_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Opening the temporary file fails; the message has the file's own name."""
    real = Path.open

    def full(path: Path, *given: Any, **options: Any) -> Any:
        if path.suffix == ".tmp":
            raise OSError(errno.ENOSPC, "No space left on device", path)
        return real(path, *given, **options)

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(OSError) as caught, atomic_write(tmp_path / "x.txt"):
        pass
    assert caught.value.filename == str(tmp_path / "x.txt")


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_full_disk_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    path = tmp_path / "x.txt"
    path.write_text("old")

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, step, full)
    with pytest.raises(OSError, match="No space left") as caught, atomic_write(path) as temporary:
        temporary.write_text("new")
    assert caught.value.filename == str(path)
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def fill(writer: h5py.File, rows: int) -> None:
    """What stores do: a table that grows, many small groups, attributes."""
    data = writer.create_dataset(
        "a", shape=(0, 51), maxshape=(None, 51), chunks=(256, 51), dtype="f4"
    )
    for start in range(0, rows, 500):
        data.resize(start + 500, axis=0)
        data[start:] = np.arange(500 * 51, dtype=np.float32).reshape(500, 51) + start
        writer.create_group(f"g/{start}").attrs["n"] = start
    writer.attrs["text"] = "x" * 1000


def test_hdf5_is_written_as_hdf5_itself_does(tmp_path: Path) -> None:
    with H5Writer(tmp_path / "ours.h5") as ours:
        fill(ours, 5000)
    with h5py.File(tmp_path / "its.h5", "w") as its:
        fill(its, 5000)
    assert (tmp_path / "ours.h5").read_bytes() == (tmp_path / "its.h5").read_bytes()


# A process of its own: HDF5 would crash at the end of it.
FULL = """
import errno, os, sys
from tests.system.test_files import fill
from ites.system import files as files_module
from ites.system import hdf5
from ites.system.files import atomic_write
left, write = int(sys.argv[2]), os.write
def full(handle, data):
    global left
    if left <= 0:
        raise OSError(errno.ENOSPC, "No space left on device")
    count = write(handle, data[:left])
    left -= count
    return count
hdf5.os.write = full
try:
    with atomic_write(sys.argv[1]) as temporary, hdf5.H5Writer(temporary) as writer:
        fill(writer, 5000)
except OSError as error:
    print(error.errno == errno.ENOSPC, error.filename == sys.argv[1])
"""


@pytest.mark.parametrize("bytes_left", [0, 100, 2_000, 60_000, 500_000, 1_000_000])
def test_a_full_disk_is_no_end_of_the_process(tmp_path: Path, bytes_left: int) -> None:
    result = subprocess.run(
        [sys.executable, "-c", FULL, str(tmp_path / "x.h5"), str(bytes_left)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])},
    )
    assert (result.returncode, result.stdout, result.stderr) == (0, "True True\n", "")
    assert not list(tmp_path.iterdir())


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one megabyte; skips where none may be mounted."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.SubprocessError) as error:
        pytest.skip(f"no small file system: {error}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def ites(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "ites", *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])},
    )


def test_prepare_on_a_full_disk(small_disk: Path) -> None:
    result = ites("prepare", "synthetic", "--poses", 20_000, "--out", small_disk / "x.h5")
    assert result.returncode in (1, 2), result.stderr
    assert result.stderr.count("\n") == 1 and len(result.stderr) <= 301
    assert "x.h5" in result.stderr and "No space left" in result.stderr
    assert not list(small_disk.iterdir())


def test_what_a_process_left_when_it_died_does_not_stop_the_next(tmp_path: Path) -> None:
    folder = tmp_path / "out.npz.parts"
    folder.mkdir()
    (folder / f".request.json.{dead_process()}.tmp").write_text("{")
    parts = Parts(tmp_path / "out.npz", {"a": 1}, 2)
    parts.begin(resume=False)
    assert [path.name for path in folder.iterdir()] == ["request.json"]
    (folder / "request.json").write_text("[" * 10_000)
    with pytest.raises(ItesError, match=r"request\.json"):
        parts.begin(resume=True)
    parts.remove()
    assert not list(tmp_path.iterdir())
