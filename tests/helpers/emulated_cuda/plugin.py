"""A pytest plugin that makes the backend "cuda" run on CPU tensors: the CUDA kernels, emulated.

    PYTHONPATH=tests/helpers pytest -p emulated_cuda.plugin tests/ops/test_rotation.py -k cuda

Each file of csrc/cuda is compiled as C++ against the cuda_runtime.h beside this file, and every
access to memory is checked: see races.cpp. A test fails if its kernels race. That shows that the
kernels index, synchronise and compute correctly. It does not show that nvcc agrees, nor speed.
Not seen: order within a warp beyond __syncwarp, launch limits, waiting between blocks.
"""

from __future__ import annotations

import ctypes
import re
import subprocess
from functools import cache
from pathlib import Path

import pytest
import torch
from torch.utils import cpp_extension

from ites.ops import backends

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
CSRC = ROOT / "csrc"
FOLDER = ROOT / "build/emulated_cuda"
LIBRARY = FOLDER / "emulated_cuda.so"


def _checker() -> Path:
    """The checker's object file, compiled where it changed; it is not checked itself."""
    made = FOLDER / "races.o"
    sources = [HERE / name for name in ("races.cpp", "races.h", "cuda_runtime.h")]
    if not made.exists() or made.stat().st_mtime < max(file.stat().st_mtime for file in sources):
        flags = ["-O2", "-g1", "-fPIC", "-std=c++20", "-fvisibility=hidden", "-w", "-c"]
        subprocess.run(["c++", *flags, f"-I{HERE}", str(sources[0]), "-o", str(made)], check=True)
    return made


@cache
def load() -> ctypes.CDLL:
    """Compile what changed, register torch.ops.ites_cuda for CPU tensors, return the library."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    sources = [HERE / "runtime.cpp"]
    for kernels in sorted(CSRC.glob("cuda/*.cu")):
        source = FOLDER / f"{kernels.stem}.cpp"
        text = f'#include "prelude.h"\n\n#include "cuda/{kernels.name}"\n'
        if not source.exists() or source.read_text() != text:
            source.write_text(text)
        sources.append(source)
    macros = ["-DUSE_CUDA", "-DTORCH_TARGET_VERSION=0x020b000000000000"]
    cpp_extension.load(
        name="emulated_cuda",
        sources=[str(source) for source in sources],
        extra_include_paths=[str(HERE), str(CSRC)],
        extra_cflags=["-O1", "-g1", "-w", "-fsanitize=thread", *macros],
        extra_ldflags=["-Wl,-Bsymbolic", str(_checker())],
        build_directory=str(FOLDER),
        is_python_module=False,
    )
    library = ctypes.CDLL(str(LIBRARY))
    library.races_report.restype = ctypes.c_char_p
    return library


def _place(match: re.Match[str]) -> str:
    """The line of the source of an address in the library."""
    command = ["addr2line", "-e", str(LIBRARY), "-s", f"0x{match[1]}"]
    return subprocess.run(command, capture_output=True, text=True).stdout.strip() or match[0]


def reports() -> list[str]:
    """What the checker has found since the last call, with the lines of the source."""
    library = load()
    found = [library.races_report(i).decode() for i in range(library.races_count())]
    library.races_forget()
    return sorted({re.sub(r"@([0-9a-f]+)", _place, text) for text in found})


def stand_in() -> None:
    """Load the kernels and let "cuda" stand for them."""
    load()
    backends.MISSING.pop("cuda", None)
    why_not = backends.why_not

    def with_emulation(backend: str, op: str, device: str, dtype: torch.dtype) -> str | None:
        return why_not(backend, op, "cuda" if backend == "cuda" else device, dtype)

    backends.why_not = with_emulation


def pytest_configure() -> None:
    stand_in()


@pytest.fixture(autouse=True)
def no_races():
    """Fail a test whose kernels race."""
    yield
    found = reports()
    assert not found, "\n".join(found)
