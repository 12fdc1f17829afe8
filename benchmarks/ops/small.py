"""Run every op of the timings once at small batches, for a checker of memory and races to watch.

compute-sanitizer --tool memcheck python -m benchmarks.ops.small
"""

from __future__ import annotations

import argparse
import sys

import torch

from benchmarks import machine
from benchmarks.ops import (
    bench_dictionary,
    bench_graph,
    bench_linear,
    bench_linear_norm,
    bench_norm,
    bench_rotation,
    cases,
)

BATCHES = [1, 2, 17, 257]
FAMILIES = (
    bench_rotation,
    bench_dictionary,
    bench_graph,
    bench_norm,
    bench_linear,
    bench_linear_norm,
)


def main(argv: list[str] | None = None) -> int:
    """Forward and backward by every kernel that can run here."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--device", default="auto", help="cpu, cuda; auto: a GPU if there is one")
    device = machine.pick_device(parser.parse_args(argv).device)
    every = [case for family in FAMILIES for case in family.CASES]
    for row in cases.rows(tuple(every), device, BATCHES, list(cases.KERNELS), []):
        if row.mode == "both" or not row.case.differentiable:
            cases.function_of(row, device)()
            print(row, flush=True)
    if device.type == "cuda":
        torch.cuda.synchronize()
    return 0


if __name__ == "__main__":
    sys.exit(main())
