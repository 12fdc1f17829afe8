"""The graph family at the student's width: mixing over the joints, and a whole convolution."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from benchmarks.ops.cases import JOINTS, Arguments, Case, Random, Work, measure
from ites import ops
from ites.pose.skeleton import HUMAN36M

CHANNELS, ATTENDED = 128, 64
COLUMNS = 392  # 2 C + 2 M + 1, rounded up to a multiple of 8
EDGES, PAIRS = len(HUMAN36M.edges), len(HUMAN36M.pooling)


def _features(poses: int, random: Random) -> Arguments:
    return {
        "features": random(poses, JOINTS, COLUMNS),
        "logits": random(EDGES, wide=True),
        "bias": random(CHANNELS + ATTENDED + 1, wide=True),
        "graph": ops.graph_of(HUMAN36M, random.device),
        "channels": CHANNELS,
        "phi_weight": random(ATTENDED, wide=True),
        "residual": random(poses, JOINTS, CHANNELS),
    }


def _mix(arguments: Arguments, backend: str) -> tuple[Tensor, ...]:
    y, t = ops.graph_mix(**arguments, backend=backend)
    assert t is not None
    return y, t


def _convolution(poses: int, random: Random) -> Arguments:
    return {
        "x": random(poses, JOINTS, CHANNELS),
        "weight": random(2, CHANNELS, CHANNELS),
        "logits": random(EDGES, wide=True),
        "bias": random(CHANNELS, wide=True),
        "graph": ops.graph_of(HUMAN36M, random.device),
    }


@cache
def _mask(device: torch.device) -> Tensor:
    """(J, J), true where two joints share an edge."""
    rows, columns = torch.tensor(HUMAN36M.edges, device=device).unbind(1)
    mask = torch.zeros(JOINTS, JOINTS, dtype=torch.bool, device=device)
    mask[rows, columns] = True
    return mask


def _paper(arguments: Arguments) -> tuple[Tensor, ...]:
    """The convolution in the paper's order: two products, a dense masked softmax, two mixtures."""
    x, weight, logits, bias = (arguments[name] for name in ("x", "weight", "logits", "bias"))
    mask = _mask(x.device)
    absent = torch.full_like(mask, -9e15, dtype=logits.dtype)
    adjacency = absent.masked_scatter(mask, logits).softmax(1).to(x.dtype)
    eye = torch.eye(JOINTS, dtype=x.dtype, device=x.device)
    mixed = (adjacency * eye) @ (x @ weight[0])
    mixed = mixed + (adjacency * (1 - eye)) @ (x @ weight[1])
    return (mixed + bias.to(x.dtype),)


OUT = JOINTS * (CHANNELS + ATTENDED)
EDGES_FLOP = 2.0 * EDGES * CHANNELS
ATTENTION_FLOP = 2.0 * PAIRS * ATTENDED * (JOINTS + 2) + 3.0 * PAIRS * JOINTS
PRODUCT_FLOP = 2.0 * JOINTS * CHANNELS * 2 * CHANNELS
CASES = (
    Case(
        "graph_mix",
        "graph_mix",
        _features,
        _mix,
        Work(
            values=(
                JOINTS * (COLUMNS + CHANNELS) + OUT,
                OUT + 2 * JOINTS * COLUMNS,  # the residual's gradient is the incoming one
            ),
            flop=(EDGES_FLOP + ATTENTION_FLOP, 3 * (EDGES_FLOP + ATTENTION_FLOP)),
        ),
        half=True,
    ),
    Case(
        "semantic_graph_conv",
        "graph_mix",
        _convolution,
        lambda arguments, backend: (ops.semantic_graph_conv(**arguments, backend=backend),),
        Work(
            values=(2 * JOINTS * CHANNELS, 3 * JOINTS * CHANNELS),
            flop=(PRODUCT_FLOP + EDGES_FLOP, 2 * (PRODUCT_FLOP + EDGES_FLOP)),
        ),
        half=True,
        eager=_paper,
    ),
)


def bench(row, benchmark, device, seconds):
    measure(row, benchmark, device, seconds)
