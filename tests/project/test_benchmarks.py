"""What the benchmarks of ops make of their measurements."""

from __future__ import annotations

import pytest

from benchmarks.ops import run
from benchmarks.ops.resource_table import ResourceTable

RATES = {"copy": 1e9, "float32": 1e10}
ABOUT = {"device": "a processor", "torch": "2.13.0", "commit": "abc", "others_share": 0.0}


def row(provider, seconds, batch=16, case="mix"):
    return {
        "case": case, "dtype": "float32", "mode": "both", "batch": batch, "provider": provider,
        "seconds": seconds, "bytes": 1e6, "flop": 1e6,
    }  # fmt: skip


def result(rows, **about):
    return {"machine": ABOUT | about, "rates": RATES, "rows": run.complete(rows, RATES, ABOUT)}


def test_shares_and_ratios():
    """Against the faster of both ways to write the op in eager PyTorch."""
    rows = [row("reference", 8.0), row("eager", 6e-3), row("cpp", 2e-3), row("cuda", 7e-3)]
    cpp, cuda = run.complete(rows, RATES, ABOUT)[2:]
    assert cpp["bound"] == "copy bandwidth" and cpp["share"] == pytest.approx(0.5)
    assert cpp["times_eager"] == pytest.approx(3) and not cpp["slower_than_eager"]
    assert cuda["times_eager"] == pytest.approx(6 / 7) and cuda["slower_than_eager"]


def test_merged_keeps_what_was_not_timed_anew():
    earlier = result([row("cpp", 1.0), row("cpp", 5.0, batch=1), row("cpp", 7.0, case="norm")])
    anew = result([row("cpp", 2.0)])
    anew["rates"] = {"copy": 5e8, "float32": 2e10}
    both = run.merged(anew, earlier)
    times = {(r["case"], r["batch"]): r["seconds"] for r in both["rows"]}
    assert times == {("mix", 16): 2.0, ("mix", 1): 5.0, ("norm", 16): 7.0}
    assert both["rates"] == {"copy": 1e9, "float32": 2e10}


def test_merged_compares_with_the_earlier_eager_rows():
    both = run.merged(result([row("compile", 2.0)]), result([row("eager", 6.0)]))
    assert {r["provider"]: r["times_eager"] for r in both["rows"]} == {"eager": 1, "compile": 3}


def test_merged_refuses_another_device():
    with pytest.raises(ValueError, match="earlier rows are of a processor, this run is of other"):
        run.merged(result([], device="other"), result([]))


def kernel(name, sm, registers=40, local=0, tool="13.0"):
    return {
        "kernel": name, "sm": sm, "registers": registers, "local_bytes": local, "shared_bytes": 0,
        "nvcc": tool,
    }  # fmt: skip


def test_a_table_of_resources_tells_spills_and_differences(tmp_path, capsys):
    columns = ("kernel", "sm", "registers", "local_bytes", "shared_bytes", "nvcc")
    table = ResourceTable(tmp_path / "t.csv", columns)
    rows = [kernel("a", 80), kernel("a", 90), kernel("b", 90)]
    assert table.finish(rows, check=False, write=True) == 0
    assert table.path.read_text().splitlines()[1] == "a,80,40,0,0,13.0"
    assert table.finish(rows, check=True, write=False) == 0
    assert table.differences(rows[1:]) == []  # one architecture of two
    assert table.differences([kernel("a", 90, 41, tool="12.9")]) == []  # another compiler
    capsys.readouterr()
    assert (
        table.finish([kernel("a", 90, 41), kernel("b", 90, local=8)], check=True, write=False) == 1
    )
    assert capsys.readouterr().err.splitlines() == [
        f"{'b':40}{90:<8}registers 40, local_bytes 8, shared_bytes 0: spills",
        "a 90: committed registers 40, local_bytes 0, shared_bytes 0; "
        "now registers 41, local_bytes 0, shared_bytes 0",
        "b 90: committed registers 40, local_bytes 0, shared_bytes 0; "
        "now registers 40, local_bytes 8, shared_bytes 0",
    ]
