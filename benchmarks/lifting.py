"""Time lifting: poses a second in large batches, and the latency of one pose.

    python -m benchmarks.lifting --json FILE

Both networks at the paper's sizes in evaluation mode, against the released order of operations in
eager PyTorch. On a GPU a single pose is lifted by a captured graph, its copy in and out included.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks import baseline, machine
from ites.files import replacing
from ites.models import Student, Teacher
from ites.skeleton import HUMAN36M

FLOP = {"teacher": 7.18e6, "student": 18.0e6}
BATCH = {"cpu": 1024, "cuda": 65536}
OURS = {"teacher": Teacher, "student": Student}
THEIRS = {"teacher": baseline.Teacher, "student": baseline.Student}

Lift = Callable[[Tensor], Any]


def lifters(stage: str, device: torch.device) -> dict[str, tuple[str, Lift]]:
    """By name: the precision that a lifter's share is counted in, and the lifter."""
    ours = OURS[stage]().to(device).eval()
    theirs = THEIRS[stage]().to(device).eval()

    def rounded(precision: str) -> Lift:
        def lift(points: Tensor) -> Tensor:
            with (
                machine.matmul_precision("high" if precision == "tf32" else "highest"),
                torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"),
            ):
                return ours.pose(points)

        return lift

    precisions = ("float32", "tf32", "bf16") if device.type == "cuda" else ("float32",)
    made: dict[str, tuple[str, Lift]] = {"baseline": ("float32", theirs)}
    return made | {f"ites {name}": (name, rounded(name)) for name in precisions}


@torch.inference_mode()
def throughput(
    stage: str, device: torch.device, rounds: int, rates: dict[str, float]
) -> dict[str, Any]:
    """Poses a second of each lifter at the batch of this kind of device."""
    batch = BATCH[device.type]
    points = 0.1 * torch.randn(batch, HUMAN36M.num_joints, 2, device=device)
    lifting, failed = {}, {}
    for name, (precision, lift) in lifters(stage, device).items():
        try:
            lift(points), lift(points)
        except Exception as error:
            failed[name] = f"{type(error).__name__}: {str(error).splitlines()[0]}"
        else:
            lifting[name] = (precision, lift)

    def one(lift: Lift) -> Callable[[], int]:
        def call() -> int:
            lift(points)
            return 1

        return call

    seconds = machine.interleaved({name: one(lift) for name, (_, lift) in lifting.items()}, rounds)
    return {
        "batch": batch,
        "failed": failed,
        "lifters": {
            name: {
                "poses_per_second": batch / spent,
                "matrix_share": FLOP[stage] * batch / spent / rates[lifting[name][0]],
                "times_baseline": seconds.get("baseline", float("nan")) / spent,
            }
            for name, spent in seconds.items()
        },
    }


@torch.inference_mode()
def latency(stage: str, device: torch.device, calls: int = 500) -> dict[str, float]:
    """Percentiles of the seconds that one pose takes, from its points to its joints on the host."""
    model = OURS[stage]().to(device).eval()
    source = torch.zeros(1, HUMAN36M.num_joints, 2)
    points = source.to(device)
    replay: Callable[[], Tensor] = lambda: model.pose(points)  # noqa: E731
    if device.type == "cuda":
        replay = captured(model.pose, points)
    times = []
    for number in range(calls + 20):
        source.uniform_(-0.1, 0.1)
        start = time.perf_counter()
        points.copy_(source)
        replay().cpu()
        if number >= 20:
            times.append(time.perf_counter() - start)
    percentiles = torch.tensor(times).quantile(torch.tensor([0.5, 0.9, 0.99]))
    return dict(zip(("p50", "p90", "p99"), percentiles.tolist(), strict=True))


def captured(function: Lift, points: Tensor) -> Callable[[], Tensor]:
    """The function as a CUDA graph that reads `points` where they lie."""
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        for _ in range(3):
            function(points)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = function(points)

    def replay() -> Tensor:
        graph.replay()
        return result

    return replay


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
                f"  {name:14} {entry['poses_per_second']:14,.0f} poses/s "
                f"{entry['times_baseline']:8.2f} x {100 * entry['matrix_share']:6.1f}% of the "
                "matrix rate"
            )
        for name, reason in measured["failed"].items():
            print(f"  {name:14} failed: {reason}")
        measured["latency_seconds"] = spent = latency(stage, device)
        print("  one pose: " + ", ".join(f"{k} {1e3 * v:.3f} ms" for k, v in spent.items()))
    path = options.json or machine.results_folder(device) / "lifting.json"
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(results, indent=1) + "\n")
    print(path)
    return int(any(results[stage]["failed"] for stage in OURS))


if __name__ == "__main__":
    sys.exit(main())
