"""Which backend runs a call that names none."""

from __future__ import annotations

import pytest
import torch

from benchmarks.ops.choose import order
from ites.cli.doctor import describe, examine
from ites.errors import ItesError
from ites.ops import _registry, backends


def test_the_table_knows_backends_alone():
    assert set(backends.CHOICES) == {"cpu", "cuda"}
    for table in backends.CHOICES.values():
        for ranked in (table["default"], *table["ops"].values()):
            assert set(ranked) <= set(backends.BACKENDS)
        assert table["measured"] is None or {"device", "torch", "commit"} <= set(table["measured"])
        assert set(table["ops"]) <= set(_registry.defined())


def test_the_first_that_can_run_is_chosen(monkeypatch):
    monkeypatch.setattr(backends, "_default", None)
    monkeypatch.setattr(backends, "INTERPRETED", False)
    monkeypatch.setattr(backends, "_chosen", {})
    monkeypatch.setitem(backends.MISSING, "cpp", "not built for this test")
    assert backends.choose("so3_exp", "cpu", torch.float32) == "reference"
    monkeypatch.delitem(backends.MISSING, "cpp")
    backends._chosen.clear()  # as it holds in a process whose backends stay
    table = {"default": ["cpp"], "ops": {"graph_mix": ["triton", "reference", "cpp"]}}
    monkeypatch.setitem(backends.CHOICES, "cpu", table)
    assert backends.choose("so3_exp", "cpu", torch.float32) == "cpp"
    assert backends.choose("so3_exp", "cpu", torch.bfloat16) == "reference"
    assert backends.choose("graph_mix", "cpu", torch.float32) == "reference"
    assert backends.choose("graph_mix", "cpu", torch.float32, "cpp") == "cpp"
    with pytest.raises(ItesError, match="'triton' cannot run here"):
        backends.choose("graph_mix", "cpu", torch.float32, "triton")


def test_the_processors_maker_is_read(tmp_path):
    for text, maker in (
        ("processor\t: 0\nvendor_id\t: GenuineIntel\ncpu family\t: 6\n", "GenuineIntel"),
        ("processor\t: 0\nBogoMIPS\t: 50.00\n\nCPU implementer\t: 0x41\n", ""),
    ):
        (tmp_path / "cpuinfo").write_text(text)
        assert backends._vendor(str(tmp_path / "cpuinfo")) == maker
    assert backends._vendor(str(tmp_path / "none")) == ""


def test_the_rule_of_a_processors_maker(monkeypatch):
    """It is in the table, where `ites doctor` reads it, and needs MKL."""
    rule = backends._vendor_rule("GenuineIntel", True)
    assert rule["ops"] == {"linear": ["reference", "cpp"]}
    assert backends._vendor_rule("GenuineIntel", False) is None
    assert backends._vendor_rule("AuthenticAMD", True) is None
    monkeypatch.setattr(backends, "VENDOR_RULE", rule)
    assert "but linear as for GenuineIntel: PyTorch's product" in describe(examine())
    monkeypatch.setattr(backends, "VENDOR_RULE", None)
    assert "GenuineIntel" not in describe(examine())


def test_measured_times_make_the_order():
    def row(batch, provider, seconds, mode="both"):
        work = {"case": "op", "dtype": "float32", "mode": mode, "batch": batch}
        return work | {"provider": provider, "seconds": seconds}

    rows = [row(1, "reference", 1.0), row(1, "cpp", 2.0), row(1, "compile", 0.1)]
    rows += [row(9, "reference", 8.0), row(9, "cpp", 1.0), row(9, "cpp", 99.0, "backward")]
    ranked, exceptions = order(rows)
    assert ranked == ["cpp", "reference"]
    assert exceptions == ["op float32 both 1: reference is 2.00 x as fast as cpp"]


def test_doctor_lists_every_op():
    """As PyTorch knows them, whatever module defines them."""
    names = {name.partition(".")[0] for name in torch._C._dispatch_get_all_op_names()}
    known = {name.removeprefix("ites::") for name in names if name.startswith("ites::")}
    listed = examine()["backends"]["cpu"]
    assert set(listed) == {name for name in known if not name.endswith("_backward")}
    shown = describe(examine()).splitlines()
    assert all(f"  {op:<24} {entry['chosen']}" in shown for op, entry in listed.items())
    assert {"philox", "graph_project_mix", "mirrored_input", "frame_points"} <= set(listed)


def test_doctor_says_what_the_choice_rests_on(monkeypatch):
    about = {"device": "Some CPU, 2 threads", "torch": "2.13.0", "commit": "abc"}
    monkeypatch.setitem(backends.CHOICES["cpu"], "measured", about)
    assert "measured on Some CPU, 2 threads, torch 2.13.0, commit abc" in describe(examine())
    monkeypatch.setitem(backends.CHOICES["cpu"], "measured", None)
    assert "by a guess" in describe(examine())
