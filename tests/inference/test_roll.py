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
from ites.runs.checkpoint import load_prior


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

    def test_nobody_is_not_rolled(self) -> None:
        assert find_roll(np.full((3, 17, 2), np.nan), lambda points: points[:, 0, 0]) == 0
