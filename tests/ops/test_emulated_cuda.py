"""The CUDA kernels on a CPU, by `emulated_cuda`: every test of the ops that names "cuda"."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
FAMILIES = (
    *("rotation", "dictionary", "graph", "norm", "join"),
    *("linear", "linear_norm", "weight_gradients", "frame", "mirrored"),
)


@pytest.fixture(scope="module")
def environment() -> dict[str, str]:
    if torch.version.cuda is not None:
        pytest.skip("this PyTorch has CUDA, for which the emulation stands in")
    if shutil.which("c++") is None or shutil.which("ninja") is None:
        pytest.skip("needs a C++ compiler and ninja")
    paths = [str(ROOT / "tests/helpers"), str(ROOT), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}


@pytest.mark.parametrize("order", ("forward", "reverse"))
def test_ops_on_emulated_cuda(environment, order):
    """Threads that run in the reverse order give the same: no barrier is missing."""
    if order == "reverse":
        environment = {**environment, "ITES_EMULATE_REVERSE": "1"}
    chosen = "cuda and not 257 and not opcheck and not compiles"  # what takes long and adds little
    command = [sys.executable, "-m", "pytest", "-p", "emulated_cuda.plugin", "-k", chosen]
    files = [str(HERE / f"test_{family}.py") for family in FAMILIES]
    done = subprocess.run(
        [*command, "-p", "no:cacheprovider", *files],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert " passed" in done.stdout
