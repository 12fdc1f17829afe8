"""What only a GPU can run: captured frames and steps, feeds from pinned memory, two devices.

`tests/project/test_gpu_names.py` lists these tests by name, so that none can be lost where they
are skipped. Not run on a GPU yet.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lifting import keypoints
from small_training import (
    numbers,
    rows,
    same,
    student_settings,
    teacher_settings,
    write_store,
)

from ites.evaluation.evaluate import evaluate
from ites.inference.lift import lift
from ites.inference.stream import Lifter
from ites.models import Student, Teacher
from ites.ops import RotationDraw
from ites.pose.skeleton import HUMAN36M
from ites.runs.checkpoint import Metadata, save_model
from ites.runs.folder import RunFolder
from ites.runs.packaged import has_packaged_run
from ites.system.arithmetic import arithmetic
from ites.system.ranks import Ranks
from ites.training.engine import train
from ites.training.feed import Feed
from ites.training.log import quiet_console
from ites.training.seeds import seed_folder, train_seeds

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
two = pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
KINDS = ("teacher", "student")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with an untrained teacher and student."""
    torch.manual_seed(0)
    folder = RunFolder(tmp_path_factory.mktemp("run"))
    for kind, model in zip(KINDS, (Teacher(width=64, blocks=2), Student(width=32)), strict=True):
        save_model(folder.weights(kind), model, Metadata(kind, HUMAN36M, 1.5))
    return Path(folder.weights("teacher")).parent


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("focal", [None, 1000.0])
def test_captured_lifter_gives_what_the_cpu_gives(run: Path, kind: str, focal: float | None):
    given: dict[str, Any] = {"stage": kind, "focal_length": focal}
    ours, theirs = (Lifter(run, device=device, **given) for device in ("cuda", "cpu"))
    for frame in keypoints(20):
        np.testing.assert_allclose(ours.lift(frame), theirs.lift(frame), rtol=1e-3, atol=1e-4)
    batch = keypoints(7)
    np.testing.assert_allclose(ours.lift(batch), theirs.lift(batch), rtol=1e-3, atol=1e-4)


@pytest.mark.skipif(not has_packaged_run(), reason="built without the general model")
def test_captured_lifter_of_the_general_model():
    ours, theirs = (Lifter(device=device) for device in ("cuda", "cpu"))
    frames = keypoints(20)
    frames[5:, 13] = np.nan  # a joint that the model completes
    for frame in frames:
        np.testing.assert_allclose(ours.lift(frame), theirs.lift(frame), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_lift_gives_what_the_cpu_gives(run: Path, kind: str, tmp_path: Path):
    np.save(tmp_path / "points.npy", keypoints(300))
    poses = []
    for device in ("cuda", "cpu"):
        out = tmp_path / f"{device}.npz"
        lift(run, tmp_path / "points.npy", out, stage=kind, device=device, image_size=(1000, 1000))
        with np.load(out) as file:
            poses.append([file[name] for name in file.files if name.endswith("positions")][0])
    np.testing.assert_allclose(poses[0], poses[1], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_evaluate_gives_what_the_cpu_gives(run: Path, kind: str, tmp_path: Path):
    store = write_store(tmp_path / "store.h5")
    ours, theirs = (evaluate(run, store, stage=kind, device=device) for device in ("cuda", "cpu"))
    for left, right in zip(ours.means, theirs.means, strict=True):
        for name, value in left.figures.items():
            assert value == pytest.approx(right.figures[name], rel=1e-3)


def _trained(kind: str, run: Path, tmp_path: Path, name: str, **given: Any) -> Path:
    store, out = tmp_path / "store.h5", tmp_path / name
    if not store.exists():
        write_store(store)
    chosen: dict[str, Any] = {"device": "cuda", "capture_steps": 2, **given}
    settings = (
        teacher_settings(store, out, **chosen)
        if kind == "teacher"
        else student_settings(store, out, run, **chosen)
    )
    train(settings, console=quiet_console())
    return out


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("backend", ["cuda", "triton", "reference"])
def test_captured_steps_are_the_launched_ones(kind: str, backend: str, run: Path, tmp_path: Path):
    logs = []
    for capture in ("on", "off"):
        given = {"capture": capture, "backend": backend}
        out = _trained(kind, run, tmp_path, capture, **given)
        logs.append(rows(out / f"{kind}.log.csv"))
    for left, right in zip(*logs, strict=True):
        for name in left:
            assert float(left[name]) == pytest.approx(float(right[name]), rel=1e-5)


@pytest.mark.parametrize("precision", ["float32", "tf32"])
def test_layers_in_one_launch_are_those_of_two_ops(precision: str, monkeypatch):
    """Of the teacher's sizes, forward and backward; exact sums, or factors of 10 bits."""
    if torch.cuda.get_device_capability() < (9, 0):
        pytest.skip("needs clusters of blocks, compute capability 9.0")
    torch.manual_seed(0)
    teacher = Teacher(backend="cuda").cuda()
    points = 0.1 * torch.randn(128, 17, 2, device="cuda")
    draw = RotationDraw(torch.tensor([3, 1, 0], device="cuda"), 4)
    results = []
    for apart in (False, True):
        if apart:
            monkeypatch.setattr("ites.models.layers.runs_at_once", lambda *_: False)
        teacher.zero_grad()
        with arithmetic(precision):
            loss = teacher.losses(points, draw, False).total()
            loss.backward()
        results.append([loss.detach(), *(p.grad.clone() for p in teacher.parameters())])
    bound = 1e-3 if precision == "float32" else 3e-2
    for ours, theirs in zip(*results, strict=True):
        assert (ours - theirs).abs().max() <= bound * theirs.abs().max().clamp(min=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_steps_on_a_gpu_are_those_on_a_cpu(kind: str, run: Path, tmp_path: Path):
    logs = []
    for device in ("cuda", "cpu"):
        out = _trained(kind, run, tmp_path, device, device=device, steps=4)
        logs.append(rows(out / f"{kind}.log.csv"))
    for left, right in zip(*logs, strict=True):
        for name in left:
            assert float(left[name]) == pytest.approx(float(right[name]), rel=1e-3)


@pytest.mark.parametrize("capture", ["on", "off"])
def test_seeds_together_are_those_alone(capture: str, tmp_path: Path):
    store = write_store(tmp_path / "store.h5")
    given: dict[str, Any] = {"device": "cuda", "capture": capture, "capture_steps": 2}
    train_seeds(
        [teacher_settings(store, tmp_path / "all", **given)], [0, 1, 2], console=quiet_console()
    )
    for seed in (0, 1, 2):
        alone = tmp_path / f"{seed}"
        train(teacher_settings(store, alone, seed=seed, **given), console=quiet_console())
        same(numbers(seed_folder(tmp_path / "all", seed), "teacher"), numbers(alone, "teacher"))


@pytest.mark.parametrize("capture", ["on", "off"])
def test_a_streamed_feed_gives_the_resident_one(capture: str, run: Path, tmp_path: Path):
    """From pinned memory, chunk after chunk, on the training's own device."""
    for name, memory in (("resident", 0.0), ("streamed", 0.0075)):
        _trained("teacher", run, tmp_path, name, capture=capture, device_memory=memory)
    same(numbers(tmp_path / "streamed", "teacher"), numbers(tmp_path / "resident", "teacher"))


@two
def test_a_streamed_feed_of_a_second_gpu():
    """Its event is the second device's, though the first is current."""
    data = torch.arange(4000.0)[:, None, None].expand(4000, 17, 2).contiguous()
    index = torch.zeros(1, dtype=torch.int64, device="cuda:1")
    given: dict[str, Any] = {"seed": 1, "batch": 100, "batches": 40, "ranks": Ranks()}
    streamed = Feed((data,), index, stream=True, limit=300 * 136, **given)
    resident = Feed((data.to("cuda:1"),), index.clone(), limit=300 * 136, **given)
    for batch in range(40):
        for feed in (streamed, resident):
            feed.seek(0, batch)
            feed.batch_index.fill_(batch % feed.slots)
        assert torch.equal(streamed.batch(100)[0], resident.batch(100)[0])


@two
@pytest.mark.parametrize("kind", KINDS)
def test_a_second_gpu_trains_as_the_first(kind: str, run: Path, tmp_path: Path):
    logs = []
    for device in ("cuda:0", "cuda:1"):
        out = _trained(kind, run, tmp_path, device.replace(":", "-"), device=device)
        logs.append(rows(out / f"{kind}.log.csv"))
    assert logs[0] == logs[1]
