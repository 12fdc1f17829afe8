"""Recipe "general": its training, from scratch and from a run, and pairs of views."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from general_model import CAMERA

from ites.data.datasets.field import see
from ites.data.store import PoseStoreWriter, second_view
from ites.data.synthetic.synthetic import prepare_synthetic
from ites.data.synthetic.variety import (
    draw_postures,
)
from ites.errors import ItesError
from ites.models import GeneralTeacher
from ites.models.general import _about_x, _about_y
from ites.models.sizes import own_scale
from ites.ops import RotationDraw
from ites.pose import geometry
from ites.pose.skeleton import HUMAN36M
from ites.runs.checkpoint import load_model, load_trust
from ites.runs.settings import make_settings
from ites.training.dataset import SecondViews
from ites.training.engine import train
from ites.training.log import quiet_console
from ites.training.stages import GeneralTeacherStage, make_stage


class TestTraining:
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

    def test_a_store_without_elevations_is_refused(self, tmp_path: Path) -> None:
        prepare_synthetic(tmp_path / "plain.h5", poses=400, fps=10.0)
        options = {"data": str(tmp_path / "plain.h5"), "out": str(tmp_path), "recipe": "general"}
        with pytest.raises(ItesError, match="expected the elevation of each line of sight"):
            train(make_settings("prior", None, options), console=quiet_console())

    def test_odds_and_error_are_calibrated(self, general_run: Path) -> None:
        trust = load_trust(general_run, "teacher")
        assert trust is not None
        assert len(trust.odds.error) == 4

    def test_resumed_training_gives_the_same_bits(
        self, field_store: Path, tmp_path: Path, general_run: Path
    ) -> None:
        weights = []
        for name, stops in (("whole", (12,)), ("parts", (6, 12))):
            for steps in stops:
                options = {
                    "data": str(field_store), "out": str(tmp_path / name), "recipe": "general",
                    "steps": steps, "width": 32, "blocks": 1, "batch": 64, "decay": "halve",
                    "prior": str(general_run), "pair_start": 4,
                }  # fmt: skip
                settings = make_settings("teacher", None, options)
                train(settings, resume=steps == 12 and name == "parts", console=quiet_console())
            weights.append(load_model(tmp_path / name, "teacher")[0].state_dict())
        assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


class TestFurther:
    """A training that starts from a run and must not undo what the run knows."""

    def further(self, general_run: Path, out: Path, field_store: Path, **options: Any) -> Path:
        given = {
            "data": str(field_store),
            "out": str(out),
            "recipe": "general",
            "start": str(general_run),
            "prior": str(general_run),
            "steps": 3,
            "width": 64,
            "blocks": 1,
            "batch": 32,
            "evaluate_every": 0,
            **options,
        }
        train(make_settings("teacher", None, given), console=quiet_console())
        return out

    def test_statistics_are_kept(
        self, general_run: Path, field_store: Path, tmp_path: Path
    ) -> None:
        before, _ = load_model(general_run, "teacher")
        for kept, choice in ((True, "kept"), (False, "global")):
            out = self.further(general_run, tmp_path / choice, field_store, batch_statistics=choice)
            after, _ = load_model(out, "teacher")
            ours, theirs = after.state_dict(), before.state_dict()
            names = [name for name in ours if "running" in name]
            same = [torch.equal(ours[name], theirs[name]) for name in names]
            assert len(names) == 8 and all(same) == kept and any(same) == kept
            assert not torch.equal(ours["input.weight"], theirs["input.weight"])

    def test_without_a_start_there_are_no_statistics_to_keep(
        self, field_store: Path, tmp_path: Path
    ) -> None:
        with pytest.raises(ItesError, match="batch_statistics: kept needs start"):
            self.further(Path(), tmp_path / "out", field_store, batch_statistics="kept", start="")
        assert not (tmp_path / "out").exists()

    def test_a_share_of_each_batch_is_replayed(self, general_run: Path, field_store: Path) -> None:
        options = {"recipe": "general", "prior": str(general_run), "width": 64, "blocks": 1}
        given = {**options, "replay": str(field_store), "replay_share": 0.25}
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
        self, general_run: Path, field_store: Path, tmp_path: Path
    ) -> None:
        prepare_synthetic(tmp_path / "flat.h5", poses=300, seed=0, subjects=1, test_subjects=1)
        with pytest.raises(ItesError, match="flat.h5: expected the elevation of each line"):
            self.further(
                general_run, tmp_path / "out", field_store, replay=str(tmp_path / "flat.h5")
            )


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

    def test_a_store_of_pairs_is_trained_on_as_pairs(
        self, general_run: Path, field_store: Path
    ) -> None:
        options = {"recipe": "general", "prior": str(general_run), "width": 64, "blocks": 1}
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
        mixed = make_settings("teacher", None, {**options, "replay": str(field_store)})
        some = make_stage(
            mixed, HUMAN36M, own, gravity=gravity, second=SecondViews(own.flip(0), gravity)
        )
        replaced = dict(zip(some.names, some(some.data, draw, False), strict=True))
        assert 0 < replaced["pair"] != losses["pair"]

    def test_pairs_count_after_pair_start_steps(self, general_run: Path) -> None:
        options = {"recipe": "general", "prior": str(general_run), "width": 64, "blocks": 1}
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
