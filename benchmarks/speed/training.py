"""Time training steps of ites against the released order of operations.

    python -m benchmarks.speed.training --json FILE

Steps are whole: gathering the batch, losses of both passes, backward pass, optimiser, at batch 128
and the paper's sizes. The contenders take turns; those of ites are the training engine itself. On
a CPU each runs in a process of its own, so that none has the memory or the settings of another.
Reported are medians, their ratio, and their share of the rate of PyTorch's matrix product, measured
in the same run: 2048 x 2048 on a CPU.
"""

from __future__ import annotations

import argparse
import io
import itertools
import json
import multiprocessing
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import Tensor

from benchmarks import machine
from benchmarks.machine import Counted
from benchmarks.speed import baseline
from ites.models import Teacher
from ites.pose.skeleton import HUMAN36M
from ites.runs.checkpoint import Metadata, save_model
from ites.runs.folder import RunFolder
from ites.runs.settings import make_settings
from ites.system.files import atomic_write
from ites.training.loop import Training
from ites.training.stages import make_stage

BATCH = 128
POSES = 65536
FLOP = {"teacher": 13.8e9, "student": 34.5e9}
"""Of a step's matrix products: three forwards of 5 x 128 poses, 7.18 and 18.0 MFLOP per pose."""


def poses(device: torch.device) -> Tensor:
    """Root-relative 2D poses (POSES, J, 2), of about the networks' scale."""
    generator = torch.Generator().manual_seed(1)
    points = 0.1 * torch.randn(POSES, HUMAN36M.num_joints, 2, generator=generator)
    return (points - points[:, :1]).to(device)


def ours(stage: str, device: torch.device, precision: str, capture: str) -> Counted:
    """Steps of the training engine, as CUDA graphs where `capture` is "on"."""
    options = {"batch": BATCH, "precision": precision, "capture": capture}
    with tempfile.TemporaryDirectory() as folder:
        if stage == "student":  # which learns from a teacher's depths; an untrained one's do
            teacher = Teacher(width=16, blocks=1)
            save_model(
                RunFolder(folder).weights("teacher"), teacher, Metadata("teacher", HUMAN36M, 1.0)
            )
        settings = make_settings(stage, options=options | {"out": folder})
        made = make_stage(settings, HUMAN36M, poses(device))
    training = Training(made, 1.0, device, None, Console(file=io.StringIO()))

    def advance() -> int:
        before = training.step
        with machine.matmul_precision("high" if precision == "tf32" else "highest"):
            training.advance()
        return training.step - before

    return advance


def theirs(stage: str, device: torch.device, mode: str | None = None) -> Counted:
    """A step of the baseline: eager, or its losses by `torch.compile` in a mode."""
    points = poses(device)
    data = (points,) if stage == "teacher" else (points, 0.1 * torch.randn_like(points[..., :1]))
    model: baseline.Teacher | baseline.Student = (
        baseline.Teacher() if stage == "teacher" else baseline.Student()
    )
    model.to(device).train()
    optimiser = baseline.optimiser_of(model)
    losses: Callable[..., dict[str, Tensor]] = model.losses
    if mode:
        losses = torch.compile(losses, mode=mode)
    batches = itertools.cycle(torch.randperm(POSES).to(device).split(BATCH))

    def step() -> int:
        rows = next(batches)
        optimiser.zero_grad()
        losses(*(tensor[rows] for tensor in data))["total_loss"].backward()
        optimiser.step()
        return 1

    return step


def _serve(connection: Connection, make: Callable[[str], Counted], stage: str) -> None:
    """Make a step, report success or the reason, then run one per request."""
    try:
        step = make(stage)
    except Exception as error:
        return connection.send(error)
    connection.send(None)
    while connection.recv():
        connection.send(step())


@contextmanager
def in_own_process(make: Callable[[str], Counted], stage: str) -> Iterator[Counted]:
    """The result of `make`, in its own process."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_serve, args=(there, make, stage))
    process.start()
    there.close()

    def step() -> int:
        here.send(True)
        return int(here.recv())

    try:
        if error := here.recv():
            raise error
        yield step
    finally:
        process.terminate()


@contextmanager
def in_this_process(make: Callable[[str], Counted], stage: str) -> Iterator[Counted]:
    """What `make` makes."""
    yield make(stage)


def contenders(device: torch.device, compiled: bool) -> dict[str, Callable[[str], Counted]]:
    """The candidates: makers of a step, given the stage."""
    racing: dict[str, Callable[[str], Counted]] = {"baseline": partial(theirs, device=device)}
    if compiled:
        for mode in ("default", "max-autotune"):
            racing[f"baseline, torch.compile {mode}"] = partial(theirs, device=device, mode=mode)
    if device.type == "cpu":
        return racing | {"ites": partial(ours, device=device, precision="float32", capture="off")}
    for capture, words in (("on", ""), ("off", ", not captured")):
        for precision in ("tf32", "float32", "bf16"):
            racing[f"ites {precision}{words}"] = partial(
                ours, device=device, precision=precision, capture=capture
            )
    return racing


def matrix_product(device: torch.device) -> tuple[Counted, float]:
    """A large matrix product to take turns with the steps, in TF32 on a GPU, and its FLOP."""
    product, flop = machine.matrix_product(device)
    precision = "high" if device.type == "cuda" else "highest"

    def step() -> int:
        with machine.matmul_precision(precision):
            product()
        return 1

    return step, flop


def race(stage: str, device: torch.device, rounds: int, compiled: bool) -> dict[str, Any]:
    """Medians of a stage's contenders; those of ites are its first that can run."""
    steps: dict[str, Counted] = {}
    failed = {}
    enter = in_own_process if device.type == "cpu" else in_this_process
    with ExitStack() as running:
        for name, make in contenders(device, compiled).items():
            try:
                step = running.enter_context(enter(make, stage))
                for _ in range(12 if device.type == "cuda" else 3):
                    step()
            except EOFError:
                failed[name] = "its process died"
            except Exception as error:  # a contender that cannot run leaves the others their race
                failed[name] = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
            else:
                steps[name] = step
        product, flop = matrix_product(device)
        product()
        calls = 10 if device.type == "cuda" else 1
        seconds = machine.interleaved({**steps, "product": product}, rounds, calls)
    rate = flop / seconds.pop("product")
    result: dict[str, Any] = {
        "device": machine.device_name(device),
        "rounds": rounds,
        "matrix_flops_per_second": rate,
    }
    for key in ("baseline", "ites"):
        first = next((name for name in seconds if name.startswith(key)), None)
        if first is not None:
            result[f"{key}_seconds"] = seconds[first]
            result[f"{key}_matrix_share"] = FLOP[stage] / seconds[first] / rate
            result[f"{key}_is"] = first
    if {"baseline_seconds", "ites_seconds"} <= result.keys():
        result["ratio"] = result["baseline_seconds"] / result["ites_seconds"]
    return result | {"seconds": seconds, "failed": failed}


def main(argv: list[str] | None = None) -> int:
    """Race both stages, print the medians, write the file."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--json", type=Path, help="default: benchmarks/results/<device>/steps.json")
    parser.add_argument("--device", default="auto", help="cpu, cuda; auto: a GPU if there is one")
    parser.add_argument("--rounds", type=int, default=20, help="turns of each contender")
    parser.add_argument(
        "--compile",
        action=argparse.BooleanOptionalAction,
        help="torch.compile of the baseline races too; the default on a GPU",
    )
    options = parser.parse_args(argv)
    device = machine.pick_device(options.device)
    compiled = device.type == "cuda" if options.compile is None else options.compile
    results: dict[str, Any] = {"machine": machine.describe(device), "batch": BATCH}
    for stage in FLOP:
        results[stage] = race(stage, device, options.rounds, compiled)
        print(f"{stage}, batch {BATCH}, {results[stage]['device']}")
        for name, seconds in results[stage]["seconds"].items():
            ratio = results[stage]["seconds"].get("baseline", float("nan")) / seconds
            share = FLOP[stage] / seconds / results[stage]["matrix_flops_per_second"]
            print(f"  {name:40} {1e3 * seconds:10.3f} ms {ratio:8.2f} x {100 * share:6.1f}% matrix")
        for name, reason in results[stage]["failed"].items():
            print(f"  {name:40} failed: {reason}")
    path = options.json or machine.results_folder(device) / "steps.json"
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(results, indent=1) + "\n")
    print(path)
    return int(any("ratio" not in results[stage] for stage in FLOP))


if __name__ == "__main__":
    sys.exit(main())
