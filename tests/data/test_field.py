"""`ites prepare field`: people of every build in every posture, seen by any camera."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from general_model import CAMERA, JOINTS, PARENTS, lengths, make_field, points_of

from ites.data.datasets.cmu import prepare_cmu
from ites.data.datasets.field import ELEVATIONS, PARTNERS, prepare_field, see
from ites.data.store import PAIRS, PoseStore, second_view
from ites.data.synthetic.motion import draw_body
from ites.data.synthetic.synthetic import Performance, perform
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
from ites.training.dataset import read_pairs


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

    def test_the_store_holds_gravity_pairs_and_no_3d(
        self, field_store: Path, tmp_path: Path
    ) -> None:
        with PoseStore(field_store) as poses:
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
        pairs = read_pairs(str(field_store))
        assert pairs is not None
        assert pairs[0].shape == pairs[1].shape
        shares = []
        with PoseStore(field_store) as poses:
            for split in ("train", second_view("train")):
                seen = lengths(poses.keypoints(split))
                shares.append(seen / seen.sum(1, keepdims=True))
        alike = np.abs(shares[0] - shares[1]).mean()  # the same person has similar shares
        assert alike < 0.9 * np.abs(shares[0] - np.roll(shares[1], 1, 0)).mean()
        again = tmp_path / "again.h5"
        make_field(again)
        assert torch.equal(points_of(again), points_of(field_store))

    def test_refuses(self, tmp_path: Path) -> None:
        with pytest.raises(ItesError, match="people must be at least 100, got 3"):
            prepare_field(None, tmp_path / "a.h5", people=3)

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
