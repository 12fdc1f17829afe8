"""Cameras and the networks' normalisation."""

import numpy as np
import pytest

from ites.errors import ItesError
from ites.pose.camera import Camera, human36m_cameras, normalise, scale_for
from ites.pose.skeleton import HUMAN36M


def test_there_and_back():
    joints = np.random.default_rng(0).normal(size=(5, 17, 3))
    for camera in human36m_cameras("S9"):
        assert np.allclose(
            camera.camera_to_world(camera.world_to_camera(joints)), joints, atol=1e-5
        )
        quaternion = np.array(camera.orientation)
        assert np.isclose(quaternion @ quaternion, 1, atol=1e-6)


def test_the_rig_looks_at_people_in_the_middle():
    """A person at the origin, 1 m up, is seen upright, near the middle, 3 to 8 m away."""
    for subject in ("S1", "S9"):
        for camera in human36m_cameras(subject):
            seen = camera.world_to_camera(np.array([[0, 0, 1.0], [0, 0, 1.8]]))
            pixels = camera.project(seen)
            assert 3 < seen[0, 2] < 8
            assert np.abs(pixels[0] - 500).max() < 260
            assert pixels[1, 1] < pixels[0, 1]  # y points down


def test_projection_without_distortion_is_the_pinhole():
    camera = Camera("c", (1000.0, 1100.0), (320.0, 240.0))
    assert np.allclose(camera.project(np.array([0.5, -0.25, 2.0])), (570, 102.5))


def test_distortion_by_hand():
    camera = Camera("c", (1.0, 1.0), (0.0, 0.0), (0.1, 0.01, 0.001), (0.02, 0.03))
    x, y = 0.3, -0.4
    r2 = 0.25
    factor = 1 + 0.1 * r2 + 0.01 * r2**2 + 0.001 * r2**3 + 0.02 * x + 0.03 * y
    expected = (x * factor + 0.02 * r2, y * factor + 0.03 * r2)
    assert np.allclose(camera.project(np.array([x, y, 1.0])), expected)


def test_points_far_outside_are_clamped():
    camera = Camera("c", (10.0, 10.0), (0.0, 0.0))
    assert np.allclose(camera.project(np.array([9.0, -9.0, 1.0])), (10, -10))


def test_normalise():
    pixels = np.zeros((2, 17, 2))
    pixels[:, :] = (400, 300)
    pixels[:, HUMAN36M.head] = (430, 300), (400, 340)
    points = normalise(pixels, (100, 200))
    assert np.allclose(points[:, 0], 0)
    assert np.allclose(points[:, HUMAN36M.head], [[0.3, 0], [0, 0.2]])
    assert np.isclose(scale_for(points), 0.2 / 0.25)
    with pytest.raises(ItesError, match="must be positive, got 0.0 over 1 poses"):
        scale_for(np.zeros((1, 17, 2)))


def test_unknown_subject():
    with pytest.raises(ItesError, match="must be one of S1, S5"):
        human36m_cameras("S2")
