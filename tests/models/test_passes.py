"""Two passes of a step through the same weights."""

from __future__ import annotations

from unittest import mock

import torch
from torch import nn

from ites.models import Student, Teacher
from ites.models.passes import two_passes
from ites.ops import RotationDraw, WeightFactors


class Layers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.both, self.first_only, self.unused = (nn.Linear(3, 3).double() for _ in range(3))
        self.frozen = nn.Linear(3, 3).double().requires_grad_(False)


def test_gradients_of_two_passes_are_their_sums():
    torch.manual_seed(0)
    model, x, scale = Layers(), torch.randn(5, 3).double(), torch.ones(3).double().requires_grad_()
    plain = model.both(x) @ model.first_only.weight + model.frozen(x) * scale
    expected = (plain.square().sum() + (model.both(plain) * scale).sum(),)
    wanted = [scale, *model.both.parameters(), model.first_only.weight]
    gradients = torch.autograd.grad(expected, wanted)
    (first, (once,)), (second, (again,)) = two_passes(model, scale)
    with first:
        y = model.both(x) @ model.first_only.weight + model.frozen(x) * once
    with second:
        total = y.square().sum() + (model.both(y) * again).sum()
    assert isinstance(model.both.weight, nn.Parameter)
    total.backward()
    for tensor, gradient in zip(wanted, gradients, strict=True):
        assert torch.equal(tensor.grad, gradient)
    for tensor in (model.first_only.bias, *model.unused.parameters()):
        assert tensor.grad.shape == tensor.shape and not tensor.grad.any()
    assert model.frozen.weight.grad is None


def test_gradients_that_come_as_factors_are_added():
    """Of a weight that autograd knows, of one that it does not, and of a frozen one."""
    model, x = Layers(), torch.ones(2, 3).double()
    model.both.factors = None  # a module that leaves factors
    products = [model.both.weight, model.frozen.weight, model.unused.weight]
    (first, _), (second, _) = two_passes(model)
    with first:
        total, collected = model.both(x).sum(), model.both.factors
        numbers = [collected.number(weight) for weight in products]
        assert collected.number(model.both.weight) == numbers[0]  # of its view in this pass
    assert numbers[1] is None and None not in (numbers[0], numbers[2])
    assert model.both.factors is None
    with second:
        total = total + model.both(x).sum()
        assert model.both.factors is collected
    assert isinstance(collected, WeightFactors) and not hasattr(model.unused, "factors")
    given = [torch.full((3, 3), float(k)).double() for k in (1, 2, 3)]
    found = {numbers[0]: given[0], numbers[2]: given[2]}
    with mock.patch.object(collected, "gradients", lambda: found):
        total.backward()
    assert torch.equal(model.both.weight.grad, torch.full((3, 3), 5.0).double())
    assert torch.equal(model.unused.weight.grad, given[2])
    assert model.frozen.weight.grad is None


def test_parameters_return_after_an_error():
    model = Layers()
    before = dict(model.named_parameters())
    (first, _), _ = two_passes(model)
    try:
        with first:
            raise RuntimeError
    except RuntimeError:
        pass
    assert all(before[name] is tensor for name, tensor in model.named_parameters())


def test_every_parameter_of_a_network_gets_a_gradient():
    points, draw = 0.1 * torch.randn(6, 17, 2), RotationDraw(torch.tensor([1, 2, 0]), 2)
    teacher, student = Teacher(width=16, blocks=1), Student(width=8, blocks=1)
    teacher.losses(points, draw, True).total().backward()
    student.losses(points, torch.zeros(6, 17, 1), draw).total().backward()
    for name, tensor in (*teacher.named_parameters(), *student.named_parameters()):
        assert tensor.grad is not None, name
    assert not teacher.input.bias.grad.any() and teacher.input.weight.grad.any()
    frozen = Teacher(width=16, blocks=1).requires_grad_(False)
    assert not frozen.losses(points, draw, True).total().requires_grad
