"""ites.models.trust: the confidence in a lifted pose, and that it is calibrated."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from lifting import keypoints

from ites.data.lifted import read_clips
from ites.data.store import PoseStoreWriter
from ites.errors import ItesError
from ites.inference.lift import lift
from ites.models import Prior, Student, UprightStudent, UprightTeacher
from ites.models.trust import Odds, _platt
from ites.pose import geometry
from ites.pose.camera import Camera
from ites.pose.skeleton import HUMAN36M
from ites.runs.checkpoint import Metadata, load_model, load_prior, load_trust, save_model
from ites.runs.folder import RunFolder
from ites.training.calibration import calibrate

CPU = torch.device("cpu")
MEASURES = ("elevation", "log_density", "sign_confidence")


def points(count: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    drawn = 0.1 * torch.randn(count, 17, 2, generator=generator)
    return drawn - drawn[:, :1]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run folder of recipe "upright" with small models, calibrated; nothing is trained."""
    folder = tmp_path_factory.mktemp("run")
    torch.manual_seed(0)
    teacher = UprightTeacher(width=32, blocks=1, atoms=4)
    torch.nn.init.normal_(teacher.elevation_angle.weight)
    prior = Prior(width=16, blocks=2)
    prior.fit(points(200))
    for model in (prior, teacher, UprightStudent(width=16, blocks=1)):
        metadata = Metadata(kind=model.kind, skeleton=HUMAN36M, scale=1.5)
        save_model(folder / f"{model.kind}.safetensors", model, metadata)
    for stage in ("teacher", "student"):
        calibrate(folder, stage, points(100), CPU)
    return folder


@pytest.fixture
def array(tmp_path):
    np.savez(tmp_path / "in.npz", keypoints=keypoints(), focal_length=1000, fps=30)
    return tmp_path / "in.npz"


def test_the_density_is_that_of_the_views_around(run):
    judge = load_trust(run, "student")
    flat, depth = points(6), 0.3 * torch.randn(6, 17, 1)
    depth = depth - depth[:, :1]
    with torch.inference_mode():
        elevation, density = judge.judge(flat, depth)
        pose, expected = geometry.backproject(flat, depth), []
        torch.testing.assert_close(elevation, load_model(run, "teacher")[0].elevation(flat))
        for one, e in zip(pose, elevation, strict=True):
            c, s = math.cos(e), math.sin(e)
            level = one @ torch.tensor([[1, 0, 0], [0, c, -s], [0, s, c]])
            views = []
            for degrees in (45, 135, 225, 315):
                a = math.radians(degrees)
                turn = [[math.cos(a), 0, math.sin(a)], [0, 1, 0], [-math.sin(a), 0, math.cos(a)]]
                seen = level @ torch.tensor(turn) @ torch.tensor([[1, 0, 0], [0, c, s], [0, -s, c]])
                views.append(geometry.project(seen))
            nats = load_prior(run)(torch.stack(views))
            expected.append(-(100 * torch.tanh(nats / 100)).mean())
    torch.testing.assert_close(density, torch.stack(expected), rtol=1e-3, atol=0.05)


def test_the_curve_is_the_likeliest_one():
    generator = torch.Generator().manual_seed(0)
    density = -30 + 10 * torch.randn(20_000, generator=generator)
    right = torch.rand(20_000, generator=generator) < torch.sigmoid(4 + 0.1 * density)
    bias, slope, _ = _platt(density, right)
    assert bias == pytest.approx(4, abs=0.2) and slope == pytest.approx(0.1, abs=0.006)
    chance = torch.sigmoid(bias + slope * density.double())
    assert chance.mean().item() == pytest.approx(right.double().mean().item(), abs=1e-3)


def test_where_all_signs_are_right_the_curve_is_finite():
    bias, slope, _ = _platt(torch.linspace(-50, -10, 98), torch.ones(98, dtype=torch.bool))
    assert slope == pytest.approx(0, abs=1e-9) and bias == pytest.approx(math.log(99), rel=1e-6)


def test_calibration_repeats_itself(run):
    before = RunFolder(run).odds("student").read_text()
    assert calibrate(run, "student", points(100), CPU) == Odds(**json.loads(before))


@pytest.mark.parametrize("stage", ["teacher", "student"])
@pytest.mark.parametrize("ending", ["npz", "h5"])
def test_a_lifted_file_tells_it(run, array, tmp_path, stage, ending):
    summary = lift(
        run, array, tmp_path / f"out.{ending}", stage=stage, device="cpu", scale="checkpoint"
    )
    assert summary["notes"][-2].startswith("how far to trust each pose: elevation, log_density")
    (clip,) = read_clips(tmp_path / f"out.{ending}").clips
    doubtful = (clip.sign_confidence < 0.8).sum()
    assert (
        summary["notes"][-1]
        == f"{doubtful} of 12 poses are less than 80% sure of their depth's sign"
    )
    seen = keypoints()
    flat = torch.from_numpy((seen - seen[:, :1]) / 1000 * 1.5)
    with torch.inference_mode():
        teacher = load_model(run, "teacher")[0]
        np.testing.assert_allclose(clip.elevation, teacher.elevation(flat), atol=1e-5)
    bias, slope, _ = load_trust(run, stage).odds
    expected = 1 / (1 + np.exp(-bias - slope * clip.log_density))
    np.testing.assert_allclose(clip.sign_confidence, expected, rtol=1e-4)
    assert all(getattr(clip, name).dtype == np.float32 for name in MEASURES)
    assert ((clip.sign_confidence >= 0) & (clip.sign_confidence <= 1)).all()


def test_what_a_run_cannot_tell_is_left_out_and_said(run, array, tmp_path):
    out = tmp_path / "out.npz"
    torch.manual_seed(0)
    paper = tmp_path / "paper.safetensors"
    metadata = Metadata(kind="student", skeleton=HUMAN36M, scale=1.5)
    save_model(paper, Student(width=16, blocks=1), metadata)
    for what, reason in (
        (run / "student.safetensors", "is no run folder with the teacher, the prior and the odds"),
        (paper, "a model of recipe paper does not know its depth's sign"),
    ):
        summary = lift(what, array, out, device="cpu")
        assert reason in summary["notes"][-1] and MEASURES[0] in summary["notes"][-1]
        assert all(getattr(read_clips(out).clips[0], name) is None for name in MEASURES)
    summary = lift(run, array, out, device="cpu", trust=False)
    assert not any("trust" in note or "elevation" in note for note in summary["notes"])
    assert read_clips(out).clips[0].sign_confidence is None


def test_damaged_odds_are_refused(run, array, tmp_path):
    for text in ("{", '{"bias": 1}'):
        folder = tmp_path / "damaged"
        folder.mkdir(exist_ok=True)
        for file in run.iterdir():
            (folder / file.name).write_bytes(file.read_bytes())
        (folder / "student.odds.json").write_text(text)
        with pytest.raises(ItesError, match="student.odds.json: expected "):
            lift(folder, array, tmp_path / "out.npz", device="cpu")


def test_the_reliability_table_counts_every_pose_once():
    pytest.importorskip("matplotlib", reason="pip install 'ites[view]'")
    from benchmarks.accuracy.reliability import table

    confidence = np.linspace(0, 1, 101)
    right = (np.arange(101) % 2).astype(float)
    rows = table(
        {"confidence": confidence, "density": -confidence, "right": right, "p_mpjpe": 50 + right}
    )
    for by, bins in (("confidence", 8), ("density", 10)):
        mine = [row for row in rows if row["by"] == by]
        assert len(mine) == bins and sum(row["poses"] for row in mine) == 101
    half = next(row for row in rows if row["to"] == "0.6" or row["to"] == 0.6)
    assert half["poses"] == 60 and half["right"] == "0.5" and half["p_mpjpe"] == "50.5"


@pytest.fixture
def three(tmp_path):
    """A store of three clips of 5, 9 and 7 frames."""
    with PoseStoreWriter(tmp_path / "three.h5", HUMAN36M) as writer:
        writer.add_camera("c", Camera("c", (1000, 1000), (500, 500)))
        for i, frames in enumerate((5, 9, 7)):
            writer.add(keypoints(frames, seed=i), camera="c", subject=f"S{i}", action="a", fps=25.0)
    return tmp_path / "three.h5"


@pytest.mark.parametrize("ending", ["npz", "h5"])
@pytest.mark.parametrize("portion", [1, 6, 1000])
def test_each_clip_of_several_is_judged_as_it_is_alone(
    run, three, tmp_path, ending, portion, monkeypatch
):
    monkeypatch.setattr("ites.inference.lift.PORTION", portion)
    out = tmp_path / f"out.{ending}"
    summary = lift(run, three, out, device="cpu")
    doubtful = 0
    for i, clip in enumerate(read_clips(out).clips):
        np.savez(
            tmp_path / "in.npz", keypoints=keypoints((5, 9, 7)[i], seed=i), focal_length=1000,
            fps=25,
        )  # fmt: skip
        lift(run, tmp_path / "in.npz", tmp_path / "alone.npz", device="cpu")
        (alone,) = read_clips(tmp_path / "alone.npz").clips
        for name in ("positions", "metres_per_unit", *MEASURES):
            assert len(getattr(clip, name)) == len(clip)
            np.testing.assert_allclose(
                getattr(clip, name), getattr(alone, name), rtol=1e-4, atol=1e-4
            )
        doubtful += int((clip.sign_confidence < 0.8).sum())
    assert summary["notes"][-1].startswith(f"{doubtful} of 21 poses")


def test_few_poses_and_constant_clips_have_odds(run):
    for count in (1, 2, 3):
        for poses in (points(count), points(1).expand(count, -1, -1)):
            odds = calibrate(run, "student", poses, CPU)
            assert all(map(math.isfinite, (odds.bias, odds.slope, *odds.error)))
    bias, slope, _ = _platt(torch.full((9,), -3.0), torch.arange(9) < 6)
    assert (bias, slope) == (pytest.approx(math.log(0.65 / 0.35)), 0.0)  # (6 7/8 + 3 1/5) / 9
    calibrate(run, "student", points(100), CPU)


def test_frames_of_nobody_are_not_judged(run, tmp_path):
    seen = np.ones((12, 17))
    seen[:3] = 0
    np.savez(tmp_path / "in.npz", keypoints=keypoints(), confidence=seen, fps=25)
    lift(run, tmp_path / "in.npz", tmp_path / "out.npz", device="cpu")
    (clip,) = read_clips(tmp_path / "out.npz").clips
    for name in MEASURES:
        assert np.isnan(getattr(clip, name)).tolist() == 3 * [True] + 9 * [False]
