"""The golden files, which the released program made."""

import dataclasses

import numpy as np
import pytest
import torch

from ites.errors import ItesError
from ites.ops import backends
from ites.released.conformance import check_file

GROUPS = {
    "rotations",
    *(
        f"{kind} {part}"
        for kind in ("teacher", "student")
        for part in (
            "outputs",
            "losses",
            "gradients",
            "zero gradients",
            "after 3 steps",
            "evaluation",
        )
    ),
    "graph convolution",
    "evaluation protocol",
    "cameras",
    "normalisation",
}


@pytest.mark.parametrize("dtype", (torch.float32, torch.float64), ids=("float32", "float64"))
@pytest.mark.parametrize("backend", ("reference", "cpp", "cuda", "triton"))
def test_golden_files(shared, dtype, backend):
    device = "cuda" if backend in ("cuda", "triton") and torch.cuda.is_available() else "cpu"
    reason = backends.why_not(backend, "rotate_project", device, dtype)
    if reason:
        pytest.skip(f"{backend}: {reason}")
    files = sorted((shared / "golden").glob("*.npz"))
    assert files
    for file in files:
        checks = check_file(file, dtype, backend)
        assert {check.group for check in checks} == GROUPS
        for check in checks:
            assert check.passed, f"{file.name}: {check}"


def test_a_wrong_number_fails(shared, tmp_path):
    """A check that cannot fail is none: change one entry of one result by a part in a thousand."""
    file = sorted((shared / "golden").glob("*.npz"))[0]
    arrays = dict(np.load(file))
    changed = arrays["student.step1.grad.gconv_output.W"]
    changed[0, 0, 0] += 1e-3 * np.abs(changed).max()
    np.savez(tmp_path / "changed.npz", **arrays)
    failed = [check for check in check_file(tmp_path / "changed.npz") if not check.passed]
    assert [check.group for check in failed] == ["student gradients"]
    assert failed[0].worst == "step1.output.weight"


def test_nan_fails(shared):
    file = sorted((shared / "golden").glob("*.npz"))[0]
    check = check_file(file)[0]
    assert not dataclasses.replace(check, error=float("nan")).passed


def test_refusals(tmp_path):
    with pytest.raises(ItesError, match="got no file"):
        check_file(tmp_path / "absent.npz")
    np.savez(tmp_path / "empty.npz", a=np.zeros(3))
    with pytest.raises(ItesError, match="no group that can be checked"):
        check_file(tmp_path / "empty.npz")
    with pytest.raises(ItesError, match="backend must be one of"):
        check_file(tmp_path / "empty.npz", backend="fortran")
