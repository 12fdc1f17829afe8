"""A camera's roll, found from poses."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from general_model import points_of

from ites.data.store import PoseStore
from ites.inference.roll import find_roll
from ites.pose.geometry import unrolled
from ites.runs.checkpoint import load_model, load_prior


class TestRoll:
    def test_turned_further_is_found_further(self, general_run: Path, field_store: Path) -> None:
        prior = load_prior(general_run)
        points = points_of(field_store, 32)
        with PoseStore(field_store) as poses:
            gravity = poses.gravity("train")
        assert gravity is not None
        straight = unrolled(points, torch.from_numpy(np.radians(gravity[:32, 1])))
        start = find_roll(straight.numpy(), prior)
        assert abs(math.degrees(start)) < 15
        for degrees in (26.0, -60.0, 90.0):
            angle = torch.full((32,), -math.radians(degrees))
            found = find_roll(unrolled(straight, angle).numpy(), prior)
            assert math.degrees(found - start) == pytest.approx(degrees, abs=1.5)

    @pytest.mark.parametrize("missing", ["an ankle in all frames", "a joint of each frame"])
    def test_it_is_found_of_poses_with_missing_joints(
        self, general_run: Path, field_store: Path, missing: str
    ) -> None:
        prior, (teacher, _) = load_prior(general_run), load_model(general_run)
        points = points_of(field_store, 64)
        with PoseStore(field_store) as poses:
            gravity = poses.gravity("train")
        assert gravity is not None
        straight = unrolled(points, torch.from_numpy(np.radians(gravity[:64, 1])))
        rolled = unrolled(straight, torch.full((64,), -math.radians(26.0)))
        whole = find_roll(rolled.numpy(), prior, complete=teacher.clean)
        assert whole == find_roll(rolled.numpy(), prior)
        if missing.startswith("an ankle"):
            rolled[:, 3] = torch.nan
        else:
            rolled[torch.arange(64), 1 + torch.arange(64) % 16] = torch.nan
        assert find_roll(rolled.numpy(), prior) == 0
        found = find_roll(rolled.numpy(), prior, complete=teacher.clean)
        assert math.degrees(found - whole) == pytest.approx(0, abs=6)

    def test_nobody_is_not_rolled(self) -> None:
        for complete in (None, torch.nan_to_num):
            nobody = np.full((3, 17, 2), np.nan)
            assert find_roll(nobody, lambda points: points[:, 0, 0], complete=complete) == 0
