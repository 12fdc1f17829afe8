"""Frames lifted as they come."""

import copy
import math
import pickle
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from lifting import clips_of, keypoints, lift_clips
from people import scored, walk

from ites.errors import ItesError
from ites.inference.incoming import ToHuman36m
from ites.inference.stream import Lifter
from ites.pose.layouts import LAYOUTS, convert, joints_of
from ites.pose.skeleton import HUMAN36M
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
def test_a_misplaced_keypoint_spoils_no_other_frame(run, focal):
    frames = keypoints()
    misplaced = frames.copy()
    misplaced[4, 10] = 1e6
    bad, good = (Lifter(run, focal_length=focal, device="cpu") for _ in range(2))
    lifted = np.stack([bad.lift(frame) for frame in misplaced])
    expected = np.stack([good.lift(frame) for frame in frames])
    assert np.isnan(lifted[4]).all()
    rest = np.delete(np.arange(12), 4)
    np.testing.assert_allclose(lifted[rest], expected[rest], rtol=0.05, atol=0.02)
    lifter = Lifter(run, focal_length=focal, device="cpu")
    frames[0, 10] += 300  # no impossible place, but a wrong size in the first frame
    late = [lifter.lift(frame) for frame in np.tile(frames, (4, 1, 1))][-1]
    np.testing.assert_allclose(late, expected[-1], atol=0.03)


@pytest.mark.parametrize("filler", [0.0, -1.0])
def test_joints_that_a_detector_puts_at_a_corner_are_missing(run, filler):
    """As in files: they are nan, and change nothing in other frames."""
    frames, hidden = keypoints(12), keypoints(12)
    frames[7, [13, 16]], hidden[7, [13, 16]] = filler, np.nan
    frames[9], hidden[9] = filler, np.nan  # nobody
    found, expected = (
        np.stack([lifter.lift(frame) for frame in given])
        for given in (frames, hidden)
        if (lifter := Lifter(run, focal_length=1000, device="cpu"))
    )
    np.testing.assert_array_equal(found, expected)
    assert np.isnan(found[9]).all()


def test_an_origin_amid_the_joints_is_one_of_them(run):
    frame = keypoints(1)[0]
    lifted = Lifter(run, focal_length=1000, device="cpu").lift(frame - frame[0])
    assert np.isfinite(lifted).all()


def test_what_a_masked_frame_hides_is_missing(run):
    frame, hidden = np.ma.masked_array(keypoints(1)[0]), keypoints(1)[0]
    frame[6] = np.ma.masked
    hidden[6] = np.nan
    lifter = Lifter(run, focal_length=1000, device="cpu")
    np.testing.assert_array_equal(lifter.lift(frame), lifter.lift(hidden))


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_a_copy_of_a_lifter_lifts_its_own_frames(run, copied):
    frames = keypoints()
    one = Lifter(run, focal_length=1000, device="cpu")
    one.lift(frames[0])
    other, expected = copied(one), copy.deepcopy(one)
    np.testing.assert_array_equal(other.lift(frames[9]), one.lift(frames[9]))
    assert not np.array_equal(other.lift(frames[5]), expected.lift(frames[0]))


def test_threads_may_share_a_lifter(run):
    """Each gets the pose of its own frame, whichever comes first."""
    frames = keypoints(8)
    lifter = Lifter(run, focal_length=1000, device="cpu", height=1.8)
    lifter.lift(frames)
    shapes = [lift / np.linalg.norm(lift) for lift in map(lifter.lift, frames)]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lifter.lift, [frames[k % 8] for k in range(400)]))
    for k, lift in enumerate(found):
        np.testing.assert_allclose(lift / np.linalg.norm(lift), shapes[k % 8], atol=1e-4)


@pytest.mark.parametrize(
    "wrong", [{"focal_length": math.inf}, {"focal_length": 900, "principal_point": (5, math.nan)}]
)
def test_a_camera_that_is_not_finite_is_refused(run, wrong):
    with pytest.raises(ItesError, match="must be .*finite, got"):
        Lifter(run, device="cpu", **wrong)


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


def test_mistakes_are_reported(run):
    lifter = Lifter(run, device="cpu")
    with pytest.raises(ValueError, match=r"shape \(17, 2\) or .*, got \(16, 2\)"):
        lifter.lift(np.zeros((16, 2)))
    with pytest.raises(ItesError, match="layout must be one of .*, got 'coco71'"):
        Lifter(run, layout="coco71", device="cpu")
    for wrong in ({"focal_length": (1.0, -1.0)}, {"body_size": 0.0}, {"precision": "half"}):
        with pytest.raises(ItesError, match=next(iter(wrong))):
            Lifter(run, device="cpu", **wrong)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_joints_are_mapped_as_those_of_files(layout):
    rng = np.random.default_rng(0)
    joints = joints_of(layout)
    frames = rng.normal(0, 100, (200, len(joints), 2)).astype(np.float32)
    frames[rng.random(frames.shape[:2]) < rng.random((200, 1))] = np.nan
    seen = np.isfinite(frames).all(-1).astype(np.float32)
    expected, sure = convert(np.nan_to_num(frames), joints, seen, layout)
    found = ToHuman36m(layout, torch.device("cpu"))(torch.from_numpy(frames)).numpy()
    np.testing.assert_array_equal(np.isfinite(found).all(-1), sure > 0)
    np.testing.assert_allclose(found[sure > 0], expected[sure > 0], rtol=1e-5, atol=1e-3)
    assert 0 < (sure > 0).mean() < 1


def detected(frames=12):
    """(T, 17, 3) of COCO's order, pixels and confidence."""
    return scored(walk("coco17", frames))


def test_a_detectors_frames_are_lifted_as_its_file(run):
    frames = detected()
    clip = convert(frames[..., :2], joints_of("coco17"), frames[..., 2], "coco17")[0]
    theirs = Lifter(run, layout="coco17", device="cpu")
    assert theirs.joints[0] == "nose" and theirs.skeleton == HUMAN36M
    expected = Lifter(run, device="cpu").lift(clip)
    np.testing.assert_allclose(theirs.lift(frames), expected, rtol=1e-4, atol=1e-5)
    frames[3, 9] = (5.0, 5.0, 0.05)  # a wrist that the detector is not sure of
    lifted = Lifter(run, layout="coco17", device="cpu").lift(frames)
    assert np.isnan(lifted[3]).any() and np.isfinite(np.delete(lifted, 3, 0)).all()
    sure_enough = Lifter(run, layout="coco17", min_confidence=0.0, device="cpu").lift(frames)
    assert np.isfinite(sure_enough[3]).all()


def test_frames_in_another_order_than_the_models_are_warned_of(run):
    frames = detected()
    lifter = Lifter(run, device="cpu")
    with pytest.warns(UserWarning, match=r"order coco17.*; Lifter\(layout=...\) names"):
        for frame in frames:
            lifter.lift(frame)
    lifter.reset()
    with pytest.warns(UserWarning, match="order coco17"):  # a new clip is checked anew
        lifter.lift(frames)
    named = Lifter(run, layout="coco17", device="cpu")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for frame in frames:
            named.lift(frame)


def test_frames_with_and_without_confidences_may_alternate(run):
    frames = detected()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        lifter = Lifter(run, layout="coco17", device="cpu")
        mixed = [lifter.lift(frame[:, : 2 + at % 2]) for at, frame in enumerate(frames)]
    alike = Lifter(run, layout="coco17", device="cpu")
    np.testing.assert_array_equal(mixed, [alike.lift(frame) for frame in frames])


def test_frames_that_are_no_pixels_are_refused(run):
    frames = detected()
    frames[..., :2] /= 1000
    with pytest.raises(ItesError, match="Lifter.lift: coordinates are divided by the image's"):
        Lifter(run, layout="coco17", device="cpu").lift(frames)
    frames[..., :2] *= 1000
    frames[..., 2] = -400
    with pytest.raises(ItesError, match="Lifter.lift: the third column is below 0"):
        Lifter(run, layout="coco17", device="cpu").lift(frames)
