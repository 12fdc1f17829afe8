"""Lifting without naming a run: the general model of the package, arrays, and the older order."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from lifting import keypoints

import ites
from ites.cli.main import main
from ites.data.clips import Clips
from ites.data.store import PoseStore
from ites.data.synthetic.synthetic import prepare_synthetic
from ites.errors import ItesError
from ites.pose.metrics import p_mpjpe, pose_errors
from ites.pose.skeleton import HUMAN36M
from ites.runs import packaged
from ites.runs.checkpoint import load_stage


@pytest.fixture
def clip(tmp_path):
    """A file of twelve frames of keypoints, pixels."""
    np.save(tmp_path / "clip.npy", keypoints())
    return tmp_path / "clip.npy"


@pytest.fixture
def general(run, monkeypatch):
    """The general model is the run folder of these tests."""
    monkeypatch.setattr(packaged, "FOLDER", run)
    return run


def positions(clips):
    """The poses of the only clip."""
    assert isinstance(clips, Clips)
    return clips.clips[0].positions


def test_a_lift_without_a_run_is_by_the_general_model(general, clip, tmp_path):
    summary = ites.lift(clip, tmp_path / "a.npz", device="cpu")
    assert summary["run"] == str(general) and summary["poses"] == 12
    with np.load(tmp_path / "a.npz") as file:
        lifted = file["positions"]
    np.testing.assert_array_equal(positions(ites.lift(clip, device="cpu")), lifted)
    for array in (np.load(clip), torch.from_numpy(np.load(clip))):
        np.testing.assert_array_equal(positions(ites.lift(array, device="cpu")), lifted)


def test_the_older_order_of_arguments_means_the_same(run, clip, tmp_path):
    new = positions(ites.lift(clip, run=run, device="cpu"))
    ites.lift(run, clip, tmp_path / "a.npz", device="cpu")
    ites.lift(run, clip, out=tmp_path / "b.npz", device="cpu")
    ites.lift(run=run, keypoints=clip, out=tmp_path / "c.npz", device="cpu")
    for name in ("a.npz", "b.npz", "c.npz"):
        with np.load(tmp_path / name) as file:
            np.testing.assert_array_equal(file["positions"], new)
    with pytest.raises(TypeError, match="'run'"):
        ites.lift(run, clip, tmp_path / "d.npz", run=run)
    with pytest.raises(TypeError, match="unexpected keyword argument 'colour'"):
        ites.lift(clip, colour="red")


def test_the_lifter_of_frames_uses_the_general_model(general, clip):
    frames = np.load(clip)
    ours, named = ites.Lifter(device="cpu"), ites.Lifter(general, device="cpu")
    np.testing.assert_array_equal(ours.lift(frames), named.lift(frames))


@pytest.mark.skipif(not packaged.has_packaged_run(), reason="no packaged model")
@pytest.mark.parametrize("camera", [{}, {"focal_length": 900, "image_size": (1000, 1000)}])
def test_a_frame_without_its_root_or_any_joint_has_no_pose(camera):
    frames = keypoints()[:5].copy()
    frames[1], frames[3, HUMAN36M.root], frames[4, 3] = np.nan, np.nan, np.nan
    lifter = ites.Lifter(device="cpu", **camera)
    for lifted in (lifter.lift(frames), np.stack([lifter.lift(frame) for frame in frames])):
        unknown = np.isnan(lifted)
        assert unknown[[1, 3]].all() and not unknown[[0, 2, 4]].any()


def test_the_command_line_takes_a_run_before_or_by_option(general, clip, tmp_path, capsys):
    for number, words in enumerate(([clip], [general, clip], [clip, "--run", general])):
        out = tmp_path / f"{number}.npz"
        with pytest.raises(SystemExit) as stopped:
            main([*map(str, ["lift", *words, "-o", out, "--device", "cpu"])])
        assert stopped.value.code == 0
        with np.load(out) as file, np.load(tmp_path / "0.npz") as first:
            np.testing.assert_array_equal(file["positions"], first["positions"])
    capsys.readouterr()
    with pytest.raises(SystemExit) as stopped:
        main([*map(str, ["lift", clip, clip, clip, "-o", tmp_path / "x.npz"])])
    assert stopped.value.code == 2
    assert "expected one file or folder of keypoints" in capsys.readouterr().err


def test_an_installation_without_the_model_says_so(monkeypatch, clip, tmp_path, capsys):
    monkeypatch.setattr(packaged, "FOLDER", tmp_path / "nothing")
    for call in (lambda: ites.lift(clip), ites.Lifter):
        with pytest.raises(ItesError, match="contains no model; name the folder of a training"):
            call()
    with pytest.raises(SystemExit) as stopped:
        main(["lift", str(clip), "-o", str(tmp_path / "x.npz")])
    assert stopped.value.code == 2
    assert "(--run RUN)" in capsys.readouterr().err
    assert not (tmp_path / "x.npz").exists()


@pytest.mark.skipif(not packaged.has_packaged_run(), reason="built without the general model")
@pytest.mark.parametrize("stage", ["prior", "teacher"])
def test_the_packaged_model_names_no_path_of_its_training(stage):
    _, metadata = load_stage(packaged.FOLDER, stage)
    assert metadata.settings["data"] == "field.h5" and metadata.settings["out"] == "general"
    assert not [v for v in metadata.settings.values() if "/" in str(v)]


@pytest.mark.skipif(not packaged.has_packaged_run(), reason="built without the general model")
def test_lifting_does_not_wait_for_pytorchs_compiler(clip):
    """`torch._dynamo` takes two seconds to import, half of what a short clip takes."""
    code = (
        "import sys, ites; ites.lift(sys.argv[1], fps=25.0, temporal=True); "
        "print('torch._dynamo' in sys.modules)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, clip], capture_output=True, text=True, check=True
    )
    assert result.stdout == "False\n"


@pytest.mark.skipif(not packaged.has_packaged_run(), reason="built without the general model")
def test_the_packaged_model_lifts_people_it_never_saw(tmp_path):
    prepare_synthetic(tmp_path / "s.h5", 2000, seed=5, fps=25)
    with PoseStore(tmp_path / "s.h5") as store:
        clip = store.sequences_of("test")[0]
        rows = slice(clip.start, clip.start + clip.length)
        points = store.keypoints(None)[rows]
        truth = torch.from_numpy(store.positions(None)[rows]).float()
    (lifted,) = ites.lift(points, fps=clip.fps, image_size=(1000, 1000), device="cpu").clips
    poses = torch.from_numpy(lifted.positions)
    errors = pose_errors(poses, truth - truth[:, :1])
    flat = p_mpjpe(poses * torch.tensor([1.0, 1.0, 0.0]), truth)
    assert errors["p_mpjpe"].mean() < 0.07 and errors["p_mpjpe"].mean() < 0.8 * flat.mean()
    assert not errors["wrong_sign"].any() and (lifted.sign_confidence > 0.8).mean() > 0.9
    assert (lifted.expected_error > 10).all() and (lifted.expected_error < 200).all()  # mm


@pytest.mark.skipif(not packaged.has_packaged_run(), reason="built without the general model")
def test_sequences_of_real_detections_are_better_than_their_frames(shared):
    if not (shared / "real").is_dir():
        pytest.skip("no real clips in ITES_SHARED or ../shared")
    gains = {1: [], 5: [], 12: []}  # 60, 12 and 5 frames per second
    for camera in (1, 2, 3, 4):
        with np.load(shared / "real" / f"balance_cam{camera}_coco.npz") as file:
            seen = file["keypoints"]
        with np.load(shared / "real" / f"balance_cam{camera}_truth.npz") as file:
            truth = torch.from_numpy(file["truth"])
        for every, gain in gains.items():
            given = {"layout": "coco17", "image_size": (1088, 1920), "fps": 60 / every}
            whole, single = (
                torch.from_numpy(
                    positions(
                        ites.lift(
                            seen[::every], temporal=temporal, trust=False, device="cpu", **given
                        )
                    )
                )
                for temporal in (None, False)
            )
            better = p_mpjpe(single, truth[::every]) - p_mpjpe(whole, truth[::every])
            gain.append(1000 * better.mean().item())
    assert min(gains[1]) > 0 and min(gains[5]) > 0  # millimetres
    assert all(np.mean(gain) > 1 for gain in gains.values())
