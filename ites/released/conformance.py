"""Compare with reference outputs of the released program.

A golden file is an npz of inputs, initial values, random draws and results. Every group of results
that a file holds is computed here from its inputs and compared. The measure of a tensor is its
largest difference over its largest entry. Gradients that are zero in exact arithmetic are measured
by their largest entry alone.

Where the student's max pooling has a tie below float32's rounding, float32 may pick the other joint
of a pair, and all gradients before it differ. That is reported as a tie, with its margin; float64
has none.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ites import ops
from ites.errors import ItesError
from ites.models import Teacher
from ites.models.layers import GraphLayer
from ites.ops import backends
from ites.pose.camera import human36m_cameras, normalise, scale_for
from ites.pose.metrics import ites_protocol
from ites.pose.skeleton import HUMAN36M
from ites.released.convert import convert_model, convert_tensors
from ites.runs.checkpoint import Model
from ites.system.files import load_npz, reading

BOUNDS = {torch.float64: 1e-8, torch.float32: 1e-4}
ZERO_BOUNDS = {torch.float64: 1e-12, torch.float32: 1e-4}
SINGLE_BOUND = 1e-6
"""For results that the released program gives in float32, whatever our precision."""


@dataclass(frozen=True)
class Check:
    """One group of results of one file.

    `tie` is the margin of a tie that explains an error beyond the bound, network units, or None.
    """

    group: str
    tensors: int
    worst: str
    error: float
    bound: float
    tie: float | None = None

    @property
    def passed(self) -> bool:
        """Whether the largest error is within the bound; NaN is not."""
        return self.error <= self.bound

    @property
    def tied(self) -> bool:
        """Whether the error is beyond the bound, and a tie explains it."""
        return not self.passed and self.tie is not None


class _Golden(Mapping[str, np.ndarray]):
    """The arrays of a golden file, read when asked for, and which of them were compared."""

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise ItesError(f"{path}: expected a golden npz file, got no file")
        self._arrays = load_npz(path)

    def __getitem__(self, name: str) -> np.ndarray:
        return self._arrays[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)

    def under(self, prefix: str) -> dict[str, np.ndarray]:
        """Arrays whose name begins with `prefix`, by the rest of the name; empty ones left out."""
        return {
            name[len(prefix) :]: array
            for name, array in self._arrays.items()
            if name.startswith(prefix) and array.size
        }


def _error(ours: np.ndarray, golden: np.ndarray) -> float:
    if ours.shape != golden.shape:
        return float("inf")
    difference = np.abs(ours.astype(np.float64) - golden).max(initial=0.0)
    largest = np.abs(golden).max(initial=0.0)
    return float(difference / largest if largest > 0 else difference)


def _compare(
    group: str,
    ours: Mapping[str, Any],
    golden: Mapping[str, np.ndarray],
    bound: float,
    measure: Callable[[np.ndarray, np.ndarray], float] = _error,
) -> Check:
    errors = {}
    for name, value in golden.items():
        mine = ours[name]
        array = mine.detach().cpu().numpy() if isinstance(mine, Tensor) else np.asarray(mine)
        errors[name] = measure(array, value)
    worst = max(errors, key=lambda name: (np.isnan(errors[name]), errors[name]))
    return Check(group, len(errors), worst, errors[worst], bound)


def _absolute(ours: np.ndarray, golden: np.ndarray) -> float:
    return float(np.abs(ours).max(initial=0.0)) if ours.shape == golden.shape else float("inf")


class _Runner:
    """Runs the groups of one golden file in one precision on one device."""

    def __init__(self, golden: _Golden, dtype: torch.dtype, device: torch.device) -> None:
        self.golden, self.dtype, self.device = golden, dtype, device
        self.bound, self.zero_bound = BOUNDS[dtype], ZERO_BOUNDS[dtype]
        self.single = max(self.bound, SINGLE_BOUND)

    def tensor(self, name: str) -> Tensor:
        return torch.from_numpy(self.golden[name]).to(self.device, self.dtype)

    def run(self) -> Iterator[Check]:
        groups = (
            ("so3.R", self.rotations),
            ("teacher.init.", lambda: self.model("teacher")),
            ("student.init.", lambda: self.model("student")),
            ("semgconv.y", self.graph_convolution),
            ("eval.pred", self.evaluation),
            ("camera.world_xyz", self.cameras),
            ("normalize.out", self.normalisation),
        )
        for marker, checks in groups:
            if any(name.startswith(marker) for name in self.golden):
                yield from checks()

    def rotations(self) -> Iterator[Check]:
        golden = {"so3.R": self.golden["so3.R"]}
        ours = {"so3.R": ops.so3_exp(self.tensor("so3.log_rot"))}
        for name in self.golden:
            if name.endswith(".axis"):
                step = name.removesuffix(".axis")
                vector = self.tensor(name) * self.tensor(f"{step}.angle")[:, None]
                golden[f"{step}.R"] = self.golden[f"{step}.R"]
                ours[f"{step}.R"] = ops.so3_exp(vector)
        yield _compare("rotations", ours, golden, self.bound)

    def model(self, kind: str) -> Iterator[Check]:
        """Three optimiser steps from the initial values, then the outputs in evaluation mode."""
        state = self.golden.under(f"{kind}.init.")
        model = convert_model({n: torch.from_numpy(a) for n, a in state.items()})
        model.to(self.device, self.dtype).train()
        optimiser = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9, weight_decay=5e-4)
        steps = sorted({n.split(".")[1] for n in self.golden if n.startswith(f"{kind}.step")})
        results: dict[str, dict[str, Tensor]] = {"outputs": {}, "losses": {}}
        golden: dict[str, dict[str, np.ndarray]] = {"outputs": {}, "losses": {}}
        gradients: dict[str, Tensor] = {}
        golden_gradients: dict[str, np.ndarray] = {}
        for number, step in enumerate(steps):
            prefix = f"{kind}.{step}."
            # The outputs come from a pass of their own, on statistics that are put back after it.
            buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
            with torch.no_grad():
                outputs = self.outputs(model, kind)
            for name, buffer in model.named_buffers():
                buffer.copy_(buffers[name])
            optimiser.zero_grad()
            losses, total = self.losses(model, kind, prefix, number)
            total.backward()
            for part, values in (("outputs", outputs), ("losses", losses)):
                for name, value in values.items():
                    if prefix + name in self.golden:
                        results[part][f"{step}.{name}"] = value
                        golden[part][f"{step}.{name}"] = self.golden[prefix + name]
            for name, array in self.released(f"{prefix}grad.").items():
                golden_gradients[f"{step}.{name}"] = array
            for name, parameter in model.named_parameters():
                gradients[f"{step}.{name}"] = torch.zeros_like(parameter)
                if parameter.grad is not None:
                    gradients[f"{step}.{name}"].copy_(parameter.grad)
            optimiser.step()
        for part in ("outputs", "losses"):
            if golden[part]:
                yield _compare(f"{kind} {part}", results[part], golden[part], self.bound)
        zero = {n: a for n, a in golden_gradients.items() if self.vanishes(n, kind)}
        other = {n: a for n, a in golden_gradients.items() if n not in zero}
        if other:
            yield _compare(f"{kind} gradients", gradients, other, self.bound)
        if zero:
            yield _compare(f"{kind} zero gradients", gradients, zero, self.zero_bound, _absolute)
        after = self.released(f"{kind}.after3.")
        if after:
            yield _compare(f"{kind} after 3 steps", model.state_dict(), after, self.bound)
        evaluated = self.golden.under(f"{kind}.eval.")
        if evaluated:
            with torch.no_grad():
                outputs = self.outputs(model.eval(), kind)
            yield _compare(f"{kind} evaluation", outputs, evaluated, self.bound)

    def released(self, prefix: str) -> dict[str, np.ndarray]:
        """Golden tensors of a model under our names and layouts."""
        arrays = {n: torch.from_numpy(a) for n, a in self.golden.under(prefix).items()}
        return {name: tensor.numpy() for name, tensor in convert_tensors(arrays).items()}

    @staticmethod
    def vanishes(name: str, kind: str) -> bool:
        """Whether a gradient is zero in exact arithmetic: what it shifts, normalisation removes."""
        if kind == "teacher":
            return bool(re.search(r"(\.input|\.linear\d)\.bias$", name))
        return bool(re.search(r"(\.input|\.conv|\.non_local\.out|\.non_local\.norm)\.bias$", name))

    def outputs(self, model: Model, kind: str) -> dict[str, Tensor]:
        points = self.tensor(f"{kind}.input")
        if isinstance(model, Teacher):
            out = model(points)
            return {
                "camera": ops.so3_exp(out.rotation_vector),
                "shape_camera_coord": out.camera_pose,
                "shape_coeff": out.coefficients,
                "shape_invariant": out.canonical,
            }
        depth = model(points)
        pose = torch.cat([points * (depth + model.distance).clamp(min=1), depth], dim=-1)
        return {"depth": depth, "shape_3d": pose}

    def losses(
        self, model: Model, kind: str, prefix: str, step: int
    ) -> tuple[dict[str, Tensor], Tensor]:
        points, rotations = self.tensor(f"{kind}.input"), self.tensor(f"{prefix}R")
        if isinstance(model, Teacher):
            # The golden runs centre the cycle in the steps of even number.
            cycle = model.losses(points, rotations, centre_cycle=step % 2 == 0)
            named = {"reprojection_loss": cycle.reprojection, "cycle_loss": cycle.cycle}
            total = cycle.total()
        else:
            student = model.losses(points, self.tensor("student.teacher_depth"), rotations)
            named = {
                "distillation_loss": student.distillation,
                "equivariance_loss": student.equivariance,
            }
            total = student.total()
        return {**named, "total_loss": total}, total

    def graph_convolution(self) -> Iterator[Check]:
        x, weight, logits, bias = (
            self.tensor(f"semgconv.{name}").requires_grad_() for name in ("x", "W", "e", "bias")
        )
        graph = ops.graph_of(HUMAN36M, self.device)
        y = ops.semantic_graph_conv(x, weight, logits.flatten(), bias, graph)
        y.backward(self.tensor("semgconv.grad_out"))
        ours = {
            "y": y,
            "grad_x": x.grad,
            "grad_W": weight.grad,
            "grad_e": logits.grad,
            "grad_bias": bias.grad,
        }
        golden = {name: self.golden[f"semgconv.{name}"] for name in ours}
        yield _compare("graph convolution", ours, golden, self.bound)

    def evaluation(self) -> Iterator[Check]:
        protocol = ites_protocol(self.tensor("eval.pred"), self.tensor("eval.gt"))
        golden = self.golden.under("eval.")
        ours = {name: getattr(protocol, name) for name in golden if name not in ("pred", "gt")}
        yield _compare(
            "evaluation protocol", ours, {name: golden[name] for name in ours}, self.single
        )

    def cameras(self) -> Iterator[Check]:
        """The four cameras of subject S9, from the world to pixels."""
        world = self.golden["camera.world_xyz"].astype(np.float64)
        ours: dict[str, np.ndarray] = {}
        golden: dict[str, np.ndarray] = {}
        for number, camera in enumerate(human36m_cameras("S9")):
            prefix = f"camera{number}."
            golden |= {prefix + n: self.golden[prefix + n] for n in ("camera_xyz", "pixels")}
            ours[prefix + "camera_xyz"] = camera.world_to_camera(world)
            seen = self.golden[prefix + "camera_xyz"].astype(np.float64)
            ours[prefix + "pixels"] = camera.project(seen)
        yield _compare("cameras", ours, golden, SINGLE_BOUND)

    def normalisation(self) -> Iterator[Check]:
        points = normalise(
            self.golden["normalize.pixels"].astype(np.float64), self.golden["normalize.focal"]
        )
        ours = {"out": points * scale_for(points)}
        yield _compare("normalisation", ours, {"out": self.golden["normalize.out"]}, SINGLE_BOUND)


_WITH_TIES = ("student gradients", "student zero gradients", "student after 3 steps")
"""What a tie of the pooling changes; the outputs are continuous there."""


def _tie(golden: _Golden, groups: set[str]) -> float | None:
    """The margin of a pooling tie that float32 cannot resolve, if it may explain failed groups.

    None where float64 fails in those groups too, or where there is no such tie. Without a tie both
    precisions pick the same joint of every pair.
    """
    pooled: dict[torch.dtype, list[Tensor]] = {}
    for dtype in (torch.float64, torch.float32):
        runner = _Runner(golden, dtype, torch.device("cpu"))
        features: list[Tensor] = []
        handle = torch.nn.modules.module.register_module_forward_pre_hook(
            lambda module, inputs, kept=features: _keep_pooled(module, inputs[0], kept)
        )
        try:
            checks = list(runner.model("student"))
        finally:
            handle.remove()
        pooled[dtype] = [tensor.double() for tensor in features]
        if dtype == torch.float64 and any(c.group in groups and not c.passed for c in checks):
            return None
    smallest = None
    pairs = torch.tensor(HUMAN36M.pooling)
    for exact, rounded in zip(pooled[torch.float64], pooled[torch.float32], strict=True):
        margin = exact[:, pairs[:, 0]] - exact[:, pairs[:, 1]]
        noise = (exact - rounded).abs() + torch.finfo(torch.float32).eps * exact.abs()
        noise = noise[:, pairs].sum(2)
        same = exact[:, pairs].eq(exact[:, pairs[:, :1]]).all(2)  # such as behind a dead ReLU
        tied = margin.abs()[(margin.abs() <= noise) & ~same]
        if tied.numel():
            smallest = min(smallest or math.inf, tied.min().item())
    return smallest


def _keep_pooled(module: torch.nn.Module, x: Tensor, kept: list[Tensor]) -> None:
    """Keep what a graph layer pools of its input: g and phi, (B, J, 2 M)."""
    if isinstance(module, GraphLayer):
        block = module.non_local
        weights = torch.cat([block.g.weight, block.phi.weight])
        kept.append((x @ weights.T).detach())


def check_file(
    path: Path, dtype: torch.dtype = torch.float32, backend: str | None = None
) -> list[Check]:
    """Run every check that a golden file allows.

    Args:
        path: the npz file.
        dtype: float32, or float64 on the reference and C++ backends.
        backend: of the ops; see `ites.ops.backends`.

    Raises:
        ItesError: the file is no golden file, or the backend cannot run here.
    """
    path = Path(path)
    golden = _Golden(path)
    on_gpu = backend in ("cuda", "triton") and torch.cuda.is_available()
    runner = _Runner(golden, dtype, torch.device("cuda" if on_gpu else "cpu"))
    with backends.using(backend), reading(path, "a golden file"):
        checks = list(runner.run())
    failed = [check for check in checks if not check.passed and check.group in _WITH_TIES]
    if failed and dtype == torch.float32:
        with backends.using("reference"), reading(path, "a golden file"):
            tie = _tie(golden, {check.group for check in failed})
        checks = [replace(c, tie=tie) if c in failed else c for c in checks]
    if not checks:
        raise ItesError(f"{path}: expected a golden file, got no group that can be checked")
    return checks
