"""What `benchmarks.ops.run` makes of its measurements."""

from __future__ import annotations

import pytest

from benchmarks.ops import run

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
