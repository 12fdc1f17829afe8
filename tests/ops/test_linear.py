"""The linear layer."""

from __future__ import annotations

import pytest
import torch
from op_contract import Arguments, OpContract, device_of, normal, relative_error, require
from torch.nn import functional

from ites import ops


class TestLinear(OpContract):
    op = "linear"
    kernels = ("cpp",)
    outputs = 40

    @staticmethod
    def call(arguments: Arguments, backend: str):
        return (ops.linear(**arguments, backend=backend),)

    def sample(self, batch, skeleton):
        """Rows enough that they are not left to PyTorch."""
        inputs = 2 * skeleton.num_joints
        return {
            "x": normal(batch, 9, inputs).requires_grad_(),
            "weight": (normal(self.outputs, inputs, seed=1) / inputs**0.5).requires_grad_(),
            "bias": normal(self.outputs, seed=2).requires_grad_(),
        }

    @pytest.mark.parametrize("rows", (17, 20, 31, 128, 1100))
    @pytest.mark.parametrize("inputs, outputs", ((1, 1), (3, 5), (34, 1024), (400, 97), (161, 48)))
    @pytest.mark.parametrize("biased", (True, False))
    @pytest.mark.parametrize("dtype", (torch.float32, torch.float64), ids=("float32", "float64"))
    def test_sizes(self, rows, inputs, outputs, biased, dtype):
        """Blocks whole and cut, more rows than columns and fewer, one pass over b and more."""
        self.require("cpp", dtype)
        sample = {
            "x": normal(rows, inputs).requires_grad_(),
            "weight": (normal(outputs, inputs, seed=1) / inputs**0.5).requires_grad_(),
            "bias": normal(outputs, seed=2).requires_grad_() if biased else None,
        }
        self.compare(sample, "cpp", dtype)

    def test_threads_change_nothing(self):
        self.require("cpp")
        x, weight = normal(300, 170).float(), normal(700, 170, seed=1).float()
        threads = torch.get_num_threads()
        try:
            results = []
            for count in (1, 2, 5):
                torch.set_num_threads(count)
                results.append(ops.linear(x, weight, backend="cpp"))
        finally:
            torch.set_num_threads(threads)
        assert torch.equal(results[0], results[1])
        assert torch.equal(results[0], results[2])

    def test_gives_only_the_gradients_that_are_wanted(self):
        self.require("cpp")
        x, weight, bias = normal(32, 6), normal(4, 6, seed=1), normal(4, seed=2)
        for wanted in ((x,), (weight,), (bias,), (x, bias)):
            for tensor in (x, weight, bias):
                tensor.requires_grad_(any(tensor is one for one in wanted))
            y = ops.linear(x, weight, bias, backend="cpp")
            grads = torch.autograd.grad(y.square().sum(), wanted)
            plain = torch.autograd.grad(functional.linear(x, weight, bias).square().sum(), wanted)
            for ours, theirs in zip(grads, plain, strict=True):
                torch.testing.assert_close(ours, theirs)

    @pytest.mark.parametrize("rows", (2, 32))
    @pytest.mark.parametrize("backend", ("reference", "cpp"))
    def test_a_mixed_dtype_is_refused(self, rows, backend):
        x, weight = torch.ones(rows, 6), torch.ones(4, 6)
        with pytest.raises(TypeError, match="linear: weight must be torch.float32 on cpu like x"):
            ops.linear(x, weight.double(), backend=backend)
        with pytest.raises(TypeError, match="linear: bias must be torch.float32 on cpu like x"):
            ops.linear(x, weight, torch.ones(4, dtype=torch.float64), backend=backend)
        with torch.autocast("cpu", torch.bfloat16):  # gives them one dtype
            y = ops.linear(x, weight, torch.ones(4, dtype=torch.bfloat16))
        assert y.dtype == torch.bfloat16

    def test_refusals(self):
        with pytest.raises(ValueError, match=r"linear: weight must have shape \(M, 6\)"):
            ops.linear(torch.ones(32, 6), torch.ones(4, 5))
        with pytest.raises(ValueError, match=r"linear: bias must have shape \(4\)"):
            ops.linear(torch.ones(32, 6), torch.ones(4, 6), torch.ones(5))


EPILOGUES = {
    "alone": (),
    "bias": ("bias",),
    "skip": ("bias", "skip"),
    "all": ("bias", "skip", "scaled", "scale", "after"),
}


@pytest.mark.parametrize("backend", ("cpp", "cuda", "triton"))
@pytest.mark.parametrize("shape", ((1, 34, 48), (1, 1024, 256), (17, 64, 128), (3, 5, 7)))
@pytest.mark.parametrize("epilogue", EPILOGUES)
def test_linear_relu_is_the_product_and_its_rest(backend, shape, epilogue):
    require(backend, "linear_relu")
    rows, inner, columns = shape
    generator = torch.Generator().manual_seed(4)
    sizes = {"bias": (columns,), "scale": (columns,)}
    given = {
        name: torch.randn(sizes.get(name, (rows, columns)), generator=generator)
        for name in EPILOGUES[epilogue]
    }
    x = torch.randn(rows, inner, generator=generator)
    weight = torch.randn(columns, inner, generator=generator)
    wide = {name: tensor.double() for name, tensor in given.items()}
    expected = x.double() @ weight.double().T + wide.get("bias", 0) + wide.get("skip", 0)
    expected = (expected + wide.get("scaled", 0) * wide.get("scale", 0)).relu()
    expected = expected + wide.get("after", 0)
    device = device_of(backend)
    ours = ops.linear_relu(
        x.to(device),
        weight.to(device),
        backend=backend,
        **{name: tensor.to(device) for name, tensor in given.items()},
    )
    assert relative_error(ours.cpu(), expected) < 1e-5


@pytest.mark.parametrize("backend", ("reference", "cuda"))
def test_linear_relu_keeps_nan_and_has_a_gradient(backend):
    require(backend, "linear_relu")
    device = device_of(backend)
    x = torch.ones(2, 8, device=device)
    x[1] = torch.nan
    weight = torch.ones(4, 8, device=device)
    y = ops.linear_relu(x, weight, backend=backend)
    assert y[1].isnan().all() and (y[0] == 8).all()
    weight.requires_grad_()
    ops.linear_relu(x[:1], weight, backend=backend).sum().backward()
    assert torch.equal(weight.grad, torch.ones_like(weight))


def test_linear_relu_refuses():
    x, weight = torch.ones(2, 8), torch.ones(4, 8)
    with pytest.raises(ValueError, match="scaled and scale are given together, with skip"):
        ops.linear_relu(x, weight, scaled=torch.ones(2, 4), scale=torch.ones(4))
    with pytest.raises(ValueError, match=r"after must have shape \(2, 4\), got \(2, 8\)"):
        ops.linear_relu(x, weight, after=x)
    for name in ("skip", "after"):
        with pytest.raises(TypeError, match=f"{name} must be torch.float32"):
            ops.linear_relu(x, weight, **{name: torch.ones(2, 4, dtype=torch.float64)})
