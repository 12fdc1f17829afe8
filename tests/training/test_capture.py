"""Steps and frames as CUDA graphs: what may be recorded, and that it gives the same numbers."""

from __future__ import annotations

from collections import Counter
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from small_training import numbers, rows, same, teacher_settings, write_store
from torch.utils._python_dispatch import TorchDispatchMode

from ites.data.store import PoseStore
from ites.errors import ItesError
from ites.inference.stream import Lifter
from ites.models import general
from ites.ops import backends
from ites.runs import packaged
from ites.runs.settings import Settings, make_settings, stages_of
from ites.training.engine import train
from ites.training.log import quiet_console
from ites.training.loop import Training
from ites.training.schedule import StepShape
from ites.training.stages import make_stage
from ites.training.step import Captured, Step

STAGES = [(recipe, stage) for recipe in ("paper", "upright") for stage in stages_of(recipe)]


def settings(recipe: str, stage: str, motion: Path, run: Path, **given: Any) -> Settings:
    """Of a small model, for a few steps."""
    small = {"data": str(motion), "out": str(run), "recipe": recipe, "device": "cpu", "steps": 3}
    small |= {"width": 16, "blocks": 1, "batch": 32}
    small |= {} if stage == "prior" else {"backend": "reference"}
    return make_settings(stage, options=small | given)


@pytest.fixture(scope="module")
def runs(motion: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A run folder of each recipe."""
    folders = {recipe: tmp_path_factory.mktemp(recipe) for recipe, _ in STAGES}
    for recipe, stage in STAGES:
        train(settings(recipe, stage, motion, folders[recipe]), console=quiet_console())
    return folders


def training_of(chosen: Settings, motion: Path) -> tuple[Training, Step]:
    """A training by these settings, a step in, and a step of it."""
    with PoseStore(motion) as file:
        points, skeleton = torch.from_numpy(file.points("train")[0]), file.skeleton
    stage = make_stage(chosen, skeleton, points)
    training = Training(stage, 1.0, torch.device("cpu"), None, quiet_console())
    training.advance()  # the optimiser's buffers are made
    own = training.feed, training.optimiser, training.clock, training.recent, training.ranks
    return training, Step(stage, *own)


class _DeviceAlone(TorchDispatchMode):
    """Refuses what waits for the device, or brings it numbers from the host: no graph can hold it.

    On the CPU nothing else would tell. A list of indices, too, becomes a tensor first.
    """

    FORBIDDEN = (
        "aten.lift_fresh",
        "aten._local_scalar_dense",
        "aten.nonzero",
        "aten.masked_select",
        "aten.equal",
        "aten._unique",
    )

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = str(func)
        assert not name.startswith(self.FORBIDDEN), name
        if name.startswith("aten.repeat_interleave.Tensor"):
            assert (kwargs or {}).get("output_size") is not None, name
        if name.startswith(("aten.index.", "aten.index_put")):
            indices = [index for index in args[1] if index is not None]
            assert all(index.dtype not in (torch.bool, torch.uint8) for index in indices), name
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("index", ["a list", "a mask", "a number"])
def test_what_a_graph_cannot_hold_is_refused(index: str) -> None:
    x = torch.arange(3.0)
    with _DeviceAlone():
        assert x[torch.zeros(2, dtype=torch.int64)].sum() is not None
        with pytest.raises(AssertionError, match="aten"):
            _ = {"a list": lambda: x[[0, 2]], "a mask": lambda: x[x > 0], "a number": x[0].item}[
                index
            ]()


@pytest.mark.parametrize("precision", ["float32", "bf16"])
@pytest.mark.parametrize(("recipe", "stage"), STAGES)
def test_a_step_asks_nothing_of_the_host(
    recipe: str, stage: str, precision: str, motion: Path, runs: dict[str, Path]
) -> None:
    given: dict[str, Any] = {"precision": precision}
    if recipe == "upright" and stage == "student":
        given["prior_weight"] = 0.05
    training, step = training_of(settings(recipe, stage, motion, runs[recipe], **given), motion)
    with _DeviceAlone():
        for early in (True, False):
            step(StepShape(32, early))
    assert training.clock.step.item() == 3


@pytest.mark.parametrize("focal", [None, 1000.0])
@pytest.mark.parametrize("stage", ["teacher", "student"])
@pytest.mark.parametrize("recipe", ["paper", "upright"])
def test_a_frame_asks_nothing_of_the_host(
    recipe: str, stage: str, focal: float | None, runs: dict[str, Path]
) -> None:
    with backends.using("reference"), torch.inference_mode():
        lifter = Lifter(runs[recipe], stage=stage, focal_length=focal, device="cpu")
        frame = torch.rand(2, 17, 2)
        lifter._step(frame)
        with _DeviceAlone():
            lifted = lifter._step(frame)
    assert lifted.shape == (2, 17, 3) and lifted.isfinite().all()


@pytest.mark.skipif(not packaged.has_packaged_run(), reason="built without the general model")
def test_a_frame_of_the_general_model_asks_nothing_of_the_host(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(general, "_recording", lambda: True)
    with backends.using("reference"), torch.inference_mode():
        lifter = Lifter(device="cpu")
        frame = torch.rand(2, 17, 2)
        lifter._step(frame)
        with _DeviceAlone():
            lifted = lifter._step(frame)
    assert lifted.shape == (2, 17, 3) and lifted.isfinite().all()


@pytest.mark.parametrize("recipe", ["paper", "upright"])
def test_an_optimiser_is_capturable_in_the_recording_alone(
    recipe: str, motion: Path, runs: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Adam is marked capturable while it is recorded, and not while steps are launched."""
    training, step = training_of(settings(recipe, "teacher", motion, runs[recipe]), motion)
    marked: list[bool] = []
    take = training.optimiser.step

    def watched() -> None:
        marked.append(all(group.get("capturable") for group in training.optimiser.param_groups))
        take()

    monkeypatch.setattr(training.optimiser, "step", watched)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", SimpleNamespace)
    monkeypatch.setattr(torch.cuda, "graph", lambda *_, **__: nullcontext())
    captured = Captured.__new__(Captured)
    captured.step, captured._pool, captured._side = step, None, None
    captured.step(StepShape(32, False))
    captured._record(StepShape(32, False), 2)
    captured.step(StepShape(32, False))
    assert marked == [False, True, True, False]


@pytest.mark.parametrize("memory", [0.0, 0.0075])
def test_captured_steps_are_the_plain_ones(
    memory: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Blocks of steps across logs, epochs, chunks, short batches and the change of the loss."""
    store = write_store(tmp_path / "store.h5")
    replayed: list[int] = []

    class FakeCapture(Captured):
        def __init__(self, step: Step) -> None:
            self.step, self.block, self.say = step, 2, None
            self._launched, self._graphs, self._refused = Counter(), {}, False

        def _launch(self, shape: StepShape) -> None:
            self.step(shape)

        def _record(self, shape: StepShape, count: int) -> Any:
            def replay() -> None:
                replayed.append(count)
                for _ in range(count):
                    self.step(shape)

            return SimpleNamespace(replay=replay)

    given: dict[str, Any] = {"epochs": 5, "centre_steps": 13, "device_memory": memory}
    train(teacher_settings(store, tmp_path / "plain", **given), console=quiet_console())
    monkeypatch.setattr("ites.training.step.one_by_one", FakeCapture)
    train(teacher_settings(store, tmp_path / "captured", **given), console=quiet_console())
    same(numbers(tmp_path / "captured", "teacher"), numbers(tmp_path / "plain", "teacher"))
    assert set(replayed) == {1, 2}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("precision", ["float32", "tf32", "bf16"])
@pytest.mark.parametrize(("recipe", "stage"), STAGES)
def test_cuda_graphs_give_the_plain_losses(
    recipe: str, stage: str, precision: str, motion: Path, runs: dict[str, Path], tmp_path: Path
) -> None:
    given: dict[str, Any] = {"device": "cuda", "precision": precision, "steps": 30, "log_every": 4}
    given |= {} if stage == "prior" else {"backend": "auto", "evaluate_every": 0}
    needed = {"teacher": ["prior"], "student": ["prior", "teacher"]}.get(stage, [])
    given |= {name: str(runs[recipe]) for name in needed if name in stages_of(recipe)}
    for capture in ("on", "off"):
        given |= {"capture": capture, "capture_steps": 2}
        chosen = settings(recipe, stage, motion, tmp_path / capture, **given)
        train(chosen, console=quiet_console())
    on, off = (rows(tmp_path / capture / f"{stage}.log.csv") for capture in ("on", "off"))
    for left, right in zip(on, off, strict=True):
        for name in left:
            assert float(left[name]) == pytest.approx(float(right[name]), rel=1e-5)


def test_graphs_are_not_promised_where_there_are_none(motion: Path, tmp_path: Path) -> None:
    chosen = settings("paper", "teacher", motion, tmp_path, capture="on")
    with pytest.raises(ItesError, match="capture: expected a GPU and a single process"):
        train(chosen, console=quiet_console())
