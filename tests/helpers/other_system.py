"""macOS and Windows, simulated in a process on Linux: what they lack is not there.

    ITES_SYSTEM=windows python -m pytest -p other_system tests/system tests/ops -k "not cpp"

There is no /proc, no compiler, no extension, no Triton, and not all of `os` and `signal`. Windows
has no fcntl and no resource, gives no handle of a folder, flushes only what may be written, and
neither renames nor removes an open file.
"""

from __future__ import annotations

import builtins
import ctypes
import importlib
import io
import os
import shutil
import signal
import sys
from contextlib import suppress
from typing import Any

SYSTEMS = ("macos", "windows")
LIBRARIES = (
    "torch._dynamo", "torch.utils.cpp_extension", "torch.utils.tensorboard", "safetensors.torch",
    "h5py", "scipy.io", "scipy.optimize", "typer", "pydantic", "rich.console", "rich.progress",
    "rich.table", "asyncio", "multiprocessing.pool", "hypothesis", "matplotlib", "tempfile",
)  # fmt: skip
"""What asks for the system when it is imported."""
LACKING = ("ites._C", "ites._CUDA", "triton", "pybind11")
COMPILERS = ("cc", "c++", "gcc", "g++", "clang", "clang++", "nvcc", "ninja", "cl")
GONE = {
    "macos": ("sched_getaffinity", "memfd_create"),
    "windows": (
        "fork", "sched_getaffinity", "memfd_create", "sysconf", "O_DIRECTORY", "O_NOFOLLOW",
        "getloadavg", "killpg",
    ),
}  # fmt: skip


def simulate(system: str) -> None:
    """Take away what a system lacks; PyTorch and the readers' libraries are imported before."""
    for name in LIBRARIES:
        with suppress(ImportError):
            importlib.import_module(name)
    sys.platform = {"macos": "darwin", "windows": "win32"}[system]
    for name in LACKING:
        sys.modules[name] = None  # type: ignore[assignment]
    for name in GONE[system]:
        if hasattr(os, name):
            delattr(os, name)
    which = shutil.which
    shutil.which = lambda name, *a, **k: None if name in COMPILERS else which(name, *a, **k)
    _hide("/proc")
    if system == "windows":
        for name in ("fcntl", "resource", "pwd", "grp"):
            sys.modules[name] = None  # type: ignore[assignment]
        del signal.SIGKILL, signal.SIGXCPU
        _windows_files()


def _hide(place: str) -> None:
    """Let no file below a folder be opened."""

    def refusing(real: Any) -> Any:
        def call(path: Any, *given: Any, **options: Any) -> Any:
            if isinstance(path, (str, bytes, os.PathLike)) and (
                os.fsdecode(path) == place or os.fsdecode(path).startswith(f"{place}/")
            ):
                raise FileNotFoundError(2, "No such file or directory", os.fsdecode(path))
            return real(path, *given, **options)

        return call

    builtins.open = io.open = refusing(open)


def _windows_files() -> None:
    link, listed, maps = os.readlink, os.listdir, os.open
    real = {name: getattr(os, name) for name in ("replace", "rename", "unlink", "remove", "open")}
    fsync, library = os.fsync, ctypes.CDLL

    def held(path: str) -> bool:
        path = os.path.abspath(path)
        for number in listed("/proc/self/fd"):
            try:
                if link(f"/proc/self/fd/{number}") == path:
                    return True
            except OSError:  # the list's own
                continue
        handle, text = maps("/proc/self/maps", os.O_RDONLY), b""
        while part := os.read(handle, 1 << 20):
            text += part
        os.close(handle)
        return f" {path}\n".encode() in text

    def unless_held(name: str, count: int) -> Any:
        def call(*paths: Any, **options: Any) -> Any:
            for path in paths[:count]:
                if "dir_fd" not in options and held(os.fsdecode(path)):
                    raise PermissionError(13, "used by another process", os.fsdecode(path))
            return real[name](*paths, **options)

        return call

    for name, count in (("replace", 2), ("rename", 2), ("unlink", 1), ("remove", 1)):
        setattr(os, name, unless_held(name, count))

    def opened(path: Any, flags: int, *given: Any, **options: Any) -> int:
        if os.path.isdir(path) and "dir_fd" not in options and _from_ites():
            raise PermissionError(13, "Permission denied", os.fsdecode(path))
        return real["open"](path, flags, *given, **options)

    def flushed(handle: int) -> None:
        try:
            os.write(handle, b"")
        except OSError:
            raise OSError(9, "Bad file descriptor") from None
        fsync(handle)

    def loaded(name: Any = None, *given: Any, **options: Any) -> Any:
        if name is None:
            raise TypeError("LoadLibrary() argument 1 must be str, not None")
        return library(name, *given, **options)

    os.open, os.fsync, ctypes.CDLL = opened, flushed, loaded


def _from_ites() -> bool:
    return "ites" in sys._getframe(2).f_globals.get("__name__", "")


def pytest_configure() -> None:
    """Simulate when pytest itself has asked for the system."""
    if os.environ.get("ITES_SYSTEM"):
        simulate(os.environ["ITES_SYSTEM"])


if os.environ.get("ITES_SYSTEM") and "pytest" not in sys.modules:
    simulate(os.environ["ITES_SYSTEM"])
