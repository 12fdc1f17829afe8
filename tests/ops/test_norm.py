"""Batch normalisation with ReLU and residual."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from op_contract import KERNELS, Arguments, OpContract, device_of, normal, relative_error, require
from torch.nn import functional

from ites import ops

FORMS = {
    "relu": (False, True, False),
    "residual then relu": (True, True, False),
    "relu then residual": (True, True, True),
    "residual": (True, False, False),
}


def of_channels(count: int) -> SimpleNamespace:
    """For `sample`, whose norms have a channel per joint."""
    return SimpleNamespace(num_joints=count)


class TestBatchNormReLU(OpContract):
    op = "batch_norm_relu"
    form = "residual then relu"

    @staticmethod
    def call(arguments: Arguments, backend: str):
        return ops.batch_norm_relu(**arguments, backend=backend)

    def sample(self, batch, skeleton):
        with_skip, relu, skip_after = FORMS[self.form]
        rows, channels = batch * 3, skeleton.num_joints
        return {
            "x": (normal(rows, channels) + 2).requires_grad_(),
            "weight": normal(channels, seed=1).requires_grad_(),
            "bias": normal(channels, seed=2).requires_grad_(),
            "skip": normal(rows, channels, seed=3).requires_grad_() if with_skip else None,
            "relu": relu,
            "skip_after": skip_after,
        }

    @pytest.mark.parametrize("backend", KERNELS)
    @pytest.mark.parametrize("form", FORMS)
    @pytest.mark.parametrize("channels", (1, 64, 130))
    def test_forms(self, backend, form, channels):
        require(backend, self.op)
        case = type(self)()
        case.form = form
        own = of_channels(channels)
        case.compare(case.sample(13, own), backend, torch.float32)

    @pytest.mark.parametrize("backend", ("reference", "cpp"))
    @pytest.mark.parametrize("form", FORMS)
    def test_against_pytorch(self, backend, form):
        """torch.nn.functional.batch_norm and its gradients, in float64."""
        require(backend, self.op, torch.float64)
        with_skip, relu, skip_after = FORMS[form]
        x, skip = normal(40, 6).requires_grad_(), normal(40, 6, seed=3).requires_grad_()
        weight, bias = (normal(6, seed=s).requires_grad_() for s in (1, 2))
        wanted = [x, weight, bias, *([skip] if with_skip else [])]
        y = functional.batch_norm(x, None, None, weight, bias, training=True)
        y = y + skip if with_skip and not skip_after else y
        y = y.relu() if relu else y
        y = y + skip if with_skip and skip_after else y
        ours, mean, var = ops.batch_norm_relu(
            x, weight, bias, skip if with_skip else None, relu, skip_after, backend=backend
        )
        assert relative_error(ours, y) < 1e-12
        assert relative_error(mean, x.mean(0)) < 1e-12
        assert relative_error(var, x.var(0, correction=0)) < 1e-12
        grad = normal(40, 6, seed=9)
        for a, b in zip(
            torch.autograd.grad(ours, wanted, grad),
            torch.autograd.grad(y, wanted, grad),
            strict=True,
        ):
            assert relative_error(a, b) < 1e-12

    @pytest.mark.parametrize("backend", ("reference", *KERNELS))
    def test_a_large_offset_leaves_the_variance_right(self, backend):
        require(backend, self.op)
        x = normal(5000, 4).float() + 1000
        _, _, var = ops.batch_norm_relu(
            x.to(device_of(backend)), *torch.ones(2, 4, device=device_of(backend)), backend=backend
        )
        assert relative_error(var, x.double().var(0, correction=0)) < 1e-4

    def test_what_cpp_refuses_is_converted(self):
        """Strides and dtypes that its loops do not take."""
        require("cpp", self.op)
        x, skip = normal(8, 6).float().T, normal(8, 6, seed=3).T.double()
        weight, bias = normal(8, seed=1), normal(16, seed=2)[::2].float()
        with pytest.raises(RuntimeError, match="must be contiguous Float of shape"):
            torch.ops.ites.batch_norm_relu(x, weight, bias, skip, True, False, 1e-5, "cpp")
        results = ops.batch_norm_relu(x, weight, bias, skip, backend="cpp")
        for ours, truth in zip(
            results, ops.batch_norm_relu(x, weight, bias, skip, backend="reference"), strict=True
        ):
            assert ours.dtype == torch.float32
            assert relative_error(ours, truth) < 1e-6

    def test_of_no_rows(self):
        require("cpp", self.op)
        x, ones = torch.zeros(0, 5), torch.ones(5)
        y, mean, var = ops.batch_norm_relu(x, ones, ones, backend="cpp")
        assert y.shape == (0, 5) and y.stride() == (5, 1)
        assert not mean.any() and not var.any()

    def test_refusals(self):
        x = normal(5, 3)
        with pytest.raises(ValueError, match=r"skip must have shape \(5, 3\), got \(4, 3\)"):
            ops.batch_norm_relu(x, x[0], x[0], x[:4])
        with pytest.raises(ValueError, match=r"weight must have shape \(3\), got \(2,\)"):
            ops.batch_norm_relu(x, x[0, :2], x[0])


@pytest.mark.parametrize("backend", KERNELS)
@pytest.mark.parametrize("rows", (128, 512, 700))
def test_sizes_with_kernels_of_their_own(backend, rows):
    """Few rows are one launch in CUDA, many are two."""
    require(backend, "batch_norm_relu")
    case = TestBatchNormReLU()
    own = of_channels(36)
    arguments = case.sample(rows, own)
    for name in ("x", "skip"):
        arguments[name] = arguments[name].detach()[:rows].requires_grad_()
    case.compare(arguments, backend, torch.float32)


class TestNestedNormReLU(OpContract):
    op = "nested_norm_relu"
    called = {backend: "batch_norm_relu" for backend in ("cpp", "triton")}

    @staticmethod
    def call(arguments: Arguments, backend: str):
        return ops.nested_norm_relu(**arguments, backend=backend)[:1]

    def sample(self, batch, skeleton):
        rows, channels = batch * 3, skeleton.num_joints
        return {
            "x": (normal(rows, channels) + 2).requires_grad_(),
            "inner_weight": normal(channels, seed=1).requires_grad_(),
            "added": (normal(rows, channels, seed=2) - 1).requires_grad_(),
            "weight": normal(channels, seed=3).requires_grad_(),
            "bias": normal(channels, seed=4).requires_grad_(),
            "skip": normal(rows, channels, seed=5).requires_grad_(),
        }

    @pytest.mark.parametrize("backend", KERNELS)
    @pytest.mark.parametrize("channels", (1, 64, 130))
    @pytest.mark.parametrize("with_skip", (False, True))
    def test_sizes_and_forms(self, backend, channels, with_skip):
        require(backend, self.op)
        own = of_channels(channels)
        arguments = self.sample(43, own)
        if not with_skip:
            arguments["skip"] = None
        self.compare(arguments, backend, torch.float32)

    @pytest.mark.parametrize("backend", ("reference", *KERNELS))
    def test_statistics_are_those_of_two_norms(self, backend):
        require(backend, self.op)
        given = {
            name: value.detach().float().to(device_of(backend))
            for name, value in self.sample(100, of_channels(8)).items()
        }
        x, added = given["x"].double().cpu(), given["added"].double().cpu()
        inner = (x - x.mean(0)) / (x.var(0, correction=0) + 1e-5).sqrt()
        z = inner * given["inner_weight"].double().cpu() + added
        moments = [[t.mean(0), t.var(0, correction=0)] for t in (x, z)]
        expected = torch.stack([*moments[0], *moments[1]])
        _, statistics = ops.nested_norm_relu(**given, backend=backend)
        assert relative_error(statistics, expected) < 1e-5

    def test_refusals(self):
        x = normal(5, 3)
        with pytest.raises(ValueError, match=r"added must have shape \(5, 3\), got \(4, 3\)"):
            ops.nested_norm_relu(x, x[0], x[:4], x[0], x[0])
        with pytest.raises(TypeError, match="bias must be floating"):
            ops.nested_norm_relu(x, x[0], x, x[0], x[0].long())


@pytest.mark.parametrize("backend", ("reference", *KERNELS))
def test_running_statistics_move(backend):
    require(backend, "batch_norm_relu")
    sizes = (3, 300, 5)
    parts = [
        [normal(size, seed=seed).float().to(device_of(backend)) for size in sizes]
        for seed in range(5)
    ]
    means, variances, shifts, running_means, running_vars = parts
    shifts[1] = None
    expected = [
        r + 0.1 * (m + (0 if s is None else s) - r)
        for r, m, s in zip(running_means, means, shifts, strict=True)
    ]
    expected += [r + 0.1 * (v * 1.5 - r) for r, v in zip(running_vars, variances, strict=True)]
    ops.move_running(running_means, running_vars, means, variances, shifts, 1.5, 0.1, backend)
    for ours, theirs in zip([*running_means, *running_vars], expected, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_running_statistics_that_do_not_fit_are_refused():
    three, two = torch.zeros(3), torch.zeros(2)

    def move(*kinds, correction=1.5, momentum=0.1):
        ops.move_running(*kinds, correction, momentum)

    with pytest.raises(ValueError, match="as many of each kind of tensor, got 1, 1, 0, 1, 1"):
        move([three], [three], [], [three], [None])
    with pytest.raises(ValueError, match="as many of each kind of tensor, got 0, 0, 0, 0, 0"):
        move([], [], [], [], [])
    with pytest.raises(ValueError, match=r"norm 1: expected torch.float32 \(3,\), got .* \(2,\)"):
        move([two, three], [two, three], [two, two], [two, three], [None, None])
    with pytest.raises(ValueError, match="momentum must be a finite number from 0 to 1, got 2"):
        move([three], [three], [three], [three], [None], momentum=2)
    assert not three.any()
