"""Measure the constants of benchmarks.speed.model, in a minute on a GPU.

    python -m benchmarks.speed.constants --json FILE

What a small kernel, products of several sizes, passes through L2 and layers that start beside one
another take within a captured graph.
Not run on a GPU yet.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import torch

from benchmarks import machine
from benchmarks.speed.model import Constants
from ites import ops
from ites.ops.linear_norm import runs_at_once
from ites.system.files import atomic_write
from ites.system.graphs import launch_on, record

REPEATS, REPLAYS = 200, 20


def seconds_in_graph(call: Callable[[], object], device: torch.device) -> float:
    """Seconds of a call, many of them one after the other in a graph: the median of replays."""
    stream = torch.cuda.Stream(device)
    for _ in range(3):
        launch_on(stream, device, call)

    def many() -> None:
        for _ in range(REPEATS):
            call()

    graph, _ = record(many, stream=stream)
    times = []
    for _ in range(REPLAYS):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        graph.replay()
        end.record()
        torch.cuda.synchronize(device)
        times.append(start.elapsed_time(end))
    return sorted(times)[REPLAYS // 2] * 1e-3 / REPEATS


def saved_beside(device: torch.device) -> float:
    """Seconds that a layer's launch saves as it starts beside the one before it; 0 before sm_90."""
    x, weight, ones = (torch.ones(shape, device=device) for shape in ((8, 4), (4, 4), (4,)))

    def chain(count: int) -> float:
        layers = ops.NormLayers([weight] * count, [ones] * count, [ones] * count, [-1] * count)
        return seconds_in_graph(lambda: ops.linear_norm_relu(x, layers), device)

    if not runs_at_once(x, [weight], [-1]):
        return 0.0
    with torch.no_grad():
        one, many = chain(1), chain(17)
    return max(one - (many - one) / 16, 0.0)


def measure(device: torch.device) -> Constants:
    """The constants of a device, products in TF32."""

    def product(m: int, k: int, n: int) -> float:
        a, b, c = (torch.randn(*s, device=device) for s in ((m, k), (k, n), (m, n)))
        return seconds_in_graph(lambda: torch.mm(a, b, out=c), device)

    one, wide = (torch.ones(n, device=device) for n in (1, 1 << 20))
    small = seconds_in_graph(lambda: one.add_(1), device)
    l2 = 2 * wide.numel() * 4 / (seconds_in_graph(lambda: wide.add_(1), device) - small)
    short, long = product(512, 64, 512), product(512, 256, 512)  # too few blocks to be cut
    each = (long - short) / 6
    cut = product(128, 1024, 256)
    rate = 2 * 4096**3 / product(4096, 4096, 4096)
    edge = max(short - small - 2 * each, 0.0)
    join = max(cut - small - edge - 2 * each, 0.0)
    return Constants(small, edge, each, join, rate, l2, saved_beside(device))


def main(argv: list[str] | None = None) -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--json", type=Path, help="where to write them")
    options = parser.parse_args(argv)
    device = torch.device("cuda")
    with machine.matmul_precision("high"):
        found = measure(device)
    for name, value in found._asdict().items():
        print(f"{name:6} {value:.3g}")
    if options.json:
        about = {"device": torch.cuda.get_device_name(device), "constants": found._asdict()}
        with atomic_write(options.json) as temporary:
            temporary.write_text(json.dumps(about, indent=1) + "\n")


if __name__ == "__main__":
    main()
