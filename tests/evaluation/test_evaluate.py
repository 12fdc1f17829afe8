"""Evaluating checkpoints over stores: what is read, lifted, averaged, printed and written."""

import csv
import io
import json
import os
import subprocess
import sys
from dataclasses import replace

import h5py
import numpy as np
import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file

from ites.data.datasets.cmu import prepare_cmu
from ites.data.store import PoseStore, PoseStoreWriter
from ites.errors import ItesError
from ites.evaluation import evaluate as evaluation
from ites.evaluation.evaluate import depth_zero, evaluate, evaluate_points
from ites.models import Student, Teacher
from ites.pose import metrics
from ites.pose.camera import human36m_cameras
from ites.pose.skeleton import HUMAN36M, Skeleton
from ites.runs.checkpoint import Metadata, save_model

CAMERA = human36m_cameras("S9")[0]
SCALE = 1.5


def write_store(path, actions=("walk", "sit", "walk"), positions=True, missing=False, length=11):
    """A test split of one clip per action, and a training split that must not be touched."""
    rng = np.random.default_rng(0)
    with PoseStoreWriter(path, HUMAN36M) as store:
        store.add_camera("one", CAMERA)
        for i, action in enumerate(("train", *actions)):
            joints = rng.normal(0, 0.3, (length, 17, 3)) + [0, 0, 5 + i]
            confidence = np.ones((length, 17))
            confidence[3, 5] = not missing
            store.add(
                CAMERA.project(joints),
                camera="one",
                subject="S9",
                action=action,
                split="test" if i else "train",
                fps=50,
                positions=joints if positions else None,
                confidence=confidence,
            )
    return path


@pytest.fixture
def run(tmp_path):
    """A run folder with an untrained teacher and student."""
    torch.manual_seed(0)
    for model, step in ((Teacher(width=16, blocks=1), 7), (Student(width=8, blocks=1), 9)):
        name = type(model).__name__.lower()
        metadata = Metadata(kind=name, skeleton=HUMAN36M, scale=SCALE, step=step)
        save_model(tmp_path / "run" / f"{name}.safetensors", model, metadata)
    return tmp_path / "run"


def lift_with(pose):
    """Settings and lifter for `evaluate_points`: whatever comes in, `pose` comes out, in order."""
    rows = iter(torch.from_numpy(np.asarray(pose, np.float32)))
    return lambda points: torch.stack([next(rows) for _ in points])


SETTINGS = {"model": "student", "step": 3, "data": "some/cmu.h5", "split": "test", "device": "cpu"}
SETTINGS |= {"unit": 1.0, "scale": 1.5, "scaled_as": "as in training", "poses": 6}


def small_case(actions):
    rng = np.random.default_rng(1)
    points = rng.normal(0, 0.1, (6, 17, 2)).astype(np.float32)
    positions = rng.normal(0, 0.3, (6, 17, 3)).astype(np.float32)
    pose = rng.normal(0, 0.3, (6, 17, 3)).astype(np.float32)
    result = evaluate_points(lift_with(pose), points, positions, actions, HUMAN36M, SETTINGS, 4)
    errors = metrics.pose_errors(torch.from_numpy(pose), torch.from_numpy(positions))
    return result, {name: value.numpy() for name, value in errors.items()}, points, positions


def test_rows_are_actions_and_both_averages():
    result, errors, points, positions = small_case(["walk", "sit", "walk", "walk", "sit", "walk"])
    assert [(row.name, row.poses) for row in result.actions] == [("sit", 2), ("walk", 4)]
    for column in evaluation.COLUMNS:
        error = errors[column.name] * {"mm": 1000, "%": 100}[column.unit]
        sit, walk = error[[1, 4]].mean(), error[[0, 2, 3, 5]].mean()
        # float32 poses are made root-relative in float32 before they are compared
        close = dict(rel=1e-5, abs=1e-3)
        assert result.actions[0].figures[column.name] == pytest.approx(sit, **close)
        assert result.actions[1].figures[column.name] == pytest.approx(walk, **close)
        assert result.over_actions.figures[column.name] == pytest.approx((sit + walk) / 2, **close)
        assert result.over_poses.figures[column.name] == pytest.approx(error.mean(), **close)
    flat = metrics.p_mpjpe(
        torch.from_numpy(depth_zero(points, HUMAN36M)), torch.from_numpy(positions)
    )
    baseline = result.baseline[1].figures
    assert baseline["p_mpjpe"] == pytest.approx(1000 * float(flat.mean()))
    assert baseline["wrong_sign"] == 0
    assert baseline["scaled_mpjpe"] == baseline["scaled_mpjpe_oracle"]


def test_one_action_is_its_own_average():
    result = small_case(["walk"] * 6)[0]
    assert len(result.actions) == 1
    for name, value in result.actions[0].figures.items():
        assert value == pytest.approx(result.over_actions.figures[name])
        assert value == pytest.approx(result.over_poses.figures[name])


def test_oracle_stands_beside_the_plain_figure_and_the_wrong_signs():
    for table in (evaluation.LENGTHS, evaluation.PCK, evaluation.AUC):
        names = [column.name for column in table]
        assert "wrong_sign" in names
        for name in names:
            assert name.removesuffix("_oracle") in names
    for column in evaluation.COLUMNS:
        assert ("oracle" in column.name) == ("oracle" in column.aligned)
        assert ("oracle" in column.name) == ("oracle" in column.heading)


@pytest.mark.parametrize("width", [80, 120])
def test_the_screen_shows_every_figure(width):
    result = small_case(["walk, talk and look around at the same time"] * 3 + ["sit"] * 3)[0]
    console = Console(width=width, record=True, file=io.StringIO())
    result.show(console)
    text = console.export_text()
    for word in ("N-MPJPE", "P-scale", "oracle", "wrong", "P-AUC", "depth 0", "as 1 m", "cmu.h5"):
        assert word in text
    for row in [*result.actions, *result.means]:
        for column in evaluation.COLUMNS:
            assert f" {row.figures[column.name]:.1f}" in text
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= width


def test_saved_files_say_the_same(tmp_path):
    result = small_case(["walk", "sit", "walk", "walk", "sit", "walk"])[0]
    table, document = result.save(tmp_path / "new" / "folder")
    assert table.name == "evaluation-student-cmu-test.csv"
    with table.open(newline="") as file:
        header, *rows = list(csv.reader(file))
    assert header[:3] == ["row", "poses", "MPJPE (root) mm"]
    assert "ITES MPJPE (root + similarity's scale + oracle sign) mm" in header
    assert [row[0] for row in rows][:3] == ["sit", "walk", "mean over actions"]
    assert [row[0] for row in rows][-1] == "depth 0, mean over poses"
    assert all(len(row) == len(header) for row in rows)
    content = json.loads(document.read_text())
    assert content["settings"]["data"] == "some/cmu.h5"
    assert content["settings"]["metrics_seconds"] > 0
    names = [column["name"] for column in content["columns"]]
    for row, saved in zip(rows, content["actions"] + content["means"], strict=True):
        assert row[0] == saved["name"] and int(row[1]) == saved["poses"]
        assert [float(v) for v in row[2:]] == [saved["figures"][name] for name in names]
    assert sorted(p.name for p in table.parent.iterdir()) == [table.name, document.name]


def test_two_processes_share_the_work(tmp_path, run):
    data = write_store(tmp_path / "data.h5")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command += ["-m", "ites", "evaluate", str(run), "--data", str(data), "--device", "cpu"]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("33 poses") == 1  # rank 0's
    together = json.loads((run / "evaluation-student-data-test.json").read_text())
    alone = evaluate(run, data, device="cpu", save=False)
    for row, mean in zip(alone.means, together["means"], strict=True):
        assert (row.name, row.poses) == (mean["name"], mean["poses"])
        assert mean["figures"] == pytest.approx(row.figures, rel=1e-6)


def test_several_subjects_have_a_row_each():
    """Of MPI-INF-3DHP's test set a subject is a test sequence."""
    rng = np.random.default_rng(5)
    pose, positions = rng.normal(size=(2, 6, 17, 3)).astype(np.float32)
    actions, subjects = ["walk"] * 6, ["TS1", "TS2", "TS1", "TS1", "TS2", "TS1"]
    points = rng.normal(size=(6, 17, 2)).astype(np.float32)
    several, one = (
        evaluate_points(
            lift_with(pose), points, positions, actions, HUMAN36M, SETTINGS, 4, subjects=names
        )
        for names in (subjects, ["TS1"] * 6)
    )
    assert [(row.name, row.poses) for row in several.subjects] == [("TS1", 4), ("TS2", 2)]
    for name in ("mpjpe", "pck", "auc"):
        of_ts1, of_ts2 = (row.figures[name] for row in several.subjects)
        mean = several.over_poses.figures[name]
        assert (4 * of_ts1 + 2 * of_ts2) / 6 == pytest.approx(mean, rel=1e-6)
    assert one.subjects == []


@pytest.mark.parametrize("stage", ["teacher", "student"])
def test_a_checkpoint_is_evaluated(tmp_path, run, stage):
    data = write_store(tmp_path / "data.h5")
    result = evaluate(run, data, stage=stage, device="cpu", batch_size=10)
    assert result.settings["model"] == stage
    assert result.settings["step"] == {"teacher": 7, "student": 9}[stage]
    assert [(row.name, row.poses) for row in result.actions] == [("sit", 11), ("walk", 22)]
    assert (run / f"evaluation-{stage}-data-test.json").is_file()

    with PoseStore(data) as store:
        points, positions = store.points("test", SCALE)[0], store.positions("test")
    model = {"teacher": Teacher(width=16, blocks=1), "student": Student(width=8, blocks=1)}[stage]
    model.load_state_dict(load_file(run / f"{stage}.safetensors"))
    model.eval()
    with torch.no_grad():
        if stage == "teacher":
            centred = torch.from_numpy(points)
            depth = model(centred).camera_pose[..., 2:]
            pose = torch.cat([centred * (5 + depth), depth], -1)
        else:
            pose = model.pose(torch.from_numpy(points))
    expected = metrics.pose_errors(pose, torch.from_numpy(positions))
    for column in evaluation.LENGTHS[:-1]:
        assert result.over_poses.figures[column.name] == pytest.approx(
            1000 * float(expected[column.name].mean()), rel=1e-5
        )


def test_the_student_is_taken_where_no_stage_is_named(tmp_path, run):
    data = write_store(tmp_path / "data.h5")
    assert evaluate(run, data, device="cpu").settings["model"] == "student"
    only = evaluate(run / "teacher.safetensors", data, device="cpu", save=False)
    assert only.settings["model"] == "teacher"
    assert not (run / "evaluation-teacher-data-test.csv").exists()


def test_scale_and_unit(tmp_path, run):
    data = write_store(tmp_path / "data.h5")
    plain = evaluate(run, data, device="cpu")
    assert plain.settings["scale"] == SCALE
    with PoseStore(data) as store:
        own = store.points("test")[1]
    split = evaluate(run, data, device="cpu", scale="split")
    assert split.settings["scale"] == pytest.approx(own)
    assert split.over_poses.figures != plain.over_poses.figures
    half = evaluate(run, data, device="cpu", unit=0.5).over_poses.figures
    for name, value in plain.over_poses.figures.items():
        assert (half[name] == value) == (name != "mpjpe")


def test_another_split(tmp_path, run):
    data = write_store(tmp_path / "data.h5")
    result = evaluate(run, data, split="train", device="cpu")
    assert [row.name for row in result.actions] == ["train"]
    with pytest.raises(ItesError, match="no split 'validation'"):
        evaluate(run, data, split="validation")


def test_missing_joints(tmp_path, run):
    data = write_store(tmp_path / "data.h5", missing=True)
    with pytest.raises(ItesError, match="lack a joint"):
        evaluate(run, data, device="cpu")
    dropped = evaluate(run, data, device="cpu", missing="drop")
    assert [(row.name, row.poses) for row in dropped.actions] == [("sit", 10), ("walk", 20)]
    filled = evaluate(run, data, device="cpu", missing="interpolate")
    assert [(row.name, row.poses) for row in filled.actions] == [("sit", 11), ("walk", 22)]
    metadata = Metadata("student", HUMAN36M, SCALE, settings={"missing": "interpolate"})
    save_model(run / "student.safetensors", Student(width=8, blocks=1), metadata)
    assert evaluate(run, data, device="cpu").settings["missing"] == "interpolate"


def test_no_3d_is_said_and_nothing_is_written(tmp_path, run):
    data = write_store(tmp_path / "flat.h5", positions=False)
    before = sorted(run.iterdir())
    with pytest.raises(evaluation.NoTruthError, match="flat.h5: .*evaluation is left out"):
        evaluate(run, data)
    assert sorted(run.iterdir()) == before


def test_wrong_arguments(tmp_path, run):
    data = write_store(tmp_path / "data.h5")
    with pytest.raises(ItesError, match="scale must be checkpoint or split, got 'mean'"):
        evaluate(run, data, scale="mean")
    with pytest.raises(ItesError, match="unit must be positive and finite, got nan"):
        evaluate(run, data, unit=float("nan"))
    other = Skeleton("stick", ("a", "b", "c"), (-1, 0, 1), head=2)
    with PoseStoreWriter(tmp_path / "stick.h5", other) as store:
        store.add_camera("one", CAMERA)
        joints = np.ones((4, 3, 3))
        store.add(
            CAMERA.project(joints), camera="one", subject="", action="", fps=1, positions=joints
        )
    with pytest.raises(ItesError, match="model's skeleton human36m, got stick: 3 joints, not 17"):
        evaluate(run, tmp_path / "stick.h5")


def test_a_model_that_gives_nan_is_refused(tmp_path, run):
    model = Student(width=8, blocks=1)
    for weight in model.output.parameters():
        torch.nn.init.constant_(weight, 3e38)  # finite, but no pose is
    broken = tmp_path / "broken.safetensors"
    save_model(broken, model, Metadata(kind="student", skeleton=HUMAN36M, scale=1.0))
    with pytest.raises(ItesError, match="not finite"):
        evaluate(broken, write_store(tmp_path / "data.h5"), device="cpu")
    assert not list(tmp_path.glob("evaluation*"))


@pytest.mark.parametrize("factor", [0.001, 0.1, 3.28, 10, 100, 1000])
def test_a_truth_in_another_unit_is_refused(tmp_path, run, factor):
    data = write_store(tmp_path / "data.h5")
    with h5py.File(data, "a") as file:
        file["poses/positions"][...] *= factor
    with pytest.raises(ItesError, match="positions: expected metres, got poses of"):
        evaluate(run, data, device="cpu")


def test_a_filler_in_place_of_the_truth_is_refused_or_left_out(tmp_path, run):
    data = write_store(tmp_path / "data.h5", missing=True)
    whole = evaluate(run, data, device="cpu", missing="drop").over_poses.figures
    with h5py.File(data, "a") as file, PoseStore(data) as store:
        rows = [sequence.start + 3 for sequence in store.sequences_of("test")]
        for row in rows:
            file["poses/positions"][row, 5] = 0
    assert evaluate(run, data, device="cpu", missing="drop").over_poses.figures == whole
    with pytest.raises(ItesError, match=r"truth of every joint, got \(0, 0, 0\).* left_knee"):
        evaluate(run, data, device="cpu", missing="interpolate")


@pytest.mark.parametrize(
    ("words", "change"),
    [
        ("y upwards", lambda p: p * [1, -1, 1]),
        ("x to the left", lambda p: p * [-1, 1, 1]),
        ("x to the left and y upwards", lambda p: p * [-1, -1, 1]),
        ("z upwards", lambda p: p[..., [0, 2, 1]] * [1, 1, -1]),
        ("x and y exchanged", lambda p: p[..., [1, 0, 2]]),
        ("left and right joints exchanged", lambda p: p[:, list(HUMAN36M.mirror)]),
    ],
)
def test_a_truth_in_other_axes_is_refused(tmp_path, run, words, change):
    path = write_store(tmp_path / "s.h5")
    with h5py.File(path, "r+") as file:
        positions = file["poses/positions"]
        positions[...] = change(positions[...])
    with pytest.raises(ItesError, match=f"s.h5: positions: expected camera axes, .* with {words}$"):
        evaluate(run, path, device="cpu")


def test_people_behind_the_camera_are_refused(tmp_path, run):
    path = write_store(tmp_path / "s.h5")
    with h5py.File(path, "r+") as file:
        file["poses/positions"][..., 2] *= -1
    with pytest.raises(ItesError, match="s.h5: positions: expected .* people behind the camera"):
        evaluate(run, path, device="cpu")


def test_a_truth_that_fits_in_no_axes_is_not_refused(tmp_path, run):
    path = write_store(tmp_path / "s.h5")
    with h5py.File(path, "r+") as file:
        positions = file["poses/positions"]
        positions[...] = np.random.default_rng(5).normal(0, 0.3, positions.shape) + [0, 0, 5]
    assert evaluate(run, path, device="cpu").settings["poses"] == 33


def test_a_skeleton_with_left_and_right_exchanged_is_refused(tmp_path, run):
    names = tuple(HUMAN36M.joints[joint] for joint in HUMAN36M.mirror)
    other = replace(HUMAN36M, name="other", joints=names, left=HUMAN36M.right, right=HUMAN36M.left)
    with PoseStoreWriter(tmp_path / "data.h5", other) as store:
        store.add_camera("one", CAMERA)
        joints = np.random.default_rng(0).normal(0, 0.3, (4, 17, 3)) + [0, 0, 5]
        given = {"camera": "one", "subject": "S9", "action": "a", "split": "test", "fps": 50}
        store.add(CAMERA.project(joints), positions=joints, **given)
    with pytest.raises(ItesError, match="got other: joint 1 is left_hip, not right_hip"):
        evaluate(run, tmp_path / "data.h5", device="cpu")


def test_figures_for_a_log():
    result, _, points, positions = small_case(["walk"] * 6)
    pose = np.random.default_rng(1)
    pose.normal(0, 0.1, (6, 17, 2)), pose.normal(0, 0.3, (6, 17, 3))
    lifter = lift_with(pose.normal(0, 0.3, (6, 17, 3)))
    figures = evaluation.figures(lifter, points, positions, HUMAN36M)
    assert figures == pytest.approx(result.over_poses.figures)


def test_counted_joints():
    assert evaluation.counted_joints(HUMAN36M) == metrics.PCK_JOINTS
    stick = Skeleton("stick", ("a", "b", "c"), (-1, 0, 1), head=2)
    assert evaluation.counted_joints(stick) == (1, 2)


def test_depth_zero_on_the_cmu_protocol(shared, tmp_path):
    """The first row of the table of figures to meet: no network in it, so to the last digit."""
    data = tmp_path / "cmu.h5"
    prepare_cmu(shared / "data" / "cmu_h36m17.h5", data)
    with PoseStore(data) as store:
        positions, (points, _) = evaluation.truth(store, "test"), store.points("test")
        skeleton = store.skeleton
    assert len(points) == 14_528
    flat = lift_with(depth_zero(points, skeleton))
    figures = evaluation.figures(flat, points, positions, skeleton)
    expected = {
        "scaled_mpjpe_oracle": 152.4,
        "p_mpjpe_oracle": 106.0,
        "scaled_mpjpe": 152.4,
        "p_mpjpe": 106.0,
        "n_mpjpe": 151.5,
        "wrong_sign": 0,
    }
    assert {name: round(figures[name], 1) for name in expected} == expected
