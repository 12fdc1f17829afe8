"""The two networks, against docs/method.md, 3.1 and 4.4."""

import re

import numpy as np
import pytest
import torch
from op_contract import FORK
from torch.nn import functional

from ites.models import (
    GeneralTeacher,
    Prior,
    Student,
    Teacher,
    UprightStudent,
    UprightTeacher,
    fold_norms,
)
from ites.models.layers import update_running
from ites.models.mirror import mirror_image, other_sides
from ites.ops import RotationDraw
from ites.pose import geometry
from ites.pose.skeleton import HUMAN36M


def points(batch, joints=17):
    generator = torch.Generator().manual_seed(batch)
    x = 0.2 * torch.randn(batch, joints, 2, generator=generator)
    return x - x[:, :1]


def draw(axes="xyz", max_angle=torch.pi):
    return RotationDraw(torch.tensor([1, 2, 0]), 4, axes, max_angle)


def test_sizes_of_the_paper():
    used = sum(p.numel() for p in Teacher().parameters())
    assert used == 3_620_518  # 3.62 M
    assert sum(p.numel() for p in Student().parameters()) == 534_635  # 0.53 M


def test_initial_values():
    torch.manual_seed(0)
    teacher, student = Teacher(), Student()
    assert abs(teacher.input.weight.std().item() - 0.01) < 2e-4
    assert abs(teacher.dictionary.std().item() - 0.01) < 1e-3
    assert not teacher.mean_pose.any() and not teacher.input.bias.any()
    assert teacher.input_norm.weight.min() >= 0 and teacher.input_norm.weight.max() <= 1
    assert 0.45 < teacher.input_norm.weight.mean() < 0.55
    layer = student.blocks[0].layer1
    # (2, C, C) as PyTorch counts fans: in C * C, out 2 * C
    bound = 1.414 * (6 / (128 * 128 + 2 * 128)) ** 0.5
    assert 0.98 * bound < layer.conv.weight.max() <= bound
    assert torch.equal(layer.conv.logits, torch.ones(49))
    assert layer.conv.bias.abs().max() <= 128**-0.5
    assert not layer.non_local.norm.weight.any() and not layer.non_local.norm.bias.any()
    assert abs(layer.non_local.g.weight.std() - (2 / 128) ** 0.5) < 0.005
    assert abs(layer.non_local.affinity.std() - (2 / 128) ** 0.5) < 0.04


def test_teacher_forward_by_hand():
    torch.manual_seed(1)
    teacher = Teacher(width=32, blocks=1, atoms=3).double()
    x = points(6).double() + 1.0
    out = teacher.train()(x)
    h = (x - x[:, :1]).flatten(1)

    def norm(y, module, skip=0.0):
        y = functional.batch_norm(y, None, None, module.weight, module.bias, training=True)
        return (y + skip).relu()

    h = norm(teacher.input(h), teacher.input_norm)
    block = teacher.blocks[0]
    inner = norm(block.linear1(h), block.norm1)
    inner = norm(block.linear2(inner), block.norm2)
    h = norm(block.linear3(inner), block.norm3, h)
    a, w = teacher.coefficients(h), teacher.rotation_vector(h)
    canonical = (a @ teacher.dictionary + teacher.mean_pose).view(6, 17, 3)
    torch.testing.assert_close(out.canonical, canonical)
    torch.testing.assert_close(out.camera_pose, canonical @ geometry.so3_exp(w))


def test_running_statistics_move_twice_a_step():
    torch.manual_seed(0)
    teacher = Teacher(width=16, blocks=1, atoms=3).train()
    x = points(8)
    before = teacher.input(x.flatten(1))
    teacher.losses(x, draw(), True)
    mean, var = teacher.input_norm.running_mean, teacher.input_norm.running_var
    first = 0.1 * before.mean(0)
    assert not torch.allclose(mean, first)  # a second pass has moved it on
    assert (var < 0.9**2 * 1 + 0.2).all() and (var >= 0.9**2).all()


def test_losses_are_those_of_the_formulas():
    torch.manual_seed(3)
    teacher, student = Teacher(width=32, blocks=1).double(), Student(width=16, blocks=1).double()
    x = points(5).double()
    for centre in (True, False):
        losses = teacher.losses(x, draw(), centre)
        assert torch.isclose(losses.total(), 5 * losses.reprojection + losses.cycle)
    out = teacher(x)
    reprojection = (geometry.project(out.camera_pose) - x).norm(dim=-1).mean()
    assert torch.isclose(losses.reprojection, reprojection)
    depth = torch.randn(5, 17, 1, dtype=torch.float64)
    losses = student.losses(x, depth, draw("y", 2 * torch.pi))
    assert torch.isclose(losses.distillation, (student(x) - depth).abs().mean())
    assert torch.isclose(losses.total(), 5 * losses.distillation + losses.equivariance)


def test_evaluation_pose_of_the_teacher_is_not_clamped():
    teacher = Teacher(width=16, blocks=1).eval()
    with torch.no_grad():
        teacher.mean_pose[2::3] = -7  # in front of the camera's clamp
        x = points(2) + 0.5
        depth = teacher.depth(x)
        pose = teacher.pose(x)
    centred = x - x[:, :1]
    torch.testing.assert_close(pose, torch.cat([centred * (5 + depth), depth], dim=-1))


@pytest.mark.parametrize("backend", ("reference", None))
def test_any_skeleton(backend):
    teacher = Teacher(FORK, width=16, blocks=1, atoms=4, backend=backend)
    student = Student(FORK, width=8, blocks=1, backend=backend)
    x = points(3, 5)
    teacher.losses(x, draw(), True).total().backward()
    student.losses(x, teacher.depth(x).detach(), draw("y")).total().backward()
    assert student.pose(x).shape == (3, 5, 3)
    assert all(p.grad is not None for p in [*teacher.parameters(), *student.parameters()])


@pytest.mark.parametrize("wrong", [np.zeros((2, 17, 2), np.float32), [[0.0]]])
def test_what_is_no_tensor_is_named(wrong):
    for kind in (Teacher, Student, UprightTeacher, UprightStudent, GeneralTeacher):
        model = kind(width=16, blocks=1).eval()
        words = f"{kind.__name__}: points must be a torch.Tensor, got {type(wrong).__name__}"
        with pytest.raises(TypeError, match=words):
            model.pose(wrong)


@pytest.mark.parametrize("shape", [(2, 17, 3), (17, 2), (2, 16, 2), (2, 17, 2, 1)])
def test_what_are_no_2d_poses_is_named(shape):
    wrong = torch.zeros(shape)
    expected = re.escape(f"points must have shape (B, 17, 2), got {shape}")
    for teachers, students in ((Teacher, Student), (UprightTeacher, UprightStudent)):
        teacher = teachers(width=16, blocks=1).eval()
        student = students(width=8, blocks=1).eval()
        for model in (teacher, student, fold_norms(teacher), fold_norms(student)):
            for call in (model.pose, model.depth):
                with pytest.raises(ValueError, match=f"{type(model).__name__}: {expected}"):
                    call(wrong)
        for model in (teacher, student):
            with pytest.raises(ValueError, match=f"{type(model).__name__}: {expected}"):
                model(wrong)
    with pytest.raises(ValueError, match=f"Prior: {expected}"):
        Prior(width=8, blocks=1)(wrong)
    with pytest.raises(ValueError, match=f"Teacher: {expected}"):
        teacher.trunk(wrong)


def test_a_bias_before_a_norm_changes_the_running_mean_alone():
    torch.manual_seed(0)
    teacher = Teacher(width=16, blocks=1).double().train()
    layer, norm = teacher.input, teacher.input_norm
    torch.nn.init.normal_(layer.bias)
    x = points(9).flatten(1).double()
    mean, var = norm.running_mean.clone(), norm.running_var.clone()
    functional.batch_norm(layer(x), mean, var, training=True)
    plain = norm(layer(x)).square().sum()
    gradients = torch.autograd.grad(plain, (layer.weight, norm.weight, layer.bias))
    assert gradients[2].abs().max() < 1e-10  # zero but for rounding
    y = norm.after(layer, x).square().sum()
    ours = torch.autograd.grad(y, (layer.weight, norm.weight))
    torch.testing.assert_close((y, *ours), (plain, *gradients[:2]))
    norm.after(layer, x)
    update_running([norm])
    torch.testing.assert_close(norm.running_mean, mean)
    torch.testing.assert_close(norm.running_var, var)


def general_teacher():
    torch.manual_seed(0)
    model = GeneralTeacher(width=32, blocks=1).double().eval()
    with torch.no_grad():
        model.direct_depth.weight.normal_()
        model.dictionary.normal_(std=0.1)
    return model


def test_what_the_general_teacher_returns_is_what_it_lifts():
    """Calling it, its dictionary's pose has the depths of `depth`, at any size of the person."""
    model, x = general_teacher(), points(6).double()
    for size in (1.0, 7.0):
        out = model(size * x)
        image = model(mirror_image(size * x, HUMAN36M)).camera_pose[..., 2:]
        depth = (out.camera_pose[..., 2:] + other_sides(image, HUMAN36M)) / 2
        # the calls see the points that `depth` has denoised first
        again = model.depth(model.clean(size * x))
        torch.testing.assert_close(depth, again, rtol=1e-9, atol=1e-12)
    small, large = model(x), model(7 * x)
    torch.testing.assert_close(large.camera_pose, 7 * small.camera_pose)
    torch.testing.assert_close(large.coefficients, small.coefficients)


def test_a_flipped_general_teacher_says_the_opposite():
    model, x = general_teacher(), points(6).double()
    depth, elevation = model.depth(x), model.elevation(x)
    model.flip()
    torch.testing.assert_close(model.depth(x), -depth)
    torch.testing.assert_close(model.elevation(x), -elevation)


def test_a_joint_without_one_coordinate_is_missing_to_the_general_teacher():
    model, x = general_teacher(), points(6).double()
    x[:, 5] = torch.nan
    expected = model.pose(x)
    for coordinate in (0, 1):
        half = x.clone()
        half[:, 5, coordinate] = 0.3
        torch.testing.assert_close(model.pose(half), expected)
