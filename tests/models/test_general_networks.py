"""The networks of recipe "general": sizes, disturbed input, any scale, missing joints."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from general_model import JOINTS, PARENTS, points_of

from ites.models import GeneralPrior, GeneralTeacher, fold_norms
from ites.models.disturb import disturb
from ites.models.mirror import mirror_image, other_sides
from ites.models.sizes import TOTAL, bone_shares, own_scale
from ites.pose.metrics import p_mpjpe
from ites.pose.skeleton import HUMAN36M
from ites.runs.checkpoint import load_model, load_prior


class TestSizes:
    def test_scaled_bones_add_up(self, field_store: Path) -> None:
        points = points_of(field_store)
        scaled = points * own_scale(points, HUMAN36M)[:, None, None]
        flat = (scaled[:, JOINTS] - scaled[:, PARENTS]).norm(dim=-1)
        assert torch.allclose(flat.sum(1), torch.full((64,), TOTAL))

    def test_missing_joints_change_the_scale_little(self, field_store: Path) -> None:
        points = points_of(field_store)
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
    def test_lifts_alike_at_any_size_and_mirrored(
        self, general_run: Path, field_store: Path
    ) -> None:
        teacher, _ = load_model(general_run)
        assert isinstance(teacher, GeneralTeacher)
        points = points_of(field_store)
        pose, large = teacher.pose(points), teacher.depth(7 * points)
        assert torch.allclose(large, 7 * teacher.depth(points), atol=1e-4)
        image = teacher.depth(mirror_image(points, HUMAN36M))
        assert torch.allclose(other_sides(image, HUMAN36M), teacher.depth(points), atol=1e-5)
        flat = pose[..., :2] / (5 + pose[..., 2:])
        assert torch.allclose(flat, teacher.clean(points), atol=1e-5)
        assert torch.allclose(fold_norms(teacher).pose(points), pose, atol=1e-4)

    def test_missing_joints_are_completed(self, general_run: Path, field_store: Path) -> None:
        teacher, _ = load_model(general_run)
        points = points_of(field_store)
        whole = teacher.pose(points)
        points[:, [12, 13]] = torch.nan
        points[::2, 0] = torch.nan  # the root
        pose = teacher.pose(points)
        assert pose.isfinite().all()
        assert torch.equal(pose[:, 0, :2], torch.zeros(64, 2))
        kept = [joint for joint in range(17) if joint not in (0, 12, 13)]
        assert p_mpjpe(pose[:, kept].double(), whole[:, kept].double()).mean() < 0.5
        assert teacher.pose(torch.full((2, 17, 2), torch.nan)).isfinite().all()

    def test_a_completed_pose_is_lifted_again(self, general_run: Path, field_store: Path) -> None:
        teacher, _ = load_model(general_run)
        assert isinstance(teacher, GeneralTeacher)
        points = points_of(field_store)
        whole = teacher.depth(points)
        points[::2, [1, 2, 3]] = torch.nan
        depth = teacher.depth(points)
        assert torch.equal(depth[1::2], whole[1::2])
        again = teacher.depth(teacher.clean(points))
        assert torch.allclose(depth[::2], again[::2], atol=1e-6)

    def test_noise_is_reduced_and_exact_poses_stay(
        self, general_run: Path, field_store: Path
    ) -> None:
        teacher, _ = load_model(general_run)
        assert isinstance(teacher, GeneralTeacher)
        guess = torch.randn(1, 17, 2) * 0.1
        guess = guess - guess[:, :1]
        seen = torch.ones(1, 17, 2, dtype=torch.bool)
        near = guess + 0.004 * torch.ones(1, 17, 2) * (torch.arange(17) > 0)[:, None]
        assert torch.allclose(teacher._denoised(near, guess, seen), near)
        far = guess + 10 * (near - guess)
        kept = (teacher._denoised(far, guess, seen) - guess) / (far - guess)
        assert torch.allclose(kept[:, 1:], torch.full((1, 16, 2), 0.2), atol=1e-3)

    def test_the_density_knows_the_elevation(self, general_run: Path, field_store: Path) -> None:
        prior = load_prior(general_run)
        assert isinstance(prior, GeneralPrior)
        points = points_of(field_store)
        low, high = (prior(points, torch.full((64,), e)) for e in (0.0, 0.6))
        assert not torch.allclose(low, high)
        assert torch.allclose(prior(3 * points), prior(points), atol=1e-2)
        between = prior(points)
        assert (between < torch.maximum(low, high) + math.log(5) + 5).all()
