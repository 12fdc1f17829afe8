"""Tabulate the resources of each CUDA kernel of the built `ites._C_cuda`, per architecture.

    python -m benchmarks.ops.kernel_resources           writes results/kernel_resources.csv
    python -m benchmarks.ops.kernel_resources --check   compares with it; exits with 1

A kernel that spills registers, or keeps anything else in local memory, fails either way. The
figures are read by cuobjdump from the binary that runs, on a machine with or without a GPU. They
depend on nvcc's version, which the table names: another version's are compared with nothing, only
checked for spills. Shared memory is what a kernel declares; dynamic shared memory is in
docs/kernels.md.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.ops.resource_table import ResourceTable

TABLE = ResourceTable(
    Path(__file__).parents[1] / "results/kernel_resources.csv",
    ("kernel", "sm", "registers", "local_bytes", "shared_bytes", "nvcc"),
)
RESERVED_SHARED = 1024  # bytes that the system takes of each block, from sm_90 on: not the kernel's


def extension() -> Path:
    """The built extension.

    Raises:
        FileNotFoundError: it is not built.
    """
    spec = importlib.util.find_spec("ites._C_cuda")
    if spec is None or spec.origin is None:
        raise FileNotFoundError("ites._C_cuda is not built; reinstall with nvcc, or ITES_CUDA=1")
    return Path(spec.origin)


def cuobjdump() -> str:
    """The tool: on the PATH, in the CUDA toolkit, or the one that Triton brings.

    Raises:
        FileNotFoundError: it is nowhere.
    """
    places = [Path(os.environ.get("CUDA_HOME", "/usr/local/cuda")) / "bin/cuobjdump"]
    triton = importlib.util.find_spec("triton")
    if triton is not None and triton.origin is not None:
        places.append(Path(triton.origin).parent / "backends/nvidia/bin/cuobjdump")
    found = shutil.which("cuobjdump") or next((str(p) for p in places if p.is_file()), None)
    if found is None:
        raise FileNotFoundError("cuobjdump was not found; install the CUDA toolkit or Triton")
    return found


def nvcc_version(library: Path) -> str:
    """The CUDA release that compiled the library, from its debug notes."""
    match = re.search(rb"Cuda compilation tools, release [\d.]+, V([\d.]+)", library.read_bytes())
    if match:
        return match[1].decode()
    reply = subprocess.run(["nvcc", "--version"], capture_output=True, text=True, check=True).stdout
    return re.findall(r"V([\d.]+)", reply)[0]


def resources(library: Path) -> list[dict[str, Any]]:
    """One row per kernel and architecture, sorted."""
    text = subprocess.run(
        [cuobjdump(), "--dump-resource-usage", str(library)],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    names = sorted(set(re.findall(r"Function (\S+):", text)))
    reply = subprocess.run(["c++filt", *names], capture_output=True, text=True, check=True).stdout
    readable = dict(zip(names, map(short_name, reply.splitlines()), strict=True))
    nvcc = nvcc_version(library)
    rows, architecture = [], _of_cubin(library)
    for line in text.splitlines():
        if match := re.search(r"arch = sm_(\d+)", line):
            architecture = int(match[1])
        elif match := re.search(r"Function (\S+):", line):
            kernel = readable[match[1]]
        elif "REG:" in line:
            use = {key: int(value) for key, value in re.findall(r"(\w+):(\d+)", line)}
            reserved = RESERVED_SHARED if architecture >= 90 else 0
            rows.append(
                {
                    "kernel": kernel,
                    "sm": architecture,
                    "registers": use["REG"],
                    "local_bytes": use["STACK"] + use["LOCAL"],
                    "shared_bytes": max(use["SHARED"] - reserved, 0),
                    "nvcc": nvcc,
                }
            )
    return sorted(rows, key=lambda row: (row["kernel"], row["sm"]))


def _of_cubin(library: Path) -> int:
    """The architecture that the name of a cubin ends with, 90 of norm.90.cubin; 0 of a library."""
    match = re.search(r"\.(\d+)\.cubin$", library.name)
    return int(match[1]) if match else 0


def short_name(signature: str) -> str:
    """A demangled kernel's name with its template arguments, without namespaces and parameters."""
    name = re.sub(r"\(anonymous namespace\)::|ites::", "", signature).removeprefix("void ")
    return re.sub(r"_kernel\b", "", name.split("(")[0])


def read_options(argv: list[str] | None, description: str) -> argparse.Namespace:
    """The options of a command that reads the binary: `check`, and `library`, paths or None."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--check", action="store_true", help="compare with the committed table")
    parser.add_argument(
        "--library", type=Path, nargs="+", help="another built _C_cuda, or cubins of its files"
    )
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Read the binary, print the table, then write it or compare it."""
    options = read_options(argv, __doc__.split("\n")[0])
    try:
        libraries = options.library or [extension()]
        rows = [row for library in libraries for row in resources(library)]
    except FileNotFoundError as error:
        print(f"kernel_resources: {error}", file=sys.stderr)
        return 2
    rows.sort(key=lambda row: (row["kernel"], row["sm"]))
    for row in rows:
        print(TABLE.line(row))
    return TABLE.finish(rows, check=options.check, write=True)


if __name__ == "__main__":
    sys.exit(main())
