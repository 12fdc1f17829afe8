"""Lifting, clips and lifted files: what is read, assumed, lifted and written."""

import doctest
import math
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from lifting import BODY, clips_of, keypoints, lift_clips, motion

import ites
from ites.data.clips import Clip, Clips, fill_missing, seen_joints
from ites.data.corrections import Corrections
from ites.data.datasets.keypoints import prepare_keypoints
from ites.data.keypoint_reader import read_keypoints
from ites.data.lifted import read_clips, write_clips
from ites.data.store import PoseStoreWriter
from ites.errors import ItesError
from ites.inference.assume import assume_camera, from_field_of_view, network_input
from ites.inference.lift import cut, lift
from ites.inference.size import metres_per_unit
from ites.models import fold_norms
from ites.models.predict import batch_size_for, lift_points
from ites.pose.camera import human36m_cameras
from ites.pose.missing import impossible, robust_mean
from ites.pose.skeleton import HUMAN36M, Skeleton
from ites.pose.smoothing import SMOOTHERS
from ites.pose.swaps import brief_swaps
from ites.runs.checkpoint import load_model, save_model

RNG = np.random.default_rng(3)


def flat(points):
    """A lifter: everything at the root's depth, 5 units away."""
    return torch.cat([5 * points, torch.zeros_like(points[..., :1])], -1)


# Reading


def test_arrays_are_read_alone_and_with_company(tmp_path):
    points = keypoints()
    np.save(tmp_path / "a.npy", points)
    np.savez(tmp_path / "b.npz", points)
    np.savez(tmp_path / "c.npz", keypoints=points.astype(np.float64), fps=30, focal_length=900,
             image_size=(640, 480), other=np.zeros(3))  # fmt: skip
    for name in "a.npy", "b.npz", "c.npz":
        (clip,) = read_keypoints(tmp_path / name).clips
        assert clip.name == name[0] and clip.confidence is None
        np.testing.assert_array_equal(clip.keypoints, points)
    assert (clip.fps, clip.focal_length, clip.image_size) == (30, (900, 900), (640, 480))


def test_missing_joints_have_confidence_zero(tmp_path):
    points = np.concatenate([keypoints(), np.full((12, 17, 1), 0.8)], -1)
    points[3, 5, 2], points[4, 6, 0], points[5, 7, 2] = 0, np.nan, np.nan
    np.save(tmp_path / "a.npy", points)
    (clip,) = read_keypoints(tmp_path / "a.npy").clips
    assert np.argwhere(clip.confidence == 0).tolist() == [[3, 5], [4, 6], [5, 7]]
    assert np.isfinite(clip.keypoints).all() and clip.confidence.max() == np.float32(0.8)
    np.save(tmp_path / "b.npy", points[..., :2])
    (clip,) = read_keypoints(tmp_path / "b.npy").clips
    assert np.argwhere(clip.confidence == 0).tolist() == [[4, 6]]


def test_coco_is_converted(tmp_path):
    points = RNG.normal(size=(4, 17, 2)).astype(np.float32)
    np.save(tmp_path / "a.npy", points)
    (clip,) = read_keypoints(tmp_path / "a.npy", layout="coco17").clips
    np.testing.assert_allclose(clip.keypoints[:, 0], points[:, [11, 12]].mean(1), rtol=1e-5)
    np.testing.assert_array_equal(clip.keypoints[:, 13], points[:, 9])


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"hue": np.zeros((2, 17, 2)), "fps": 3.0}, "expected an array 'keypoints', got fps, hue"),
        ({"points": np.zeros((2, 17, 2)), "fps": 3.0}, "all joints are missing"),
        ({"keypoints": np.zeros((2, 17))}, r"shape \(T, J, 2\) or \(T, J, 3\), got float64 of"),
        ({"keypoints": np.zeros((0, 17, 2))}, "no frame"),
        ({"keypoints": np.zeros((2, 16, 2))}, r"expected 17 joints per frame \(human36m\), got 16"),
        ({"keypoints": np.zeros((2, 17, 2)), "fps": -1.0}, "fps must be positive and finite"),
        ({"keypoints": np.zeros((2, 17, 2)), "image_size": 5}, "image_size must hold 2 numbers"),
        ({"keypoints": np.zeros((2, 17, 2)), "confidence": np.zeros(2)}, "confidence must have"),
        ({"keypoints": np.array([{}])}, "frame 0: expected numbers, got '{}'"),
    ],
)
def test_what_is_no_clip_is_refused(tmp_path, arrays, message):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(ItesError, match=message):
        read_keypoints(tmp_path / "a.npz")


def test_other_files_are_refused(tmp_path):
    (tmp_path / "a.npz").write_text("hello")
    with pytest.raises(ItesError, match="expected keypoints: a pose store, .npz, .npy"):
        read_keypoints(tmp_path / "a.npz")
    with pytest.raises(ItesError, match="no such file"):
        read_keypoints(tmp_path / "b.npz")
    np.save(tmp_path / "c.npy", keypoints())
    with pytest.raises(ItesError, match="only a pose store has splits"):
        read_keypoints(tmp_path / "c.npy", split="test")
    with pytest.raises(ItesError, match="that `ites lift` wrote"):
        read_clips(tmp_path / "c.npy")


# Assuming


def test_a_camera_given_replaces_the_files():
    clips, notes = assume_camera(
        clips_of(keypoints(), focal_length=(7.0, 8.0)), None, 90.0, (1000, 800), 50.0
    )
    (clip,) = clips.clips
    assert clip.focal_length == pytest.approx((500, 500))
    assert (clip.image_size, clip.fps) == ((1000, 800), 50.0)
    assert notes == [("focal-length", "focal length 500 px: 90 degrees over 1000 px of image")]
    clips, notes = assume_camera(clips_of(keypoints()), 800.0)
    assert clips.clips[0].focal_length == (800, 800) and notes == []
    with pytest.raises(ItesError, match="not both"):
        assume_camera(clips, 800.0, 55.0)
    with pytest.raises(ItesError, match="between 0 and 180"):
        assume_camera(clips, None, 180.0)


def test_an_unknown_rate_is_assumed_and_reported():
    clips, notes = assume_camera(Clips(HUMAN36M, [Clip("a", keypoints())]))
    assert clips.clips[0].fps == 25 and notes == [("fps-assumed", "25 frames per second, assumed")]


def test_missing_joints_are_filled_in_time():
    points = np.zeros((5, 17, 2), np.float32)
    points[:, 3] = np.arange(5)[:, None] * [1, 10]
    seen = np.ones((5, 17), np.float32)
    seen[[0, 2, 3], 3] = 0
    clip, count = fill_missing(Clip("a", points, confidence=seen), HUMAN36M)
    assert count == 3
    np.testing.assert_allclose(clip.keypoints[:, 3], np.float32([1, 1, 2, 3, 4])[:, None] * [1, 10])


def test_a_missing_joint_moves_along_with_its_parent():
    points = np.zeros((5, 17, 2), np.float32)
    points[:, 2] = np.array([0, 10, 50, 20, 0])[:, None]
    points[:, 3] = points[:, 2] + np.arange(5)[:, None]
    seen = np.ones((5, 17), np.float32)
    seen[1:4, 3] = 0
    damaged = np.where(seen[..., None] > 0, points, 0)
    clip, _ = fill_missing(Clip("a", damaged, confidence=seen), HUMAN36M)
    np.testing.assert_allclose(clip.keypoints, points, atol=1e-4)


def test_a_misplaced_keypoint_counts_as_missing_and_is_reported():
    points = keypoints(12)
    points[5, 10] = 1e6, -1e6
    points[7, 3, 0] = -900
    clips = clips_of(points, image_size=(1000, 800))
    ready, flat_, assumed, _ = network_input(clips, 1.5)
    clean, expected, *_ = network_input(clips_of(keypoints(12), image_size=(1000, 800)), 1.5)
    assert np.argwhere(ready.clips[0].confidence == 0).tolist() == [[5, 10], [7, 3]]
    assert (
        "a: 2 impossible keypoints count as missing, the first in frame 5: head at (1e+06, -1e+06)"
        in [note.text for note in assumed.notes]
    )
    rest = np.delete(np.arange(12), [5, 7])
    np.testing.assert_allclose(flat_[rest], expected[rest], rtol=0.02)
    assert np.abs(flat_[5] - expected[5]).max() < 0.02
    np.testing.assert_array_equal(clean.clips[0].keypoints[rest], ready.clips[0].keypoints[rest])


def test_an_image_size_that_most_keypoints_contradict_makes_none_impossible():
    points = keypoints(4)
    assert not impossible(points, image_size=(10, 10)).any()
    assert impossible(np.full((2, 3, 2), np.nan)).all()


def test_the_scale_of_a_clip_is_a_robust_mean():
    heads = np.r_[np.full(50, 2.0), np.full(50, 3.0)]
    assert robust_mean(heads) == 2.5
    assert robust_mean(np.r_[heads, 1e6, np.nan]) == 2.5
    assert math.isnan(robust_mean(np.array([np.nan])))
    wrong = motion(40) - motion(40)[:, :1]
    right = metres_per_unit(wrong, HUMAN36M)
    wrong[7, 10] *= 50
    np.testing.assert_allclose(
        np.delete(metres_per_unit(wrong, HUMAN36M), 7), np.delete(right, 7), rtol=1e-3
    )


def test_the_width_of_an_unknown_image_is_that_of_possible_keypoints():
    points = keypoints(6)
    width = math.ceil(points[..., 0].max())
    points[2, 4, 0] = 1e6
    for clip in (clips_of(points), clips_of(points, confidence=(points[..., 0] < 1e5) * 1.0)):
        (one,) = clip.clips
        _, words = from_field_of_view(90, None, one.keypoints, seen_joints(one))
        assert words.startswith(f"{width} px")


def test_swapped_legs_are_reported_and_exchanged_where_clips_are_taken_as_wholes():
    points = keypoints(40)
    legs, arms = ([1, 2, 3], [4, 5, 6]), ([15, 16], [12, 13])
    wrong = points.copy()
    for (right, left), frames in ((legs, [20, 21, 22]), (arms, [30])):
        for one, other in ((right, left), (left, right)):
            wrong[np.ix_(frames, one)] = points[np.ix_(frames, other)]
    clips = clips_of(wrong)
    given, _, assumed, _ = network_input(clips, 1.5)
    np.testing.assert_array_equal(given.clips[0].keypoints, wrong)
    (note,) = (text for code, text in assumed.notes if code == "swapped-kept")
    assert note.startswith("a: left and right look swapped in 4 frames from 20 on (left_ankle, le")
    corrected, _, assumed, _ = network_input(clips, 1.5, exchange=True)
    np.testing.assert_array_equal(corrected.clips[0].keypoints, points)
    assert any(text.endswith("exchanged") for _, text in assumed.notes)
    slow = replace(clips.clips[0], fps=5.0)
    assert not brief_swaps(slow.keypoints, HUMAN36M, 5.0)
    assert not brief_swaps(points, HUMAN36M, 25.0) and not brief_swaps(points[:2], HUMAN36M, 25.0)


@pytest.mark.parametrize("temporal", [False, True])
def test_swapped_legs_are_reported_once(run, tmp_path, temporal):
    points = keypoints(40)
    points[20:23, [1, 2, 3, 4, 5, 6]] = points[20:23][:, [4, 5, 6, 1, 2, 3]]
    np.savez(tmp_path / "in.npz", keypoints=points, fps=25)
    summary = lift(run, tmp_path / "in.npz", tmp_path / "o.npz", device="cpu", temporal=temporal)
    code = "swapped" if temporal else "swapped-kept"
    assert summary["codes"].count(code) == 1
    assert all(finding["code"] != "swapped-sides" for finding in summary["findings"])


NEVER = [2, 3, 5, 6]


def upper_body(frames=12):
    """Keypoints and confidence of a webcam: no knees, no ankles."""
    seen = np.ones((frames, 17), np.float32)
    seen[:, NEVER] = 0
    return np.where(seen[..., None] > 0, keypoints(frames), 0), seen


@pytest.mark.parametrize("temporal", [False, True])
def test_joints_never_seen_are_unknown_and_the_rest_is_lifted(run, tmp_path, temporal):
    points, seen = upper_body()
    np.savez(tmp_path / "in.npz", keypoints=points, confidence=seen, fps=25)
    summary = lift(run, tmp_path / "in.npz", tmp_path / "o.npz", device="cpu", temporal=temporal)
    (note,) = (note for note in summary["notes"] if "never seen" in note)
    assert "right_knee, right_ankle, left_knee, left_ankle" in note
    (clip,) = read_clips(tmp_path / "o.npz").clips
    known = np.isfinite(clip.positions).all(-1)
    assert (known == (seen > 0)).all()
    np.testing.assert_array_equal(np.isfinite(clip.keypoints).all(-1), seen > 0)
    np.testing.assert_array_equal(clip.confidence, seen)


def test_frames_without_anybody_are_unknown_where_the_gap_is_long(run, tmp_path):
    points, seen = keypoints(60), np.ones((60, 17), np.float32)
    seen[:2] = seen[20:28] = seen[35:55] = 0  # at 20 a second: 0.4 s and 1 s
    seen[10, 4] = 0
    np.savez(tmp_path / "in.npz", keypoints=points, confidence=seen, fps=20)
    summary = lift(run, tmp_path / "in.npz", tmp_path / "o.npz", device="cpu", temporal=True)
    (clip,) = read_clips(tmp_path / "o.npz").clips
    empty = np.flatnonzero(np.isnan(clip.positions).all((1, 2)))
    assert empty.tolist() == [0, 1, *range(35, 55)]
    assert np.isfinite(np.delete(clip.positions, empty, 0)).all()
    np.testing.assert_array_equal(np.flatnonzero(np.isnan(clip.metres_per_unit)), empty)
    assert "in: 22 frames without a joint: nan in the output" in summary["notes"]
    assert "137 missing joints filled in, linearly in time" in summary["notes"]


def test_a_clip_of_nobody_is_no_refusal_of_the_others(run, tmp_path):
    with PoseStoreWriter(tmp_path / "s.h5", HUMAN36M) as writer:
        writer.add_camera("c", human36m_cameras("S9")[0])
        for name, sure in (("a", 1), ("nobody", 0), ("b", 1)):
            writer.add(
                keypoints(5), camera="c", subject=name, action="x", fps=25.0,
                confidence=np.full((5, 17), sure),
            )  # fmt: skip
    summary = lift(run, tmp_path / "s.h5", tmp_path / "o.h5", device="cpu", temporal=True)
    one, nobody, other = read_clips(tmp_path / "o.h5").clips
    assert np.isnan(nobody.positions).all() and np.isfinite(one.positions).all()
    np.testing.assert_allclose(one.positions, other.positions, atol=1e-6)
    assert "nobody/x/c: nobody is seen in it: nan in the output" in summary["notes"]


def test_what_was_assumed_in_a_store_is_not_known(run, tmp_path):
    np.savez(tmp_path / "in.npz", keypoints=keypoints())
    prepare_keypoints([tmp_path / "in.npz"], tmp_path / "s.h5")
    (clip,) = read_keypoints(tmp_path / "s.h5").clips
    assert clip.focal_length is None and clip.image_size is None and math.isnan(clip.fps)
    of_store = lift(run, tmp_path / "s.h5", tmp_path / "a.npz", device="cpu")
    of_file = lift(run, tmp_path / "in.npz", tmp_path / "b.npz", device="cpu")
    assert of_store["notes"] == of_file["notes"]
    one, other = (read_clips(tmp_path / f"{name}.npz").clips[0] for name in "ab")
    np.testing.assert_allclose(one.positions, other.positions, atol=1e-6)
    prepare_keypoints([tmp_path / "in.npz"], tmp_path / "t.h5", field_of_view=55.0, fps=25.0)
    (clip,) = read_keypoints(tmp_path / "t.h5").clips
    assert clip.focal_length is not None and clip.fps == 25


def test_options_that_a_store_leaves_without_effect_are_refused_or_reported(run, tmp_path):
    np.savez(tmp_path / "in.npz", keypoints=keypoints())
    prepare_keypoints([tmp_path / "in.npz"], tmp_path / "s.h5", split="val")
    for wrong, message in (
        ({"split": "test"}, "s.h5: expected a split of val, got 'test'"),
        ({"person": 1}, "s.h5: person chooses among a detector's results"),
        ({"min_confidence": 0.5}, "s.h5: min_confidence chooses among a detector's results"),
        ({"layout": "coco17"}, "s.h5: a pose store keeps its order of joints, human36m; got layou"),
    ):
        with pytest.raises(ItesError, match=message):
            lift(run, tmp_path / "s.h5", tmp_path / "o.npz", device="cpu", **wrong)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.npz", "s.h5"]
    summary = lift(
        run, tmp_path / "s.h5", tmp_path / "o.npz", device="cpu", layout="human36m",
        corrections=Corrections(flip_y=True),
    )  # fmt: skip
    assert "y flipped: it pointed up" in summary["notes"]
    with pytest.raises(ItesError, match="o.npz: expected keypoints to lift, got poses that are"):
        lift(run, tmp_path / "o.npz", tmp_path / "p.npz", device="cpu")


# Lifting


def test_the_network_sees_what_the_method_says():
    seen = []

    def pose(points):
        seen.append(points)
        return flat(points)

    points = keypoints()
    centred = (points - points[:, :1]) / np.float32([1000, 900])
    lift_clips(pose, clips_of(points, focal_length=(1000.0, 900.0)), 1.5, batch_size=5)
    assert [len(batch) for batch in seen] == [5, 5, 2]
    np.testing.assert_allclose(torch.cat(seen), 1.5 * centred, rtol=1e-5, atol=1e-7)
    seen.clear()
    lift_clips(pose, clips_of(points, focal_length=(1000.0, 900.0)), 1.5, scale="clip")
    heads = torch.linalg.vector_norm(seen[0][:, 10], dim=-1)
    assert heads.mean().item() == pytest.approx(0.2, rel=1e-5)
    with pytest.raises(ItesError, match="scale must be one of auto, checkpoint, clip, got 'big'"):
        lift_clips(pose, clips_of(points), 1.5, scale="big")


def test_without_a_camera_the_focal_length_does_not_matter():
    lifted = [
        lift_clips(flat, clips_of(keypoints(), image_size=size), 1.5)
        for size in (None, (640, 480), (4000, 3000))
    ]
    for clips, _ in lifted[1:]:
        np.testing.assert_allclose(
            clips.clips[0].positions, lifted[0][0].clips[0].positions, rtol=1e-5, atol=1e-6
        )
    assert lifted[1][1][0] == ("focal length 615 px, assumed: 55 degrees over 640 px of image")
    assert "keypoints' extent" in lifted[0][1][0]


def test_people_of_another_size_are_reported():
    clips = clips_of(keypoints(), focal_length=(1000.0, 1000.0))
    assert not any("times as large" in note for note in lift_clips(flat, clips, 1.5)[1])
    (note,) = (note for note in lift_clips(flat, clips, 4.5)[1] if "times as large" in note)
    assert "each clip's own scale" in note


def test_metres_come_from_the_body_and_stay_while_walking_up():
    poses = np.repeat(BODY[None], 4, 0) * np.float32([1, 2, 4, 8])[:, None, None]
    factors = metres_per_unit(poses, HUMAN36M, 0.7)
    np.testing.assert_allclose(factors, [1, 0.5, 0.25, 0.125], rtol=1e-5)
    factors = metres_per_unit(motion(9) - motion(9)[:, :1], HUMAN36M, 1.4)
    np.testing.assert_allclose(factors, 2, rtol=1e-5)
    assert metres_per_unit(np.zeros((2, 17, 3), np.float32), HUMAN36M).shape == (2,)


def test_output_that_is_not_finite_is_refused():
    with pytest.raises(ItesError, match="not finite"):
        lift_points(lambda p: flat(p) * float("nan"), keypoints(), HUMAN36M)


@pytest.mark.parametrize("stage", ["teacher", "student"])
@pytest.mark.parametrize("ending", ["npz", "h5"])
def test_an_array_is_lifted_to_a_file(run, tmp_path, stage, ending):
    np.savez(tmp_path / "in.npz", keypoints=keypoints(), focal_length=1000, fps=30)
    out = tmp_path / f"out.{ending}"
    summary = lift(run, tmp_path / "in.npz", out, stage=stage, temporal=False, device="cpu")
    assert (summary["poses"], summary["clips"], summary["model"]) == (12, 1, stage)
    assert summary["out"] == str(out)
    clips = read_clips(out)
    assert clips.settings["notes"] == summary["notes"]
    (clip,) = clips.clips
    assert clip.positions.shape == (12, 17, 3) and clip.positions.dtype == np.float32
    assert (clip.fps, clip.focal_length, clip.truth) == (30, (1000, 1000), None)
    np.testing.assert_array_equal(clip.positions[:, 0], 0)
    heads = np.linalg.norm(clip.positions[:, 10], axis=-1)
    assert heads.mean() == pytest.approx(0.72, rel=1e-4)

    model, _ = load_model(run, stage)
    points = keypoints()
    with torch.no_grad():
        pose = model.pose(torch.from_numpy((points - points[:, :1]) / 1000 * 1.5)).numpy()
    units = clip.positions / clip.metres_per_unit[:, None, None]
    np.testing.assert_allclose(units, pose - pose[:, :1], rtol=1e-4, atol=1e-5)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.npz", out.name]


def test_a_store_is_lifted_with_its_truth(run, tmp_path):
    camera = human36m_cameras("S9")[0]
    store = tmp_path / "store.h5"
    with PoseStoreWriter(store, HUMAN36M, "title", "thanks") as writer:
        writer.add_camera("c", camera)
        for seed, split in enumerate(("train", "test", "test")):
            joints = motion(6 + seed, seed)
            writer.add(
                camera.project(joints), camera="c", subject=f"S{seed}", action="walk",
                split=split, fps=20.0, positions=joints,
            )  # fmt: skip
    summary = lift(run, store, tmp_path / "out.npz", device="cpu")
    assert (summary["poses"], summary["clips"]) == (15, 2)
    assert any("training split's scale, 1.5" in note for note in summary["notes"])
    clips = read_clips(tmp_path / "out.npz")
    assert [clip.name for clip in clips.clips] == ["S1/walk/c", "S2/walk/c"]
    assert (clips.title, clips.acknowledgement) == ("title", "thanks")
    second = clips.clips[1]
    expected = motion(8, 2) - motion(8, 2)[:, :1]
    np.testing.assert_allclose(second.truth, expected, atol=1e-6)
    assert second.fps == 20 and second.image_size == (camera.width, camera.height)
    assert lift(run, store, tmp_path / "o.h5", split="train", device="cpu")["poses"] == 6
    measured = read_clips(store).clips[0]
    np.testing.assert_allclose(measured.positions, motion(7, 1) - motion(7, 1)[:, :1], atol=1e-6)
    assert measured.truth is None


def test_another_skeleton_is_refused(run, tmp_path):
    three = Skeleton("three", ("root", "knee", "foot"), (-1, 0, 1), head=2)
    with PoseStoreWriter(tmp_path / "s.h5", three) as writer:
        writer.add_camera("c", human36m_cameras("S9")[0])
        writer.add(np.ones((2, 3, 2), np.float32), camera="c", subject="a", action="b", fps=1.0)
    with pytest.raises(ItesError, match="lifts human36m, got three: 3 joints, not 17"):
        lift(run, tmp_path / "s.h5", tmp_path / "out.npz")


def test_a_skeleton_with_left_and_right_exchanged_is_refused(run, tmp_path):
    """Its bones are the same, and so would the poses look."""
    left, right = HUMAN36M.left, HUMAN36M.right
    names = [HUMAN36M.joints[joint] for joint in HUMAN36M.mirror]
    for joints, message in (
        (tuple(names), "joint 1 is left_hip, not right_hip"),
        (tuple("abcdefghijklmnopq"), "other joints on the left and on the right"),
    ):
        other = replace(HUMAN36M, name="other", joints=joints, left=right, right=left)
        with PoseStoreWriter(tmp_path / "s.h5", other) as writer:
            writer.add_camera("c", human36m_cameras("S9")[0])
            writer.add(keypoints(), camera="c", subject="a", action="b", fps=1.0)
        with pytest.raises(ItesError, match=f"lifts human36m, got other: {message}"):
            lift(run, tmp_path / "s.h5", tmp_path / "out.npz")


def test_other_names_of_the_same_joints_are_lifted(run, tmp_path):
    other = replace(HUMAN36M, name="other", joints=tuple("abcdefghijklmnopq"))
    with PoseStoreWriter(tmp_path / "s.h5", other) as writer:
        writer.add_camera("c", human36m_cameras("S9")[0])
        writer.add(keypoints(), camera="c", subject="a", action="b", fps=1.0)
    assert lift(run, tmp_path / "s.h5", tmp_path / "out.npz", device="cpu")["poses"] == 12


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"image_size": (0, 10)}, "image_size must be width and height in pixels"),
        ({"image_size": (-5, 10)}, "image_size must be width and height in pixels"),
        ({"min_confidence": float("nan")}, "min_confidence must lie in 0..1, got nan"),
        ({"min_confidence": 2.0}, "min_confidence must lie in 0..1, got 2"),
        ({"focal_length": 1e-5}, "focal_length must be from 1"),
        ({"focal_length": 1e12}, "focal_length must be from 1"),
        ({"body_size": 1e9}, "body_size must be at most 1000 m"),
        ({"device": "meta"}, "cannot use 'meta' here"),
    ],
)
def test_numbers_that_no_camera_has_are_refused_before_the_work(run, tmp_path, wrong, message):
    np.savez(tmp_path / "in.npz", keypoints=keypoints())
    with pytest.raises(ItesError, match=message):
        lift(run, tmp_path / "in.npz", tmp_path / "o.npz", **{"device": "cpu", **wrong})
    assert [path.name for path in tmp_path.iterdir()] == ["in.npz"]


def test_the_input_and_folders_are_never_written_over(run, tmp_path):
    np.savez(tmp_path / "in.npz", keypoints=keypoints())
    (tmp_path / "link.npz").symlink_to(tmp_path / "in.npz")
    (tmp_path / "folder.npz").mkdir()
    before = (tmp_path / "in.npz").read_bytes()
    for out in ("in.npz", "link.npz"):
        with pytest.raises(ItesError, match="the output would overwrite the input"):
            lift(run, tmp_path / "in.npz", tmp_path / out, device="cpu")
        with pytest.raises(ItesError, match="the output would overwrite the input"):
            prepare_keypoints([tmp_path / "in.npz"], tmp_path / out)
    with pytest.raises(ItesError, match="got a folder's"):
        lift(run, tmp_path / "in.npz", tmp_path / "folder.npz", device="cpu")
    assert (tmp_path / "in.npz").read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.parametrize("wrong", [{"fps": 0}, {"batch_size": 0}, {"body_size": -1.0}])
def test_arguments_out_of_range_are_refused(run, tmp_path, wrong):
    np.save(tmp_path / "a.npy", keypoints())
    with pytest.raises(ItesError, match=f"{next(iter(wrong))} must be positive and finite"):
        lift(run, tmp_path / "a.npy", tmp_path / "out.npz", **wrong)


@pytest.mark.parametrize("smooth", ["savitzky-golay", "one-euro"])
def test_a_lifted_clip_is_smoothed(run, tmp_path, smooth):
    np.savez(tmp_path / "in.npz", keypoints=keypoints(30), fps=25)
    lift(run, tmp_path / "in.npz", tmp_path / "a.npz", device="cpu")
    summary = lift(run, tmp_path / "in.npz", tmp_path / "b.npz", device="cpu", smooth=smooth)
    assert f"smoothed in time: {smooth}" in summary["notes"]
    rough, fine = (read_clips(tmp_path / f"{name}.npz").clips[0].positions for name in "ab")
    np.testing.assert_array_equal(fine, SMOOTHERS[smooth](rough, 25.0))
    with pytest.raises(ItesError, match="smooth must be one of savitzky-golay, one-euro, got 'x'"):
        lift(run, tmp_path / "in.npz", tmp_path / "c.npz", smooth="x")


@pytest.mark.parametrize("function", [ites.lift, ites.evaluate, ites.load_model, ites.view])
def test_the_example_of_a_public_function_runs_as_written(run, tmp_path, monkeypatch, function):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs/mine").symlink_to(run)
    np.savez("clip.npz", keypoints=keypoints(), fps=25)
    with PoseStoreWriter("store.h5", HUMAN36M) as writer:
        writer.add_camera("c", human36m_cameras("S9")[0])
        joints = motion(15)
        writer.add(
            human36m_cameras("S9")[0].project(joints), camera="c", subject="S9", action="walk",
            split="test", fps=20.0, positions=joints,
        )  # fmt: skip
    if function is ites.view:
        pytest.importorskip("plotly", reason="pip install 'ites[view]'")
        ites.lift("runs/mine", "clip.npz", "clip3d.npz")
    (example,) = doctest.DocTestFinder(recurse=False).find(function, function.__name__)
    result = doctest.DocTestRunner().run(example)
    assert result.attempted >= 2 and not result.failed


# Many clips


def many(path, clips=6, focal=1000.0):
    """A store of clips of 4, 5, ... frames."""
    camera = human36m_cameras("S9")[0]
    with PoseStoreWriter(path, HUMAN36M, "title") as writer:
        writer.add_camera("c", camera)
        for i in range(clips):
            joints = motion(4 + i, i)
            writer.add(
                camera.project(joints), camera="c", subject="S1", action=f"walk {i}",
                split="test" if i % 3 else "train", fps=20.0, positions=joints,
            )  # fmt: skip
    return path


def same(one, other):
    for before, after in zip(one.clips, other.clips, strict=True):
        assert (before.name, before.fps, before.focal_length) == (
            after.name, after.fps, after.focal_length,
        )  # fmt: skip
        for key in ("keypoints", "positions", "truth", "confidence", "metres_per_unit"):
            np.testing.assert_array_equal(getattr(before, key), getattr(after, key))


def test_portions_are_whole_clips():
    assert cut([3, 3, 3], 5) == [slice(0, 2), slice(2, 3)]
    assert cut([9, 1, 4, 2, 2], 5) == [slice(0, 1), slice(1, 3), slice(3, 5)]
    assert cut([3], 100) == [slice(0, 1)]
    assert batch_size_for("cpu", HUMAN36M) == 512


def test_a_clip_whose_rate_is_known_is_lifted_as_a_whole(run, tmp_path):
    lifted = {}
    for name, rate in (("timed", {"fps": 30}), ("untimed", {})):
        np.savez(tmp_path / f"{name}.npz", keypoints=keypoints(), focal_length=1000, **rate)
        for temporal in (None, True, False):
            out = tmp_path / "out.npz"
            summary = lift(run, tmp_path / f"{name}.npz", out, temporal=temporal, device="cpu")
            assert ("temporal" in summary["codes"]) == (
                temporal or (temporal is None and bool(rate))
            )
            lifted[name, temporal] = read_clips(out).clips[0].positions
    for name, alike in (("timed", True), ("untimed", False)):
        np.testing.assert_array_equal(lifted[name, None], lifted[name, alike])
        assert np.abs(lifted[name, True] - lifted[name, False]).max() > 0.01


@pytest.mark.parametrize("portion", [1, 1000])
def test_a_clip_of_unknown_rate_leaves_the_others_whole(run, tmp_path, monkeypatch, portion):
    """Each clip of a folder is lifted as it is alone, and a note counts them."""
    monkeypatch.setattr("ites.inference.lift.PORTION", portion)
    folder, alone = tmp_path / "clips", {}
    folder.mkdir()
    for seed, rate in enumerate(({"fps": 30}, {}, {"fps": 25}, {})):
        file = folder / f"{seed}.npz"
        np.savez(file, keypoints=keypoints(9 + seed, seed), focal_length=1000, **rate)
        alone[file.stem] = ites.lift(file, run=run, device="cpu").clips[0].positions
    lifted = ites.lift(folder, run=run, device="cpu")
    assert len(lifted.clips) == 4
    for clip in lifted.clips:
        np.testing.assert_allclose(clip.positions, alone[Path(clip.name).name], atol=1e-5)
    assert (
        "2 of 4 clips are lifted as wholes; of the others the frame rate is unknown, and they "
        "are lifted frame by frame" in lifted.settings["notes"]
    )


def test_a_file_of_a_folder_that_changed_is_lifted_again(run, tmp_path):
    folder, out = tmp_path / "clips", tmp_path / "out.npz"
    folder.mkdir()
    for seed in range(2):
        np.savez(folder / f"{seed}.npz", keypoints=keypoints(12, seed), focal_length=1000, fps=30)
    lift(run, folder, out, device="cpu")
    kept = (folder / "1.npz").stat().st_mtime_ns
    np.savez(folder / "0.npz", keypoints=keypoints(12, 5), focal_length=1000, fps=30)
    os.utime(folder / "0.npz", ns=(kept - 1, kept - 1))  # an older file, copied with its time
    lift(run, folder, out, device="cpu", resume=True)
    expected = ites.lift(folder / "0.npz", run=run, device="cpu").clips[0].positions
    np.testing.assert_allclose(read_clips(out).clips[0].positions, expected, atol=1e-5)


def test_a_lifting_that_is_done_folds_no_network(run, tmp_path, monkeypatch):
    np.savez(tmp_path / "a.npz", keypoints=keypoints(), focal_length=1000, fps=30)
    summary = lift(run, tmp_path / "a.npz", tmp_path / "out.npz", device="cpu")
    folded = []
    monkeypatch.setattr("ites.inference.network.fold_norms", lambda *given: folded.append(given))
    again = lift(run, tmp_path / "a.npz", tmp_path / "out.npz", device="cpu", resume=True)
    assert again == summary and not folded


def test_arrays_of_any_kind_give_the_same_poses(run):
    points = keypoints()
    expected = ites.lift(points, run=run, device="cpu").clips[0].positions
    for given in (
        points.tolist(),
        torch.from_numpy(points).requires_grad_(),
        torch.from_numpy(points).double(),
        np.ma.masked_array(points),
    ):
        found = ites.lift(given, run=run, device="cpu").clips[0].positions
        np.testing.assert_allclose(found, expected, atol=1e-5)
    rounded = torch.from_numpy(points).bfloat16()
    assert len(ites.lift(rounded, run=run, device="cpu").clips[0].positions) == 12


def test_an_array_that_is_refused_is_named_without_a_file(run):
    with pytest.raises(ItesError, match="^lift: the array: person must be one of 1, got '7'"):
        ites.lift(keypoints(), run=run, device="cpu", person=7)


def test_a_focal_length_of_two_numbers_is_that_of_x_and_y(run):
    camera = {"run": run, "device": "cpu", "image_size": (1000.0, np.int64(1000))}
    one = ites.lift(keypoints(), focal_length=np.float32(900), **camera)
    same = ites.lift(keypoints(), focal_length=(900, 900), **camera)
    np.testing.assert_array_equal(one.clips[0].positions, same.clips[0].positions)
    (other,) = ites.lift(keypoints(), focal_length=[900, 800], **camera).clips
    assert tuple(other.focal_length) == (900, 800) and other.image_size == (1000, 1000)
    with pytest.raises(ItesError, match="focal_length must be from 1 to .* got 0.5"):
        ites.lift(keypoints(), focal_length=(900, 0.5), **camera)


@pytest.mark.parametrize("fps", [1e-300, 1e300])
def test_rates_that_no_camera_has_are_refused(run, tmp_path, fps):
    with pytest.raises(ItesError, match="^lift: fps must be from 1e-09 to 1e.09, got 1e"):
        ites.lift(keypoints(), run=run, device="cpu", fps=fps)
    np.savez(tmp_path / "a.npz", keypoints=keypoints(), fps=fps)
    with pytest.raises(ItesError, match="a.npz: fps must be positive and finite"):
        ites.lift(tmp_path / "a.npz", run=run, device="cpu")


def test_what_a_masked_array_hides_is_missing(run):
    points = np.ma.masked_array(keypoints())
    points[3:5, 6] = np.ma.masked
    hidden = keypoints()
    hidden[3:5, 6] = np.nan
    found, expected = (
        ites.lift(one, run=run, device="cpu").clips[0].positions for one in (points, hidden)
    )
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("wrong", "kind"), [(None, "NoneType"), ({"a": 1}, "dict"), (["a.npz", "b.npz"], "lists")]
)
def test_what_is_no_input_is_named(run, wrong, kind):
    with pytest.raises(ItesError, match=f"lift: expected a file of keypoints or .*, got {kind}"):
        ites.lift(wrong, run=run, device="cpu")


def test_portions_give_what_one_piece_gives(run, tmp_path, monkeypatch):
    store = many(tmp_path / "s.h5")
    model, _ = load_model(run)
    simple, notes = lift_clips(fold_norms(model).pose, read_keypoints(store), 1.5, batch_size=1)
    for size in (1, 12, 1000):
        monkeypatch.setattr("ites.inference.lift.PORTION", size)
        for ending in ("h5", "npz"):
            out = tmp_path / f"out.{ending}"
            summary = lift(run, store, out, device="cpu", batch_size=1, trust=False, temporal=False)
            assert (summary["poses"], summary["clips"]) == (28, 4)
            *others, metres, split = summary["notes"]
            assert split == "clips of split test alone are read: 4 sequences; left out: train 2"
            assert others == notes and metres.startswith("metres by a mean of 0.72 m")
            assert summary["codes"] == ["size", "body-size", "read"]
            same(read_clips(out), simple)
    assert {p.name for p in tmp_path.iterdir()} == {"s.h5", "out.h5", "out.npz"}


def test_a_lifting_resumes_where_it_stopped(run, tmp_path, monkeypatch):
    store, out, parts = many(tmp_path / "s.h5"), tmp_path / "o.h5", tmp_path / "o.h5.parts"
    monkeypatch.setattr("ites.inference.lift.PORTION", 1)
    lift(run, store, out, device="cpu")
    whole = read_clips(out)
    out.unlink()
    written = []

    def write_two(path, clips):
        if len(written) == 2:
            raise OSError("disk full")
        write_clips(path, clips)
        written.append(path.name)

    monkeypatch.setattr("ites.inference.portions.write_clips", write_two)
    with pytest.raises(OSError, match="disk full"):
        lift(run, store, out, device="cpu")
    assert written == ["000000.h5", "000001.h5"] and not out.exists()
    assert {p.name for p in parts.glob("*")} == {"request.json", *written}
    with pytest.raises(ItesError, match="begun with body_size 0.72, now 1"):
        lift(run, store, out, device="cpu", resume=True, body_size=1)
    monkeypatch.setattr(
        "ites.inference.portions.write_clips",
        lambda path, clips: (written.append(path.name), write_clips(path, clips)),
    )
    summary = lift(run, store, out, device="cpu", resume=True)
    assert written[2:] == ["000002.h5", "000003.h5"] and not parts.exists()
    assert summary["poses"] == 28
    same(read_clips(out), whole)
    again = lift(run, store, out, device="cpu", resume=True)
    assert again == summary and len(written) == 4
    lift(run, store, out, device="cpu", resume=True, scale="clip")
    assert len(written) == 8


def test_a_lifting_that_fails_at_once_leaves_nothing(run, tmp_path):
    model, metadata = load_model(run)
    for weight in model.output.parameters():
        weight.data.fill_(3e38)  # finite, but no pose is
    bad = tmp_path / "bad.safetensors"
    save_model(bad, model, metadata)
    np.save(tmp_path / "a.npy", keypoints())
    with pytest.raises(ItesError, match="not finite"):
        lift(bad, tmp_path / "a.npy", tmp_path / "out.h5", device="cpu")
    with pytest.raises(ItesError, match=r"must end in .npz or .h5"):
        lift(run, tmp_path / "a.npy", tmp_path / "out.txt", device="cpu")
    with pytest.raises(ItesError, match="precision must be one of float32, tf32, bf16"):
        lift(run, tmp_path / "a.npy", tmp_path / "out.h5", precision="half")
    assert {p.name for p in tmp_path.iterdir()} == {"a.npy", "bad.safetensors"}


def test_half_precision_is_near(run, tmp_path):
    np.savez(tmp_path / "in.npz", keypoints=keypoints(), focal_length=1000, fps=30)
    clips = []
    for precision in ("float32", "bf16"):
        out = tmp_path / f"{precision}.npz"
        summary = lift(run, tmp_path / "in.npz", out, precision=precision, temporal=False)
        assert summary["precision"] == precision
        clips.append(read_clips(out).clips[0].positions)
    assert 0 < np.abs(clips[0] - clips[1]).mean() < 0.01 * np.abs(clips[0]).mean()


def test_two_processes_share_the_work(run, tmp_path, monkeypatch):
    store, out, alone = many(tmp_path / "s.h5"), tmp_path / "two.h5", tmp_path / "one.h5"
    script = tmp_path / "lift_it.py"
    script.write_text(
        "import os, pathlib, sys, ites.inference.lift\n"
        "ites.inference.lift.PORTION = 1\n"
        "report = ites.inference.lift.lift(*sys.argv[1:], device='cpu')\n"
        "said = pathlib.Path(__file__).with_name('said' + os.environ['RANK'])\n"
        "said.write_text(str(report.get('processes', 'silent')))\n"
    )
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", "2", str(script), str(run), str(store), str(out)]
    done = subprocess.run(
        command, capture_output=True, text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert [(tmp_path / f"said{rank}").read_text() for rank in (0, 1)] == ["2", "silent"]
    monkeypatch.setattr("ites.inference.lift.PORTION", 1)
    lift(run, store, alone, device="cpu")
    same(read_clips(out), read_clips(alone))
    assert not (tmp_path / "two.h5.parts").exists()


# Writing


@pytest.mark.parametrize("ending", ["npz", "h5"])
def test_files_give_back_what_was_written(tmp_path, ending):
    one, _ = lift_clips(flat, clips_of(keypoints(), focal_length=(9.0, 8.0)), 1.5)
    other = replace(
        one.clips[0], name="é / b", fps=12.5, image_size=(640, 480), truth=np.ones((12, 17, 3)),
        confidence=np.full((12, 17), 0.5, np.float32),
    )  # fmt: skip
    clips = replace(one, clips=[one.clips[0], other], title="t", settings={"notes": ["n"]})
    path = tmp_path / f"a.{ending}"
    write_clips(path, clips)
    back = read_clips(path)
    assert (back.skeleton, back.title, back.settings) == (HUMAN36M, "t", {"notes": ["n"]})
    for before, after in zip(clips.clips, back.clips, strict=True):
        for key in ("name", "fps", "focal_length", "image_size"):
            assert getattr(before, key) == getattr(after, key)
        for key in ("keypoints", "positions", "truth", "confidence", "metres_per_unit"):
            np.testing.assert_array_equal(getattr(before, key), getattr(after, key))


def test_files_need_no_pickle_and_say_what_they_hold(tmp_path):
    clips, _ = lift_clips(flat, clips_of(keypoints()), 1.5)
    write_clips(tmp_path / "a.npz", clips)
    write_clips(tmp_path / "a.h5", clips)
    with np.load(tmp_path / "a.npz", allow_pickle=False) as arrays:
        assert arrays["positions"].shape == (12, 17, 3)
        assert "y down, z forward" in str(arrays["frame"]) and "metre" in str(arrays["unit"])
        assert Skeleton.from_json(str(arrays["skeleton"])) == HUMAN36M
        keys = set(arrays.files)
    with h5py.File(tmp_path / "a.h5") as file:
        assert keys == set(file) | set(file.attrs)


@pytest.mark.parametrize("ending", ["npz", "h5"])
@pytest.mark.parametrize("key", ["sign_confidence", "positions", "metres_per_unit"])
def test_arrays_of_another_length_are_neither_written_nor_read(tmp_path, ending, key):
    one, _ = lift_clips(flat, clips_of(keypoints()), 1.5)
    rated = replace(one.clips[0], sign_confidence=np.ones(12, np.float32))
    short = replace(rated, **{key: getattr(rated, key)[:11]})
    path = tmp_path / f"a.{ending}"
    with pytest.raises(ItesError, match=f"a: {key} must have a row per frame, 12, got 11"):
        write_clips(path, replace(one, clips=[rated, short]))
    assert not path.exists()
    write_clips(path, replace(one, clips=[rated, rated]))
    if ending == "h5":
        with h5py.File(path, "a") as file:
            rows = file[key][:23]
            del file[key]
            file[key] = rows
    else:
        with np.load(path) as arrays:
            members = {name: arrays[name] for name in arrays.files}
        np.savez(path, **{**members, key: members[key][:23]})
    with pytest.raises(
        ItesError, match=f"{key}: expected numbers of shape .24.*a row per frame, got"
    ):
        read_clips(path)


def test_a_failed_write_leaves_nothing(tmp_path, monkeypatch):
    clips, _ = lift_clips(flat, clips_of(keypoints()), 1.5)
    with pytest.raises(ItesError, match="must end in .npz or .h5"):
        write_clips(tmp_path / "a.txt", clips)

    def fail(*_, **__):
        raise OSError("disk full")

    monkeypatch.setattr(np, "savez", fail)
    with pytest.raises(OSError, match="disk full"):
        write_clips(tmp_path / "a.npz", clips)
    assert list(tmp_path.iterdir()) == []
