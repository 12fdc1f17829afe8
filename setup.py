"""Builds the compiled backends.

``ites._C`` (C++, CPU) is built on Linux; ``ites._C_cuda`` where nvcc is found, GPU or not. Both use
LibTorch's stable ABI, so that one binary loads under every torch from 2.11 on. On other systems the
package is pure Python.

Environment:
    ITES_NO_EXT=1          pure Python, nothing compiled
    ITES_CUDA=1 or 0       require or leave out ``ites._C_cuda``
    TORCH_CUDA_ARCH_LIST   architectures, e.g. "9.0" or "8.0;9.0+PTX"
    ITES_SANITIZE          sanitizers of ``ites._C``, such as "address,undefined"; no CUDA
    MAX_JOBS               parallel compilations (default: cores, at most one per 2 GB free)
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import Extension, find_packages, setup

ROOT = Path(__file__).parent
STABLE_ABI = "0x020b000000000000"  # torch 2.11
ARCHITECTURES = "8.0;9.0;10.0;12.0+PTX"
FLAGS = ["-O3", "-g0", "-fvisibility=hidden", "-fno-math-errno", "-fno-trapping-math", "-Wno-psabi"]


# A sanitised build keeps its lines for reports, and its functions for calls to be checked in.
# -fno-wrapv: Python's own flags have -fwrapv, which makes an overflow no fault.
SANITIZED = ["-O1", "-g1", "-fno-omit-frame-pointer", "-fno-wrapv", "-fno-sanitize-recover=all"]


def sources(pattern: str) -> list[str]:
    return sorted(str(path.relative_to(ROOT)) for path in ROOT.glob(f"csrc/{pattern}"))


def cuda_home() -> Path | None:
    """The CUDA toolkit: $CUDA_HOME, or where nvcc on the PATH lives, or /usr/local/cuda."""
    named = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH")
    nvcc = shutil.which("nvcc")
    beside_nvcc = Path(nvcc).resolve().parent.parent if nvcc else None
    for home in (Path(named) if named else None, beside_nvcc, Path("/usr/local/cuda")):
        if home and (home / "bin/nvcc").is_file() and (home / "include/cuda_runtime.h").is_file():
            return home
    return None


def cuda_wanted(home: Path | None) -> bool:
    """Whether to build ``ites._C_cuda``; says why not where that may surprise."""
    import torch

    choice = os.environ.get("ITES_CUDA", "")
    if choice == "0":
        return False
    if choice == "1":
        if home is None:
            raise SystemExit("ites: ITES_CUDA=1, but no nvcc was found; set CUDA_HOME")
        return True
    if home is None or torch.version.hip is not None:
        return False
    reply = subprocess.run([home / "bin/nvcc", "--version"], capture_output=True, text=True).stdout
    release = re.search(r"release (\d+)", reply)
    theirs = torch.version.cuda
    if theirs and release and release[1] != theirs.split(".")[0]:
        print(f"ites: no CUDA kernels: nvcc is CUDA {release[1]}, torch was built for {theirs}")
        return False
    return True


def architecture_flags() -> tuple[list[str], str]:
    """nvcc's flags for TORCH_CUDA_ARCH_LIST or our own list, and that list."""
    names = os.environ.get("TORCH_CUDA_ARCH_LIST") or ARCHITECTURES
    flags = []
    for name in names.replace(" ", ";").strip(";").split(";"):
        number = name.removesuffix("+PTX").replace(".", "")
        flags.append(f"-gencode=arch=compute_{number},code=sm_{number}")
        if name.endswith("+PTX"):
            flags.append(f"-gencode=arch=compute_{number},code=compute_{number}")
    return flags, names


def digest(files: list[str]) -> str:
    return hashlib.sha256(b"".join((ROOT / file).read_bytes() for file in files)).hexdigest()[:16]


def default_jobs() -> int:
    """As many compilations as there are cores, but at most one for each 2 GB of free memory."""
    cores = len(os.sched_getaffinity(0))
    memory = re.search(r"MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text())
    return max(1, min(cores, int(memory[1]) // (2 << 20))) if memory else cores


def extensions() -> tuple[list[Extension], dict]:
    if os.environ.get("ITES_NO_EXT") == "1" or not sys.platform.startswith("linux"):
        return [], {}

    import pybind11
    from torch.utils import cpp_extension

    os.environ.setdefault("MAX_JOBS", str(default_jobs()))
    includes = [str(ROOT / "csrc"), pybind11.get_include(), *cpp_extension.include_paths()]
    libraries = cpp_extension.library_paths()
    common = {
        "language": "c++",
        # By libtorch.so a CUDA build of torch brings in libtorch_cuda.so, under a CPU build absent.
        "extra_link_args": ["-Wl,-s", "-Wl,--no-as-needed", "-ltorch", "-ltorch_cpu"],
        "depends": sources("**/*.h") + sources("**/*.cuh"),
    }
    macros = [("TORCH_TARGET_VERSION", STABLE_ABI)]
    flags, sanitizers = FLAGS, os.environ.get("ITES_SANITIZE", "")
    if sanitizers:
        # PyTorch's classes come from a build without the types that "vptr" looks at.
        chosen = [f"-fsanitize={sanitizers}", "-fno-sanitize=vptr"]
        flags = [flag for flag in FLAGS if flag not in ("-O3", "-g0")] + SANITIZED + chosen
        common["extra_link_args"] = [*common["extra_link_args"][1:], *chosen]
        macros.append(("ITES_SANITIZED", None))
    built = [
        Extension(
            "ites._C",
            ["csrc/module.cpp", *sources("cpu/*.cpp")],
            include_dirs=includes,
            library_dirs=libraries,
            define_macros=macros,
            extra_compile_args={"cxx": flags},
            **common,
        )
    ]

    home = cuda_home()
    if not sanitizers and cuda_wanted(home):
        cpp_extension.CUDA_HOME = str(home)  # unset under a CPU build of torch
        arch_flags, arch_names = architecture_flags()
        cuda_macros = [
            *macros,
            ("USE_CUDA", None),
            ("ITES_ARCHITECTURES", f'"{arch_names}"'),
            # Under a CPU build of torch ninja does not know which headers a .cu file includes.
            ("ITES_HEADERS", digest(common["depends"])),
        ]
        nvcc_flags = ["-O3", "-Xcompiler=-fvisibility=hidden", *arch_flags]
        built.append(
            Extension(
                "ites._C_cuda",
                ["csrc/module_cuda.cpp", *sources("cuda/*.cu")],
                include_dirs=[*includes, str(home / "include")],
                library_dirs=[*libraries, str(home / "lib64")],
                libraries=["cudart_static", "rt", "pthread", "dl"],
                define_macros=cuda_macros,
                extra_compile_args={"cxx": FLAGS, "nvcc": nvcc_flags},
                **common,
            )
        )
    return built, {"build_ext": cpp_extension.BuildExtension}


ext_modules, cmdclass = extensions()
setup(
    packages=[*find_packages(include=["ites", "ites.*"]), "ites.kernels"],
    package_dir={"ites.kernels": "kernels"},
    ext_modules=ext_modules,
    cmdclass=cmdclass,
)
