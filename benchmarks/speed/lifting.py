"""Time lifting: poses per second in large batches, and the latency of one pose.

    python -m benchmarks.speed.lifting --json FILE

Both networks at the paper's sizes, BatchNorm folded, against the released order of operations in
eager PyTorch in evaluation mode. Points lie on the device; ours go through in batches as `ites
lift` cuts them. Latency is `ites.Lifter`'s: from a pose in main memory to its joints there.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks import machine
from benchmarks.speed import baseline
from ites.inference.network import PRECISIONS
from ites.inference.stream import Lifter
from ites.models import Student, Teacher, fold_norms
from ites.models.predict import batch_size_for
from ites.pose.skeleton import HUMAN36M
from ites.runs.checkpoint import Metadata, save_model
from ites.runs.folder import RunFolder
from ites.system.arithmetic import arithmetic
from ites.system.files import atomic_write

FLOP = {"teacher": 7.18e6, "student": 18.0e6}
"""Of a pose; the student's with theta as the paper has it."""
BATCH = {"cpu": 1024, "cuda": 65536}
SMALLER = (4096, 16384)
"""Batches that are tried on a GPU beside the default: what they read again may be in its cache."""
OURS = {"teacher": Teacher, "student": Student}
THEIRS = {"teacher": baseline.Teacher, "student": baseline.Student}

Lift = Callable[[Tensor], Any]


def ours(stage: str, device: torch.device, precision: str, size: int) -> Lift:
    """Our lifter of a stage, so many poses at a time."""
    pose = fold_norms(OURS[stage]().to(device).eval(), PRECISIONS[precision]).pose

    def lift(points: Tensor) -> list[Tensor]:
        with arithmetic(precision):
            return [pose(batch) for batch in points.split(size)]

    return lift


def lifters(stage: str, device: torch.device) -> dict[str, tuple[str, Lift]]:
    """By name: the precision that a lifter's share is counted in, and the lifter."""
    made: dict[str, tuple[str, Lift]] = {
        "baseline": ("float32", THEIRS[stage]().to(device).eval()),
        "unfolded": ("float32", OURS[stage]().to(device).eval().pose),
    }
    size = batch_size_for(device, HUMAN36M)
    for precision in PRECISIONS if device.type == "cuda" else ("float32",):
        made[f"ites {precision}"] = precision, ours(stage, device, precision, size)
        for smaller in SMALLER if device.type == "cuda" else ():
            name = f"ites {precision}, {smaller} at a time"
            made[name] = precision, ours(stage, device, precision, smaller)
    return made


@torch.inference_mode()
def throughput(
    stage: str, device: torch.device, rounds: int, rates: dict[str, float]
) -> dict[str, Any]:
    """Poses per second of each lifter at the batch of this kind of device."""
    batch = BATCH[device.type]
    points = 0.1 * torch.randn(batch, HUMAN36M.num_joints, 2, device=device)
    precisions, calls, failed = {}, {}, {}

    def counted(lift: Lift) -> Callable[[], int]:
        return lambda: (lift(points), 1)[1]

    for name, (precision, lift) in lifters(stage, device).items():
        try:
            lift(points), lift(points)
        except Exception as error:  # a lifter that cannot run leaves the others their turn
            failed[name] = f"{type(error).__name__}: {str(error).splitlines()[0]}"
        else:
            precisions[name], calls[name] = precision, counted(lift)
    product, flop = machine.matrix_product(device)
    seconds = machine.interleaved({**calls, "product": lambda: (product(), 1)[1]}, rounds)
    rate = flop / seconds.pop("product")
    if device.type == "cpu":  # on a GPU other precisions have other rates, measured once
        rates = {"float32": rate}
    return {
        "batch": batch,
        "failed": failed,
        "matrix_flops_per_second": rate,
        "lifters": {
            name: {
                "poses_per_second": batch / spent,
                "matrix_share": FLOP[stage] * batch / spent / rates[precisions[name]],
                "times_baseline": seconds.get("baseline", float("nan")) / spent,
            }
            for name, spent in seconds.items()
        },
    }


def latency(stage: str, device: torch.device, calls: int = 500) -> dict[str, float]:
    """Percentiles of the milliseconds that one pose takes, from main memory and back."""
    with tempfile.TemporaryDirectory() as run:
        save_model(RunFolder(run).weights(stage), OURS[stage](), Metadata(stage, HUMAN36M, 1.0))
        lifter = Lifter(run, focal_length=1000.0, device=str(device))
    frames = 500 + 100 * torch.randn(calls, HUMAN36M.num_joints, 2)  # pixels
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # no order of the joints makes them a body
        for frame in frames:
            lifter.lift(frame)
    return lifter.latency()


def main(argv: list[str] | None = None) -> int:
    """Time both networks, print, write the file."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--json", type=Path, help="default: .../results/<device>/lifting.json")
    parser.add_argument("--device", default="auto", help="cpu, cuda; auto: a GPU if there is one")
    parser.add_argument("--rounds", type=int, default=10, help="turns of each lifter")
    options = parser.parse_args(argv)
    device = machine.pick_device(options.device)
    results: dict[str, Any] = {"machine": machine.describe(device)}
    results["rates"] = rates = machine.rates(device)
    for stage in OURS:
        results[stage] = measured = throughput(stage, device, options.rounds, rates)
        print(f"{stage}, batch {measured['batch']}, {results['machine']['device']}")
        for name, entry in measured["lifters"].items():
            print(
                f"  {name:30} {entry['poses_per_second']:14,.0f} poses/s "
                f"{entry['times_baseline']:8.2f} x {100 * entry['matrix_share']:6.1f}% of the "
                "matrix rate"
            )
        for name, reason in measured["failed"].items():
            print(f"  {name:30} failed: {reason}")
        measured["latency_ms"] = spent = latency(stage, device)
        percentiles = ", ".join(f"{name} {spent[name]:.3f}" for name in ("p50", "p90", "p99"))
        print(f"  one pose: {percentiles} ms")
    path = options.json or machine.results_folder(device) / "lifting.json"
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(results, indent=1) + "\n")
    print(path)
    return int(any(results[stage]["failed"] for stage in OURS))


if __name__ == "__main__":
    sys.exit(main())
