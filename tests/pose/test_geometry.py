"""Rotations and the networks' camera."""

import torch

from ites.pose.geometry import backproject, project, so3_exp


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
