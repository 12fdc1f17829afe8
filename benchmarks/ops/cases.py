"""One factory for all timings of ops: what to run, what work it is, and how it is timed.

A case makes the arguments of an op for a number of poses and calls it. It counts the bytes that
must move, each input read once and each output written once, and the operations of the formula. A
row is a case at one batch, in one mode, by one provider.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, lru_cache
from itertools import product
from typing import Any, NamedTuple

import torch
from torch import Tensor

from benchmarks import machine
from ites.ops import backends

JOINTS, ATOMS, SAMPLES = 17, 12, 4
MODES = ("forward", "backward", "both")
KERNELS = ("cpp", "cuda", "triton")
EAGER = ("reference", "eager")
PROVIDERS = (*EAGER, "compile", *KERNELS)
"""Plain PyTorch, the same by fewer operators, `torch.compile` of plain PyTorch, the kernels."""

ROOM = 0.4
"""Share of the free memory that a row may need, its intermediate tensors counted generously."""

WHOLE_ABOVE = 65536
"""On a CPU, forward and backward are timed together alone at more poses than these."""

Arguments = dict[str, Any]


class Random:
    """Standard normal tensors of one dtype on one device, the same in every run."""

    def __init__(self, device: torch.device, dtype: torch.dtype) -> None:
        self.device, self.dtype = device, dtype
        self.generator = torch.Generator(device).manual_seed(0)

    def __call__(self, *shape: int, grad: bool = True, wide: bool = False) -> Tensor:
        """A tensor of a shape; `wide`: in float32 even where the dtype is a half type."""
        dtype = torch.promote_types(self.dtype, torch.float32) if wide else self.dtype
        generated = torch.randn(shape, generator=self.generator, device=self.device)
        return generated.to(dtype).requires_grad_(grad)


class Work(NamedTuple):
    """Of one pose, forward and backward; tables that all poses share are not counted."""

    values: tuple[float, float]
    """Numbers that must be read or written."""
    flop: tuple[float, float]

    def of(self, mode: str, poses: int, size: int) -> tuple[float, float]:
        """(bytes, FLOP) of a mode, with `size` bytes per number."""
        parts = {"forward": (0,), "backward": (1,), "both": (0, 1)}[mode]
        values, flop = (sum(pair[part] for part in parts) for pair in self)
        return poses * values * size, poses * flop


@dataclass(frozen=True)
class Case:
    """An op with arguments that scale with the number of poses.

    Attributes:
        name: of the case, the op's unless there are several.
        op: as in `ites.ops.backends`.
        make: `make(poses, random)` gives the arguments.
        call: `call(arguments, backend)` gives the outputs that training uses.
        work: of one pose.
        differentiable: whether it has a backward pass.
        half: whether it is also timed in bfloat16 on a GPU.
        eager: `eager(arguments)` gives the outputs as others write the op in eager PyTorch, where
            that is not how the reference does.
        kernels: the backends that have a kernel of their own, from `least` poses on, to `most`.
    """

    name: str
    op: str
    make: Callable[[int, Random], Arguments]
    call: Callable[[Arguments, str], tuple[Tensor, ...]]
    work: Work
    differentiable: bool = True
    half: bool = False
    eager: Callable[[Arguments], tuple[Tensor, ...]] | None = None
    kernels: tuple[str, ...] = KERNELS
    least: int = 1
    most: int | None = None

    def outputs(self, arguments: Arguments, provider: str) -> tuple[Tensor, ...]:
        """The outputs by a provider that is no compiler."""
        if provider == "eager":
            assert self.eager is not None
            return self.eager(arguments)
        return self.call(arguments, provider)


class Row(NamedTuple):
    """What is timed at once."""

    case: Case
    dtype: torch.dtype
    batch: int
    mode: str
    provider: str

    def __str__(self) -> str:
        dtype = str(self.dtype).removeprefix("torch.")
        return f"{self.case.name}-{dtype}-{self.batch}-{self.mode}-{self.provider}"


def rows(
    cases: tuple[Case, ...],
    device: torch.device,
    batches: list[int],
    providers: list[str],
    compiled_batches: list[int],
) -> Iterator[Row]:
    """Every row that can run here, the providers of the same work side by side."""
    for case in cases:
        dtypes = [torch.float32]
        if case.half and device.type == "cuda":
            dtypes.append(torch.bfloat16)
        modes = MODES if case.differentiable else MODES[:1]
        for dtype, batch, mode, provider in product(dtypes, batches, modes, providers):
            if device.type == "cpu" and batch > WHOLE_ABOVE and mode != modes[-1]:
                continue
            bytes_moved, _ = case.work.of("both", batch, dtype.itemsize)
            if 4 * bytes_moved > ROOM * machine.free_memory(device):
                continue
            if provider == "eager" and case.eager is None:
                continue
            if provider == "compile" and batch not in compiled_batches:
                continue
            if provider in KERNELS and (
                provider not in case.kernels
                or batch < case.least
                or (case.most is not None and batch > case.most)
                or backends.why_not(provider, case.op, device.type, dtype)
            ):
                continue
            yield Row(case, dtype, batch, mode, provider)


@lru_cache(maxsize=1)
def arguments_of(case: Case, dtype: torch.dtype, batch: int, device: torch.device) -> Arguments:
    """The arguments of a case, kept for the rows that follow."""
    return case.make(batch, Random(device, dtype))


@cache
def compiled(case: Case) -> Callable[[Arguments], tuple[Tensor, ...]]:
    """`torch.compile` of the reference, for each batch by itself."""

    def call(arguments: Arguments) -> tuple[Tensor, ...]:
        return case.call(arguments, "reference")

    return torch.compile(call, dynamic=False)


def function_of(row: Row, device: torch.device) -> machine.Function:
    """The function that is called repeatedly to time a row."""
    arguments = arguments_of(row.case, row.dtype, row.batch, device)

    def forward() -> tuple[Tensor, ...]:
        if row.provider == "compile":
            return compiled(row.case)(arguments)
        return row.case.outputs(arguments, row.provider)

    if row.mode == "forward":
        return torch.no_grad()(forward)
    inputs = [t for t in arguments.values() if isinstance(t, Tensor) and t.requires_grad]
    outputs = forward()
    grads = tuple(torch.ones_like(output) for output in outputs)
    if row.mode == "both":
        del outputs
        return lambda: torch.autograd.grad(forward(), inputs, grads)
    return lambda: torch.autograd.grad(outputs, inputs, grads, retain_graph=True)


@cache
def verified(case: Case, dtype: torch.dtype, provider: str, device: torch.device) -> float:
    """Largest error over the float64 reference's largest entry, at a small batch.

    Raises:
        AssertionError: the error is too large for a timing to mean anything.
    """
    arguments = case.make(17, Random(device, dtype))
    exact = {
        name: value.double() if isinstance(value, Tensor) and value.is_floating_point() else value
        for name, value in arguments.items()
    }
    worst = 0.0
    with torch.no_grad():
        pairs = zip(case.outputs(arguments, provider), case.call(exact, "reference"), strict=True)
        for ours, truth in pairs:
            error = (ours.double() - truth).abs().max() / truth.abs().max()
            worst = max(worst, error.item())
    bound = 1e-3 if dtype == torch.float32 else 3e-2  # TF32's, bfloat16's
    assert worst < bound, f"{case.name} by {provider} is off by {worst:.2g}; its time means nothing"
    return worst


def measure(row: Row, benchmark: Any, device: torch.device, seconds: float) -> None:
    """Time a row by pytest-benchmark's fixture, for about `seconds`."""
    if row.provider not in ("reference", "compile"):
        verified(row.case, row.dtype, row.provider, device)
    function = function_of(row, device)
    each, calls = machine.seconds_each(function)
    rounds = min(200, max(3 if each < 1 else 1, round(seconds / (each * calls))))
    bytes_moved, flop = row.case.work.of(row.mode, row.batch, row.dtype.itemsize)
    benchmark.extra_info.update(
        case=row.case.name,
        op=row.case.op,
        dtype=str(row.dtype).removeprefix("torch."),
        batch=row.batch,
        mode=row.mode,
        provider=row.provider,
        bytes=bytes_moved,
        flop=flop,
    )
    benchmark.pedantic(function, rounds=rounds, iterations=calls)
