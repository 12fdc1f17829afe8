"""The networks' input with known cameras turned towards the people."""

import numpy as np
import pytest
import torch
from lifting import motion

from ites.data.store import PoseStore, PoseStoreWriter
from ites.errors import ItesError
from ites.evaluation.evaluate import evaluate_points
from ites.pose.camera import Camera
from ites.pose.skeleton import HUMAN36M

KNOWN = Camera("known", (1000.0, 1100.0), (480.0, 530.0), width=1000, height=1000)
UNKNOWN = Camera("unknown", (1000.0, 1000.0), (500.0, 500.0), assumed=True)


@pytest.fixture
def store(tmp_path):
    with PoseStoreWriter(tmp_path / "s.h5", HUMAN36M) as writer:
        for number, camera in enumerate((KNOWN, UNKNOWN)):
            joints = motion(8, number) + np.float32([1.2, -0.4, 0])  # 16 degrees off the axis
            writer.add_camera(camera.id, camera)
            writer.add(
                camera.project(joints), camera=camera.id, subject=camera.id, action="walk",
                split="test", fps=25.0, positions=joints, confidence=np.ones((8, 17)),
            )  # fmt: skip
    with PoseStore(tmp_path / "s.h5") as opened:
        yield opened


def true_depths(store, points, scale, views):
    """What a perfect network would say of each turned pose: (N, J, 3), network units."""
    positions = store.positions("test").astype(np.float64)
    turned = (positions - positions[:, :1]) @ views.turns
    away = np.linalg.norm(positions[:, 0], axis=-1)[:, None, None]
    depth = turned[..., 2:] * 5 * scale / away
    return np.concatenate([points * (5 + depth), depth], -1).astype(np.float32)


def test_known_cameras_are_turned_and_poses_are_turned_back(store):
    points, scale, views = store.turned_points("test", 0.9)
    plain, _ = store.points("test", 0.9)
    assert scale == 0.9
    np.testing.assert_allclose(points[:, 0], 0, atol=1e-6)
    np.testing.assert_array_equal(points[8:], plain[8:])
    np.testing.assert_array_equal(views.turns[8:], np.tile(np.eye(3), (8, 1, 1)))
    np.testing.assert_allclose(views.size, [0.9] * 8 + [1.0] * 8)
    found = views.back(true_depths(store, points, scale, views)[:8], slice(0, 8))
    positions = store.positions("test")[:8]
    expected = (positions - positions[:, :1]).astype(np.float64)
    unit = np.linalg.norm(positions[:, 0], axis=-1)[:, None, None] / (5 * scale)
    np.testing.assert_allclose(found * unit, expected, atol=1e-5)


def test_a_perfect_network_has_no_error(store):
    points, scale, views = store.turned_points("test", 0.9)
    answers = torch.from_numpy(true_depths(store, points, scale, views)[:8])
    evaluation = evaluate_points(
        lambda batch: answers[: len(batch)], points[:8], store.positions("test")[:8],
        ["walk"] * 8, HUMAN36M, {"device": "cpu", "unit": 1.0}, views=views,
    )  # fmt: skip
    assert evaluation.over_poses.figures["n_mpjpe"] == pytest.approx(0, abs=0.1)  # millimetres
    assert evaluation.over_poses.figures["wrong_sign"] == 0


def test_the_scale_is_that_of_the_turned_points(store):
    points, scale, _ = store.turned_points("test")
    assert np.linalg.norm(points[:, 10], axis=-1).mean() == pytest.approx(0.2, rel=1e-5)
    assert scale != store.points("test")[1]
    with pytest.raises(ItesError, match="missing must be one of"):
        store.turned_points("test", missing="guess")
