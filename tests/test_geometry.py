"""Rotations and the networks' camera."""

import torch

from ites.pose.geometry import backproject, project, so3_exp, so3_log


def test_a_quarter_turn_about_the_vertical():
    """Row vectors: X' = X @ R, so a positive turn about y takes z to -x."""
    quarter = so3_exp(torch.tensor([0.0, torch.pi / 2, 0.0], dtype=torch.float64))
    turned = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64) @ quarter
    assert torch.allclose(turned, torch.tensor([-1.0, 0.0, 0.0]).double(), atol=2e-4)


def test_exp_and_log_are_inverse_but_for_the_formula():
    w = torch.randn(200, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    w *= 3 * torch.rand(200, 1, dtype=torch.float64) / w.norm(dim=-1, keepdim=True)
    assert (so3_log(so3_exp(w)) - w).abs().max() < 5e-4


def test_log_near_half_a_turn_and_at_none():
    axis = torch.nn.functional.normalize(torch.randn(50, 3, dtype=torch.float64), dim=-1)
    hat = torch.zeros(50, 3, 3, dtype=torch.float64)
    hat[:, 0, 1], hat[:, 0, 2], hat[:, 1, 2] = -axis[:, 2], axis[:, 1], -axis[:, 0]
    hat = hat - hat.mT
    for angle in (0.0, 1e-9, 1.0, torch.pi - 1e-7):
        w = so3_log(torch.linalg.matrix_exp(angle * hat))
        assert (w - angle * axis).abs().max() < 1e-7


def test_project_and_backproject():
    joints = torch.randn(9, 17, 3, dtype=torch.float64)
    again = backproject(project(joints), joints[..., 2:])
    assert torch.allclose(again, joints)


def test_project_is_clamped_near_the_camera():
    joints = torch.tensor([[1.0, 2.0, -4.5]])
    assert project(joints).tolist() == [[1.0, 2.0]]
