"""Frames lifted as they come."""

import math

import numpy as np
import pytest
import torch
from lifting import clips_of, keypoints, lift_clips

from ites.errors import ItesError
from ites.inference.stream import Lifter
from ites.runs.checkpoint import load_model


@pytest.mark.parametrize("stage", ["teacher", "student"])
@pytest.mark.parametrize("focal", [None, 1000.0, (1000.0, 900.0)])
def test_a_whole_clip_is_lifted_as_from_a_file(run, stage, focal):
    model, _ = load_model(run, stage)
    both = None if focal is None else tuple(np.broadcast_to(focal, 2).tolist())
    clips = clips_of(keypoints(), focal_length=both)
    expected = lift_clips(model.pose, clips, 1.5)[0].clips[0].positions
    lifter = Lifter(run, stage=stage, focal_length=focal, device="cpu")
    whole = lifter.lift(keypoints())
    assert whole.dtype == np.float32
    np.testing.assert_allclose(whole, expected, rtol=1e-4, atol=1e-5)
    lifter.reset()
    for frame in keypoints():
        last = lifter.lift(frame)
    assert last.shape == (17, 3)
    # Without a camera the person's size is settled only frame by frame.
    close = 1e-5 if focal else 0.05
    np.testing.assert_allclose(last, expected[-1], rtol=1e-4, atol=close)


def test_what_comes_in_comes_out(run):
    lifter = Lifter(run, focal_length=1000, device="cpu")
    frame = keypoints()[0]
    first = lifter.lift(torch.from_numpy(frame).double())
    assert isinstance(first, torch.Tensor) and first.dtype == torch.float32
    kept = first.clone()
    again = lifter.lift(frame)
    assert isinstance(again, np.ndarray)
    np.testing.assert_array_equal(again, kept)
    lifter.lift(keypoints()[5])
    assert torch.equal(first, kept)  # a result is the caller's own
    first *= 1000  # and no tensor of inference mode
    (torch.ones(3, requires_grad=True) * first).sum().backward()
    assert lifter.lift(keypoints()[:0]).shape == (0, 17, 3)


def test_a_bad_frame_spoils_no_other(run):
    frames = keypoints()[:3].copy()
    for focal in (None, 1000.0):
        bad, good = (Lifter(run, focal_length=focal, device="cpu") for _ in range(2))
        frames[1, 4] = np.nan
        lifted = bad.lift(frames)
        assert np.isnan(lifted[1]).any() and np.isfinite(lifted[[0, 2]]).all()
        np.testing.assert_allclose(lifted[[0, 2]], good.lift(frames[[0, 2]]), rtol=1e-5, atol=1e-6)
        assert np.isfinite(bad.lift(frames[2])).all()


@pytest.mark.parametrize("focal", [None, 1000.0])
def test_a_wild_keypoint_spoils_no_other_frame(run, focal):
    frames = keypoints()
    wild = frames.copy()
    wild[4, 10] = 1e6
    bad, good = (Lifter(run, focal_length=focal, device="cpu") for _ in range(2))
    lifted = np.stack([bad.lift(frame) for frame in wild])
    expected = np.stack([good.lift(frame) for frame in frames])
    assert np.isnan(lifted[4]).all()
    rest = np.delete(np.arange(12), 4)
    np.testing.assert_allclose(lifted[rest], expected[rest], rtol=0.05, atol=0.02)
    lifter = Lifter(run, focal_length=focal, device="cpu")
    frames[0, 10] += 300  # no impossible place, but a wrong size in the first frame
    late = [lifter.lift(frame) for frame in np.tile(frames, (4, 1, 1))][-1]
    np.testing.assert_allclose(late, expected[-1], atol=0.03)


def test_latency_is_measured(run):
    lifter = Lifter(run, focal_length=1000, device="cpu")
    assert lifter.latency()["calls"] == 0 and math.isnan(lifter.latency()["p50"])
    for frame in keypoints():
        lifter.lift(frame)
    latency = lifter.latency()
    assert latency["calls"] == 12
    assert 0 < latency["p50"] <= latency["p90"] <= latency["p99"] <= latency["max"]


def test_half_precision_is_near(run):
    poses = [
        Lifter(run, focal_length=1000, device="cpu", precision=precision).lift(keypoints())
        for precision in ("float32", "bf16")
    ]
    assert 0 < np.abs(poses[0] - poses[1]).mean() < 0.01 * np.abs(poses[0]).mean()


def test_mistakes_are_told(run):
    lifter = Lifter(run, device="cpu")
    with pytest.raises(ValueError, match=r"shape \(17, 2\) or \(B, 17, 2\), got \(16, 2\)"):
        lifter.lift(np.zeros((16, 2)))
    for wrong in ({"focal_length": (1.0, -1.0)}, {"body_size": 0.0}, {"precision": "half"}):
        with pytest.raises(ItesError, match=next(iter(wrong))):
            Lifter(run, device="cpu", **wrong)
