"""Random arguments for every op: a call is computed rightly or refused cleanly, and none crashes.

    python tests/helpers/fuzz_ops.py --count 10000 [--op NAME] [--seed 0] a table, one row per op
    python tests/helpers/fuzz_ops.py --count 100000 --publish            continues the committed one
    python tests/helpers/fuzz_ops.py --op NAME --case N                   shows one case and runs it

`ites.ops.NAME` is called on the C++ backend and on the reference, which must agree: in what they
answer, and in what they refuse. `torch.ops.ites.NAME`, below it, is called as any program may call
it, with tensors of every shape, dtype, stride and device. Ops of the CUDA backend alone are run by
`emulated_cuda`, which needs a C++ compiler. Each op runs in a process of its own: if it dies, the
program prints the arguments.
"""

from __future__ import annotations

import argparse
import copy
import csv
import inspect
import random
import signal
import struct
import subprocess
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from op_contract import FORK
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks.accuracy import rounding
from ites import ops
from ites.ops import Graph, NormLayers, RotationDraw, TurnDraw
from ites.ops.join import NAMES as JOINED
from ites.ops.join import _join
from ites.pose.missing import FAR, SHARE, SPREADS
from ites.pose.skeleton import HUMAN36M, Skeleton

REFUSALS = (ValueError, TypeError, RuntimeError)
DTYPES = (
    torch.float32,
    torch.float64,
    torch.float16,
    torch.bfloat16,
    torch.int64,
    torch.int32,
    torch.uint8,
    torch.bool,
    torch.complex64,
)
INTEGERS = (
    -(2**63),
    -(2**31),
    -1,
    0,
    1,
    2,
    3,
    7,
    2**12,
    2**28,
    2**31 - 1,
    2**31,
    2**32,
    2**40,
    2**62,
)
FLOATS = (float("nan"), float("inf"), -float("inf"), 1e300, -1e300, 1e30, 0.0, -3.5, 1e-6)

Arguments = dict[str, Any]


class Values:
    """Seeded values for one case."""

    def __init__(self, seed: str) -> None:
        self.random = random.Random(seed)
        self.generator = torch.Generator().manual_seed(self.random.getrandbits(62))
        self.dtype = self.random.choice((torch.float64, torch.float64, torch.float32))

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=self.generator, dtype=torch.float64).to(self.dtype)

    def count(self, most: int = 20) -> int:
        return self.random.choice((0, 1, 2, 3, 5, 17, self.random.randint(0, most)))

    def maybe(self, value: Any) -> Any:
        return value if self.random.random() < 0.5 else None


def _draw(v: Values, poses: int, samples: int) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Rotations, an elevation and a spread as the kernels take them: matrices, a draw, or turns."""
    kind = v.random.randrange(3)
    if kind == 0:
        return v.normal(samples * poses, 3, 3), None, None
    counter = torch.tensor([v.random.randrange(-9, 2**62), v.random.randrange(2**40), 3])
    if kind == 1:
        return counter, None, None
    return counter, v.normal(poses), v.normal(2)


def _rotations(v: Values, poses: int, samples: int) -> Any:
    rotations, elevation, spread = _draw(v, poses, samples)
    if rotations.is_floating_point():
        return rotations
    if elevation is None or spread is None:
        axes = v.random.choice(("x", "y", "z", "xy", "xz", "yz", "xyz"))
        return RotationDraw(rotations, samples, axes, 6.0 * v.random.random())
    return TurnDraw(rotations, elevation, spread, samples)


def _source(v: Values, poses: int, samples: int) -> Arguments:
    names = ("rotations", "elevation", "spread")
    return dict(zip(names, _draw(v, poses, samples), strict=True)) | {
        "samples": samples,
        "axes": v.random.randint(1, 7),
        "max_angle": 6.0 * v.random.random(),
    }


def _graph(v: Values) -> tuple[Skeleton, Graph]:
    skeleton = v.random.choice((HUMAN36M, FORK))
    # Copies, as some cases write to them.
    return skeleton, Graph(*(t.clone() for t in ops.graph_of(skeleton, torch.device("cpu"))))


def _mix(v: Values) -> tuple[Arguments, int, int, int]:
    """The parameters of a layer, its joints, the least columns of its features and v's length."""
    skeleton, graph = _graph(v)
    channels, attended = v.count(9), v.count(9)
    arguments = {
        "logits": v.normal(len(skeleton.edges)),
        "bias": v.normal(channels + (attended + 1 if attended else 0)),
        "v": v.normal(attended),
        **graph._asdict(),
        "channels": channels,
    }
    columns = 2 * channels + (2 * attended + 1 if attended else 0) + v.random.randrange(3)
    return arguments, skeleton.num_joints, columns, attended


def _public_mix(v: Values, parameters: Arguments) -> Arguments:
    graph = Graph(*(parameters.pop(name) for name in Graph._fields))
    phi = parameters.pop("v")
    return {**parameters, "graph": graph, "phi_weight": phi if len(phi) else v.maybe(phi)}


# Valid arguments of each op, by name: of `ites.ops` first, of `torch.ops.ites` behind.


def _so3_exp(v: Values) -> Arguments:
    return {"rotation_vector": v.normal(v.count(), 3)}


def _philox(v: Values) -> Arguments:
    counter = torch.tensor([v.random.randrange(2**62), v.random.randrange(2**40), 3])
    return {"counter": counter, "poses": v.count(), "samples": 1 + v.count(5)}


def _draw_rotations(v: Values) -> Arguments:
    poses = v.count()
    draw = _rotations(v, poses, 2)
    while isinstance(draw, Tensor):
        draw = _rotations(v, poses, 2)
    return {"draw": draw, "poses": poses, "like": v.normal(1)}


def _rotate_project(v: Values) -> Arguments:
    poses = v.count()
    rotations = _rotations(v, poses, 1 + v.count(3))
    joints = v.normal(poses, 1 + v.count(40), 3)
    return {"joints": joints, "rotations": rotations, "distance": 5.0, "with_rotated": True}


def _equivariance_distance(v: Values) -> Arguments:
    poses, joints, samples = v.count(), 1 + v.count(40), 1 + v.count(3)
    return {
        "joints": v.normal(poses, joints, 3),
        "points": v.normal(samples * poses, joints, 2),
        "depth": v.normal(samples * poses, joints, 1),
        "rotations": _rotations(v, poses, samples),
        "distance": 5.0,
    }


def _dictionary_reprojection(v: Values) -> Arguments:
    poses, atoms, joints = v.count(), v.count(), 1 + v.count()
    return {
        "coefficients": v.normal(poses, atoms),
        "dictionary": v.normal(atoms, 3 * joints),
        "mean": v.normal(3 * joints),
        "rotation_vector": v.normal(poses, 3),
        "target": v.normal(poses, joints, 2),
        "distance": 5.0,
    }


def _invariance_distance(v: Values) -> Arguments:
    poses, samples, atoms, joints = v.count(), 1 + v.count(3), v.count(), 1 + v.count()
    return {
        "coefficients": v.normal(samples * poses, atoms),
        "dictionary": v.normal(atoms, 3 * joints),
        "mean": v.normal(3 * joints),
        "canonical": v.normal(poses, joints, 3),
    }


def _graph_mix(v: Values) -> Arguments:
    parameters, joints, columns, _ = _mix(v)
    poses = v.count()
    return {
        "features": v.normal(poses, joints, columns),
        "residual": v.maybe(v.normal(poses, joints, parameters["channels"])),
        **_public_mix(v, parameters),
    }


def _graph_project_mix(v: Values) -> Arguments:
    parameters, joints, columns, _ = _mix(v)
    residual = v.random.random() < 0.5
    inputs = parameters["channels"] if residual else v.count(9)
    return {
        "x": v.normal(v.count(40), joints, inputs),
        "projection": v.normal(inputs, columns),
        "residual": residual,
        **_public_mix(v, parameters),
    }


def _semantic_graph_conv(v: Values) -> Arguments:
    skeleton, graph = _graph(v)
    inputs, outputs = v.count(9), v.count(9)
    return {
        "x": v.normal(v.count(), skeleton.num_joints, inputs),
        "weight": v.normal(2, inputs, outputs),
        "logits": v.normal(len(skeleton.edges)),
        "bias": v.normal(outputs),
        "graph": graph,
    }


def _batch_norm_relu(v: Values) -> Arguments:
    rows, channels = v.count(300), v.count(40)
    return {
        "x": v.normal(rows, channels),
        "weight": v.normal(channels),
        "bias": v.normal(channels),
        "skip": v.maybe(v.normal(rows, channels)),
        "relu": v.random.random() < 0.5,
        "skip_after": v.random.random() < 0.5,
        "eps": 1e-5,
    }


def _linear_nested_norm_relu(v: Values) -> Arguments:
    rows, inputs, channels = v.count(300), v.count(), v.count(40)
    return {
        "x": v.normal(rows, inputs),
        "matrix": v.normal(channels, inputs),
        "inner_weight": v.normal(channels),
        "inner_bias": v.normal(channels),
        "added": v.normal(rows, channels),
        "weight": v.normal(channels),
        "bias": v.normal(channels),
        "skip": v.maybe(v.normal(rows, channels)),
        "eps": 1e-5,
    }


def _linear(v: Values) -> Arguments:
    inputs, outputs = v.count(), v.count(40)
    bias = v.maybe(v.normal(outputs))
    return {"x": v.normal(v.count(60), inputs), "weight": v.normal(outputs, inputs), "bias": bias}


def _linear_keeping(v: Values) -> Arguments:
    given = _linear(v)
    del given["bias"]
    return given


def _linear_relu(v: Values) -> Arguments:
    given = _linear(v)
    shape = len(given["x"]), len(given["weight"])
    scaled = v.maybe(v.normal(*shape))
    skip = v.normal(*shape) if scaled is not None else v.maybe(v.normal(*shape))
    scale = None if scaled is None else v.normal(shape[1])
    return {**given, "skip": skip, "scaled": scaled, "scale": scale, "after": v.maybe(skip)}


def _norm_layers(v: Values, inputs: int, step: int) -> NormLayers:
    """Layers of widths that are multiples of a step, with residuals where the widths agree."""
    count = v.random.randint(1, 4)
    widths = [step * v.random.choice((1, 2, 2, 5)) for _ in range(count)]
    skips: list[int] = []
    for i, width in enumerate(widths):
        free = [k for k in range(i) if widths[k] == width and k not in skips]
        skips.append(v.random.choice([-1, *free]))
    sizes = zip(widths, [inputs, *widths], strict=False)
    weights = [v.normal(width, before) for width, before in sizes]
    gammas, betas = ([v.normal(width) for width in widths] for _ in range(2))
    return NormLayers(weights, gammas, betas, skips)


def _linear_norm_relu(v: Values) -> Arguments:
    inputs = 1 + v.count()
    layers = _norm_layers(v, inputs, v.random.choice((1, 4)))
    return {"x": v.normal(2 + v.count(60), inputs), "layers": layers, "eps": 1e-5}


def _nested_norm_relu(v: Values) -> Arguments:
    rows, channels = v.random.choice((0, 2 + v.count(300))), v.count(40)
    return {
        "x": v.normal(rows, channels),
        "inner_weight": v.normal(channels),
        "added": v.normal(rows, channels),
        "weight": v.normal(channels),
        "bias": v.normal(channels),
        "skip": v.maybe(v.normal(rows, channels)),
        "eps": 1e-5,
    }


def _move_running(v: Values) -> Arguments:
    widths = [v.count() for _ in range(1 + v.count(9))]
    names = ("running_means", "running_vars", "means", "variances")
    shifts = [v.maybe(v.normal(width)) for width in widths]
    given = {name: [v.normal(width) for width in widths] for name in names}
    return {**given, "shifts": shifts, "correction": 1.25, "momentum": v.random.random()}


def _join_graph_layers(v: Values) -> Arguments:
    channels, inner = 1 + v.count(9), 1 + v.count(9)
    pairs = ((inner, channels), (inner,)) * 3
    shapes = ((2, channels, channels), (channels,), *pairs, (2, inner))
    return {"layers": [[v.normal(*shape) for shape in shapes] for _ in range(1 + v.count(4))]}


def _window(v: Values) -> Tensor:
    """The sizes of the last frames: some before the first are nan, one may be far off."""
    sizes = 150 + 10 * v.normal(v.random.choice((32, 64, 100)))
    sizes[: v.count(40)] = torch.nan
    sizes[-1] *= v.random.choice((1, 1, 9))
    return sizes


def _frame_points(v: Values) -> Arguments:
    count, keypoints, joints = v.count(9), 2 + v.count(30), 2 + v.count(20)
    points = 400 + 60 * v.normal(count, keypoints, 2)
    points[v.normal(count, keypoints) > 1.5] = torch.nan
    points[v.normal(count, keypoints) > 2] *= 1e3
    layout = v.maybe(v.normal(2, joints, keypoints))
    if layout is not None:
        layout[v.normal(2, joints, keypoints) > -1] = 0
    joints = keypoints if layout is None else joints
    kind = v.random.randrange(3)
    return {
        "keypoints": points,
        "root": v.random.randrange(joints),
        "head": v.random.randrange(joints),
        "layout": layout,
        "factor": v.normal(2) if kind == 1 else None,
        "sizes": _window(v) if kind == 2 else None,
        "length": 0.2,
    }


def _frame_metres(v: Values) -> Arguments:
    joints, bones = 2 + v.count(20), 1 + v.count()
    ends = [[v.random.randrange(joints) for _ in range(bones)] for _ in range(2)]
    return {
        "pose": v.normal(v.count(9), joints, 3),
        "bones": torch.tensor(ends),
        "weights": v.maybe(v.normal(bones)),
        "sizes": _window(v) / 1000,
        "root": v.random.randrange(joints),
        "head": v.random.randrange(joints),
        "metres": 0.72,
    }


def _mirrored_input(v: Values) -> Arguments:
    skeleton = v.random.choice((HUMAN36M, FORK))
    parents, joints = zip(*skeleton.bones, strict=True)
    points = 0.2 * v.normal(v.count(9), skeleton.num_joints, 2)
    points[v.normal(*points.shape[:2]) > 1.5] = torch.nan
    return {
        "points": points,
        "shares": v.normal(len(joints)).abs() + 0.1,
        "bones": torch.tensor([joints, parents]),
        "mirror": torch.tensor(skeleton.mirror),
        "total": 0.75,
        "factor": 10.0,
    }


def _mirrored_output(v: Values) -> Arguments:
    given = _mirrored_input(v)
    count, joints, _ = given["points"].shape
    second = v.random.random() < 0.5
    return {
        "points": given["points"],
        "scales": v.normal(count).abs() + 0.1,
        "camera": v.normal(2 * count, joints, 3),
        "direct": v.normal(2 * count, joints),
        "mirror": given["mirror"],
        "root": v.random.randrange(joints),
        "distance": 5.0,
        "noiseless": 1e-4,
        "most_moved": 0.8,
        "original": 0.2 * v.normal(count, joints, 2) if second else None,
        "depth": v.normal(count, joints, 1) if second else None,
    }


def has_backends(function: Any) -> bool:
    """Whether a public function of `ites.ops` is an op that a backend computes."""
    if not inspect.isfunction(function) or function.__name__.startswith("fuses_"):
        return False
    names = inspect.signature(function).parameters
    return "backend" in names or f"ites::{function.__name__}" in schemas()


def schemas() -> set[str]:
    """The names of all registered ops."""
    names = torch._C._dispatch_get_all_op_names()
    return {name for name in names if name.startswith("ites::")}


PUBLIC: dict[str, Callable[[Values], Arguments]] = {
    name: globals()[f"_{name}"]
    for name, function in vars(ops).items()
    if has_backends(function) and f"_{name}" in globals()
}


def _raw_so3_exp(v: Values, backward: bool) -> Arguments:
    w = v.normal(v.count(), 3)
    return {"grad": v.normal(len(w), 3, 3), "w": w} if backward else {"w": w}


def _raw_philox(v: Values, backward: bool) -> Arguments:
    return _philox(v)


def _raw_draw_rotations(v: Values, backward: bool) -> Arguments:
    poses, samples = v.count(), 1 + v.count(3)
    source = _source(v, poses, samples)
    while source["rotations"].is_floating_point():
        source = _source(v, poses, samples)
    counter = source.pop("rotations")
    kind = {name: source.pop(name) for name in ("elevation", "spread")}
    return {"like": v.normal(1), "counter": counter, **kind, "poses": poses, **source}


def _raw_rotate_project(v: Values, backward: bool) -> Arguments:
    poses, joints, samples = v.count(), 1 + v.count(40), 1 + v.count(3)
    source = _source(v, poses, samples)
    given = {"joints": v.normal(poses, joints, 3), **source, "distance": 5.0}
    if not backward:
        return {**given, "with_rotated": v.random.random() < 0.5}
    points = v.normal(samples * poses, joints, 2)
    rotated = v.maybe(v.normal(samples * poses, joints, 3))
    return {"grad_points": points, "grad_rotated": rotated, **given}


def _raw_equivariance_distance(v: Values, backward: bool) -> Arguments:
    poses, joints, samples = v.count(), 1 + v.count(40), 1 + v.count(3)
    rows = samples * poses
    given = {
        "joints": v.normal(poses, joints, 3),
        "points": v.normal(rows, joints, 2),
        "depth": v.normal(rows, joints),
        **_source(v, poses, samples),
        "distance": 5.0,
    }
    return {"grad": v.normal(rows), **given} if backward else given


def _raw_dictionary_reprojection(v: Values, backward: bool) -> Arguments:
    given = _dictionary_reprojection(v)
    if not backward:
        return given
    poses, joints, _ = given["target"].shape
    grads = {
        "grad_error": v.maybe(v.normal(poses)),
        "grad_canonical": v.maybe(v.normal(poses, joints, 3)),
        "grad_camera": v.maybe(v.normal(poses, joints, 3)),
    }
    return {**grads, **given}


def _raw_invariance_distance(v: Values, backward: bool) -> Arguments:
    given = _invariance_distance(v)
    return {"grad": v.normal(len(given["coefficients"])), **given} if backward else given


def _raw_graph_mix(v: Values, backward: bool) -> Arguments:
    parameters, joints, columns, attended = _mix(v)
    poses, channels = v.count(40), parameters["channels"]
    features = v.normal(poses, joints, columns)
    y = v.maybe(v.normal(poses, joints, channels))
    if backward:
        grads = {"grad_y": y, "grad_t": v.maybe(v.normal(poses, joints, attended))}
        return {**grads, "features": features, **parameters}
    first = {name: parameters.pop(name) for name in ("logits", "bias", "v")}
    return {"features": features, **first, "residual": y, **parameters}


def _raw_graph_project_mix(v: Values, backward: bool) -> Arguments:
    parameters, joints, columns, attended = _mix(v)
    poses, channels = v.count(40), parameters["channels"]
    residual = v.random.random() < 0.5
    inputs = channels if residual else v.count(9)
    x, projection = v.normal(poses, joints, inputs), v.normal(inputs, columns)
    if not backward:
        keep = v.random.random() < 0.5
        return {"x": x, "projection": projection, **parameters, "residual": residual, "keep": keep}
    grads = {
        "grad_y": v.maybe(v.normal(poses, joints, channels)),
        "grad_t": v.maybe(v.normal(poses, joints, attended)),
    }
    given = {"x": x, "projection": projection, "features": x @ projection}
    return {**grads, **given, **parameters, "residual": residual}


def _raw_batch_norm_relu(v: Values, backward: bool) -> Arguments:
    given = _batch_norm_relu(v)
    if not backward:
        return given
    x = given["x"]
    var, mean = torch.var_mean(x, 0, correction=0) if len(x) else (x.sum(0), x.sum(0))
    first = {name: given.pop(name) for name in ("x", "weight", "bias", "skip")}
    return {"grad": v.normal(*x.shape), **first, "mean": mean, "var": var, **given}


def _raw_linear_nested_norm_relu(v: Values, backward: bool) -> Arguments:
    given = _linear_nested_norm_relu(v)
    if not backward:
        return given
    names, function = _forward("linear_nested_norm_relu", given)
    y, product, sums, statistics = function(*(given[name] for name in names))
    del given["skip"], given["added"]
    eps = given.pop("eps")
    kept = {"product": product, "sum": sums, "statistics": statistics, "eps": eps}
    return {"grad": v.normal(*y.shape), **given, **kept}


def _raw_linear(v: Values, backward: bool) -> Arguments:
    given = _linear(v)
    if not backward:
        return given
    del given["bias"]
    grad = v.normal(len(given["x"]), len(given["weight"]))
    wanted = [v.random.random() < 0.5 for _ in range(2)]
    return {"grad": grad, **given, "to_x": wanted[0], "to_weight": wanted[1]}


def _raw_linear_relu(v: Values, backward: bool) -> Arguments:
    return _linear_relu(v)


def _raw_linear_norm_relu(v: Values, backward: bool) -> Arguments:
    inputs, rows = 1 + v.count(), 2 + v.count(60)
    weights, gammas, betas, skips = _norm_layers(v, inputs, 4)
    x, rest = v.normal(rows, inputs), {"eps": 1e-5, "bits": 23}
    if not backward:
        given = {"x": x, "weights": weights, "gammas": gammas, "betas": betas}
        running: Arguments = {"running_means": [], "running_vars": [], "shifts": []}
        return {**given, **running, "skips": skips, "eps": 1e-5, "momentum": 0.5, "bits": 23}
    kept = _chain(x, weights, gammas, betas, skips, 1e-5)
    names = ("outputs", "products", "means", "vars")
    saved = {name: kept[i :: len(names)] for i, name in enumerate(names)}
    grad = v.normal(rows, len(weights[-1]))
    return {"grad": grad, "weights": weights, "gammas": gammas, "skips": skips, **saved, **rest}


def _raw_weight_gradients(v: Values, backward: bool) -> Arguments:
    count, parts = v.random.randint(1, 4), v.random.choice((1, 2))
    sizes = [(1 + v.count(40), 1 + v.count(40)) for _ in range(count)] * parts
    rows = [v.count(60) for _ in sizes]
    grads = [v.normal(n, size[0]) for n, size in zip(rows, sizes, strict=True)]
    inputs = [v.normal(n, size[1]) for n, size in zip(rows, sizes, strict=True)]
    return {"grads": grads, "inputs": inputs, "parts": parts, "bits": 23}


def _raw_nested_norm_relu(v: Values, backward: bool) -> Arguments:
    given = _nested_norm_relu(v)
    if not backward:
        return given
    skip = given.pop("skip")
    eps = given.pop("eps")
    grad = v.normal(*given["x"].shape) if skip is None else skip
    return {"grad": grad, **given, "statistics": _nested_statistics(given, eps), "eps": eps}


def _raw_move_running(v: Values, backward: bool) -> Arguments:
    given = _move_running(v)
    given["vars"] = given.pop("variances")
    shifts = [v.normal(0) if shift is None else shift for shift in given.pop("shifts")]
    numbers = {name: given.pop(name) for name in ("correction", "momentum")}
    return {**given, "shifts": shifts, **numbers}


def _raw_join_graph_layers(v: Values, backward: bool) -> Arguments:
    layers = _join_graph_layers(v)["layers"]
    channels, inner = layers[0][0].shape[-1], layers[0][-1].shape[-1]
    columns = 2 * (channels + inner) + 1 + v.random.randrange(9)
    parameters = [tensor for layer in layers for tensor in layer]
    if not backward:
        return {"parameters": parameters, "columns": columns}
    shapes = ((channels, columns), (channels + inner + 1,), (inner,))
    grads = [v.normal(*shape) for _ in layers for shape in shapes]
    return {"grads": grads, "parameters": parameters}


def _raw_frame_points(v: Values, backward: bool) -> Arguments:
    given = _frame_points(v)
    names = ("keypoints", "layout", "factor", "sizes", "root", "head", "length")
    return {name: given[name] for name in names} | _LIMITS


def _raw_frame_metres(v: Values, backward: bool) -> Arguments:
    limits = {name: _LIMITS[name] for name in ("spreads", "share")}
    return _frame_metres(v) | limits


def _raw_mirrored_input(v: Values, backward: bool) -> Arguments:
    return _mirrored_input(v)


def _raw_mirrored_output(v: Values, backward: bool) -> Arguments:
    given = _mirrored_output(v)
    names = ("points", "scales", "camera", "direct", "original", "depth", "mirror")
    return {name: given.pop(name) for name in names} | given


_LIMITS = {"far": FAR, "spreads": SPREADS, "share": SHARE}
EMULATED = (
    "linear_relu", "linear_norm_relu", "weight_gradients", "nested_norm_relu", "move_running",
    "join_graph_layers", "frame_points", "frame_metres", "mirrored_input", "mirrored_output",
)  # fmt: skip
"""Ops below `torch.ops.ites` that only the CUDA backend has."""
CHAINS = (
    "linear_norm_relu", "nested_norm_relu", "linear_nested_norm_relu",
    "linear_nested_norm_relu_backward",
)  # fmt: skip
"""Ops of several norms, whose answer the arguments' rounding may decide."""
IN_PLACE = {
    "move_running": ("running_means", "running_vars"),
    "frame_points": ("sizes",),
    "frame_metres": ("sizes",),
}
"""Arguments that an op changes."""


def is_emulated(op: str) -> bool:
    """Whether an op's row is of the emulated CUDA kernels."""
    name = op.removeprefix("ites::").removesuffix("_backward")
    return name in EMULATED if op in RAW else name.startswith("mirrored_")


RAW: dict[str, Callable[[Values], Arguments]] = {}
for _name in list(globals()):
    if _name.startswith("_raw_"):
        _make, _op = globals()[_name], _name.removeprefix("_raw_")
        RAW[f"ites::{_op}"] = lambda v, make=_make: make(v, False)
        if f"ites::{_op}_backward" in schemas():
            RAW[f"ites::{_op}_backward"] = lambda v, make=_make: make(v, True)
OPS = {**PUBLIC, **RAW}


# What is done to valid arguments.


def _reshaped(v: Values, t: Tensor) -> Tensor:
    shape = list(t.shape)
    kind = v.random.randrange(4)
    if kind == 0 or not shape:
        shape.insert(v.random.randint(0, len(shape)), v.random.choice((0, 1, 2)))
    elif kind == 1:
        shape.pop(v.random.randrange(len(shape)))
    else:
        at = v.random.randrange(len(shape))
        shape[at] = max(0, v.random.choice((0, 1, shape[at] - 1, shape[at] + 1, 2 * shape[at])))
    if t.is_floating_point():
        return v.normal(*shape).to(t.dtype)
    return torch.zeros(shape, dtype=t.dtype)


def _strided(v: Values, t: Tensor) -> Tensor:
    """The same values, with gaps between them."""
    if not t.ndim:
        return t
    wide = torch.zeros(*t.shape[:-1], 2 * t.shape[-1], dtype=t.dtype)
    wide[..., ::2] = t
    return wide[..., ::2]


def _expanded(v: Values, t: Tensor) -> Tensor:
    """Values repeated by strides of 0."""
    return t[:1].expand_as(t) if t.ndim and t.numel() else t


def _offset(v: Values, t: Tensor) -> Tensor:
    """The same values, not at the start of their storage."""
    return torch.cat([t.new_zeros(1), t.flatten()])[1:].view(t.shape)


def _changed(v: Values, t: Tensor) -> Tensor:
    """One number replaced: an index that leads elsewhere, or a small number."""
    t = t.clone()
    if t.numel():
        at = v.random.randrange(t.numel())
        worst = (-1, 10**6, 2**31 - 1, -(2**31), 3) if t.dtype == torch.int32 else (-7, 0, 1)
        t.view(-1)[at] = v.random.choice(worst)
    return t


def _reversed(v: Values, t: Tensor) -> Tensor:
    return t.flip(0) if t.ndim else t


def _without_storage(v: Values, t: Tensor) -> Tensor:
    t = t.clone()
    t.untyped_storage().resize_(v.random.choice((0, t.untyped_storage().nbytes() // 2)))
    return t


def _requires_grad(v: Values, t: Tensor) -> Tensor:
    return t.detach().clone().requires_grad_(t.is_floating_point() or t.is_complex())


TENSORS: tuple[Callable[[Values, Tensor], Tensor], ...] = (
    _reshaped,
    _reshaped,
    _strided,
    _expanded,
    _offset,
    _changed,
    _reversed,
    _requires_grad,
    lambda v, t: t.to(v.random.choice(DTYPES)),
    lambda v, t: t.to(v.random.choice(DTYPES)),
    lambda v, t: t.mT.contiguous().mT if t.ndim > 1 else t,
    lambda v, t: t.new_zeros(()),
    lambda v, t: t.new_zeros(0),
)
FOREIGN: tuple[Callable[[Values, Tensor], Tensor], ...] = (
    lambda v, t: t.to("meta"),
    lambda v, t: t.to_sparse(),
    lambda v, t: torch._neg_view(t) if t.is_floating_point() else t,
    _without_storage,
)


def _mutated(v: Values, value: Any) -> Any:
    if isinstance(value, Graph):
        name = v.random.choice(Graph._fields)
        return value._replace(**{name: _mutated(v, getattr(value, name))})
    if isinstance(value, NormLayers):
        name = v.random.choice(NormLayers._fields)
        return value._replace(**{name: _mutated(v, getattr(value, name))})
    if isinstance(value, list):
        at = v.random.randrange(len(value)) if value else 0
        kind = v.random.randrange(6) if value else 0
        if kind == 0:
            return v.random.choice(([], value[:at], value[at:]))
        if kind == 1:
            return [*value, value[at]]
        return [*value[:at], _mutated(v, value[at]), *value[at + 1 :]]
    if isinstance(value, RotationDraw):
        name = v.random.choice(("counter", "samples", "axes", "max_angle"))
        parts = {n: getattr(value, n) for n in ("counter", "samples", "axes", "max_angle")}
        return RotationDraw(**{**parts, name: _mutated(v, parts[name])})
    if isinstance(value, TurnDraw):
        name = v.random.choice(("counter", "elevation", "spread", "samples"))
        parts = {n: getattr(value, n) for n in ("counter", "elevation", "spread", "samples")}
        return TurnDraw(**{**parts, name: _mutated(v, parts[name])})
    if isinstance(value, Tensor):
        return v.random.choice((*TENSORS, FOREIGN[0]))(v, value)
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return v.random.choice((*INTEGERS, value + 1, value - 1))
    if isinstance(value, float):
        return v.random.choice(FLOATS)
    if isinstance(value, str):
        return v.random.choice(("", "w", "xx", "zyx"))
    return v.random.choice((None, v.normal(3), v.normal(2), torch.zeros(3, dtype=torch.int64)))


def arguments_of(op: str, seed: int, case: int) -> Arguments:
    """The arguments of a case, the same each time.

    Raises:
        ValueError, TypeError, RuntimeError: a draw refuses its own.
    """
    v = Values(f"{op} {seed} {case}")
    if is_emulated(op) and v.random.random() < 0.8:
        v.dtype = torch.float32  # as those kernels take
    arguments = OPS[op](v)
    for _ in range(v.random.choice((0, 1, 1, 1, 2, 3))):
        name = v.random.choice(list(arguments))
        arguments[name] = _mutated(v, arguments[name])
    if op in RAW and v.random.random() < 0.2:  # last, as PyTorch itself dies of some
        name = v.random.choice(list(arguments))
        if isinstance(arguments[name], Tensor) and not arguments[name].is_meta:
            arguments[name] = v.random.choice(FOREIGN)(v, arguments[name].detach())
    return arguments


def shown(value: Any) -> str:
    if isinstance(value, Tensor):
        stride = value.stride() if value.layout == torch.strided else value.layout
        grad = ", requires_grad" if value.requires_grad else ""
        text = f"{value.dtype} {tuple(value.shape)} stride {stride} {value.device}{grad}"
        kept = value.layout == torch.strided and value.untyped_storage().nbytes()
        if kept and value.dtype == torch.int32 and not value.is_meta and value.numel() < 60:
            text += f" {value.tolist()}"
        return text
    if isinstance(value, (Graph, NormLayers)):
        return f"{type(value).__name__}({', '.join(shown(item) for item in value)})"
    if isinstance(value, list):
        return f"[{', '.join(map(shown, value))}]"
    if isinstance(value, (RotationDraw, TurnDraw)):
        return f"{type(value).__name__}({', '.join(shown(x) for x in vars(value).values())})"
    return repr(value)


# The right answers.


def _cut(value: Any) -> Any:
    if isinstance(value, list):
        return [_cut(item) for item in value]
    return value.detach() if isinstance(value, Tensor) else value


def _flat(value: Any) -> list[Any]:
    """The tensors and None in nested lists and tuples, in their order."""
    if isinstance(value, (list, tuple)):
        return [item for part in value for item in _flat(part)]
    return [value]


def _raw_rotations(a: Arguments) -> Any:
    rotations = a.get("counter", a.get("rotations"))
    if rotations.dtype != torch.int64:
        return rotations
    if a["elevation"] is not None:
        return TurnDraw(rotations, a["elevation"], a["spread"], a["samples"])
    axes = "".join(axis for bit, axis in enumerate("xyz") if a["axes"] >> bit & 1)
    return RotationDraw(rotations, a["samples"], axes, a["max_angle"])


def _forward(op: str, a: Arguments) -> tuple[list[str], Callable[..., Any]]:
    """The names of the inputs that have a gradient, and the op's outputs as a function of them."""
    if op == "so3_exp":
        return ["w"], lambda w: ops.so3_exp(w, "reference")
    if op == "rotate_project":

        def rotate(joints, elevation):
            draw = _raw_rotations({**a, "elevation": elevation})
            return ops.rotate_project(joints, draw, a["distance"], True, "reference")

        return ["joints", "elevation"], rotate
    if op == "equivariance_distance":

        def lifted(joints, points, depth, elevation):
            draw = _raw_rotations({**a, "elevation": elevation})
            depth = depth[..., None]
            return ops.equivariance_distance(
                joints, points, depth, draw, a["distance"], "reference"
            )

        return ["joints", "points", "depth", "elevation"], lifted
    if op == "dictionary_reprojection":
        names = ["coefficients", "dictionary", "mean", "rotation_vector"]
        return names, lambda *given: ops.dictionary_reprojection(
            *given, a["target"], a["distance"], "reference"
        )
    if op == "invariance_distance":
        names = ["coefficients", "dictionary", "mean", "canonical"]
        return names, lambda *given: ops.invariance_distance(*given, "reference")
    if op in ("graph_mix", "graph_project_mix"):
        graph = Graph(a["row_start"], a["columns"], a["pairs"])

        def mixed(features, logits, bias, v, residual=None):
            v = v if len(v) else None
            y, t = ops.graph_mix(
                features, logits, bias, graph, a["channels"], v, residual, "reference"
            )
            return y, features.new_empty(*features.shape[:2], 0) if t is None else t

        if op == "graph_mix":
            names = ["features", "logits", "bias", "v"]
            return names, lambda *given: mixed(*given, a.get("residual"))
        names = ["x", "projection", "logits", "bias", "v"]

        def projected(x, projection, *parameters):
            features = x @ projection
            if "features" in a:  # a gradient is taken where they were kept
                features = features + (a["features"] - features).detach()
            kept = features if a.get("keep", True) else features[:0]
            return *mixed(features, *parameters, x if a["residual"] else None), kept

        return names, projected
    if op == "batch_norm_relu":
        names = ["x", "weight", "bias", "skip"]
        return names, lambda *given: ops.batch_norm_relu(
            *given, a["relu"], a["skip_after"], a["eps"], "reference"
        )
    if op == "linear_nested_norm_relu":
        names = ["x", "matrix", "inner_weight", "inner_bias", "added", "weight", "bias", "skip"]

        def ended(x, matrix, inner_weight, inner_bias, added, weight, bias, skip):
            product, form = x @ matrix.T, (True, True, a["eps"], "reference")
            sums, *inner = ops.batch_norm_relu(
                product, inner_weight, inner_bias, added, False, *form[1:]
            )
            y, *outer = ops.batch_norm_relu(sums, weight, bias, skip, *form)
            return y, product, sums, torch.stack([*inner, *outer])

        return names, ended
    names = ["x", "weight"]
    bias = a.get("bias")
    return names, lambda x, weight: torch.nn.functional.linear(x, weight, bias)


def _batch_norm_gradient(a: Arguments) -> list[Tensor | None]:
    """By the formula, as the statistics are arguments, which need not be those of x."""
    x, skip = a["x"], a["skip"]
    scale = (a["var"] + a["eps"]).rsqrt()
    normal = (x - a["mean"]) * scale
    inner = normal * a["weight"] + a["bias"]
    own_skip = skip is not None and a["relu"] and not a["skip_after"]
    inner = inner + skip if own_skip else inner
    grad = torch.where(inner > 0, a["grad"], 0.0) if a["relu"] else a["grad"]
    means = (grad.mean(0), (grad * normal).mean(0)) if len(x) else (grad.sum(0), grad.sum(0))
    to_x = (grad - means[0] - normal * means[1]) * scale * a["weight"]
    return [to_x, (grad * normal).sum(0), grad.sum(0), grad if own_skip else grad.new_empty(0)]


def _ended_gradient(a: Arguments) -> list[Tensor | None]:
    """By the formula, as the product, the sum and the statistics are arguments."""
    mean, var, outer_mean, outer_var = a["statistics"]
    same = {"skip": None, "skip_after": False, "eps": a["eps"]}
    outer = {"x": a["sum"], "grad": a["grad"], "weight": a["weight"], "bias": a["bias"]}
    outer |= {"mean": outer_mean, "var": outer_var, "relu": True, **same}
    to_sum, to_weight, to_bias, _ = _batch_norm_gradient(outer)
    inner = {"x": a["product"], "grad": to_sum, "mean": mean, "var": var, "relu": False, **same}
    inner |= {"weight": a["inner_weight"], "bias": a["inner_bias"]}
    to_product, *to_inner, _ = _batch_norm_gradient(inner)
    assert to_product is not None
    to_x, to_matrix = to_product @ a["matrix"], to_product.T @ a["x"]
    return [to_x, to_matrix, *to_inner, to_sum, to_weight, to_bias]


def _nested_statistics(a: Arguments, eps: float) -> Tensor:
    """(5, C): what the CUDA kernels keep; mean and variance of x and of the sum, covariance."""
    x, added = a["x"], a["added"]
    if not len(x):
        return x.new_zeros(5, x.shape[1])
    given = [a[name].detach() for name in ("inner_weight", "added", "weight", "bias")]
    _, four = ops.nested_norm_relu(x.detach(), *given, None, eps, "reference")
    covariance = ((x - x.mean(0)) * (added - added.mean(0))).mean(0)
    return torch.cat([four, covariance.detach()[None]])


def _nested_gradient(a: Arguments) -> list[Tensor | None] | None:
    """By differentiation; None where the statistics are not those of x and added."""
    names = ("x", "inner_weight", "added", "weight", "bias")
    wide = {name: a[name].double().requires_grad_() for name in names}
    kept, exact = a["statistics"].double(), _nested_statistics(wide, a["eps"])
    largest = exact.abs().nan_to_num().flatten().tolist()
    if not torch.allclose(kept, exact, 1e-3, 1e-3 * max(largest, default=0)):
        return None
    with torch.enable_grad():
        y, _ = ops.nested_norm_relu(*wide.values(), None, a["eps"], "reference")
    grads = torch.autograd.grad(y, [*wide.values()], a["grad"].double())
    return [grad.to(a[name].dtype) for name, grad in zip(names, grads, strict=True)]


def _product(a: Tensor, b: Tensor, bits: int) -> Tensor:
    rounded = {23: lambda x: x, 10: rounding.tf32, 7: rounding.bf16}[bits]
    return rounded(a.contiguous()) @ rounded(b.contiguous())


def _chain(x, weights, gammas, betas, skips, eps, bits=23, **_: Any) -> list[Tensor]:
    """Of each layer in turn its output, product, mean and biased variance."""
    found: list[Tensor] = []
    for weight, gamma, beta, skip in zip(weights, gammas, betas, skips, strict=True):
        product = _product(x, weight.T, bits)
        var, mean = torch.var_mean(product, 0, correction=0)
        x = (product - mean) * (var + eps).rsqrt() * gamma + beta
        x = (x if skip < 0 else x + found[4 * skip]).relu()
        found += [x, product, mean, var]
    return found


def _chain_gradient(a: Arguments) -> list[Tensor | None]:
    """By the formula, as the outputs and statistics are arguments."""
    count = len(a["weights"])
    added = [torch.zeros_like(output) for output in a["outputs"]]
    added[-1] = added[-1] + a["grad"]
    grads: list[Any] = [None] * (3 * count)
    for i in reversed(range(count)):
        behind: Any = 0.0
        if i + 1 < count:
            behind = _product(grads[i + 1], a["weights"][i + 1], a["bits"])
        grad = torch.where(a["outputs"][i] > 0, behind + added[i], 0.0)
        if a["skips"][i] >= 0:
            added[a["skips"][i]] = added[a["skips"][i]] + grad
        scale = (a["vars"][i] + a["eps"]).rsqrt()
        normal = (a["products"][i] - a["means"][i]) * scale
        sums = (grad * normal).sum(0), grad.sum(0)
        grads[count + i], grads[2 * count + i] = sums
        means = (grad * normal).mean(0), grad.mean(0)
        grads[i] = (grad - means[1] - normal * means[0]) * scale * a["gammas"][i]
    return grads


def _layers_of(parameters: list[Tensor]) -> list[list[Tensor]]:
    return [parameters[i : i + len(JOINED)] for i in range(0, len(parameters), len(JOINED))]


def _joined_gradient(a: Arguments) -> list[Tensor | None]:
    parameters = [tensor.detach().requires_grad_() for tensor in a["parameters"]]
    with torch.enable_grad():
        columns = a["grads"][0].shape[1]
        outputs = _flat([_join(layer, columns) for layer in _layers_of(parameters)])
    return list(torch.autograd.grad(outputs, parameters, a["grads"], materialize_grads=True))


def _of_frames(name: str, a: Arguments) -> Tensor:
    """The public op, with other limits of what is impossible and far off."""
    given = dict(a)
    limits = {n.upper(): given.pop(n) for n in ("far", "spreads", "share") if n in given}
    with mock.patch.multiple("ites.ops.frame", **limits):
        return getattr(ops, name)(**given, backend="reference")


def _mirrored(points: Tensor, mirror: Tensor) -> Tensor:
    """Points (B, J, 2) of the mirror images."""
    return points[:, mirror] * points.new_tensor([-1.0, 1.0])


def _reference_of_mirrored_input(a: Arguments) -> list[Tensor]:
    points, (joints, parents) = a["points"], a["bones"]
    lengths = (points[:, joints] - points[:, parents]).norm(dim=-1)
    seen = lengths.isfinite()
    expected = (seen * a["shares"]).sum(1)
    found = a["total"] * expected / lengths.where(seen, 0).sum(1).clamp(min=1e-9)
    scales = torch.where(expected > 0, found, 1.0)
    scaled = points * scales[:, None, None]
    both = torch.cat([scaled, _mirrored(scaled, a["mirror"])])
    there = points.isfinite().all(-1)
    there = torch.cat([there, there[:, a["mirror"]]])
    whole = both.where(there[..., None], 0)
    mean = whole.sum(1, keepdim=True) / there.sum(1).clamp(min=1)[:, None, None]
    whole = (a["factor"] * (whole - mean)).where(there[..., None], 0)
    return [whole, (~there).to(points.dtype), scales]


def _reference_of_mirrored_output(a: Arguments) -> list[Tensor]:
    root, mirror, distance = a["root"], a["mirror"], a["distance"]
    scale = a["scales"][:, None, None]
    points = a["points"] * scale
    points = points.where(a["points"].isfinite().all(-1, keepdim=True), torch.nan)
    camera, direct = a["camera"], a["direct"][..., None]
    flat = camera[..., :2] / (camera[..., 2:] + distance).clamp(min=1)
    (p1, p2), (d1, d2) = (
        (t - t[:, root, None]).unflatten(0, (2, -1)) for t in (flat, camera[..., 2:] + direct)
    )
    depth, guess = (d1 + d2[:, mirror]) / 2, (p1 + _mirrored(p2, mirror)) / 2
    seen = points.isfinite()
    away = (points - guess).where(seen, 0).sum(1, keepdim=True) / seen.sum(1).clamp(min=1)[:, None]
    at_root = (points - guess)[:, root, None]
    whole = torch.where(seen, points, guess + torch.where(seen[:, root, None], at_root, away))
    whole = whole - whole[:, root, None]
    moved = (guess - whole).where(seen, 0)
    count = seen.all(-1).sum(1).clamp(min=1)
    square = (moved.square().sum((1, 2)) / count).clamp(min=1e-12)
    share = (1 - a["noiseless"] / square).clamp(0, a["most_moved"])[:, None, None]
    whole = whole + share * moved
    whole, depth = (whole - whole[:, root, None]) / scale, depth / scale
    if a["original"] is not None:  # the second pass, of points that the first has completed
        kept = a["original"].isfinite().all(-1).all(-1)[:, None, None]
        whole, depth = a["points"], torch.where(kept, a["depth"], depth)
    return [whole, depth, torch.cat([whole * (depth + distance).clamp(min=1), depth], -1)]


def _emulated_reference(name: str, a: Arguments) -> list[Tensor | None] | None:
    """What a valid call of an op of the CUDA backend gives; None where that is not known."""
    if name == "linear_relu":
        return [ops.linear_relu(**a, backend="reference")]
    if name == "linear_norm_relu":
        found = _chain(**a)
        return [tensor for i in range(4) for tensor in found[i::4]]
    if name == "linear_norm_relu_backward":
        return _chain_gradient(a)
    if name == "weight_gradients":
        factors = zip(a["grads"], a["inputs"], strict=True)
        pairs = [_product(grad.T, x, a["bits"]) for grad, x in factors]
        count = len(pairs) // a["parts"]
        return [sum(pairs[i::count]) for i in range(count)]
    if name == "nested_norm_relu":
        y, _ = ops.nested_norm_relu(**a, backend="reference")
        return [y, _nested_statistics(a, a["eps"])]
    if name == "nested_norm_relu_backward":
        return _nested_gradient(a)
    if name == "move_running":
        if not a["running_means"]:  # nothing is to be moved
            return [None]
        shifts = [shift if shift.numel() else None for shift in a.pop("shifts")]
        variances = a.pop("vars")
        ops.move_running(**a, variances=variances, shifts=shifts, backend="reference")
        return [None]
    if name == "join_graph_layers":
        return _flat([_join(layer, a["columns"]) for layer in _layers_of(a["parameters"])])
    if name == "join_graph_layers_backward":
        return _joined_gradient(a)
    if name in ("frame_points", "frame_metres"):
        return [_of_frames(name, a)]
    if name == "mirrored_input":
        return _reference_of_mirrored_input(a)
    return _reference_of_mirrored_output(a)


def _raw_reference(op: str, a: Arguments) -> list[Tensor | None]:
    """What a valid call gives: outputs, or for a gradient those of the inputs that have one."""
    name = op.removeprefix("ites::")
    if name == "philox":
        return [ops.philox(**a, backend="reference")]
    if name == "draw_rotations":
        return [ops.draw_rotations(_raw_rotations(a), a["poses"], a["like"], "reference")]
    if name == "batch_norm_relu_backward":
        return _batch_norm_gradient(a)
    if name == "linear_nested_norm_relu_backward":
        return _ended_gradient(a)
    names, function = _forward(name.removesuffix("_backward"), a)
    if not name.endswith("_backward"):
        outputs = function(*(a[n] for n in names))
        outputs = list(outputs) if isinstance(outputs, tuple) else [outputs]
        if name == "rotate_project" and not a["with_rotated"]:
            outputs[1] = outputs[1].new_empty(0)
        return outputs
    inputs = [None if a[n] is None else a[n].detach().requires_grad_() for n in names]
    with torch.enable_grad():
        outputs = function(*inputs)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    grads = [value for n, value in a.items() if n == "grad" or n.startswith("grad_")]
    pairs = [
        (o, g) for o, g in zip(outputs, grads, strict=False) if g is not None and o.requires_grad
    ]
    wanted = [t for t in inputs if t is not None]
    found: list[Tensor | None] = [None] * len(wanted)
    if pairs:
        found = list(
            torch.autograd.grad(
                [o for o, _ in pairs], wanted, [g for _, g in pairs], allow_unused=True
            )
        )
    rest = iter([torch.zeros_like(t) if g is None else g for t, g in zip(wanted, found)])  # noqa: B905
    answers = [a[names[0]].new_empty(0) if a[n] is None else next(rest) for n in names]
    if name == "linear_backward":
        answers = [g if a[f"to_{n}"] else g[:0] for n, g in zip(names, answers, strict=True)]
    return answers


# One case.


def _call(function: Callable[..., Any], a: Arguments) -> tuple[list[Tensor | None] | None, str]:
    """The outputs, or the refusal. Any other exception than a clean refusal goes on."""
    try:
        outputs = function(a)
    except REFUSALS as error:
        return None, f"{type(error).__name__}: {error}"
    return list(outputs) if isinstance(outputs, (tuple, list)) else [outputs], ""


def _difference(ours: list[Tensor | None], theirs: list[Tensor | None]) -> str:
    """How two answers differ; empty where they are the same but for rounding."""
    if len(ours) != len(theirs):
        return f"{len(ours)} outputs, not {len(theirs)}"
    for number, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        if a is None or b is None:
            if a is not b:
                return f"output {number} is None on one side alone"
            continue
        if a.shape != b.shape or a.dtype != b.dtype:
            return f"output {number} is {shown(a)}, not {shown(b)}"
        if a.is_meta or not a.numel():
            continue
        bound = 1e-9 if a.dtype == torch.float64 else 2e-2 if a.element_size() == 2 else 1e-3
        scale = b.detach().double().nan_to_num(0, 0, 0).abs().max().clamp(min=1)
        if not torch.allclose(a.detach().double(), b.detach().double(), bound, bound * scale, True):
            return f"output {number} is off by {(a - b).abs().max():.3g} of {scale:.3g}"
    return ""


def _doubtful(op: str, a: Arguments) -> Tensor:
    """(C,): whether rounding decides a channel of a batch norm: it has no variance and no eps, or
    its ReLU's gradient is taken at 0."""
    x, eps = a["x"].detach().double(), a["eps"]
    var, mean = torch.var_mean(x, 0, correction=0)
    if op.endswith("_backward"):
        var, mean = a["var"].double(), a["mean"].double()
    size = x.abs().amax(0).clamp(min=1)
    doubtful = var + eps <= 1e-12 * size * size
    if not a["relu"] or not op.endswith("_backward"):
        return doubtful
    gain = (var + eps).rsqrt() * a["weight"].double()
    inner, bias = (x - mean) * gain, a["bias"].double()
    terms = (x.abs() + mean.abs()) * gain.abs() + bias.abs()
    if a["skip"] is not None and not a["skip_after"]:
        bias, terms = bias + a["skip"].double(), terms + a["skip"].double().abs()
    bound = 1e-12 if a["x"].dtype == torch.float64 else 1e-5
    return doubtful | ((inner + bias).abs() <= bound * terms).any(0)


def _doubtful_ends(a: Arguments) -> Tensor:
    """As `_doubtful`, of the two norms of `linear_nested_norm_relu_backward`."""
    mean, var, outer_mean, outer_var = a["statistics"]
    given = {"eps": a["eps"], "skip": None, "skip_after": False}
    inner = {"x": a["product"], "mean": mean, "var": var, "relu": False}
    outer = {"x": a["sum"], "mean": outer_mean, "var": outer_var, "relu": True}
    outer |= {"weight": a["weight"], "bias": a["bias"]}
    name = "batch_norm_relu_backward"
    return _doubtful(name, inner | given) | _doubtful(name, outer | given)


def _rounded(value: Any, generator: torch.Generator) -> Any:
    """Arguments whose floating numbers are off by some units of their last place."""
    if isinstance(value, list):
        return [_rounded(item, generator) for item in value]
    if isinstance(value, NormLayers):
        return NormLayers(*(_rounded(list(kind), generator) for kind in value))
    if not isinstance(value, Tensor) or not value.is_floating_point():
        return value
    off = torch.randn(value.shape, generator=generator, dtype=torch.float64).to(value.dtype)
    return value.detach() * (1 + 4 * torch.finfo(value.dtype).eps * off)


def _is_unstable(
    reference: Callable[[Arguments], Any], a: Arguments, theirs: list[Tensor | None]
) -> bool:
    """Whether the arguments' rounding decides the answer: of rows that are all equal, for example,
    whose norm divides rounding by the root of eps."""
    generator = torch.Generator().manual_seed(0)
    near, _ = _call(reference, {n: _rounded(t, generator) for n, t in a.items()})
    return near is not None and bool(_difference(near, theirs))


def _without(doubtful: Tensor, outputs: list[Tensor | None]) -> list[Tensor | None]:
    """Outputs (..., C) with 0 in the doubtful channels."""
    return [
        torch.where(doubtful, 0, t) if t is not None and t.shape[-1:] == doubtful.shape else t
        for t in outputs
    ]


def run_case(op: str, seed: int, case: int) -> tuple[str, str]:
    """(outcome, what is wrong): answered, refused, or wrong."""
    try:
        arguments = arguments_of(op, seed, case)
    except REFUSALS:
        return "refused", ""  # by a draw of its own
    name = op.removeprefix("ites::")
    changed = IN_PLACE.get(name, ())
    again = {n: copy.deepcopy(_cut(t)) if n in changed else t for n, t in arguments.items()}
    backend = "cuda" if is_emulated(op) else "cpp"

    def held(a: Arguments) -> list[Any]:
        return _flat([a[n] for n in changed])

    if op in RAW:
        function = getattr(torch.ops.ites, name)
        ours, why = _call(lambda a: [*_flat(function(*a.values(), backend)), *held(a)], arguments)
        if ours is None:
            return "refused", ""
        if any(isinstance(t, Tensor) and t.is_meta for t in _flat([*arguments.values()])):
            return "answered", ""  # shapes alone
        of_raw = _emulated_reference if is_emulated(op) else _raw_reference
        again = {n: _cut(t) for n, t in again.items()}

        def reference(a: Arguments) -> Any:
            return _with(of_raw(name, dict(a)), held(a))

        theirs, other = _call(reference, again)
        if theirs == [_UNKNOWN]:
            return "answered", ""
    else:
        function = getattr(ops, op)
        takes = "backend" in inspect.signature(function).parameters
        named = {"backend": backend} if takes else {}
        ours, why = _call(lambda a: [*_flat(function(**a, **named)), *held(a)], arguments)
        if ours is None and op in _REFERENCES:  # which take what they can
            return "refused", ""
        alone = _REFERENCES.get(op) or (lambda a: function(**a, backend="reference"))

        def reference(a: Arguments) -> Any:
            return [*_flat(alone(a)), *held(a)]

        theirs, other = _call(reference, again)
        if ours is None and (theirs is None or "cannot run here" in why):
            return "refused", ""
    if ours is None:
        return "wrong", f"refused by C++ alone: {why}"
    if theirs is None:
        return "wrong", f"answered by C++ alone; the reference: {other}"
    difference = _difference(ours, theirs)
    if difference and op.endswith(("batch_norm_relu", "batch_norm_relu_backward")):
        doubtful = _doubtful(op, arguments)
        difference = _difference(_without(doubtful, ours), _without(doubtful, theirs))
    if difference and op == "ites::linear_nested_norm_relu_backward":
        doubtful = _doubtful_ends(arguments)
        difference = _difference(_without(doubtful, ours), _without(doubtful, theirs))
    if difference and name in CHAINS and _is_unstable(reference, again, theirs):
        return "answered", ""
    return ("wrong", difference) if difference else ("answered", "")


_UNKNOWN = "unknown"
_REFERENCES: dict[str, Callable[[Arguments], Any]] = {
    "mirrored_input": _reference_of_mirrored_input,
    "mirrored_output": _reference_of_mirrored_output,
}
"""Of public ops that have no reference backend."""


def _with(outputs: list[Any] | None, held: list[Any]) -> list[Any]:
    return [_UNKNOWN] if outputs is None else [*outputs, *held]


# All cases of an op, in a process of its own that may die.


def _child(op: str, seed: int, first: int, last: int, progress: Path) -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    if is_emulated(op):
        from emulated_cuda.plugin import stand_in

        stand_in()
    with progress.open("r+b", buffering=0) as file:
        for case in range(first, last):
            file.seek(0)
            file.write(struct.pack("q", case))
            try:
                outcome, why = run_case(op, seed, case)
            except Exception as error:  # whatever it is, it is no clean refusal
                outcome, why = "wrong", f"{type(error).__name__}: {error}"
            print(f"{case}\t{outcome}\t{' '.join(why.split())}", flush=True)


def run_op(op: str, seed: int, count: int, first: int = 0) -> tuple[Counter[str], list[str]]:
    """How often each outcome came from case `first` to `count`, and a line per wrong one."""
    outcomes: Counter[str] = Counter()
    faults = []
    with tempfile.TemporaryDirectory() as folder:
        progress = Path(folder) / "case"
        while first < count:
            progress.write_bytes(struct.pack("q", first))
            command = [sys.executable, __file__, "--child", str(progress), "--op", op]
            command += ["--seed", str(seed), "--first", str(first), "--count", str(count)]
            done = subprocess.run(command, capture_output=True, text=True)
            for line in done.stdout.splitlines():
                case, outcome, why = line.split("\t")
                outcomes[outcome] += 1
                if outcome == "wrong":
                    faults.append(_fault(op, seed, int(case), why))
            if done.returncode == 0:
                break
            (at,) = struct.unpack("q", progress.read_bytes())
            outcomes["died"] += 1
            how = done.stderr.strip().splitlines()[-1:] or [""]
            if done.returncode < 0:
                how = [signal.Signals(-done.returncode).name]
            faults.append(_fault(op, seed, at, f"died: {how[0]}"))
            first = at + 1
    return outcomes, faults


def _fault(op: str, seed: int, case: int, why: str) -> str:
    arguments = arguments_of(op, seed, case)
    given = "".join(f"\n    {name}: {shown(value)}" for name, value in arguments.items())
    return f"{op} --seed {seed} --case {case}: {why}{given}"


COLUMNS = ("op", "sets", "answered", "refused", "wrong", "process died")


def named(op: str) -> str:
    """An op as a program calls it."""
    return f"`torch.ops.{op.replace('::', '.')}`" if op in RAW else f"`ites.ops.{op}`"


def go_on(ops_to_run: list[str], seed: int, count: int) -> int:
    """Go on with the published table until every op has so many cases; how many were wrong."""
    from benchmarks.reliability.tables import RESULTS, renew

    path = RESULTS / "ops.csv"
    with path.open(encoding="utf-8", newline="") if path.exists() else nullcontext(()) as file:
        rows = {row["op"]: row for row in csv.DictReader(file)}
    wrong = 0
    for last in range(PORTION, count + PORTION, PORTION):
        for op in ops_to_run:
            row = rows.get(named(op), dict.fromkeys(COLUMNS, 0))
            done, last = int(row["sets"]), min(last, count)
            if done >= last:
                continue
            outcomes, faults = run_op(op, seed, last, done)
            wrong += len(faults)
            print(*faults[:5], sep="\n", end="\n" * bool(faults), flush=True)
            found = (outcomes[name] for name in ("answered", "refused", "wrong", "died"))
            numbers = [int(row[c]) + n for c, n in zip(COLUMNS[2:], found, strict=True)]
            values = (named(op), sum(numbers), *numbers)
            rows[named(op)] = dict(zip(COLUMNS, values, strict=True))
            print(*values, flush=True)
            renew("ops", COLUMNS, COLUMNS[:1], [rows[named(op)]])
    return wrong


PORTION = 5000
"""Cases of an op in a process of its own, when the published table is continued."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--publish", action="store_true", help="continue the table in docs/reliability.md"
    )
    parser.add_argument("--op", choices=OPS, help="this op alone")
    parser.add_argument("--count", type=int, default=1000, help="cases per op")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--case", type=int, help="show and run one case, in this process")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--first", type=int, default=0, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        _child(options.op, options.seed, options.first, options.count, options.child)
        return 0
    if options.case is not None:
        if is_emulated(options.op):
            from emulated_cuda.plugin import stand_in

            stand_in()
        print(_fault(options.op, options.seed, options.case, "..."))
        print(*run_case(options.op, options.seed, options.case))
        return 0
    if options.publish:
        return int(go_on([options.op] if options.op else [*OPS], options.seed, options.count) > 0)
    wrong = 0
    print(f"{'op':<42} {'answered':>9} {'refused':>9} {'wrong':>6} {'died':>6}")
    for op in [options.op] if options.op else OPS:
        outcomes, faults = run_op(op, options.seed, options.count)
        columns = (outcomes[name] for name in ("answered", "refused", "wrong", "died"))
        print("{:<42} {:>9} {:>9} {:>6} {:>6}".format(op, *columns), flush=True)
        for fault in faults[:5]:
            print(fault)
        wrong += len(faults)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
