"""Random arguments for every op; `helpers/fuzz_ops.py --count 10000` does it at length."""

from __future__ import annotations

import pytest
from fuzz_ops import OPS, run_op

pytest.importorskip("ites._C")


@pytest.mark.parametrize("op", OPS)
def test_random_arguments(op):
    """No call ends the process, and what is answered is what the reference answers."""
    outcomes, faults = run_op(op, seed=1, count=300)
    assert not faults, "\n".join(faults[:5])
    assert sum(outcomes.values()) == 300
    assert outcomes["answered"] >= 60 and outcomes["refused"] >= 60
