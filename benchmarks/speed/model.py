"""Predict the time of captured training steps and of the schedule on an H100, by count.

    python -m benchmarks.speed.model                       low, middle and high constants
    python -m benchmarks.speed.model --constants FILE      those that benchmarks.speed.constants
                                                           measured

The operators are recorded on a CPU by benchmarks.speed.launches. Each launch costs a fixed time and
the bytes that it moves through L2. A product also costs its rounds of 32 along the inner size, at
the rate at which a processor reads tiles. `--rereads` also counts what the blocks of our own
products read again through L2; PyTorch's are not counted so. Not run on a GPU.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import NamedTuple

import torch

from benchmarks.speed.launches import Call, launches, step_calls

STEPS = {"teacher": 609_000, "student": 487_000}
"""Steps of the schedule: 50 and 40 epochs of Human3.6M's 1.56 million poses, batch 128."""
PROCESSORS = 132
WAYS = (1, 2, 4, 8, 16)  # a product may be cut along its inner size, for more blocks
TRAFFIC = {
    "ites::batch_norm_relu": 4.0,
    "ites::batch_norm_relu_backward": 7.0,
    "ites::nested_norm_relu": 6.0,
    "ites::nested_norm_relu_backward": 8.0,
    "ites::graph_mix": 1.9,
    "ites::graph_mix_backward": 2.6,
}
"""Tensors as large as the largest argument that an operator reads and writes; others: 3."""
SAVED = 1.0  # of these, where few rows stay in registers: x is read once
PRODUCTS = ("aten::mm", "aten::addmm")
ROUND_BYTES = 4 * 32 * (64 + 64)  # that a processor reads in a round of a product's tile
CHAIN_COLUMNS, CHAIN_BLOCKS = 32, 8  # a cluster's columns, and its blocks, of 16, 32 or 64 rows
GRADIENT_SIDE, GRADIENT_CHUNK = 128, 16 * 4  # of a cluster of weight gradients; rows in flight
ENOUGH_BLOCKS = 200  # of weight gradients, from which on clusters do not grow
BESIDE = "ites::nested_norm_relu"
"""An operator, with its gradient, whose second launch starts beside its first."""


class Constants(NamedTuple):
    """What decides a step's time, in seconds, and the rates of TF32 (FLOP/s) and L2 (bytes/s).

    small: a kernel in a graph; edge: what a product adds; round: 32 of its inner size; join: of a
    product that is cut along it; beside: what a launch saves that starts beside the one before it.
    """

    small: float
    edge: float
    round: float
    join: float
    rate: float
    l2: float
    beside: float


GUESSES = {
    "low": Constants(1.5e-6, 0.6e-6, 0.10e-6, 0.5e-6, 300e12, 5.5e12, 0.7e-6),
    "middle": Constants(2.0e-6, 0.9e-6, 0.15e-6, 1.0e-6, 200e12, 4.0e12, 1.0e-6),
    "high": Constants(2.6e-6, 1.2e-6, 0.20e-6, 1.5e-6, 150e12, 3.0e12, 1.3e-6),
}


def product_seconds(m: int, n: int, k: int, c: Constants) -> float:
    """(m, k) times (k, n): tiles of 64 x 64, cut along k where that fills the processors."""
    tiles, rounds = math.ceil(m / 64) * math.ceil(n / 64), math.ceil(k / 32)
    best = math.inf
    for ways in WAYS:
        if ways > 1 and (tiles * ways > 2 * PROCESSORS or rounds / ways < 2):
            continue
        waves = math.ceil(tiles * ways / PROCESSORS)
        spent = math.ceil(rounds / ways) * waves * c.round + (c.join if ways > 1 else 0.0)
        best = min(best, spent)
    return c.small + c.edge + max(best, 2 * m * n * k / c.rate)


def tiles_seconds(
    blocks: int, block_bytes: float, flop: float, c: Constants, rereads: bool
) -> float:
    """Blocks that read their tiles, as many at once as there are processors."""
    spent = math.ceil(blocks / PROCESSORS) * block_bytes / ROUND_BYTES * c.round
    if rereads:
        spent = max(spent, blocks * block_bytes / c.l2)
    return max(spent, flop / c.rate)


def layer_seconds(rows: int, outputs: int, inner: int, c: Constants, rereads: bool) -> float:
    """A layer in one kernel, or its gradient; exchanging sums is half a join, a guess."""
    height = next(h for h in (16, 32, 64) if rows <= CHAIN_BLOCKS * h)
    blocks = math.ceil(rows / height) * math.ceil(outputs / CHAIN_COLUMNS)
    read = 4 * (height + CHAIN_COLUMNS) * inner
    spent = tiles_seconds(blocks, read, 2 * rows * outputs * inner, c, rereads)
    return c.small + c.edge + 0.5 * c.join + spent + 4 * 4 * rows * outputs / c.l2


def chain_seconds(call: Call, c: Constants, rereads: bool) -> float:
    """All layers of a chain's operator. Backward, a layer multiplies by the next one's weight."""
    rows, weights = call.shapes[0][0], call.shapes[1 : call.layers + 1]
    if call.name == "ites::linear_norm_relu":
        products = [(outputs, inputs) for outputs, inputs in weights]
    else:
        products = [(inputs, outputs) for outputs, inputs in weights[1:]]
        products.append((weights[-1][0], 0))
    spent = sum(layer_seconds(rows, outputs, inner, c, rereads) for outputs, inner in products)
    return spent - (len(products) - 1) * c.beside


def gradients_seconds(call: Call, c: Constants, rereads: bool) -> float:
    """The gradients of all weights in one launch, a step's passes added."""
    half = len(call.shapes) // 2
    tiles, read, flop = 0, 0, 0
    for (rows, outputs), (_, inputs) in zip(call.shapes[:half], call.shapes[half:], strict=True):
        own = math.ceil(outputs / GRADIENT_SIDE) * math.ceil(inputs / GRADIENT_SIDE)
        tiles += own
        read += own * 4 * 2 * GRADIENT_SIDE * rows
        flop += 2 * rows * outputs * inputs
    tiles //= 2  # two passes' rows are one tile's
    most_rows, cluster = read / tiles / (4 * 2 * GRADIENT_SIDE), 1
    while (
        cluster < CHAIN_BLOCKS
        and tiles * cluster < ENOUGH_BLOCKS
        and most_rows >= 2 * cluster * GRADIENT_CHUNK
    ):
        cluster *= 2
    blocks = tiles * cluster
    joined = 0.5 * c.join if cluster > 1 else 0.0
    return c.small + c.edge + joined + tiles_seconds(blocks, read / blocks, flop, c, rereads)


def seconds(call: Call, c: Constants, rereads: bool = False) -> float:
    """The time of an operator of a captured step."""
    count = call.launches
    if not count:
        return 0.0
    if call.name.startswith("ites::linear_norm_relu"):
        return chain_seconds(call, c, rereads)
    if call.name == "ites::weight_gradients":
        return gradients_seconds(call, c, rereads)
    sizes = [math.prod(shape) for shape in call.shapes] or [1]
    if call.name in PRODUCTS:
        (m, k), (_, n) = call.shapes[-2:]
        moved = 4 * (m * k + k * n + m * n) / c.l2
        return product_seconds(m, n, k, c) + 0.5 * moved
    if "fused" in call.name or "foreach" in call.name:
        moved = 4 * sum(sizes) * 5 / 3
    else:
        tensors = TRAFFIC.get(call.name, 3.0)
        if call.name.startswith("ites::batch_norm_relu") and count == 1:
            tensors -= SAVED * (2 if "backward" in call.name else 1)
        moved = 4 * max(sizes) * tensors
    edges = 2 * c.edge if "graph_mix" in call.name else 0.0
    beside = count - 1 if call.name.startswith(BESIDE) else 0
    return count * c.small + edges + moved / c.l2 - beside * c.beside


def step_seconds(calls: list[Call], c: Constants, rereads: bool = False) -> float:
    """The time of a step whose operators follow one another."""
    return sum(seconds(call, c, rereads) for call in calls)


def main(argv: list[str] | None = None) -> None:
    """Record, predict and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--constants", type=Path, help="measured constants, JSON")
    parser.add_argument("--rereads", action="store_true", help="count what blocks read again")
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    sets = dict(GUESSES)
    if options.constants:
        sets = {"measured": Constants(**json.loads(options.constants.read_text())["constants"])}
    print("Predicted by count, for an H100; not run on a GPU")
    totals = dict.fromkeys(sets, 0.0)
    for stage, steps in STEPS.items():
        calls = step_calls(stage)
        times = {name: step_seconds(calls, c, options.rereads) for name, c in sets.items()}
        shown = ", ".join(f"{name} {1e3 * spent:.2f} ms" for name, spent in times.items())
        print(f"{stage} step: {launches(calls)} launches, {shown}")
        for name, spent in times.items():
            totals[name] += steps * spent
    print("schedule: " + ", ".join(f"{name} {spent:,.0f} s" for name, spent in totals.items()))


if __name__ == "__main__":
    main()
