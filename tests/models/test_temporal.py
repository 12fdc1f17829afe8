"""ites.models.temporal: depths that suit a clip as a whole."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from lifting import lift_clips

from ites.data.clips import Clip, Clips
from ites.data.store import PoseStore, PoseStoreWriter
from ites.data.synthetic.synthetic import prepare_synthetic
from ites.models import Teacher
from ites.models.temporal import (
    Adam,
    Views,
    around,
    consistent_poses,
    moved_by,
    segment_median,
)
from ites.pose import geometry
from ites.pose.camera import Camera
from ites.pose.skeleton import HUMAN36M, Skeleton
from ites.runs.checkpoint import Metadata, save_model
from ites.runs.settings import make_settings
from ites.training.clips import clip_lengths
from ites.training.stages import make_stage


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    path = tmp_path_factory.mktemp("temporal") / "synthetic.h5"
    prepare_synthetic(path, poses=4000, seed=5, fps=10.0, subjects=1, test_subjects=1)
    return path


@pytest.fixture(scope="module")
def motion(store):
    """Points (N, 17, 2), true depths (N, 17, 1), network units, and the frames of each clip."""
    with PoseStore(store) as store:
        clips = store.sequences_of("train")[:4]
        poses = torch.from_numpy(store.positions("train"))[: clips[-1].start + clips[-1].length]
    poses = poses - poses[:, :1]  # a person of 1 m from pelvis to head is one unit
    return geometry.project(poses), poses[..., 2:], [clip.length for clip in clips]


def consistent_depths(points, depth, lengths, skeleton, **more):
    flat, found = consistent_poses(points, depth, lengths, skeleton, **more)
    assert "noise" in more or torch.equal(flat, points)
    return found


def error(depth, truth):
    return (depth - truth).abs().mean().item()


def test_what_bones_and_time_say_is_taken(motion):
    points, truth, lengths = motion
    noise = 0.15 * torch.randn(truth.shape, generator=torch.Generator().manual_seed(0))
    noisy = truth + noise - noise[:, :1]
    found = consistent_depths(points, noisy, lengths, HUMAN36M)
    assert error(found, truth) < 0.6 * error(noisy, truth)
    assert (found[:, 0] == 0).all()
    right = consistent_depths(points, truth, lengths, HUMAN36M)
    assert error(right, truth) < 0.01


def test_the_fits_adam_is_pytorchs():
    torch.manual_seed(0)
    start, slope = torch.randn(50), torch.randn(50)
    ours, theirs = (start.clone().requires_grad_(True) for _ in range(2))
    own, reference = Adam([(ours, 0.03)]), torch.optim.Adam([theirs], lr=0.03)
    for _ in range(40):
        own.step((ours * slope).sin().sum(), decay=1.0)
        reference.zero_grad()
        (theirs * slope).sin().sum().backward()
        reference.step()
    assert torch.equal(ours, theirs) and (ours - start).abs().min() > 0.01


def test_clips_do_not_touch_each_other(motion):
    points, truth, lengths = motion
    noisy = truth * 1.3
    together = consistent_depths(points, noisy, lengths, HUMAN36M).split(lengths)
    for flat, depth, length, whole in zip(
        points.split(lengths), noisy.split(lengths), lengths, together, strict=True
    ):
        alone = consistent_depths(flat, depth, [length], HUMAN36M)
        torch.testing.assert_close(alone, whole, atol=1e-5, rtol=0)


def test_bad_frames_leave_the_good_ones_alone(motion):
    points, truth, lengths = motion
    points, truth, lengths = points[: lengths[0]], truth[: lengths[0]], [lengths[0]]
    noise = 0.1 * torch.randn(truth.shape, generator=torch.Generator().manual_seed(1))
    noisy = truth + noise - noise[:, :1]
    bad = torch.arange(4, lengths[0], 12)
    misplaced = points.clone()
    misplaced[bad, 9] += torch.tensor([0.3, -0.1])  # the nose is somewhere else
    good = torch.ones(lengths[0], dtype=torch.bool)
    good[bad] = False
    found = consistent_depths(misplaced, noisy, lengths, HUMAN36M)
    clean = consistent_depths(points, noisy, lengths, HUMAN36M)
    assert error(found[good], truth[good]) < error(noisy[good], truth[good])
    assert error(found[good], truth[good]) < 1.2 * error(clean[good], truth[good])
    necks = geometry.backproject(misplaced, found)
    neck = (necks[:, 9] - necks[:, 8]).norm(dim=-1)
    usual = geometry.backproject(points, clean)
    usual = (usual[:, 9] - usual[:, 8]).norm(dim=-1)
    assert neck.median().item() == pytest.approx(usual.median().item(), rel=0.03)


def test_what_was_not_seen_has_no_say(motion):
    points, truth, lengths = motion
    points, truth, lengths = points[: lengths[0]], truth[: lengths[0]], [lengths[0]]
    misplaced, seen = points.clone(), torch.ones(points.shape[:2], dtype=torch.bool)
    seen[10:30, 13] = False
    misplaced[10:30, 13] += 0.08  # not so far that it could not be
    found = consistent_depths(misplaced, truth, lengths, HUMAN36M, seen=seen)
    others = [j for j in range(17) if j not in (12, 13)]
    assert error(found[:, others], truth[:, others]) < 0.01


def test_the_median_of_segments_leaves_nan_out():
    values = torch.tensor([[3.0, 1], [1, torch.nan], [2, torch.nan], [9, 4], [5, torch.nan]])
    lengths = torch.tensor([3, 2])
    median = segment_median(values, torch.tensor([0, 0, 0, 1, 1]), lengths)
    assert median.tolist() == [[2, 1], [7, 4]]
    nothing = segment_median(torch.full((2, 1), torch.nan), torch.tensor([0, 0]), lengths[:1] - 1)
    assert nothing.isnan().all()


@pytest.mark.parametrize("frames", [1, 2])
def test_clips_of_a_frame_or_two_are_clips(motion, frames):
    points, truth, _ = motion
    found = consistent_depths(points[:frames], truth[:frames], [frames], HUMAN36M)
    assert found.shape == (frames, 17, 1)
    assert error(found, truth[:frames]) < 0.02


def test_a_skeleton_without_sides_will_do():
    chain = Skeleton("chain", ("a", "b", "c"), (-1, 0, 1), head=2)
    depth = torch.zeros(5, 3, 1)
    found = consistent_depths(torch.rand(5, 3, 2), depth, [5], chain)
    assert found.shape == (5, 3, 1) and found.isfinite().all()


def test_lifting_takes_clips_as_wholes(motion):
    points, truth, lengths = motion
    keypoints = 1000 * points.numpy()
    rows = np.split(keypoints, np.cumsum(lengths)[:-1])
    clips = Clips(
        HUMAN36M,
        [Clip(str(i), row, 10.0, focal_length=(1000.0, 1000.0)) for i, row in enumerate(rows)],
    )
    at = iter((truth * 1.3).split(512))

    def pose(batch):
        return geometry.backproject(batch, next(at))

    lifted, _ = lift_clips(pose, clips, 1.0, temporal=True)
    rates = [10.0] * len(lengths)
    expected = consistent_depths(points, truth * 1.3, lengths, HUMAN36M, rates=rates)
    depths = [c.positions[..., 2:] / c.metres_per_unit[:, None, None] for c in lifted.clips]
    np.testing.assert_allclose(np.concatenate(depths), expected, atol=1e-4)


def test_a_student_learns_from_clips_taken_as_wholes(store, tmp_path):
    torch.manual_seed(0)
    teacher = Teacher(width=16, blocks=1, atoms=4)
    torch.nn.init.normal_(teacher.dictionary)
    save_model(tmp_path / "teacher.safetensors", teacher, Metadata("teacher", HUMAN36M, 1.0))
    with PoseStore(store) as poses:
        points = torch.from_numpy(poses.points("train")[0])
        clips = clip_lengths(poses, "train", "error")
    assert sum(clips) == len(points)
    depths = {}
    for temporal in ("off", "on"):
        options = {"out": str(tmp_path), "width": 8, "blocks": 0, "temporal": temporal}
        stage = make_stage(make_settings("student", None, options), HUMAN36M, points, clips=clips)
        depths[temporal] = stage.data[1]
    expected = consistent_depths(points, depths["off"], clips, HUMAN36M)
    torch.testing.assert_close(depths["on"], expected, atol=1e-5, rtol=0)
    assert error(depths["on"], depths["off"]) > 1e-3


def test_frames_that_are_dropped_belong_to_no_clip(tmp_path):
    seen = np.ones((6, 17), np.float32)
    seen[[1, 4], 3] = 0
    with PoseStoreWriter(tmp_path / "s.h5", HUMAN36M) as writer:
        writer.add_camera("c", Camera("c", (1000, 1000), (500, 500)))
        for confidence in (seen, None, 0 * seen):
            writer.add(
                np.ones((6, 17, 2)), camera="c", subject="s", action="a", fps=5.0,
                confidence=confidence,
            )  # fmt: skip
    with PoseStore(tmp_path / "s.h5") as poses:
        assert clip_lengths(poses, "train", "drop") == [4, 6]
        assert clip_lengths(poses, "train", "error") == [6, 6, 6]


def test_what_the_network_moved_tells_the_noise():
    exact = torch.rand(2, 4, 2, generator=torch.Generator().manual_seed(0))
    noisy = exact + 3.0  # a common shift does not count
    noisy[1, 0, 0] += 0.4
    noisy[1, 3] = torch.nan
    # Of the three joints given, the first is off by 0.4 - 0.4 / 3, the others by 0.4 / 3.
    expected = torch.tensor([0.0, (0.8 / 3 + 2 * 0.4 / 3) / 3])
    torch.testing.assert_close(moved_by(noisy, exact), expected, atol=1e-5, rtol=0)


def upright(elevation):
    """Someone (17, 3) who stands so that all joints are above each other, and the turn to them."""
    pose, c, s = torch.zeros(17, 3), np.cos(elevation), np.sin(elevation)
    leg, arm, trunk = [0.05, 0.45, 0.9], [-0.45, -0.15, 0.1], [-0.25, -0.5, -0.65, -0.8]
    pose[:, 1] = torch.tensor([0, *leg, *leg, *trunk, *arm, *arm])
    return pose, torch.tensor([[1, 0, 0], [0, c, s], [0, -s, c]], dtype=torch.float32)


@pytest.mark.parametrize("elevation", [0.0, 0.4])
def test_views_from_other_sides_correct_a_lean(elevation):
    frames = 20
    person, turn = upright(elevation)
    truth = (person @ turn).expand(frames, -1, -1)
    points = geometry.project(truth)
    lean = truth[..., 2:] + 0.3 * person[:, 1:2]

    def density(views, at):  # who leans in the image is unlikely, and so is another elevation
        return 40000 * views[..., 0].square().mean(1) + 2000 * (at - elevation).square()

    views = Views(density, torch.full((frames,), elevation))
    found = consistent_depths(points, lean, [frames], HUMAN36M, rates=[5.0], views=views)
    without = consistent_depths(points, lean, [frames], HUMAN36M, rates=[5.0])
    assert error(found, truth[..., 2:]) < 0.25 * error(lean, truth[..., 2:])
    assert error(without, truth[..., 2:]) > 0.8 * error(lean, truth[..., 2:])


@pytest.mark.parametrize(("rate", "limit"), [(60.0, 0.0016), (240.0, 0.0005)])
def test_views_do_not_shake_clips_of_high_rates(rate, limit):
    frames = int(rate)
    time = torch.arange(frames)[:, None, None] / rate
    person, turn = upright(0.2)
    truth = person @ turn + 0.1 * (2 * torch.pi * time).sin() * person[:, 1:2]
    points = geometry.project(truth)
    lean = truth[..., 2:] * (1 + 0.1 * (3 * time).sin()) + 0.2 * person[:, 1:2]

    def density(views, at):
        return 40000 * views[..., 0].square().mean(1)

    views = Views(density, torch.full((frames,), 0.2))
    found = consistent_depths(points, lean, [frames], HUMAN36M, rates=[rate], views=views)
    assert error(found, truth[..., 2:]) < 0.9 * error(lean, truth[..., 2:])
    bend = geometry.backproject(points, found).diff(n=2, dim=0).norm(dim=-1).mean()
    assert bend < limit


def test_frames_lie_between_the_chosen_ones_of_their_clip():
    chosen = torch.tensor([0, 1, 0, 0, 0, 1, 0, 0, 0, 1], dtype=torch.bool)
    clip = torch.tensor([0, 0, 0, 0, 0, 0, 0, 1, 1, 2])
    before, after, share = around(chosen, clip)
    assert before.tolist() == [1, 1, 1, 1, 1, 5, 5, 7, 8, 9]
    assert after.tolist() == [1, 1, 5, 5, 5, 5, 5, 7, 8, 9]
    assert share.tolist() == [0, 0, 0.25, 0.5, 0.75, 0, 0, 0, 0, 0]


def test_noisy_keypoints_may_move(motion):
    points, truth, lengths = motion
    shake = 0.01 * torch.randn(points.shape, generator=torch.Generator().manual_seed(0))
    noisy = points + shake - shake[:, :1]
    noise = torch.full((len(points),), 0.01)
    flat, _ = consistent_poses(noisy, truth, lengths, HUMAN36M, [10.0] * 4, noise=noise)
    assert (flat - points).norm(dim=-1).mean() < 0.8 * (noisy - points).norm(dim=-1).mean()
    assert (flat[:, 0] == noisy[:, 0]).all()
    exact, _ = consistent_poses(points, truth, lengths, HUMAN36M, [10.0] * 4, noise=0 * noise)
    assert (exact - points).abs().max() < 0.001


def test_keypoints_that_were_not_seen_are_found_by_bones_and_motion(motion):
    points, truth, lengths = motion
    points, truth, lengths = points[: lengths[0]], truth[: lengths[0]], [lengths[0]]
    misplaced, seen = points.clone(), torch.ones(points.shape[:2], dtype=torch.bool)
    seen[10:14, 13] = False
    misplaced[10:14, 13] += 0.06
    noise = torch.zeros(len(points))
    flat, _ = consistent_poses(misplaced, truth, lengths, HUMAN36M, [10.0], seen=seen, noise=noise)
    assert (flat - points)[10:14, 13].norm(dim=-1).max() < 0.03
    others = seen.clone()
    others[10:14] = True
    assert (flat - points)[seen].norm(dim=-1).max() < 0.003


def test_the_frame_rate_tells_what_is_smooth(motion):
    points, truth, lengths = motion
    points, truth = points[:1].expand(60, -1, -1), truth[:1].expand(60, -1, -1)
    wave = 0.1 * torch.sin(torch.arange(60.0) * 2 * torch.pi / 24)  # 2.5 per second
    noisy = truth * (1 + wave[:, None, None])
    at = {rate: consistent_depths(points, noisy, [60], HUMAN36M, rates=[rate]) for rate in (60, 5)}
    unknown = consistent_depths(points, noisy, [60], HUMAN36M)
    assert error(at[60], truth) < 0.5 * error(unknown, truth)
    torch.testing.assert_close(at[5], unknown, atol=0, rtol=0)
