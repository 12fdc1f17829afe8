"""A pytest plugin that makes the backend "cuda" run on CPU tensors: the CUDA kernels, emulated.

    PYTHONPATH=tests/helpers pytest -p emulated_cuda.plugin tests/ops/test_rotation.py -k cuda

Each file of csrc/cuda is compiled as C++ against the cuda_runtime.h beside this file. What that
shows is that the kernels index, synchronise and compute rightly; not that nvcc agrees, nor speed.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch.utils import cpp_extension

from ites.ops import backends

HERE = Path(__file__).parent
CSRC = HERE.parents[2] / "csrc"


def load() -> None:
    """Compile what changed, and register torch.ops.ites_cuda for CPU tensors."""
    folder = HERE.parents[2] / "build/emulated_cuda"
    folder.mkdir(parents=True, exist_ok=True)
    sources = [HERE / "runtime.cpp"]
    for kernels in sorted(CSRC.glob("cuda/*.cu")):
        source = folder / f"{kernels.stem}.cpp"
        text = f'#include "prelude.h"\n\n#include "cuda/{kernels.name}"\n'
        if not source.exists() or source.read_text() != text:
            source.write_text(text)
        sources.append(source)
    cpp_extension.load(
        name="emulated_cuda",
        sources=[str(source) for source in sources],
        extra_include_paths=[str(HERE), str(CSRC)],
        extra_cflags=["-O1", "-DUSE_CUDA", "-DTORCH_TARGET_VERSION=0x020b000000000000", "-w"],
        extra_ldflags=["-Wl,-Bsymbolic"],
        build_directory=str(folder),
        is_python_module=False,
    )


def pytest_configure() -> None:
    """Load the kernels and let "cuda" stand for them."""
    load()
    backends.MISSING.pop("cuda", None)
    why_not = backends.why_not

    def with_emulation(backend: str, op: str, device: str, dtype: torch.dtype) -> str | None:
        return why_not(backend, op, "cuda" if backend == "cuda" else device, dtype)

    backends.why_not = with_emulation
