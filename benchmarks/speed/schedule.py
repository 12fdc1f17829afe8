"""Train both stages for a while each and extrapolate the whole schedule from their rates.

    python -m benchmarks.speed.schedule --seconds 90 --json FILE

The steps are the training engine's at the paper's sizes, captured on a GPU. Not run on a GPU yet.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

import torch

from benchmarks.speed.model import STEPS
from benchmarks.speed.training import ours
from ites.system.files import atomic_write

WARM_UP = 8  # calls before the clock starts: libraries load, steps are recorded


def wait(device: torch.device) -> None:
    """Wait for the device's work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def rate(stage: str, device: torch.device, seconds: float, precision: str) -> float:
    """Steps per second of a stage, over about `seconds`."""
    capture = "on" if device.type == "cuda" else "off"
    advance = ours(stage, device, precision, capture)
    for _ in range(WARM_UP if capture == "on" else 1):
        advance()
    wait(device)
    start, steps = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        steps += advance()
        if steps % 1000 < 8:
            wait(device)  # else the clock runs ahead of the device
    wait(device)
    return steps / (time.perf_counter() - start)


def main(argv: list[str] | None = None) -> int:
    """Train, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--seconds", type=float, default=90, help="per stage")
    parser.add_argument("--precision", default="tf32")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(argv)
    device = torch.device(options.device)
    found: dict[str, float] = {}
    for stage, steps in STEPS.items():
        each = rate(stage, device, options.seconds, options.precision)
        found[stage] = each
        print(f"{stage}: {1e3 / each:.3f} ms per step, {steps:,} steps {steps / each:,.0f} s")
    total = sum(steps / found[stage] for stage, steps in STEPS.items())
    print(f"schedule by these rates: {total:,.0f} s")
    if options.json:
        with atomic_write(options.json) as temporary:
            temporary.write_text(json.dumps({"steps_per_second": found, "schedule": total}) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
