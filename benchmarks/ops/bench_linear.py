"""Linear layers at the widths of the teacher's blocks, against PyTorch's."""

from __future__ import annotations

from benchmarks.ops.cases import Arguments, Case, Random, Work, measure
from ites import ops
from ites.ops.linear import FEW


def _case(inputs: int, outputs: int) -> Case:
    def make(poses: int, random: Random) -> Arguments:
        return {
            "x": random(poses, inputs),
            "weight": random(outputs, inputs),
            "bias": random(outputs),
        }

    flop = 2.0 * inputs * outputs
    return Case(
        f"linear, {inputs} to {outputs}",
        "linear",
        make,
        lambda arguments, backend: (ops.linear(**arguments, backend=backend),),
        Work(values=(inputs + outputs, 2 * inputs + outputs), flop=(flop, 2 * flop)),
        kernels=("cpp",),
        least=FEW + 1,
    )


CASES = (_case(1024, 256), _case(256, 1024))


def bench(row, benchmark, device, seconds):
    measure(row, benchmark, device, seconds)
