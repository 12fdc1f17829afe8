"""The golden files, which the released program made."""

import dataclasses

import numpy as np
import pytest
import torch

from ites.cli.main import main
from ites.errors import ItesError
from ites.ops import backends
from ites.released import conformance
from ites.released.conformance import check_file
from ites.released.convert import convert_model, convert_tensors

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


def test_hostile_golden_files(shared):
    for path in sorted((shared / "hostile").glob("golden_*")):
        with pytest.raises(ItesError) as caught:
            check_file(path)
        line = str(caught.value)
        assert path.name in line and len(line) <= 300 and line.isprintable()


def golden_with_a_tie(source, target, sign, monkeypatch):
    """A golden file of the student in float64, where a pair's features differ by about 1e-13."""
    arrays = {n: a for n, a in np.load(source).items() if n.startswith("student.")}
    name = "student.init.gconv_layers.0.gconv1.non_local.non_local.phi.0.weight"
    arrays = {n: a.astype(np.float64) if a.dtype == np.float32 else a for n, a in arrays.items()}

    def margin(value):
        """phi of the first pair's joints, pose 0, channel 0, in the first step's first pass."""
        arrays[name].reshape(-1)[0] = value
        kept = []
        state = {n[13:]: torch.from_numpy(a) for n, a in arrays.items() if ".init." in n}
        model = convert_model(state).double().train()
        handle = model.blocks[0].layer1.register_forward_pre_hook(lambda _, x: kept.append(x[0]))
        with torch.no_grad(), backends.using("reference"):
            model(torch.from_numpy(arrays["student.input"]))
        handle.remove()
        phi = kept[0] @ model.blocks[0].layer1.non_local.phi.weight.detach().T
        a, b = model.skeleton.pooling[0]
        return (phi[0, a, 0] - phi[0, b, 0]).item()

    low, high = margin(0.0), margin(1.0)  # linear in the weight
    root = -low / (high - low)
    margin(root + sign * 1e-12 / (high - low))
    np.savez(target, **arrays)
    results = {}
    compare = conformance._compare

    def keep(group, ours, golden, bound, *rest):
        for key, value in ours.items():
            results[group, key] = value.detach().numpy().copy()
        return compare(group, ours, golden, bound, *rest)

    monkeypatch.setattr(conformance, "_compare", keep)
    check_file(target, torch.float64, "reference")
    monkeypatch.undo()
    for full in list(arrays):
        part, _, rest = full.removeprefix("student.").partition(".")
        released = rest.removeprefix("grad.")
        ours = next(iter(convert_tensors({released: torch.from_numpy(arrays[full])})), None)
        if rest.startswith("grad."):
            key = ("student gradients", f"{part}.{ours}")
        elif part == "after3":
            key = ("student after 3 steps", ours)
        elif part == "eval":
            key = ("student evaluation", rest)
        else:
            kind = "losses" if rest.endswith("loss") else "outputs"
            key = (f"student {kind}", f"{part}.{rest}")
        if key in results:
            arrays[full] = results[key].reshape(arrays[full].shape)
    np.savez(target, **arrays)


def test_a_tie_below_float32_is_reported(shared, tmp_path, monkeypatch, capsys):
    """The pooling's gradient goes to one joint of a pair; float32 cannot tell which."""
    source = sorted((shared / "golden").glob("*.npz"))[0]
    outcomes = []
    for sign in (-1, 1):  # float32 picks one joint, so one of the two files goes against it
        path = tmp_path / f"tie{sign}.npz"
        golden_with_a_tie(source, path, sign, monkeypatch)
        assert all(check.passed for check in check_file(path, torch.float64, "reference"))
        checks = check_file(path, torch.float32, "reference")
        tied = {check.group: check.tie for check in checks if check.tied}
        assert all(check.passed or check.tied for check in checks)
        outcomes.append(bool(tied))
        if not tied:
            continue
        assert "student gradients" in tied and 0 < tied["student gradients"] < 1e-9
        with pytest.raises(SystemExit) as stop:
            main(["conformance", str(path), "--backend", "reference"])
        assert stop.value.code == 0
        output = capsys.readouterr().out
        assert "student gradients" in output and "tie 1e-12" in output and "0 failed" in output
        # A wrong number is none the less a failure.
        arrays = dict(np.load(path))
        arrays["student.step1.grad.gconv_output.W"][0, 0, 0] *= 2
        np.savez(path, **arrays)
        failed = [check for check in check_file(path, torch.float32, "reference") if not check.tied]
        assert not all(check.passed for check in failed)
    assert sorted(outcomes) == [False, True]
