"""Count the kernels that a training step and a lifted frame launch on a GPU, on any machine.

    python -m benchmarks.speed.launches            counts by part
    python -m benchmarks.speed.launches --operators  and by operator

The operators of a step are recorded on a CPU while the backend "cuda" stands for kernels that
return empty results. Not run on a GPU: what an operator launches is written down here.
"""

from __future__ import annotations

import argparse
import io
import math
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple
from unittest import mock

import torch
from rich.console import Console
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from ites.inference.stream import Lifter
from ites.models import (
    GeneralTeacher,
    Student,
    Teacher,
    UprightStudent,
    UprightTeacher,
    general,
)
from ites.ops import _registry, backends
from ites.pose.skeleton import HUMAN36M
from ites.runs.checkpoint import Metadata, save_model
from ites.runs.folder import RunFolder
from ites.runs.settings import make_settings
from ites.training.loop import Training
from ites.training.schedule import StepShape
from ites.training.stages import make_stage
from ites.training.step import Step

_FREE = """
alias as_strided chunk detach diagonal empty empty_like empty_strided expand expand_as flatten
new_empty new_empty_strided permute promote_types _reshape_alias scalar_tensor select slice split
split_with_sizes squeeze squeeze_ t transpose unbind unflatten unfold _unsafe_view unsqueeze view
view_as
"""
FREE = frozenset(_FREE.split())
"""Operators of aten that launch nothing: views and allocations."""

SOMETIMES = frozenset(f"aten::to.{name}" for name in ("dtype", "device", "dtype_layout", "other"))
SOMETIMES |= {"aten::reshape", "aten::contiguous"}
"""Operators that launch nothing where the result is the argument or a view of it."""

LAUNCHES = {
    "ites::graph_mix_backward": 2,
    "ites::nested_norm_relu": 2,
    "ites::nested_norm_relu_backward": 2,
    "ites::dictionary_reprojection_backward": 2,
    "ites::invariance_distance_backward": 2,
    "aten::slice_backward": 2,
    "aten::select_backward": 2,
    "aten::sort": 2,
    "aten::argsort": 2,
    "aten::nanmedian": 2,
}
"""Launches of the operators that have more than one."""

FEW_ROWS = 512  # of a norm, up to which it is one launch
FOREACH = 48  # tensors that a launch of a fused optimiser takes at most
CHAINS = {"linear_norm_relu": 1, "linear_norm_relu_backward": 3}
"""Matrices per layer of the operators that launch a kernel per layer, but for their first."""
CAT = 64  # tensors that a launch of a concatenation takes at most


class Call(NamedTuple):
    """A recorded operator: its part of the step, its name, its tensors' shapes."""

    part: str
    name: str
    shapes: list[tuple[int, ...]]

    @property
    def layers(self) -> int:
        """Of a chain's operator, the layers."""
        matrices = sum(len(shape) == 2 for shape in self.shapes) - 1
        return matrices // CHAINS[self.name.split("::")[1]]

    @property
    def launches(self) -> int:
        """Kernels that the operator launches on a GPU."""
        space, name = self.name.split("::")
        if space == "profiler" or (space == "aten" and name in FREE):
            return 0
        if self.name.startswith("ites::batch_norm_relu"):
            return 1 if self.shapes[0][0] <= FEW_ROWS else 2
        if name in CHAINS:
            return self.layers
        if name in ("_fused_sgd_", "_fused_adam_") or name.startswith("_foreach"):
            return math.ceil(len(self.shapes) / 3 / FOREACH)
        if name in ("cat", "stack"):
            return math.ceil(len(self.shapes) / CAT)
        return LAUNCHES.get(self.name, 1)


class Recorder(TorchDispatchMode):
    """Records operators; `part` names where they belong."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Call] = []
        self.part = "forward"

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func.name() in SOMETIMES and result.data_ptr() == args[0].data_ptr():
            return result  # nothing is converted or copied
        tensors: list[Tensor] = []
        for value in args:
            values = value if isinstance(value, (list, tuple)) else (value,)
            tensors += [one for one in values if isinstance(one, Tensor)]
        shapes = [tuple(tensor.shape) for tensor in tensors]
        self.calls.append(Call(self.part, func.name().split(".")[0], shapes))
        return result


@contextmanager
def empty_kernels() -> Iterator[None]:
    """Within it, the backend "cuda" takes CPU tensors and returns zeros."""
    why_not = backends.why_not

    def allowed(backend: str, op: str, device: str, dtype: torch.dtype) -> str | None:
        return why_not(backend, op, "cuda" if backend == "cuda" else device, dtype)

    def kernel(family: str, name: str, backend: str) -> Callable[..., Any]:
        fake = torch._library.simple_registry.singleton.find(f"ites::{name}").fake_impl.kernel

        def run(*operands: Any) -> Any:
            made = fake(*operands, backend)
            for tensor in made if isinstance(made, (tuple, list)) else (made,):
                if tensor is not None:
                    tensor.zero_()
            return made

        return run

    missing = {name: why for name, why in backends.MISSING.items() if name != "cuda"}
    with ExitStack() as stack:
        stack.enter_context(mock.patch.object(backends, "MISSING", missing))
        stack.enter_context(mock.patch.object(backends, "why_not", allowed))
        stack.enter_context(mock.patch.object(backends, "on_gpu", lambda tensor: True))
        stack.enter_context(mock.patch.object(_registry, "_kernel", kernel))
        # What was looked up before holds real kernels, and what is looked up here empty ones.
        stack.enter_context(mock.patch.dict(backends._chosen, clear=True))
        _registry._direct.cache_clear()
        stack.callback(_registry._direct.cache_clear)
        yield


def step_calls(stage: str, **options: Any) -> list[Call]:
    """The operators of one training step of a stage at batch 128 and the paper's sizes."""
    generator = torch.Generator().manual_seed(1)
    points = 0.1 * torch.randn(1024, HUMAN36M.num_joints, 2, generator=generator)
    with empty_kernels(), tempfile.TemporaryDirectory() as folder:
        if stage == "student":
            teacher = Teacher(width=16, blocks=1)
            file = RunFolder(folder).weights("teacher")
            save_model(file, teacher, Metadata("teacher", HUMAN36M, 1.0))
        chosen = {"out": folder, "batch": 128, "backend": "cuda", "device": "cpu", **options}
        made = make_stage(make_settings(stage, options=chosen), HUMAN36M, points - points[:, :1])
        training = Training(made, 1.0, points.device, None, Console(file=io.StringIO()))
        training.advance()
        ranks = training.ranks
        step = Step(made, training.feed, training.optimiser, training.clock, training.recent, ranks)
        recorder = Recorder()
        backward = Tensor.backward

        def marked(self: Tensor, *args: Any, **kwargs: Any) -> None:
            recorder.part = "backward"
            backward(self, *args, **kwargs)
            recorder.part = "optimiser"

        with mock.patch.object(Tensor, "backward", marked), recorder:
            step(StepShape(128, True))
    return recorder.calls


MODELS: dict[str, Callable[[], Teacher | Student]] = {
    "teacher": Teacher,
    "student": Student,
    "upright teacher": lambda: UprightTeacher(width=512, blocks=3, atoms=30),
    "upright student": lambda: UprightStudent(width=64, blocks=3),
    "general": lambda: GeneralTeacher(width=512, blocks=3, atoms=40),
}
"""The models whose frames are counted, at the sizes of their recipes."""


def frame_calls(name: str, focal_length: float | None = 1.0) -> list[Call]:
    """The operators of one lifted frame, captured, by one of `MODELS`.

    Args:
        name: of the model.
        focal_length: of the camera; None: unknown.
    """
    model = MODELS[name]()
    with tempfile.TemporaryDirectory() as folder:
        file = RunFolder(folder).weights(model.kind)
        save_model(file, model, Metadata(model.kind, HUMAN36M, 1.0))
        lifter = Lifter(file, focal_length=focal_length, device="cpu")
    with ExitStack() as stack:
        stack.enter_context(empty_kernels())
        stack.enter_context(backends.using("cuda"))
        stack.enter_context(torch.inference_mode())
        stack.enter_context(mock.patch.object(general, "_recording", lambda: True))
        frame = torch.rand(1, HUMAN36M.num_joints, 2)
        lifter._step(frame)
        with Recorder() as recorder:
            lifter._step(frame)
    return recorder.calls


def launches(calls: list[Call]) -> int:
    """Kernels that recorded operators launch."""
    return sum(call.launches for call in calls)


def main(argv: list[str] | None = None) -> None:
    """Record and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--operators", action="store_true", help="list them too")
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    print("Launches, recorded on a CPU; not run on a GPU")
    for kind, names, record in (
        ("step", ("teacher", "student"), step_calls),
        ("frame", tuple(MODELS), frame_calls),
    ):
        for stage in names:
            calls = record(stage)
            parts = Counter[str]()
            for call in calls:
                parts[call.part] += call.launches
            print(f"{stage} {kind}: {launches(calls)} {dict(parts)}")
            if options.operators:
                by: Counter[tuple[str, str]] = Counter()
                for call in calls:
                    by[call.part, call.name] += call.launches
                for (part, name), count in by.most_common():
                    if count:
                        print(f"  {count:4} {part:10} {name}")


if __name__ == "__main__":
    main()
