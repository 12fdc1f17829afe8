"""Compile every Triton kernel for GPUs that need not be here, and tabulate what each one takes.

    python -m benchmarks.ops.compile_triton           writes results/triton_resources.csv
    python -m benchmarks.ops.compile_triton --check   compares with it; exits with 1

A kernel that spills registers fails either way. The launches are those of `ites.kernels` itself,
recorded on tensors without data, so that what is compiled here is what runs on a GPU. Registers and
shared memory depend on Triton's version, which the table names: another version's are compared with
nothing, only checked for spills.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.runtime.jit import JITFunction

from benchmarks.ops.resource_table import ResourceTable
from ites.kernels import dictionary, graph, norm, rotation

ARCHITECTURES = (80, 90, 100, 120)
TABLE = ResourceTable(
    Path(__file__).parents[1] / "results/triton_resources.csv",
    ("kernel", "case", "sm", "registers", "spilled_bytes", "shared_bytes", "triton"),
)
POSES, JOINTS, ATOMS, SAMPLES = 1 << 20, 17, 12, 4
EDGES, PAIRS, CHANNELS, ATTENDED = 49, 8, 128, 64
_TYPES = {
    torch.float32: "*fp32",
    torch.bfloat16: "*bf16",
    torch.float16: "*fp16",
    torch.int32: "*i32",
    torch.int64: "*i64",
}


class Launch(NamedTuple):
    """A kernel, the case that launched it, and its arguments."""

    kernel: JITFunction
    case: str
    arguments: dict[str, Any]
    options: dict[str, int]


def launches() -> list[Launch]:
    """Every launch that the cases below make, recorded instead of made."""
    recorded: list[Launch] = []
    original = JITFunction.run
    for case, call in cases():

        def record(self: JITFunction, *args: Any, grid: Any, warmup: bool, **kwargs: Any) -> None:
            options = {name: kwargs.pop(name) for name in ("num_warps",) if name in kwargs}
            arguments = dict(zip(self.arg_names, args, strict=False)) | kwargs
            recorded.append(Launch(self, case, arguments, options))  # noqa: B023

        JITFunction.run = record
        try:
            call()
        finally:
            JITFunction.run = original
    return list({_identity(launch): launch for launch in reversed(recorded)}.values())[::-1]


def _identity(launch: Launch) -> tuple[Any, ...]:
    """What a compiled kernel depends on: the same kernel launched by two cases is compiled once."""
    values = (
        value.dtype if isinstance(value, torch.Tensor) else value
        for value in launch.arguments.values()
    )
    return launch.kernel.__name__, *values


def _float(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.empty(shape, dtype=dtype, device="meta")


def cases() -> Iterator[tuple[str, Callable[[], Any]]]:
    """Calls with the paper's sizes at a batch that fills a GPU, and at a training step's."""
    w, matrices = _float(POSES, 3), _float(POSES, 3, 3)
    counter = torch.empty(3, dtype=torch.int64, device="meta")
    yield "float32", lambda: rotation.so3_exp(w)
    yield "float32", lambda: rotation.so3_exp_backward(matrices, w)
    yield "float32", lambda: rotation.philox(counter, POSES, SAMPLES)
    none, turns = (None, None), (_float(POSES), _float(2))
    yield "sphere", lambda: rotation.draw_rotations(w, counter, *none, POSES, SAMPLES, 7, 3.0)
    yield "turns", lambda: rotation.draw_rotations(w, counter, *turns, POSES, SAMPLES, 2, 3.0)
    yield from _rotation_cases("sphere, large", POSES, counter, 7)
    yield from _rotation_cases("y axis, batch 128", 128, counter, 2)
    yield from _rotation_cases("matrices, large", POSES, None, 0)
    yield from _rotation_cases("turns, large", POSES, counter, 2, turns)
    yield from _rotation_cases("turns, batch 128", 128, counter, 2, turns)
    atoms = _float(ATOMS, 3 * JOINTS)
    mean, target = _float(3 * JOINTS), _float(POSES, JOINTS, 2)
    poses, many = _float(POSES, JOINTS, 3), _float(POSES * SAMPLES, ATOMS)
    inputs = (_float(POSES, ATOMS), atoms, mean, w, target, 5.0)
    backward = dictionary.dictionary_reprojection_backward
    yield "float32", lambda: dictionary.dictionary_reprojection(*inputs)
    yield "error alone", lambda: backward(w[:, 0], None, None, *inputs)
    yield "error and canonical", lambda: backward(w[:, 0], poses, None, *inputs)
    yield "every output", lambda: backward(w[:, 0], poses, poses, *inputs)
    yield "float32", lambda: dictionary.invariance_distance(many, atoms, mean, poses)
    yield (
        "float32",
        lambda: dictionary.invariance_distance_backward(many[:, 0], many, atoms, mean, poses),
    )
    yield from _graph_cases("float32", torch.float32, CHANNELS, ATTENDED)
    yield from _graph_cases("bfloat16", torch.bfloat16, CHANNELS, ATTENDED)
    yield from _graph_cases("float32, 1 channel", torch.float32, 1, 0)
    for residual in ("none", "before", "after"):
        yield from _norm_cases("float32", torch.float32, residual)
    yield from _norm_cases("bfloat16", torch.bfloat16, "before")


def _graph_cases(
    label: str, dtype: torch.dtype, channels: int, attended: int
) -> Iterator[tuple[str, Callable[[], Any]]]:
    rows, columns, pairs = (
        torch.empty(shape, dtype=torch.int32, device="meta")
        for shape in ((JOINTS + 1,), (EDGES,), (PAIRS, 2))
    )
    poses = POSES // 16
    h = _float(poses, JOINTS, 2 * (channels + attended) + 4, dtype=dtype)
    y, t = (_float(poses, JOINTS, width, dtype=dtype) for width in (channels, attended))
    bias = _float(channels + attended + 1 if attended else channels)
    tables = (rows, columns, pairs, channels)
    weights = (_float(EDGES), bias, _float(attended))
    yield label, lambda: graph.graph_mix(h, *weights, None, *tables)
    yield label, lambda: graph.graph_mix_backward(y, t, h, *weights, *tables)


def _norm_cases(
    label: str, dtype: torch.dtype, residual: str
) -> Iterator[tuple[str, Callable[[], Any]]]:
    x, one = _float(POSES, CHANNELS, dtype=dtype), _float(CHANNELS)
    skip = None if residual == "none" else x
    form = (True, residual == "after", 1e-5)
    label = f"{label}, residual {residual}"
    yield label, lambda: norm.batch_norm_relu(x, one, one, skip, *form)
    yield (
        label,
        lambda: norm.batch_norm_relu_backward(x, x, one, one, skip, one, one, *form),
    )


def _rotation_cases(
    label: str,
    poses: int,
    counter: torch.Tensor | None,
    axes: int,
    turns: tuple[torch.Tensor | None, torch.Tensor | None] = (None, None),
) -> Iterator[tuple[str, Callable[[], Any]]]:
    rows = SAMPLES * poses
    joints, points = _float(poses, JOINTS, 3), _float(rows, JOINTS, 2)
    depth, rotated = _float(rows, JOINTS), _float(rows, JOINTS, 3)
    source = (_float(rows, 3, 3) if counter is None else counter, *turns, SAMPLES, axes, 3.0, 5.0)
    yield label, lambda: rotation.rotate_project(joints, *source, False)
    yield label, lambda: rotation.rotate_project_backward(points, None, joints, *source)
    yield label, lambda: rotation.equivariance_distance(joints, points, depth, *source)
    inputs = (depth[:, 0], joints, points, depth, *source)
    yield label, lambda: rotation.equivariance_distance_backward(*inputs)
    if axes == 7:
        label += ", rotated"
        yield label, lambda: rotation.rotate_project(joints, *source, True)
        yield label, lambda: rotation.rotate_project_backward(points, rotated, joints, *source)


def name_of(kernel: JITFunction) -> str:
    """A kernel's name in the table: `mix` for `_mix_kernel`."""
    return kernel.__name__.strip("_").removesuffix("_kernel")


def compiled(launch: Launch, architecture: int) -> dict[str, Any]:
    """The row of a launch compiled for an architecture."""
    kernel, names = launch.kernel, launch.kernel.arg_names
    signature, constants, attributes = {}, {}, {}
    for index, name in enumerate(names):
        value = launch.arguments[name]
        if isinstance(value, torch.Tensor):
            signature[name] = _TYPES[value.dtype]
        elif kernel.params[index].is_constexpr or value is None or value == 1:
            signature[name] = "constexpr"
            constants[(index,)] = value
        elif isinstance(value, float):
            signature[name] = "fp32"
        else:
            signature[name] = "i32" if value < 1 << 31 else "i64"
        divisible = isinstance(value, int) and value % 16 == 0
        if signature[name][0] == "*" or (signature[name][0] == "i" and divisible):
            attributes[(index,)] = [["tt.divisibility", 16]]
    source = ASTSource(kernel, signature, constants, attributes)
    target = GPUTarget("cuda", architecture, 32)
    result = triton.compile(source, target=target, options=launch.options)
    registers, local = _usage(result.asm["cubin"])
    return {
        "kernel": name_of(kernel),
        "case": launch.case,
        "sm": architecture,
        "registers": registers,
        "spilled_bytes": local,
        "shared_bytes": result.metadata.shared,
        "triton": triton.__version__,
    }


def _usage(cubin: bytes) -> tuple[int, int]:
    """Registers and bytes of local memory per thread: spills, because no kernel has arrays."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        tool = triton.knobs.nvidia.cuobjdump.path
        text = subprocess.run(
            [tool, "-res-usage", file.name], capture_output=True, text=True, check=True
        ).stdout
    numbers = {key: int(value) for key, value in re.findall(r"\b(REG|STACK|LOCAL):(\d+)", text)}
    return numbers["REG"], numbers["STACK"] + numbers["LOCAL"]


def main(argv: list[str] | None = None) -> int:
    """Compile, print the table, then write it or compare it."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--check", action="store_true", help="compare with the committed table")
    parser.add_argument("--sm", type=int, nargs="*", default=ARCHITECTURES, help="architectures")
    options = parser.parse_args(argv)
    rows = []
    for launch in launches():
        for architecture in options.sm:
            rows.append(compiled(launch, architecture))
            print(TABLE.line(rows[-1]), flush=True)
    complete = tuple(options.sm) == ARCHITECTURES
    return TABLE.finish(rows, check=options.check, write=complete)


if __name__ == "__main__":
    sys.exit(main())
