"""Triton kernels: interpreted where there is no GPU, and compiled for the GPUs they are meant for.

The contract of every op (`op_contract`) covers this backend wherever it can run. Triton decides
when it is imported whether to interpret, so `test_under_the_interpreter` runs the quicker part of
those cases, and the ones below, in a process of its own. All of them:
`TRITON_INTERPRET=1 python -m pytest -k triton`.
"""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from op_contract import TOLERANCES, relative_error

from ites import ops
from ites.ops.backends import INTERPRETED

triton = pytest.importorskip("triton", reason="Triton is not installed")
pytest.importorskip("ites.kernels", reason="ites is not installed; pip install -e .")
import triton.language as tl  # noqa: E402

from ites.kernels.philox import philox4x32  # noqa: E402

HERE = Path(__file__).parent
RUNS = INTERPRETED or torch.cuda.is_available()
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
runs = pytest.mark.skipif(not RUNS, reason="run by test_under_the_interpreter: no GPU here")

# Left out there: what does not depend on the backend (registration), and what the interpreter
# is too slow for.
QUICK = (
    "triton and not opcheck and not compiles and not 257 and not hand and not "
    "(every and GraphMix) and not 128-64"
)


@pytest.mark.skipif(RUNS, reason="the cases run in this process")
def test_under_the_interpreter() -> None:
    families = [f"test_{name}.py" for name in ("rotation", "dictionary", "graph", "norm", "triton")]
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-o", "addopts=", "-p", "no:cacheprovider"]
        + [*families, "-k", QUICK],
        cwd=HERE,
        env=os.environ | {"TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stdout[-4000:] + result.stderr[-1000:]
    assert " passed" in result.stdout


@triton.jit
def _philox_kernel(words, out):
    one = tl.arange(0, 1)
    c0 = tl.load(words + one).to(tl.uint32)
    c1 = tl.load(words + 1 + one).to(tl.uint32)
    c2 = tl.load(words + 2 + one).to(tl.uint32)
    c3 = tl.load(words + 3 + one).to(tl.uint32)
    k0 = tl.load(words + 4 + one).to(tl.uint32)
    k1 = tl.load(words + 5 + one).to(tl.uint32)
    u0, u1, u2, u3 = philox4x32(c0, c1, c2, c3, k0, k1)
    tl.store(out + one, u0.to(tl.int64))
    tl.store(out + 1 + one, u1.to(tl.int64))
    tl.store(out + 2 + one, u2.to(tl.int64))
    tl.store(out + 3 + one, u3.to(tl.int64))


# Random123's kat_vectors for philox4x32-10: counter, key, words.
KNOWN = (
    (
        (0, 0, 0, 0, 0, 0),
        (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8),
    ),
    (
        (0xFFFFFFFF,) * 6,
        (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD),
    ),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344, 0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
)


def philox_numpy(words: np.ndarray) -> np.ndarray:
    """Philox 4x32-10 of rows (c0, c1, c2, c3, k0, k1), in plain 64-bit integers."""
    low = np.uint64(0xFFFFFFFF)
    c0, c1, c2, c3, k0, k1 = words.astype(np.uint64).T
    for _ in range(10):
        first, second = c0 * np.uint64(0xD2511F53), c2 * np.uint64(0xCD9E8D57)
        c0, c1, c2, c3 = (
            (second >> np.uint64(32)) ^ c1 ^ k0,
            second & low,
            (first >> np.uint64(32)) ^ c3 ^ k1,
            first & low,
        )
        k0, k1 = (k0 + np.uint64(0x9E3779B9)) & low, (k1 + np.uint64(0xBB67AE85)) & low
    return np.stack([c0, c1, c2, c3], axis=-1).astype(np.int64)


@runs
@pytest.mark.parametrize("words, expected", KNOWN)
def test_philox_triton_known_answers(words, expected):
    assert philox_numpy(np.array([words]))[0].tolist() == list(expected)
    out = torch.empty(4, dtype=torch.int64, device=DEVICE)
    _philox_kernel[(1,)](torch.tensor(words, device=DEVICE), out)
    assert out.tolist() == list(expected)


@runs
@pytest.mark.parametrize("first", (0, 2**32 - 70, 2**40))
def test_philox_triton_counter_layout(first):
    """Words of the counter: pose, sample, offset; of the key: seed. Poses wrap at 2^32."""
    seed, offset, poses, samples = -(2**41) + 9, 2**35 + 3, 150, 3
    counter = torch.tensor([seed, offset, first], device=DEVICE)
    ours = ops.philox(counter, poses, samples, backend="triton").cpu().numpy()
    pose = (first + np.arange(poses)) & 0xFFFFFFFF
    words = np.empty((samples, poses, 6), dtype=np.int64)
    words[..., 0], words[..., 1] = pose, np.arange(samples)[:, None]
    for place, value in ((2, offset), (4, seed)):
        words[..., place], words[..., place + 1] = value & 0xFFFFFFFF, (value >> 32) & 0xFFFFFFFF
    assert np.array_equal(ours, philox_numpy(words.reshape(-1, 6)))


@runs
@pytest.mark.parametrize("axes", ("x", "y", "z", "xy", "xz", "yz", "xyz"))
def test_drawn_triton_matrices_are_exact(axes):
    """Within 1e-6 of the float64 draw, for the largest range in use."""
    counter = torch.tensor([5, 2**33 + 1, 77], device=DEVICE)
    draw = ops.RotationDraw(counter, 4, axes, 2 * torch.pi)
    ours = ops.draw_rotations(draw, 300, torch.empty(0, device=DEVICE), backend="triton")
    wide = torch.empty(0, dtype=torch.float64, device=DEVICE)
    exact = ops.draw_rotations(draw, 300, wide, backend="reference")
    assert (ours - exact).abs().max() < 1e-6


@runs
def test_graph_mix_triton_any_graph():
    """Edges one way only, a joint without itself, one with more edges than are summed at once."""
    rows = [range(11), [0, 1], [2], [1, 3], [0, 4], [4, 5], [6], [1, 2, 7], [3], [9], [10]]
    starts = np.cumsum([0, *map(len, rows)])
    tables = (starts, np.concatenate([list(row) for row in rows]), [[0, 3], [1, 5], [1, 0]])
    graph = ops.Graph(*(torch.tensor(t, dtype=torch.int32, device=DEVICE) for t in tables))
    generator = torch.Generator().manual_seed(1)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator).to(DEVICE)

    inputs = [normal(5, 11, 80), normal(starts[-1]), normal(39), normal(5)]
    grads = normal(5, 11, 33), normal(5, 11, 5)

    def run(dtype: torch.dtype, backend: str) -> list[torch.Tensor]:
        leaves = [t.to(dtype).requires_grad_() for t in inputs]
        h, logits, bias, v = leaves
        y, t = ops.graph_mix(h, logits, bias, graph, 33, v, backend=backend)
        assert t is not None
        return [y, t, *torch.autograd.grad([y, t], leaves, [g.to(dtype) for g in grads])]

    for ours, exact in zip(
        run(torch.float32, "triton"), run(torch.float64, "reference"), strict=True
    ):
        assert relative_error(ours, exact) < TOLERANCES[torch.float32][0]


@pytest.mark.skipif(INTERPRETED, reason="interpreted kernels are not compiled")
@pytest.mark.parametrize(
    "kernel, case",
    (
        ("rotate_project", "y axis, batch 128"),
        ("reprojection", "float32"),
        ("attend", "bfloat16"),
        ("apply", "float32, residual before"),
    ),
)
def test_compiles_for_an_h100_as_the_table_says(kernel, case):
    from benchmarks.ops import compile_triton

    launch = next(
        one
        for one in compile_triton.launches()
        if (compile_triton.name_of(one.kernel), one.case) == (kernel, case)
    )
    row = compile_triton.compiled(launch, 90)
    assert row["spilled_bytes"] == 0
    with compile_triton.TABLE.path.open(newline="") as file:
        table = {(r["kernel"], r["case"], r["sm"]): r for r in csv.DictReader(file)}
    committed = table[kernel, case, "90"]
    if committed["triton"] == triton.__version__:
        assert {name: str(value) for name, value in row.items()} == committed
