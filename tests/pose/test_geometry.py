"""Rotations and the networks' camera."""

import torch

from ites.pose.geometry import backproject, project, so3_exp, unrolled


def test_a_quarter_turn_about_the_vertical():
    """Row vectors: X' = X @ R, so a positive turn about y takes z to -x."""
    quarter = so3_exp(torch.tensor([0.0, torch.pi / 2, 0.0], dtype=torch.float64))
    turned = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64) @ quarter
    assert torch.allclose(turned, torch.tensor([-1.0, 0.0, 0.0]).double(), atol=2e-4)


def test_project_and_backproject():
    joints = torch.randn(9, 17, 3, dtype=torch.float64)
    again = backproject(project(joints), joints[..., 2:])
    assert torch.allclose(again, joints)


def test_project_is_clamped_near_the_camera():
    joints = torch.tensor([[1.0, 2.0, -4.5]])
    assert project(joints).tolist() == [[1.0, 2.0]]


def test_a_rolled_camera_is_turned_back():
    """Clockwise by a quarter: what is right in the picture was above."""
    points = torch.tensor([[[1.0, 0.0], [0.0, 2.0]]])
    quarter = torch.tensor(torch.pi / 2)
    expected = torch.tensor([[[0.0, 1.0], [-2.0, 0.0]]])
    torch.testing.assert_close(unrolled(points, quarter), expected, rtol=0, atol=1e-6)
    both = unrolled(points.repeat(2, 1, 1), torch.stack([quarter, torch.tensor(0.0)]))
    torch.testing.assert_close(both, torch.cat([expected, points]), rtol=0, atol=1e-6)
