"""Training: the numbers, the run folder, resuming, and what stops it."""

from __future__ import annotations

import io
import json
import math
import os
import re
import signal
from pathlib import Path
from types import ModuleType
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from rich.console import Console
from small_training import (
    POSES,
    SMALL,
    numbers,
    rows,
    same,
    student_settings,
    teacher_settings,
    write_store,
)
from typer.testing import CliRunner

from ites.cli.train import app
from ites.data.store import PoseStore, PoseStoreWriter
from ites.errors import ItesError
from ites.models import Student, Teacher
from ites.ops import RotationDraw
from ites.pose.camera import human36m_cameras
from ites.pose.skeleton import HUMAN36M
from ites.runs.checkpoint import load_model
from ites.runs.settings import Settings, StudentSettings, TeacherSettings, make_settings
from ites.system.console import command_console, duration
from ites.training import engine, loop
from ites.training.dataset import teacher_labels
from ites.training.engine import train
from ites.training.feed import epoch_order
from ites.training.log import GrowingCsv, Log, quiet_console
from ites.training.loop import Training
from ites.training.stages import make_stage


@pytest.fixture(scope="module")
def teacher_run(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("run")
    train(teacher_settings(store, run, steps=4), console=quiet_console())
    return run


@pytest.mark.parametrize("stage", ["teacher", "student"])
def test_three_steps_are_the_methods(stage: str, store: Path, teacher_run: Path) -> None:
    """The engine against the loop written out: order, rotations, losses, SGD, learning rate."""
    given = {"epochs": 2, "halve_every": 1, "centre_epochs": 1, "precision": "float64"}
    if stage == "teacher":
        settings = teacher_settings(store, teacher_run.parent / "a", **given)
    else:
        given.pop("centre_epochs")
        settings = student_settings(store, teacher_run.parent / "b", teacher_run, **given)
    assert train(settings, console=quiet_console()).step == 10

    with PoseStore(store) as file:
        array, scale = file.points("train")
    points = torch.from_numpy(array).double()
    torch.manual_seed(settings.seed)
    model: Teacher | Student
    if isinstance(settings, TeacherSettings):
        model, weight = Teacher(HUMAN36M, 16, 1, 4).double(), settings.reprojection_weight
    elif isinstance(settings, StudentSettings):
        model, weight = Student(HUMAN36M, 16, 1).double(), settings.distillation_weight
        depth = load_model(teacher_run, "teacher")[0].double().depth(points).detach()
    optimiser = torch.optim.SGD(model.parameters(), 1e-3, momentum=0.9, weight_decay=5e-4)
    means, step = [], 0
    for epoch in range(2):
        for group in optimiser.param_groups:
            group["lr"] = 1e-3 / 2**epoch
        for index in epoch_order(0, epoch, POSES, torch.device("cpu")).split(16):
            counter = torch.tensor([0, step, 0])
            axes, angle = ("xyz", math.pi) if stage == "teacher" else ("y", 2 * math.pi)
            draw = RotationDraw(counter, 4, axes, angle)
            if isinstance(model, Teacher):
                parts = list(model.losses(points[index], draw, centre_cycle=epoch == 0))
            else:
                *parts, density = model.losses(points[index], depth[index], draw)
                assert density is None  # recipe upright's
            total = weight * parts[0] + parts[1]
            optimiser.zero_grad()
            total.backward()
            optimiser.step()
            means.append([total.item(), *(part.item() for part in parts)])
            step += 1

    trained, metadata = load_model(settings.out, stage)
    assert metadata.step == step == 10 and metadata.scale == scale
    assert metadata.settings == settings.to_dict()
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(trained.state_dict()[name], tensor, rtol=1e-10, atol=1e-12)
    log = rows(Path(settings.out) / f"{stage}.log.csv")
    assert [row["step"] for row in log] == ["4", "8", "10"]
    assert [float(row["learning_rate"]) for row in log] == [1e-3, 5e-4, 5e-4]
    names = list(log[0])[2:5]
    for row, part in zip(log, (means[:4], means[4:8], means[8:]), strict=True):
        logged = [float(row[name]) for name in names]
        np.testing.assert_allclose(logged, np.mean(part, axis=0), rtol=1e-9)


def test_epoch_order_is_a_permutation_of_its_own() -> None:
    device = torch.device("cpu")
    first, second = (epoch_order(5, epoch, 1000, device) for epoch in (0, 1))
    for order in (first, second):
        assert torch.equal(order.sort().values, torch.arange(1000))
    assert not torch.equal(first, second)
    assert not torch.equal(first, epoch_order(6, 0, 1000, device))
    assert torch.equal(first, epoch_order(5, 0, 1000, device))
    assert (first == torch.arange(1000)).sum() < 10


@pytest.mark.parametrize("stage", ["teacher", "student"])
@pytest.mark.parametrize("stop", [6, 10, 13])
def test_resume_is_bit_for_bit(
    stage: str, stop: int, store: Path, teacher_run: Path, tmp_path: Path
) -> None:
    """Stopped in mid-epoch and between logs, at an epoch's end, and in the last epoch."""

    def settings(name: str, **given: Any) -> Settings:
        if stage == "teacher":
            return teacher_settings(store, tmp_path / name, evaluate_every=5, **given)
        return student_settings(store, tmp_path / name, teacher_run, evaluate_every=5, **given)

    train(settings("whole"), console=quiet_console())
    assert train(settings("cut", steps=stop), console=quiet_console()).step == stop
    # A crash after the checkpoint: rows that are to be written again.
    with (tmp_path / "cut" / f"{stage}.log.csv").open("a") as file:
        file.write("14,2.8,1,1,1,0.001,1,1\n")
    torch.manual_seed(123)
    result = train(settings("cut"), resume=True, console=quiet_console())
    assert result.step == 15 and not result.interrupted and result.epochs == 3
    same(numbers(tmp_path / "cut", stage), numbers(tmp_path / "whole", stage))
    name = f"{stage}.evaluation.csv"
    assert rows(tmp_path / "cut" / name) == rows(tmp_path / "whole" / name)
    assert [row["step"] for row in rows(tmp_path / "cut" / name)] == ["5", "10", "15"]


def test_resuming_a_finished_run_changes_nothing(store: Path, tmp_path: Path) -> None:
    settings = teacher_settings(store, tmp_path, steps=6)
    first = train(settings, console=quiet_console())
    before = numbers(tmp_path, "teacher")
    assert train(settings, resume=True, console=quiet_console()) == first
    same(numbers(tmp_path, "teacher"), before)
    assert [row["step"] for row in before[1]] == ["4", "6"]


def test_without_tensorboard_it_is_said_once(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    console = Console(file=io.StringIO())
    for name in ("a", "b"):
        train(teacher_settings(store, tmp_path / name, steps=1), console=console)
        assert not (tmp_path / name / "tensorboard").exists()
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert text.count("no TensorBoard events") == 1 and "pip install 'ites[log]'" in text


def test_a_terminal_gets_a_progress_bar(store: Path, tmp_path: Path) -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=200)
    train(teacher_settings(store, tmp_path, steps=8), console=console)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "8/8" in text and "reprojection" in text and "poses/s" in text
    assert "teacher 8/8" not in text


def test_evaluating_changes_no_number_of_the_training(store: Path, tmp_path: Path) -> None:
    for name, every in (("with", 2), ("without", 0)):
        settings = teacher_settings(store, tmp_path / name, steps=7, evaluate_every=every)
        train(settings, console=quiet_console())
    same(numbers(tmp_path / "with", "teacher"), numbers(tmp_path / "without", "teacher"))
    measured = rows(tmp_path / "with" / "teacher.evaluation.csv")[-1]
    assert 0 < float(measured["p_mpjpe_oracle"]) <= float(measured["p_mpjpe"]) < 1000
    assert not (tmp_path / "without" / "teacher.evaluation.csv").exists()


def test_an_interrupt_leaves_a_checkpoint_to_resume(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(teacher_settings(store, tmp_path / "whole"), console=quiet_console())
    advance, before = Log.advance, signal.getsignal(signal.SIGINT)

    def interrupt(log: Log, step: int) -> None:
        advance(log, step)
        if step == 7:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(Log, "advance", interrupt)
    arguments = ["--data", str(store), "--out", str(tmp_path / "cut"), "--epochs", "3"]
    arguments += ["--atoms", "4", *(f"--{k.replace('_', '-')}={v}" for k, v in SMALL.items())]
    result = CliRunner().invoke(app, ["teacher", *arguments])
    assert result.exit_code == 130, result.output
    assert "interrupted after 7 of 15 steps" in result.output
    assert f"continue with: ites train --only teacher --resume {tmp_path / 'cut'}" in result.output
    assert signal.getsignal(signal.SIGINT) is before
    monkeypatch.undo()
    result = CliRunner().invoke(app, ["teacher", "--resume", str(tmp_path / "cut")])
    assert result.exit_code == 0, result.output
    same(numbers(tmp_path / "cut", "teacher"), numbers(tmp_path / "whole", "teacher"))


@pytest.mark.parametrize("poison", ["loss", "weights"])
def test_a_loss_that_is_not_finite_stops_the_run(
    poison: str, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses, calls = Teacher.losses, []

    def poisoned(model: Teacher, *arguments: Any, **given: Any) -> Any:
        calls.append(1)
        result = losses(model, *arguments, **given)
        if len(calls) == 10 and poison == "loss":
            return result._replace(cycle=result.cycle * math.nan)
        if len(calls) == 12 and poison == "weights":
            model.input_norm.running_mean.fill_(math.inf)  # which no loss shows in training
        return result

    monkeypatch.setattr(Teacher, "losses", poisoned)
    settings = teacher_settings(store, tmp_path, checkpoint_every=6)
    with pytest.raises(ItesError) as caught:
        train(settings, console=quiet_console())
    expected = {
        "loss": "teacher: the total loss is nan at step 10, epoch 2; ",
        "weights": "teacher: input_norm.running_mean is not finite after step 12; ",
    }
    assert expected[poison] in str(caught.value)
    assert f"the checkpoint of step 6 in {tmp_path} is good" in str(caught.value)
    model, metadata = load_model(tmp_path)
    assert metadata.step == 6
    assert all(tensor.isfinite().all() for tensor in model.state_dict().values())


def test_initial_weights_come_from_the_seed_alone(store: Path, tmp_path: Path) -> None:
    points = torch.zeros(4, 17, 2)
    weights = []
    for seed, noise in ((1, 5), (1, 6), (2, 5)):
        torch.manual_seed(noise)
        settings = teacher_settings(store, tmp_path, seed=seed)
        weights.append(make_stage(settings, HUMAN36M, points).model.input.weight)
        assert torch.initial_seed() == noise
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])


def test_a_lone_last_pose_is_left_out_by_the_teacher_alone(
    teacher_run: Path, tmp_path: Path
) -> None:
    store = write_store(tmp_path / "33.h5", poses=33, positions=False)
    for settings, batches in (
        (teacher_settings(store, tmp_path / "a"), 2),
        (student_settings(store, tmp_path / "b", teacher_run), 3),
    ):
        result = train(settings, console=quiet_console())
        assert result.steps == 3 * batches
        assert all(math.isfinite(value) for value in result.losses.values())


def test_labels_are_the_teachers_in_evaluation_mode(store: Path, teacher_run: Path) -> None:
    with PoseStore(store) as file:
        points = torch.from_numpy(file.points("train")[0])
    settings = student_settings(store, teacher_run, teacher_run)
    assert isinstance(settings, StudentSettings)
    depth = teacher_labels(settings, HUMAN36M, points, points.device)[0]
    teacher, _ = load_model(teacher_run, "teacher")
    assert depth.shape == (POSES, 17, 1) and not depth.requires_grad
    assert isinstance(teacher, Teacher)
    assert torch.equal(depth, teacher(points).camera_pose[..., 2:])


@pytest.mark.parametrize("stage", ["teacher", "student"])
@pytest.mark.parametrize("precision", ["tf32", "bf16"])
def test_lower_precision_trains_close_by(
    precision: str, stage: str, store: Path, teacher_run: Path, tmp_path: Path
) -> None:
    results = {}
    for name in ("float32", precision):
        given: dict[str, Any] = {"steps": 4, "precision": name}
        if stage == "teacher":
            settings = teacher_settings(store, tmp_path / name, **given)
        else:
            settings = student_settings(store, tmp_path / name, teacher_run, **given)
        results[name] = train(settings, console=quiet_console()).losses["total"]
    assert torch.get_float32_matmul_precision() == "highest"
    assert results[precision] == pytest.approx(results["float32"], rel=0.02)


@pytest.mark.parametrize("stage", ["teacher", "student"])
def test_a_set_too_large_for_the_device_streams(
    stage: str, store: Path, teacher_run: Path, tmp_path: Path
) -> None:
    """Chunks of two batches, the last of an epoch shorter: the same numbers, bit for bit."""
    for name, megabytes in (("resident", 0.0), ("streamed", 0.0075)):
        given: dict[str, Any] = {"device_memory": megabytes}
        if stage == "teacher":
            settings = teacher_settings(store, tmp_path / name, **given)
        else:
            settings = student_settings(store, tmp_path / name, teacher_run, **given)
        train(settings, console=quiet_console())
    same(numbers(tmp_path / "streamed", stage), numbers(tmp_path / "resident", stage))


def test_both_stages_from_the_command_line(store: Path, tmp_path: Path) -> None:
    run, config = tmp_path / "run", tmp_path / "c.toml"
    config.write_text("batch = 16\nlog_every = 2\nwidth = 99\n[student]\nwidth = 8\nblocks = 0\n")
    arguments = ["both", "--config", str(config), "--data", str(store), "--out", str(run)]
    arguments += ["--teacher-steps", "3", "--student-steps", "2", "--teacher-width", "16"]
    arguments += ["--teacher-blocks", "1", "--device", "cpu", "--checkpoint-every", "2"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert "teacher: trained after 3 of 3 steps (0.60 epochs of 71 poses)" in result.output
    assert "student: trained after 2 of 2 steps" in result.output
    assert result.output.splitlines()[-1] == f"next: ites evaluate {run} --data {store}"
    assert load_model(run, "teacher")[0].sizes()["width"] == 16
    student, metadata = load_model(run)
    assert student.sizes() == {"width": 8, "blocks": 0, "distance": 5.0, "upright": False}
    assert metadata.settings["teacher"] == "" and metadata.step == 2
    expected = {"settings.toml", "versions.json"} | {
        f"{stage}.{kind}"
        for stage in ("teacher", "student")
        for kind in ("safetensors", "state.safetensors", "log.csv")
    }
    assert {path.name for path in run.iterdir() if path.is_file()} == expected
    versions = json.loads((run / "versions.json").read_text())
    assert versions["student"]["torch"] == torch.__version__
    assert make_settings("student", run / "settings.toml").to_dict() == metadata.settings

    again = CliRunner().invoke(app, arguments)
    assert isinstance(again.exception, ItesError)
    assert f"{run}: holds a teacher already; resume it or choose another" in str(again.exception)
    longer = CliRunner().invoke(app, ["both", "--resume", str(run), "--student-steps", "3"])
    assert longer.exit_code == 0, longer.output
    assert load_model(run)[1].step == 3 and load_model(run, "teacher")[1].step == 3


def test_mistakes_are_one_line(store: Path, teacher_run: Path, tmp_path: Path) -> None:
    def message(settings: Settings, resume: bool = False) -> str:
        with pytest.raises(ItesError) as caught:
            train(settings, resume=resume, console=quiet_console())
        assert "\n" not in str(caught.value)
        return str(caught.value)

    new = tmp_path / "new"
    assert "data: expected a pose store" in message(teacher_settings(Path(""), new, data=""))
    assert "no.h5: no such file" in message(teacher_settings(tmp_path / "no.h5", new))
    assert "device: cannot use 'tpu:x'" in message(teacher_settings(store, new, device="tpu:x"))
    assert "expected a trained teacher" in message(student_settings(store, new, ""))
    assert "holds a teacher already" in message(teacher_settings(store, teacher_run))
    assert not new.exists()
    flat = write_store(tmp_path / "flat.h5", positions=False)
    assert "3D" in message(teacher_settings(flat, new, evaluate_every=1))
    changed = teacher_settings(store, teacher_run, samples=2)
    assert "samples is 4 in this run and cannot become 2" in message(changed, resume=True)
    other = teacher_settings(write_store(tmp_path / "other.h5", poses=40), teacher_run)
    assert "expected what" in message(other, resume=True)
    assert "no such file" in message(teacher_settings(store, new), resume=True)
    single = write_store(tmp_path / "one.h5", poses=1)
    assert "expected at least 2 poses, got 1" in message(teacher_settings(single, new))
    assert not new.exists()


def test_resume_needs_a_run(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["teacher", "--resume", str(tmp_path)])
    assert isinstance(result.exception, ItesError)
    assert "expected the folder of a run with a teacher" in str(result.exception)
    arguments = ["teacher", "--resume", str(tmp_path), "--config", "a.toml"]
    assert "leave --config out" in str(CliRunner().invoke(app, arguments).exception)


def test_parameters_without_decay_are_none(store: Path, tmp_path: Path) -> None:
    """Weight decay reaches every parameter: biases, norms and the dictionary too."""
    points = torch.randn(8, 17, 2)
    settings = teacher_settings(store, tmp_path)
    training = Training(
        make_stage(settings, HUMAN36M, points), 1.0, torch.device("cpu"), None, quiet_console()
    )
    (group,) = training.optimiser.param_groups
    assert group["weight_decay"] == 5e-4 and group["momentum"] == 0.9 and not group["nesterov"]
    assert len(group["params"]) == len(list(training.stage.model.parameters()))


@pytest.mark.parametrize(("seconds", "text"), [(42.3, "42 s"), (185, "3:05 min"), (7380, "2:03 h")])
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def bad_store(path: Path, change: Any, recipe: str = "paper") -> Settings:
    """Settings of a training on a store whose keypoints (60, 17, 2) were changed."""
    camera, rng = human36m_cameras("S1")[0], np.random.default_rng(0)
    keypoints = camera.project(rng.normal(size=(60, 17, 3)) * 0.3 + [0, 0, 5])
    with PoseStoreWriter(path / "store.h5", HUMAN36M) as writer:
        writer.add_camera("camera", camera)
        given = {"subject": "s", "action": "a", "split": "train", "fps": 10}
        writer.add(change(keypoints), camera="camera", **given)
    stage = "prior" if recipe == "upright" else "teacher"
    options = {"data": str(path / "store.h5"), "out": str(path / "run"), "recipe": recipe}
    return make_settings(stage, options={**options, "steps": 2, "batch": 16, "width": 8})


def first(keypoints: Any, count: int = 1) -> Any:
    """The first poses, over and over."""
    return np.resize(keypoints[:count], keypoints.shape)


@pytest.mark.parametrize(
    ("recipe", "change", "message"),
    [
        ("upright", lambda k: k[:1], "upright expected at least 30 poses, got 1"),
        ("upright", lambda k: k[:2], "upright expected at least 30 poses, got 2"),
        ("upright", lambda k: k[:3], "upright expected at least 30 poses, got 3"),
        ("upright", lambda k: k[:29], "upright expected at least 30 poses, got 29"),
        ("upright", first, "expected at least 30 different poses, got 1 among 60"),
        ("upright", lambda k: first(k, 9), "expected at least 30 different poses, got 9 among 60"),
        ("upright", lambda k: np.append(k[:, :1], first(k)[:, 1:], 1), "at least 4 independent"),
        ("paper", first, "expected at least 2 different poses, got 1 among 60"),
        ("paper", lambda k: k * [1, 0], "joints that lie on a line"),
        ("paper", lambda k: k[..., :1] * [1, 0.5], "joints that lie on a line"),
        (
            "paper",
            lambda k: np.append(k[:40], first(k[:20] * 0), 0),
            "in 20 of 60 poses, the first",
        ),
        (
            "paper",
            lambda k: k * np.where(np.arange(60) == 7, 1e4, 1)[:, None, None],
            "17 impossible keypoints count as missing",
        ),
    ],
)
def test_data_that_teach_nothing_are_refused(
    recipe: str, change: Any, message: str, tmp_path: Path
) -> None:
    settings = bad_store(tmp_path, change, recipe)
    with pytest.raises(ItesError) as caught:
        train(settings, console=quiet_console())
    assert message in str(caught.value) and str(tmp_path / "store.h5") in str(caught.value)
    assert len(str(caught.value).replace(str(tmp_path), "")) < 250
    assert not Path(settings.out).exists()


@pytest.mark.parametrize("module", [engine, loop])
def test_stages_and_recipes_answer_for_themselves(module: ModuleType) -> None:
    text = Path(str(module.__file__)).read_text(encoding="utf-8")
    assert not re.search(r"recipe *[!=]=|upright|isinstance", text)
    assert len(text.splitlines()) <= 250


def test_a_refused_command_leaves_no_folder(tmp_path: Path) -> None:
    settings = bad_store(tmp_path, first, "upright")
    arguments = ["--recipe", "upright", "--data", settings.data, "--out", settings.out]
    result = CliRunner().invoke(app, arguments)
    assert "expected at least 30 different poses" in str(result.exception)
    assert not Path(settings.out).exists()


def test_a_checkpoint_can_be_written_at_any_time(store: Path, tmp_path: Path) -> None:
    settings = teacher_settings(store, tmp_path)
    with PoseStore(store) as file:
        points = torch.from_numpy(file.points("train")[0])
    stage = make_stage(settings, HUMAN36M, points)
    training = Training(stage, 1.0, torch.device("cpu"), None, quiet_console())
    training.checkpoint()
    assert load_model(tmp_path)[1].step == 0
    training.advance()
    training.checkpoint()
    assert load_model(tmp_path)[1].step == 1
    stage = make_stage(settings, HUMAN36M, points)
    again = Training(stage, 1.0, torch.device("cpu"), None, quiet_console())
    again.restore()
    assert again.step == 1
    for name, tensor in training.stage.model.state_dict().items():
        assert torch.equal(tensor, again.stage.model.state_dict()[name]), name


def test_a_row_that_was_cut_off_is_not_taken_for_another_step(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text("step,total\n4,1.5\n8,1.25\n1")  # of "12,1.125"
    GrowingCsv(path, ["step", "total"], keep=8).close()
    assert path.read_text() == "step,total\n4,1.5\n8,1.25\n"


def test_a_reader_that_has_gone_does_not_stop_a_training(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as output:
        monkeypatch.setattr("sys.stdout", output)
        console = command_console()
        console.print("the first line of many")
        assert console.quiet
        result = train(teacher_settings(store, tmp_path, steps=9), console=console)
    assert result.step == 9 and load_model(tmp_path)[1].step == 9


def test_a_misplaced_keypoint_of_the_data_is_left_out_and_reported(tmp_path: Path) -> None:
    data, out = write_store(tmp_path / "poses.h5"), io.StringIO()
    with h5py.File(data, "r+") as file:
        file["poses/keypoints"][5, 10] = 1e6, 400
    with pytest.raises(ItesError, match="poses.h5: 1 of 71 poses lack a joint .*; 1 impossible"):
        train(teacher_settings(data, tmp_path / "run", steps=2))
    settings = teacher_settings(data, tmp_path / "run", steps=2, missing="drop")
    result = train(settings, console=Console(file=out))
    assert result.poses == 70
    assert f"teacher: 1 impossible keypoints of {data} count as" in out.getvalue()
