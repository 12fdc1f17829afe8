"""Recipe "general": its data, its networks, its training, and lifting by it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import ites
from ites.data.datasets.cmu import prepare_cmu
from ites.data.datasets.field import ELEVATIONS, PARTNERS, prepare_field, see
from ites.data.store import PAIRS, PoseStore, PoseStoreWriter, second_view
from ites.data.synthetic.motion import draw_body
from ites.data.synthetic.synthetic import Performance, perform, prepare_synthetic
from ites.data.synthetic.variety import (
    as_detected,
    balanced,
    draw_heads,
    draw_postures,
    other_arms,
    other_bodies,
    other_heads,
    posture,
)
from ites.errors import ItesError
from ites.inference.roll import find_roll
from ites.models import GeneralPrior, GeneralTeacher, fold_norms
from ites.models.disturb import disturb
from ites.models.general import _about_x, _about_y
from ites.models.mirror import mirror_image, other_sides
from ites.models.sizes import TOTAL, bone_shares, own_scale
from ites.ops import RotationDraw
from ites.pose import geometry
from ites.pose.camera import Camera
from ites.pose.geometry import unrolled
from ites.pose.metrics import p_mpjpe
from ites.pose.skeleton import HUMAN36M
from ites.runs.checkpoint import load_model, load_prior, load_trust
from ites.runs.settings import make_settings, stages_of
from ites.training.dataset import SecondViews, read_pairs
from ites.training.engine import train
from ites.training.log import quiet_console
from ites.training.stages import GeneralTeacherStage, make_stage

PARENTS = np.array([parent for parent, _ in HUMAN36M.bones])
JOINTS = np.array([joint for _, joint in HUMAN36M.bones])
CAMERA = Camera(
    id="c", focal_length=(1000.0, 1000.0), center=(540.0, 960.0), width=1080, height=1920
)


def lengths(poses: np.ndarray) -> np.ndarray:
    return np.linalg.norm(poses[:, JOINTS] - poses[:, PARENTS], axis=-1)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("field") / "field.h5"
    prepare_field(None, path, people=1500, views=2, seed=4)
    return path


@pytest.fixture(scope="module")
def run(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run") / "general"
    own: dict[str, dict[str, Any]] = {
        "prior": {"steps": 150, "width": 48, "batch": 128},
        "teacher": {"steps": 120, "width": 64, "blocks": 1, "batch": 128},
    }
    for stage in stages_of("general"):
        options = {"data": str(store), "out": str(folder), "recipe": "general", **own[stage]}
        train(make_settings(stage, None, options), console=quiet_console())
    return folder


def points_of(store: Path, count: int = 64) -> torch.Tensor:
    with PoseStore(store) as poses:
        points, _ = poses.points("train")
    return torch.from_numpy(points[:count])


class TestVariety:
    def test_postures_are_people_with_constant_bones(self) -> None:
        rng = np.random.default_rng(0)
        body = draw_body(rng)
        poses = posture(rng, body, 200)
        assert poses.shape == (200, 17, 3)
        assert np.isfinite(poses).all()
        assert lengths(poses)[:, JOINTS == 15].std() < 1e-9
        assert np.allclose(lengths(poses)[:, JOINTS == 2], body.thigh, atol=1e-6)
        assert len(draw_postures(rng, 130)) == 130

    def test_who_stands_is_balanced(self) -> None:
        poses = posture(np.random.default_rng(1), draw_body(np.random.default_rng(1)), 50)
        poses = poses + [0, 0, 0.2] * (np.arange(17) == 10)[:, None]  # a heavy head
        level = balanced(np.random.default_rng(2), poses, np.ones(50, bool))
        same = balanced(np.random.default_rng(2), poses, np.zeros(50, bool))
        assert np.array_equal(same, poses)
        assert np.allclose(lengths(level), lengths(poses))

    def test_other_arms_keep_the_body_and_the_lengths(self) -> None:
        poses = draw_postures(np.random.default_rng(3), 128)
        mixed = other_arms(poses[:64], poses[64:])
        assert np.array_equal(mixed[:, :12], poses[:64, :12])
        assert np.allclose(lengths(mixed), lengths(poses[:64]), atol=1e-6)
        again = other_arms(poses[:64], poses[:64])
        assert np.allclose(again, poses[:64], atol=1e-6)

    def test_other_heads_keep_the_body_and_the_lengths(self) -> None:
        poses = draw_postures(np.random.default_rng(3), 128)
        mixed = other_heads(poses[:64], poses[64:])
        rest = [joint for joint in range(17) if joint not in (9, 10)]
        assert np.array_equal(mixed[:, rest], poses[:64, rest])
        assert np.allclose(lengths(mixed), lengths(poses[:64]), atol=1e-6)
        assert np.abs(mixed[:, 10] - poses[:64, 10]).max() > 0.1
        assert np.allclose(other_heads(poses[:64], poses[:64]), poses[:64], atol=1e-6)

    def test_heads_look_down_sideways_and_up(self) -> None:
        turn, bend, lean = draw_heads(np.random.default_rng(0), 5000).T
        assert 0.2 < (bend > 30).mean() < 0.5
        assert (bend < -20).mean() > 0.05
        assert (np.abs(turn) > 45).mean() > 0.1
        assert (np.abs(lean) > 15).mean() > 0.15

    def test_other_bodies_keep_directions_and_symmetry(self) -> None:
        poses = draw_postures(np.random.default_rng(5), 64)
        scaled = other_bodies(np.random.default_rng(6), poses)
        before, after = (p[:, JOINTS] - p[:, PARENTS] for p in (poses, scaled))
        cosine = (before * after).sum(-1) / (lengths(poses) * lengths(scaled))
        assert np.allclose(cosine, 1)
        ratio = lengths(scaled) / lengths(poses)
        assert np.allclose(ratio[:, JOINTS == 2], ratio[:, JOINTS == 5])
        assert ratio.min() > 0.3
        assert ratio.max() < 3

    def test_detectors_place_pelvis_and_thorax_between_hips_and_shoulders(self) -> None:
        poses = as_detected(np.random.default_rng(7), draw_postures(np.random.default_rng(7), 64))
        assert np.allclose(poses[:, 0], (poses[:, 1] + poses[:, 4]) / 2)
        assert np.allclose(poses[:, 8], (poses[:, 11] + poses[:, 14]) / 2)
        assert np.allclose(poses[:, 7], (poses[:, 0] + poses[:, 8]) / 2)

    def test_detected_bodies_have_the_proportions_of_adults(self) -> None:
        rng = np.random.default_rng(8)
        poses = np.concatenate([posture(rng, draw_body(rng), 20) for _ in range(60)])
        found = as_detected(rng, poses)
        leg = lengths(found)[:, np.isin(JOINTS, (2, 3))].sum(1)
        ratio = leg / np.linalg.norm(found[:, 8] - found[:, 0], axis=1)
        # Hips, ankles and shoulders at 0.530, 0.039 and 0.818 of the height.
        assert np.median(ratio) == pytest.approx((0.530 - 0.039) / (0.818 - 0.530), abs=0.1)

    def test_a_nose_lies_ahead_of_the_head(self) -> None:
        """The neck of somebody who looks down is lower than that of one who looks ahead."""
        body, height = np.zeros((400, 17, 3)), 0.25
        body[:, [7, 8, 9, 10], 2] = [0.25, 0.5, 0.6, 0.6 + height]
        body[:, [11, 12, 13], 1], body[:, [14, 15, 16], 1] = 0.2, -0.2
        body[:, [11, 12, 13, 14, 15, 16], 2] = 0.5
        body[:, [1, 2, 3], 1], body[:, [4, 5, 6], 1] = -0.1, 0.1
        down = body.copy()
        down[:, 10] = down[:, 9] + [height * math.sin(1.0), 0, height * math.cos(1.0)]
        level, low = (as_detected(np.random.default_rng(9), poses) for poses in (body, down))
        above = (low[:, 9] - low[:, 8])[:, 2] - (level[:, 9] - level[:, 8])[:, 2]
        assert above.max() < 1e-9
        assert above.min() < -0.04


class TestField:
    def test_the_sensor_tells_elevation_and_roll(self) -> None:
        person = np.zeros((200, 17, 3))
        person[:, 10, 2], person[:, 3, 2] = 0.7, -0.9
        keypoints, gravity = see(np.random.default_rng(0), person, CAMERA)
        up = keypoints[:, 10] - keypoints[:, 0]
        seen = np.degrees(np.arctan2(up[:, 0], -up[:, 1]))  # of the picture, clockwise
        assert np.abs(seen + gravity[:, 1]).max() < 12
        assert np.abs(np.median(seen + gravity[:, 1])) < 0.5
        legs = np.linalg.norm(keypoints[:, 3] - keypoints[:, 0], axis=1)
        ratio = np.linalg.norm(up, axis=1) / legs * 0.9 / 0.7
        assert np.median(ratio[gravity[:, 0] > 15]) > 1.1  # the near head is large
        assert np.median(ratio[gravity[:, 0] < -10]) < 0.9

    def test_the_store_holds_gravity_pairs_and_no_3d(self, store: Path, tmp_path: Path) -> None:
        with PoseStore(store) as poses:
            assert set(poses.splits) == {"train", second_view("train"), *PAIRS}
            assert not poses.has_positions
            first, second = poses.sequences_of("train"), poses.sequences_of(second_view("train"))
            assert len(first) == len(second) == 12 * PARTNERS
            for one, other in zip(first, second, strict=True):
                assert (one.start, one.length) == (other.start, other.length)
                assert one.camera != other.camera
            gravity = poses.gravity("train")
            assert gravity is not None
            assert gravity.shape == (len(poses.keypoints("train")), 2)
            low, high = ELEVATIONS
            assert low <= gravity[:, 0].min() < -30 < 45 < gravity[:, 0].max() <= high
        pairs = read_pairs(str(store))
        assert pairs is not None
        assert pairs[0].shape == pairs[1].shape
        shares = []
        with PoseStore(store) as poses:
            for split in ("train", second_view("train")):
                seen = lengths(poses.keypoints(split))
                shares.append(seen / seen.sum(1, keepdims=True))
        alike = np.abs(shares[0] - shares[1]).mean()  # the same person has similar shares
        assert alike < 0.9 * np.abs(shares[0] - np.roll(shares[1], 1, 0)).mean()
        again = tmp_path / "again.h5"
        prepare_field(None, again, people=1500, views=2, seed=4)
        assert torch.equal(points_of(again), points_of(store))

    def test_views_that_do_not_fit_together_are_refused(self, tmp_path: Path) -> None:
        camera, rng = {"camera": "c", "subject": "a", "action": "b", "fps": 5.0}, np.random
        path = tmp_path / "odd.h5"
        with PoseStoreWriter(path, HUMAN36M, "Odd", "") as writer:
            writer.add_camera("c", CAMERA)
            for split, count in (("train", 60), (second_view("train"), 59)):
                people = draw_postures(rng.default_rng(0), count)
                keypoints, gravity = see(rng.default_rng(1), people, CAMERA)
                writer.add(keypoints, split=split, gravity=gravity, **camera)
        options = {"data": str(path), "out": str(tmp_path / "run"), "recipe": "general"}
        expected = "odd.h5: expected 60 poses with elevations in split train-second-view, .* got 59"
        with pytest.raises(ItesError, match=expected):
            train(make_settings("teacher", None, options), console=quiet_console())

    def test_refuses(self, tmp_path: Path) -> None:
        with pytest.raises(ItesError, match="people must be at least 100, got 3"):
            prepare_field(None, tmp_path / "a.h5", people=3)
        prepare_synthetic(tmp_path / "plain.h5", poses=400, fps=10.0)
        options = {"data": str(tmp_path / "plain.h5"), "out": str(tmp_path), "recipe": "general"}
        with pytest.raises(ItesError, match="expected the elevation of each line of sight"):
            train(make_settings("prior", None, options), console=quiet_console())

    def test_test_subjects_are_left_out(self, tmp_path: Path) -> None:
        import h5py

        source = tmp_path / "cmu.h5"
        with h5py.File(source, "w") as file:
            world = perform(Performance(0, "Walking", 0), 0, 30.0, 4.0)
            for subject in ("S01", "S07"):
                group = file.create_group(f"{subject}/a")
                group["positions"] = world
                group.attrs.update(fps=30.0, action="Walking")
        summary = prepare_field(source, tmp_path / "f.h5", people=200, views=1)
        assert "mocap.cs.cmu.edu" in str(PoseStore(tmp_path / "f.h5").acknowledgement)
        assert summary is not None
        with pytest.raises(ItesError, match="subjects other than the test's"):
            prepare_field(source, tmp_path / "g.h5", people=200, test_subjects=("S01", "S07"))
        assert prepare_cmu(source, tmp_path / "c.h5", say=lambda _: None)


class TestSizes:
    def test_scaled_bones_add_up(self, store: Path) -> None:
        points = points_of(store)
        scaled = points * own_scale(points, HUMAN36M)[:, None, None]
        flat = (scaled[:, JOINTS] - scaled[:, PARENTS]).norm(dim=-1)
        assert torch.allclose(flat.sum(1), torch.full((64,), TOTAL))

    def test_missing_joints_change_the_scale_little(self, store: Path) -> None:
        points = points_of(store)
        shares = bone_shares(points, HUMAN36M)
        whole = own_scale(points, HUMAN36M, shares)
        assert torch.allclose(whole, own_scale(points, HUMAN36M))
        points[:, [13, 16]] = torch.nan
        ratio = own_scale(points, HUMAN36M, shares) / whole
        assert 0.9 < ratio.median() < 1.1
        nobody = torch.full((1, 17, 2), torch.nan)
        assert own_scale(nobody, HUMAN36M, shares).item() == 1


class TestDisturb:
    def test_repeats_and_differs(self) -> None:
        points, counter = torch.zeros(400, 17, 2), torch.tensor([0, 7, 0])
        first, seen = disturb(points, counter, 1)
        assert torch.equal(first, disturb(points, counter, 1)[0])
        assert not torch.equal(first, disturb(points, counter, 3)[0])
        assert not torch.equal(first, disturb(points, counter + 1, 1)[0])
        assert 0.05 < (~seen).float().mean() < 0.2
        typical = first.norm(dim=-1).median().item()
        assert 0.002 < typical < 0.008
        assert first.norm(dim=-1).max() > 8 * typical  # heavy tails

    def test_amount_zero_only_swaps(self) -> None:
        points = torch.randn(50, 17, 2)
        found, _ = disturb(points, torch.tensor([0, 0, 0]), 1, amount=0)
        assert (found.sum(1) - points.sum(1)).abs().max() < 1e-5


class TestNetworks:
    def test_lifts_alike_at_any_size_and_mirrored(self, run: Path, store: Path) -> None:
        teacher, _ = load_model(run)
        assert isinstance(teacher, GeneralTeacher)
        points = points_of(store)
        pose, large = teacher.pose(points), teacher.depth(7 * points)
        assert torch.allclose(large, 7 * teacher.depth(points), atol=1e-4)
        image = teacher.depth(mirror_image(points, HUMAN36M))
        assert torch.allclose(other_sides(image, HUMAN36M), teacher.depth(points), atol=1e-5)
        flat = pose[..., :2] / (5 + pose[..., 2:])
        assert torch.allclose(flat, teacher.clean(points), atol=1e-5)
        assert torch.allclose(fold_norms(teacher).pose(points), pose, atol=1e-4)

    def test_missing_joints_are_completed(self, run: Path, store: Path) -> None:
        teacher, _ = load_model(run)
        points = points_of(store)
        whole = teacher.pose(points)
        points[:, [12, 13]] = torch.nan
        points[::2, 0] = torch.nan  # the root
        pose = teacher.pose(points)
        assert pose.isfinite().all()
        assert torch.equal(pose[:, 0, :2], torch.zeros(64, 2))
        kept = [joint for joint in range(17) if joint not in (0, 12, 13)]
        assert p_mpjpe(pose[:, kept].double(), whole[:, kept].double()).mean() < 0.5
        assert teacher.pose(torch.full((2, 17, 2), torch.nan)).isfinite().all()

    def test_a_completed_pose_is_lifted_again(self, run: Path, store: Path) -> None:
        teacher, _ = load_model(run)
        assert isinstance(teacher, GeneralTeacher)
        points = points_of(store)
        whole = teacher.depth(points)
        points[::2, [1, 2, 3]] = torch.nan
        depth = teacher.depth(points)
        assert torch.equal(depth[1::2], whole[1::2])
        again = teacher.depth(teacher.clean(points))
        assert torch.allclose(depth[::2], again[::2], atol=1e-6)

    def test_noise_is_reduced_and_exact_poses_stay(self, run: Path, store: Path) -> None:
        teacher, _ = load_model(run)
        assert isinstance(teacher, GeneralTeacher)
        guess = torch.randn(1, 17, 2) * 0.1
        guess = guess - guess[:, :1]
        seen = torch.ones(1, 17, 2, dtype=torch.bool)
        near = guess + 0.004 * torch.ones(1, 17, 2) * (torch.arange(17) > 0)[:, None]
        assert torch.allclose(teacher._denoised(near, guess, seen), near)
        far = guess + 10 * (near - guess)
        kept = (teacher._denoised(far, guess, seen) - guess) / (far - guess)
        assert torch.allclose(kept[:, 1:], torch.full((1, 16, 2), 0.2), atol=1e-3)

    def test_the_density_knows_the_elevation(self, run: Path, store: Path) -> None:
        prior = load_prior(run)
        assert isinstance(prior, GeneralPrior)
        points = points_of(store)
        low, high = (prior(points, torch.full((64,), e)) for e in (0.0, 0.6))
        assert not torch.allclose(low, high)
        assert torch.allclose(prior(3 * points), prior(points), atol=1e-2)
        between = prior(points)
        assert (between < torch.maximum(low, high) + math.log(5) + 5).all()


class TestRoll:
    def test_turned_further_is_found_further(self, run: Path, store: Path) -> None:
        prior = load_prior(run)
        points = points_of(store, 32)
        with PoseStore(store) as poses:
            gravity = poses.gravity("train")
        assert gravity is not None
        straight = unrolled(points, torch.from_numpy(np.radians(gravity[:32, 1])))
        start = find_roll(straight.numpy(), prior)
        assert abs(math.degrees(start)) < 15
        for degrees in (26.0, -60.0, 90.0):
            angle = torch.full((32,), -math.radians(degrees))
            found = find_roll(unrolled(straight, angle).numpy(), prior)
            assert math.degrees(found - start) == pytest.approx(degrees, abs=1.5)

    def test_nobody_is_not_rolled(self) -> None:
        assert find_roll(np.full((3, 17, 2), np.nan), lambda points: points[:, 0, 0]) == 0


class TestLifting:
    def test_a_clip_with_gaps(self, run: Path, store: Path, tmp_path: Path) -> None:
        with PoseStore(store) as poses:
            keypoints = poses.keypoints("train")[:20].copy()
        confidence = np.ones((20, 17), np.float32)
        confidence[:, 13] = 0
        clip = np.concatenate([keypoints, confidence[..., None]], axis=-1)
        np.savez(tmp_path / "clip.npz", keypoints=clip.astype(np.float32))
        summary = ites.lift(tmp_path / "clip.npz", tmp_path / "out.npz", run=run)
        lifted = dict(np.load(tmp_path / "out.npz"))
        assert np.isnan(lifted["positions"][:, 13]).all()  # never seen
        assert np.isfinite(np.delete(lifted["positions"], 13, axis=1)).all()
        assert np.isfinite(lifted["expected_error"]).all()
        assert (lifted["expected_error"] > 0).all()
        assert any("expected error" in note for note in summary["notes"])
        assert not any("filled in" in note for note in summary["notes"])

    def test_odds_and_error_are_calibrated(self, run: Path) -> None:
        trust = load_trust(run, "teacher")
        assert trust is not None
        assert len(trust.odds.error) == 4

    def test_resumed_training_gives_the_same_bits(
        self, store: Path, tmp_path: Path, run: Path
    ) -> None:
        weights = []
        for name, stops in (("whole", (12,)), ("parts", (6, 12))):
            for steps in stops:
                options = {
                    "data": str(store), "out": str(tmp_path / name), "recipe": "general",
                    "steps": steps, "width": 32, "blocks": 1, "batch": 64, "decay": "halve",
                    "prior": str(run),
                }  # fmt: skip
                settings = make_settings("teacher", None, options)
                train(settings, resume=steps == 12 and name == "parts", console=quiet_console())
            weights.append(load_model(tmp_path / name, "teacher")[0].state_dict())
        assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


class TestFurther:
    """A training that starts from a run and must not undo what the run knows."""

    def further(self, run: Path, out: Path, store: Path, **options: Any) -> Path:
        given = {
            "data": str(store),
            "out": str(out),
            "recipe": "general",
            "start": str(run),
            "prior": str(run),
            "steps": 3,
            "width": 64,
            "blocks": 1,
            "batch": 32,
            "evaluate_every": 0,
            **options,
        }
        train(make_settings("teacher", None, given), console=quiet_console())
        return out

    def test_statistics_are_kept(self, run: Path, store: Path, tmp_path: Path) -> None:
        before, _ = load_model(run, "teacher")
        for kept, choice in ((True, "kept"), (False, "global")):
            out = self.further(run, tmp_path / choice, store, batch_statistics=choice)
            after, _ = load_model(out, "teacher")
            ours, theirs = after.state_dict(), before.state_dict()
            names = [name for name in ours if "running" in name]
            same = [torch.equal(ours[name], theirs[name]) for name in names]
            assert len(names) == 8 and all(same) == kept and any(same) == kept
            assert not torch.equal(ours["input.weight"], theirs["input.weight"])

    def test_without_a_start_there_are_no_statistics_to_keep(
        self, store: Path, tmp_path: Path
    ) -> None:
        with pytest.raises(ItesError, match="batch_statistics: kept needs start"):
            self.further(Path(), tmp_path / "out", store, batch_statistics="kept", start="")
        assert not (tmp_path / "out").exists()

    def test_a_share_of_each_batch_is_replayed(self, run: Path, store: Path) -> None:
        options = {"recipe": "general", "prior": str(run), "width": 64, "blocks": 1}
        given = {**options, "replay": str(store), "replay_share": 0.25}
        own, gravity = torch.rand(40, 17, 2) - 0.5, torch.zeros(40, 2)
        for chosen, share in ((options, 0.0), (given, 0.25)):
            settings = make_settings("teacher", None, chosen)
            stage = make_stage(settings, HUMAN36M, own, gravity=gravity)
            assert isinstance(stage, GeneralTeacherStage)
            batch = torch.full((4000, 17, 2), 9.0), torch.full((4000,), 9.0)
            counter = torch.tensor([0, 7, 0])
            points, elevation, other = stage.mixed(*batch, counter)
            assert other.float().mean() == pytest.approx(share, abs=0.02)
            assert torch.equal(other, elevation != 9)
            assert torch.equal(other, (points != 9).all(-1).all(-1))
            again = stage.mixed(*batch, counter)
            assert torch.equal(points, again[0]) and torch.equal(elevation, again[1])
            if share:
                row = int(other.nonzero()[0])
                place = (stage.replayed == points[row]).all(-1).all(-1).nonzero()
                assert stage.replayed_elevation[place[0]] == elevation[row]

    def test_what_is_replayed_needs_the_skeleton_and_elevations(
        self, run: Path, store: Path, tmp_path: Path
    ) -> None:
        prepare_synthetic(tmp_path / "flat.h5", poses=300, seed=0, subjects=1, test_subjects=1)
        with pytest.raises(ItesError, match="flat.h5: expected the elevation of each line"):
            self.further(run, tmp_path / "out", store, replay=str(tmp_path / "flat.h5"))


class TestPairs:
    """Two views of one person must be lifted to one pose."""

    def views(self, count: int = 20) -> tuple[torch.Tensor, torch.Tensor]:
        """Camera-frame poses (2 * count, 17, 3) of `count` people seen twice by the networks'
        camera, and the elevations (2 * count,)."""
        generator = torch.Generator().manual_seed(0)
        world = torch.from_numpy(draw_postures(np.random.default_rng(2), count)).double()
        world = 0.6 * torch.stack([world[..., 0], -world[..., 2], world[..., 1]], -1)
        elevation = torch.rand(2 * count, generator=generator, dtype=torch.float64) - 0.5
        azimuth = 6.28 * torch.rand(2 * count, generator=generator, dtype=torch.float64)
        turn = _about_y(azimuth) @ _about_x(-elevation)
        return world.repeat(2, 1, 1) @ turn, elevation

    def loss(
        self, pose: torch.Tensor, exact: torch.Tensor, elevation: torch.Tensor, pairs: torch.Tensor
    ) -> torch.Tensor:
        teacher = GeneralTeacher(HUMAN36M, width=32, blocks=1).double()
        points = geometry.project(exact)
        points = points * own_scale(points, HUMAN36M)[:, None, None]
        return teacher._pair(pose, points, elevation, pairs)

    def test_true_poses_agree(self) -> None:
        pose, elevation = self.views()
        pairs = torch.ones(20, dtype=torch.bool)
        assert self.loss(pose, pose, elevation, pairs) < 1e-9
        assert self.loss(1.7 * pose, pose, elevation, pairs) < 0.01  # but for perspective
        flat = pose * torch.tensor([1.0, 1.0, 0.0])
        assert self.loss(flat, pose, elevation, pairs) > 0.03
        assert self.loss(pose.flip(0), pose, elevation, pairs) > 0.05
        assert self.loss(flat, pose, elevation, ~pairs) == 0

    def test_only_pairs_count_and_the_odd_pose_does_not(self) -> None:
        pose, elevation = self.views()
        wrong = pose.clone()
        wrong[[3, 23]] *= torch.tensor([1.0, 1.0, -1.0])
        pairs = torch.ones(20, dtype=torch.bool)
        with_it = self.loss(wrong, pose, elevation, pairs)
        pairs[3] = False
        assert with_it > 1e-3 and self.loss(wrong, pose, elevation, pairs) < 1e-9
        more = [torch.cat([x, x[:1] + 3]) for x in (wrong, pose, elevation)]
        assert self.loss(*more, pairs) < 1e-9

    def test_descent_on_the_depths_leads_to_the_truth(self) -> None:
        pose, elevation = self.views()
        pairs, points = torch.ones(20, dtype=torch.bool), geometry.project(pose)
        noise = 0.08 * torch.randn(40, 17, 1, dtype=torch.float64)
        depth = (pose[..., 2:] + noise - noise[:, :1]).requires_grad_()
        optimiser = torch.optim.Adam([depth], lr=5e-3)
        before = (depth - pose[..., 2:]).abs().mean().item()
        for _ in range(200):
            optimiser.zero_grad()
            self.loss(geometry.backproject(points, depth), pose, elevation, pairs).backward()
            optimiser.step()
        assert (depth - pose[..., 2:]).abs().mean() < 0.4 * before

    def test_a_store_of_pairs_is_trained_on_as_pairs(self, run: Path, store: Path) -> None:
        options = {"recipe": "general", "prior": str(run), "width": 64, "blocks": 1}
        settings = make_settings("teacher", None, options)
        own, gravity = torch.rand(40, 17, 2) - 0.5, torch.zeros(40, 2)
        alone = make_stage(settings, HUMAN36M, own, gravity=gravity)
        both = make_stage(
            settings, HUMAN36M, own, gravity=gravity, second=SecondViews(own.flip(0), gravity)
        )
        counts = [len(stage.data) for stage in (alone, both)]
        assert counts == [2, 4] and both.names == (*alone.names, "pair")
        draw = RotationDraw(torch.tensor([0, 1, 0]), 1)
        losses = dict(zip(both.names, both(both.data, draw, False), strict=True))
        assert losses["pair"] > 0
        parts = sum(
            float(getattr(settings, f"{name.removesuffix('s')}_weight")) * losses[name]
            for name in both.names[1:]
        )
        assert torch.allclose(losses["total"], torch.as_tensor(parts), rtol=1e-5)
        assert len(alone(alone.data, draw, False)) == len(alone.names)
        mixed = make_settings("teacher", None, {**options, "replay": str(store)})
        some = make_stage(
            mixed, HUMAN36M, own, gravity=gravity, second=SecondViews(own.flip(0), gravity)
        )
        replaced = dict(zip(some.names, some(some.data, draw, False), strict=True))
        assert 0 < replaced["pair"] != losses["pair"]

    def test_pairs_count_after_pair_start_steps(self, run: Path) -> None:
        options = {"recipe": "general", "prior": str(run), "width": 64, "blocks": 1}
        settings = make_settings("teacher", None, {**options, "pair_start": 7})
        own, gravity = torch.rand(40, 17, 2) - 0.5, torch.zeros(40, 2)
        alone = make_stage(settings, HUMAN36M, own, gravity=gravity)
        both = make_stage(
            settings, HUMAN36M, own, gravity=gravity, second=SecondViews(own.flip(0), gravity)
        )
        assert (alone.early_steps(10), both.early_steps(10)) == (0, 7)
        draw = RotationDraw(torch.tensor([0, 1, 0]), 1)
        early, later = (
            dict(zip(both.names, both(both.data, draw, early), strict=True))
            for early in (True, False)
        )
        assert early["pair"] == 0 and later["pair"] > 0
        total = later["total"] - settings.to_dict()["pair_weight"] * later["pair"]
        assert torch.allclose(early["total"], total, rtol=0.05)  # pairs share their mirror image
