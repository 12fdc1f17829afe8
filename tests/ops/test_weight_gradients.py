"""Gradients of weights from the passes of a step, multiplied all at once."""

from __future__ import annotations

from unittest import mock

import pytest
import torch
from op_contract import device_of, relative_error, require
from torch import Tensor

from benchmarks.accuracy.rounding import bf16, tf32
from ites import ops
from ites.models import Student
from ites.ops import backends
from ites.ops.linear import keeping
from ites.ops.weight_gradients import BITS, factor_bits, runs_in_clusters, weight_gradients


def normal(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator)


@pytest.mark.parametrize("backend", ("cuda",))
@pytest.mark.parametrize("precision", BITS)
@pytest.mark.parametrize(
    ("rows", "sizes"),
    [
        ((9,), [(4, 3)]),
        ((128, 512), [(16, 34), (64, 16), (4, 4)]),
        ((0, 40), [(12, 1), (12, 8)]),
        ((130, 0), [(130, 20)]),  # two tiles
        ((300, 700), [(8, 390)]),  # four tiles, whose rows four blocks share
        ((900, 1300), [(140, 130), (128, 64)]),  # eight blocks share them
    ],
)
def test_sums_of_products(backend, precision, rows, sizes):
    """Of each pass's rows, every weight's own sizes, against products in float64."""
    require(backend, "linear_norm_relu")
    device, round_to = device_of(backend), {"float32": lambda x: x, "tf32": tf32, "bf16": bf16}
    grads = [normal(n, m, seed=i) for n in rows for i, (m, _) in enumerate(sizes)]
    inputs = [normal(n, k, seed=9 + i) for n in rows for i, (_, k) in enumerate(sizes)]
    ours = weight_gradients(
        *([tensor.to(device) for tensor in kind] for kind in (grads, inputs)),
        len(rows),
        BITS[precision],
    )
    for i, (own, size) in enumerate(zip(ours, sizes, strict=True)):
        places = range(i, len(grads), len(sizes))
        pairs = [[round_to[precision](t[k]).double() for t in (grads, inputs)] for k in places]
        assert own.shape == size
        assert relative_error(own, sum(g.T @ x for g, x in pairs)) < 2e-6


def test_factors_are_grouped_by_their_passes():
    """One launch for the weights of both passes, another for those of one; in any order."""
    factors, calls = ops.WeightFactors(), []
    for weight, seed in ((7, 0), (5, 1), (9, 2), (5, 3), (9, 4)):
        factors.add(weight, normal(6, 3, seed=seed), normal(6, 2, seed=10 + seed), BITS["tf32"])

    def products(grads, inputs, parts, bits):
        calls.append((parts, bits, len(grads)))
        count = len(grads) // parts
        return [
            sum(grads[k].T @ inputs[k] for k in range(i, len(grads), count)) for i in range(count)
        ]

    with mock.patch("ites.ops.weight_gradients.weight_gradients", products):
        found = factors.gradients()
        assert factors.gradients() == {}
    assert calls == [(1, 10, 1), (2, 10, 4)]
    expected = {7: (0,), 5: (1, 3), 9: (2, 4)}
    assert found.keys() == expected.keys()
    for weight, seeds in expected.items():
        own = [normal(6, 3, seed=s).T @ normal(6, 2, seed=10 + s) for s in seeds]
        torch.testing.assert_close(found[weight], sum(own))


def test_a_weight_that_is_not_collected_is_refused():
    """Its gradient would be lost."""
    weight, frozen, other = (torch.ones(2, 3).requires_grad_(i != 1) for i in range(3))
    factors = ops.WeightFactors([weight])
    assert factors.number(weight.view_as(weight)) == 0 and factors.number(frozen) is None
    with pytest.raises(ValueError, match=r"expected a view of one of 1 weights, got .* \(2, 3\)"):
        factors.number(other)


def test_bits_follow_the_precision_of_products():
    before = torch.get_float32_matmul_precision()
    try:
        for name, bits in (("highest", 23), ("high", 10)):
            torch.set_float32_matmul_precision(name)
            assert factor_bits("cpu") == bits
            with torch.autocast("cpu", torch.bfloat16):
                assert factor_bits("cpu") == 7
    finally:
        torch.set_float32_matmul_precision(before)


def test_a_cpu_collects_nothing():
    x, matrix = normal(5, 3).requires_grad_(), normal(3, 2).requires_grad_()
    factors = ops.WeightFactors([matrix])
    keeping(x, matrix, factors=factors)[0].sum().backward()
    assert factors.gradients() == {} and matrix.grad is not None
    assert not runs_in_clusters(x)


@pytest.mark.parametrize("backend", ("cuda",))
def test_other_half_types_are_not_multiplied(backend):
    require(backend, "linear_norm_relu")
    x = normal(5, 3).to(device_of(backend))
    for dtype, expected in ((torch.bfloat16, True), (torch.float16, False)):
        with torch.autocast(x.device.type, dtype):
            assert runs_in_clusters(x, backend) == expected
    assert runs_in_clusters(x, backend) and not runs_in_clusters(x, "reference")


def _step(backend: str, dtype: torch.dtype) -> tuple[dict[str, Tensor | None], list[Tensor]]:
    """The gradients of a student's step by parameter, and its losses."""
    torch.manual_seed(4)
    student = Student(width=16, blocks=1, backend=backend)
    for name, parameter in student.named_parameters():
        if name.endswith("norm.weight"):  # the non-local block's norm begins at zero
            torch.nn.init.uniform_(parameter, 0.5, 1)
    student = student.to(device_of(backend), dtype)
    points = 0.1 * normal(23, 17, 2, seed=3).to(student.input.bias)
    draw = ops.RotationDraw(torch.tensor([3, 1, 0], device=points.device), 4)
    losses = student.losses(points - points[:, :1], points[..., :1], draw)
    (losses.distillation + losses.equivariance).backward()
    return {name: parameter.grad for name, parameter in student.named_parameters()}, list(
        losses[:2]
    )


@pytest.mark.parametrize("backend", ("cuda",))
def test_a_step_of_the_student(backend):
    """The gradients of all projections and products of both passes are one launch."""
    require(backend, "linear_norm_relu")
    with (
        mock.patch.object(backends, "on_gpu", lambda tensor: True),
        mock.patch(
            "ites.ops.weight_gradients.weight_gradients", side_effect=weight_gradients
        ) as joined,
    ):
        grads, losses = _step(backend, torch.float32)
    assert [call.args[2] for call in joined.call_args_list] == [2]
    assert len(joined.call_args.args[0]) == 2 * 4  # two layers' projection and product, each twice
    exact_grads, exact = _step("reference", torch.float64)
    assert relative_error(torch.stack(losses), torch.stack(exact)) < 1e-5
    for name, expected in exact_grads.items():
        error = (grads[name].cpu().double() - expected).abs().max()
        assert error < 2e-3 * max(expected.abs().max(), 1e-2), name  # a cancelled bias has 0
