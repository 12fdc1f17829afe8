"""How the extensions are built, and what a build must keep."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from ites import ops

_C = pytest.importorskip("ites._C")


def test_build_info():
    info = _C.build_info()
    assert info["stable_abi"] == "2.11"
    assert info["simd"] in ("baseline", "avx2", "avx512")
    assert info["cxx_standard"] >= 201703
    assert all(int(part) >= 0 for part in info["torch"].split("+")[0].split("."))
    assert info["compiler"]


_SCRIPT = """
import sys, torch
from ites import _C, ops
torch.manual_seed(0)
joints = torch.randn(37, 17, 3, requires_grad=True)
draw = ops.RotationDraw(torch.tensor([1, 2, 3]), 9, "xyz", 6.0)
turn = ops.TurnDraw(draw.counter, torch.randn(37), torch.tensor([0.1, 0.3]), 9)
out = []
for rotations in (draw, turn):
    points, rotated = ops.rotate_project(joints, rotations, with_rotated=True, backend="cpp")
    (grad,) = torch.autograd.grad(points.square().sum() + rotated.sum(), joints)
    out += points.detach(), rotated.detach(), grad
torch.save((_C.build_info()["simd"], *out), sys.argv[1])
"""


def test_instruction_sets_agree(tmp_path):
    """Every processor computes the same, to rounding."""
    results = {}
    for wish in ("baseline", "avx2", "avx512"):
        file = tmp_path / f"{wish}.pt"
        subprocess.run(
            [sys.executable, "-c", _SCRIPT, str(file)],
            check=True,
            env={**os.environ, "ITES_SIMD": wish},
        )
        name, *results[wish] = torch.load(file)
        assert name == wish or name == _C.build_info()["simd"]
    for wish in ("avx2", "avx512"):
        for ours, baseline in zip(results[wish], results["baseline"], strict=True):
            torch.testing.assert_close(ours, baseline, rtol=1e-4, atol=2e-5)


def test_gradients_do_not_depend_on_threads():
    torch.manual_seed(0)
    inputs = [
        t.requires_grad_()
        for t in (
            torch.randn(4000, 12),
            torch.randn(12, 51),
            torch.randn(51),
            torch.randn(2000, 17, 3),
        )
    ]
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            total = ops.invariance_distance(*inputs, backend="cpp").sum()
            results.append(torch.autograd.grad(total, inputs))
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_kernel_resources_are_as_committed():
    """No CUDA kernel spills, and the committed table is the built binary's."""
    from benchmarks.ops import kernel_resources

    try:
        rows = kernel_resources.resources(kernel_resources.extension())
    except FileNotFoundError as missing:
        pytest.skip(str(missing))
    assert {row["sm"] for row in rows}
    assert [row for row in rows if row["local_bytes"]] == []
    assert kernel_resources.TABLE.differences(rows) == []
