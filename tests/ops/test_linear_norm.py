"""Chains of linear layers with batch normalisation, residual and ReLU."""

from __future__ import annotations

from contextlib import nullcontext
from unittest import mock

import pytest
import torch
from op_contract import Arguments, OpContract, device_of, normal, relative_error, require
from torch import Tensor

from benchmarks import machine
from benchmarks.accuracy.rounding import ROUNDINGS
from ites import ops
from ites.models import Teacher
from ites.models.layers import update_running
from ites.models.passes import two_passes
from ites.ops import backends
from ites.ops.linear_norm import MOST_ROWS, runs_at_once
from ites.ops.norm import move_running
from ites.ops.weight_gradients import weight_gradients

RESIDUAL = ((64, 16, 16, 64), (-1, -1, -1, 0))
"""Widths and residuals of the teacher's kind of chain."""


def arguments_of(rows: int, inputs: int, widths, skips) -> Arguments:
    """x, and the parameters of each layer, by name."""
    given: Arguments = {"x": normal(rows, inputs).requires_grad_(), "skips": skips}
    for i, width in enumerate(widths):
        weight = normal(width, inputs, seed=3 * i + 1) / inputs**0.5
        given[f"weight{i}"] = weight.requires_grad_()
        given[f"gamma{i}"] = normal(width, seed=3 * i + 2).requires_grad_()
        given[f"beta{i}"] = normal(width, seed=3 * i + 3).requires_grad_()
        inputs = width
    return given


def layers_of(arguments: Arguments) -> ops.NormLayers:
    count = range(len(arguments["skips"]))
    kinds = ([arguments[f"{kind}{i}"] for i in count] for kind in ("weight", "gamma", "beta"))
    return ops.NormLayers(*kinds, arguments["skips"])


class TestLinearNormReLU(OpContract):
    op = "linear_norm_relu"
    called = {backend: "linear" for backend in ("cpp", "triton")}
    differentiable = False  # its operators; the chain of them has a gradient

    @staticmethod
    def call(arguments: Arguments, backend: str) -> tuple[Tensor, ...]:
        layers = layers_of(arguments)
        return ops.linear_norm_relu(arguments["x"], layers, backend=backend)[:1]

    def sample(self, batch, skeleton):
        """At least 17 rows, so that the C++ backend multiplies them."""
        rows = batch + 17 if batch else 0
        return arguments_of(rows, 2 * skeleton.num_joints, (16, 8, 16), (-1, -1, 0))

    @pytest.mark.parametrize("backend", ("cpp", "cuda", "triton"))
    @pytest.mark.parametrize(
        ("rows", "inputs", "widths", "skips"),
        [
            (1, 34, (8,), (-1,)),
            (6, 1, (4, 4), (-1, 0)),
            (16, 8, (40, 40), (-1, -1)),  # a cluster of one block
            (17, 7, (40, 100), (-1, -1)),  # the last of two blocks has one row
            (128, 34, *RESIDUAL),
            (129, 34, *RESIDUAL),  # blocks of 32 rows
            (256, 100, (64, 36, 64), (-1, -1, 0)),
            (512, 34, *RESIDUAL),  # blocks of 64 rows
            (513, 34, *RESIDUAL),  # too many rows: the other ops
            (30, 10, (6, 12), (-1, -1)),  # widths of its own kernels' steps: no
        ],
    )
    def test_sizes(self, backend, rows, inputs, widths, skips):
        require(backend, self.op)
        self.compare(arguments_of(rows, inputs, widths, skips), backend, torch.float32)

    @pytest.mark.parametrize("backend", ("cuda",))
    def test_second_derivative_is_refused(self, backend):
        require(backend, self.op)
        given = arguments_of(20, 8, (8,), (-1,))
        x = given["x"] = given["x"].detach().float().to(device_of(backend)).requires_grad_()
        for name, tensor in given.items():
            if isinstance(tensor, Tensor) and name != "x":
                given[name] = tensor.detach().to(x)
        total = self.call(given, backend)[0].square().sum()
        grad = torch.autograd.grad(total, x, create_graph=True)
        with pytest.raises(RuntimeError, match="once_differentiable"):
            grad[0].sum().backward()


class TestLinearNestedNormReLU(OpContract):
    op = "linear_nested_norm_relu"
    called = {"triton": "batch_norm_relu", "cuda": "batch_norm_relu"}

    @staticmethod
    def call(arguments: Arguments, backend: str):
        return ops.linear_nested_norm_relu(**arguments, backend=backend)[:1]

    def sample(self, batch, skeleton):
        rows, inputs, channels = batch * 3, 5, skeleton.num_joints
        return {
            "x": (normal(rows, inputs) + 0.5).requires_grad_(),
            "matrix": normal(channels, inputs, seed=1).requires_grad_(),
            "inner_weight": normal(channels, seed=2).requires_grad_(),
            "inner_bias": normal(channels, seed=3),  # the outer norm cancels its gradient
            "added": (normal(rows, channels, seed=4) - 1).requires_grad_(),
            "weight": normal(channels, seed=5).requires_grad_(),
            "bias": normal(channels, seed=6).requires_grad_(),
            "skip": normal(rows, channels, seed=7).requires_grad_(),
        }

    @pytest.mark.parametrize("channels", (1, 64, 130))
    @pytest.mark.parametrize("with_skip", (False, True))
    def test_sizes_and_forms(self, channels, with_skip):
        require("cpp", self.op)
        joints = type("Joints", (), {"num_joints": channels})
        arguments = self.sample(143, joints)  # three units and some rows
        if not with_skip:
            arguments["skip"] = None
        self.compare(arguments, "cpp", torch.float32)

    def test_to_the_bits_of_its_parts(self):
        """Our product and two norms, forward and backward, in float32."""
        require("cpp", self.op)
        results = []
        for together in (True, False):
            given = self.sample(143, type("Joints", (), {"num_joints": 40}))
            for name, tensor in given.items():
                given[name] = tensor.detach().float().requires_grad_()
            if together:
                y, statistics = ops.linear_nested_norm_relu(**given, backend="cpp")
            else:
                with mock.patch("ites.ops.linear_norm.choose", return_value="reference"):
                    y, statistics = ops.linear_nested_norm_relu(**given, backend="cpp")
            gradients = torch.autograd.grad(y.square().sum(), [*given.values()])
            results.append([y, statistics, *gradients])
        for ours, parts in zip(*results, strict=True):
            assert torch.equal(ours, parts)

    def test_refusals(self):
        x = normal(5, 3)
        ones, call = torch.ones(4).double(), ops.linear_nested_norm_relu
        with pytest.raises(ValueError, match=r"matrix must have shape \(4, 3\), got \(4, 2\)"):
            call(x, x[:4, :2], ones, ones, normal(5, 4), ones, ones)
        with pytest.raises(ValueError, match=r"added must have shape \(5, 4\), got \(4, 4\)"):
            call(x, x[:4], ones, ones, normal(4, 4), ones, ones)
        with pytest.raises(ValueError, match=r"inner_bias must have shape \(4\), got \(3,\)"):
            call(x, x[:4], ones, ones[:3], normal(5, 4), ones, ones)


def single(arguments: Arguments, backend: str) -> Arguments:
    """Arguments in float32 on the backend's device, without gradients."""
    return {
        name: value.detach().float().to(device_of(backend)) if isinstance(value, Tensor) else value
        for name, value in arguments.items()
    }


@pytest.mark.parametrize("backend", ("cuda",))
@pytest.mark.parametrize("rows", (100, 250, 400))
@pytest.mark.parametrize(("precision", "least"), [("tf32", 1e-5), ("bf16", 1e-4)])
def test_rounding_is_of_the_factors_alone(backend, rows, precision, least):
    """TF32 where PyTorch's products may use it, bf16 under autocast: against rounded factors."""
    require(backend, "linear_norm_relu")
    given = arguments_of(rows, 34, (64,), (-1,))
    ours = single(given, backend)
    with (
        machine.matmul_precision("high" if precision == "tf32" else "highest"),
        torch.autocast(device_of(backend).type, torch.bfloat16, precision == "bf16"),
    ):
        assert runs_at_once(ours["x"], [ours["weight0"]], (-1,), backend)
        y = TestLinearNormReLU.call(ours, backend)[0]
    with machine.matmul_precision("highest"):
        exact = TestLinearNormReLU.call(ours, backend)[0]
    factors = (ROUNDINGS[precision][0](given[name].detach().float()) for name in ("x", "weight0"))
    x, weight = (factor.double() for factor in factors)
    rounded, *_ = ops.batch_norm_relu(x @ weight.T, given["gamma0"], given["beta0"])
    assert y.dtype == torch.float32
    assert relative_error(y, rounded) < 1e-6
    assert least < relative_error(y, exact) < 200 * least


@pytest.mark.parametrize("backend", ("reference", "cpp", "cuda", "triton"))
@pytest.mark.parametrize("rows", (1, 40, 300))
def test_running_statistics_move(backend, rows):
    """By the kernels of the layers where they run at once, else by `move_running`."""
    require(backend, "linear_norm_relu")
    given = arguments_of(rows, 34, (64, 16), (-1, -1))
    widths, ours = (64, 16), single(given, backend)
    means, variances = ([normal(w, seed=k + w).abs() for w in widths] for k in (40, 50))
    shifts = [normal(64, seed=60), None]
    own = [[t.float().to(device_of(backend)) for t in kind] for kind in (means, variances)]
    running = ops.RunningStatistics(*own, [shifts[0].float().to(own[0][0]), None], 0.3)
    layers = layers_of(ours)
    with mock.patch("ites.ops.linear_norm.move_running", side_effect=move_running) as apart:
        ops.linear_norm_relu(ours["x"], layers, backend=backend, running=running)
    assert apart.call_count == (backend != "cuda")
    _, batch_means, batch_vars = ops.linear_norm_relu(
        given["x"].detach(), layers_of(given), backend="reference"
    )
    for i, (mean, var, shift) in enumerate(zip(means, variances, shifts, strict=True)):
        unbiased = batch_vars[i] * rows / max(rows - 1, 1)
        shifted = batch_means[i] if shift is None else batch_means[i] + shift
        assert relative_error(own[0][i], 0.7 * mean + 0.3 * shifted) < 1e-5
        assert relative_error(own[1][i], 0.7 * var + 0.3 * unbiased) < 1e-5


@pytest.mark.parametrize("backend", ("reference", "cpp", "cuda", "triton"))
def test_statistics_are_the_products(backend):
    require(backend, "linear_norm_relu")
    given = arguments_of(300, 34, *RESIDUAL)
    ours = single(given, backend)
    _, means, variances = ops.linear_norm_relu(ours["x"], layers_of(ours), backend=backend)
    product = (given["x"] @ given["weight0"].T).detach()
    assert relative_error(means[0], product.mean(0)) < 1e-5
    assert relative_error(variances[0], product.var(0, correction=0)) < 1e-5
    assert [len(mean) for mean in means] == list(RESIDUAL[0])
    assert not any(t.requires_grad for t in (*means, *variances))


@pytest.mark.parametrize("backend", ("cuda",))
def test_a_large_mean_leaves_the_variance_right(backend):
    require(backend, "linear_norm_relu")
    x = normal(500, 4).float() + 1000
    layers = ops.NormLayers([torch.eye(4)], [torch.ones(4)], [torch.zeros(4)], [-1])
    layers = ops.NormLayers(*([t.to(device_of(backend)) for t in k] for k in layers[:3]), [-1])
    _, _, (var,) = ops.linear_norm_relu(x.to(device_of(backend)), layers, backend=backend)
    assert relative_error(var, x.double().var(0, correction=0)) < 1e-4


@pytest.mark.parametrize("backend", ("cuda",))
def test_misaligned_parameters_give_the_same(backend):
    require(backend, "linear_norm_relu")
    given = arguments_of(40, 12, (8, 8), (-1, 0))
    whole = {n: t.detach().float() if isinstance(t, Tensor) else t for n, t in given.items()}
    views = {
        name: torch.cat([t.new_zeros(1), t.flatten()])[1:].view(t.shape)
        if isinstance(t, Tensor)
        else t
        for name, t in whole.items()
    }
    results = [
        TestLinearNormReLU.call(
            {n: t.to(device_of(backend)) if isinstance(t, Tensor) else t for n, t in some.items()},
            backend,
        )[0]
        for some in (whole, views)
    ]
    assert torch.equal(*results)


def _step(backend: str, dtype: torch.dtype, rows: int) -> dict[str, Tensor]:
    """The gradients of a teacher's step, by parameter, and its running statistics."""
    torch.manual_seed(4)
    teacher = Teacher(width=16, blocks=1, backend=backend).to(device_of(backend), dtype)
    points = 0.1 * normal(rows, 17, 2).to(teacher.mean_pose)
    counter = torch.tensor([3, 1, 0], device=points.device)
    draw = ops.RotationDraw(counter, 4)
    teacher.losses(points, draw, False).total().backward()
    grads = {name: parameter.grad for name, parameter in teacher.named_parameters()}
    return {**grads, **dict(teacher.named_buffers())}


@pytest.mark.parametrize("backend", ("cuda",))
@pytest.mark.parametrize("rows", (40, 150))
def test_a_step_of_the_teacher(backend, rows):
    """Two passes, whose weight gradients are one launch; of 150 poses the second has 600 rows."""
    require(backend, "linear_norm_relu")
    with mock.patch(
        "ites.ops.weight_gradients.weight_gradients", side_effect=weight_gradients
    ) as joined:
        ours = _step(backend, torch.float32, rows)
    assert [call.args[2] for call in joined.call_args_list] == ([2] if rows == 40 else [1])
    exact = _step("reference", torch.float64, rows)
    assert ours.keys() == exact.keys()
    for name, expected in exact.items():
        assert relative_error(ours[name], expected) < 2e-3, name


def test_the_chain_of_a_teacher_is_its_blocks():
    """On a CPU the chain and the blocks give the same bits."""
    torch.manual_seed(0)
    teacher = Teacher(width=32, blocks=2)
    points = 0.1 * normal(50, 17, 2).float()
    with (
        mock.patch("ites.models.teacher.update_running"),
        mock.patch("ites.models.layers.runs_as_one_node", lambda *_: False),
    ):
        features = teacher.trunk(points)
    chain = teacher.chain()
    start = {name: tensor.clone() for name, tensor in teacher.named_buffers()}
    update_running(teacher.norms)  # by the statistics that the blocks left
    moved = {name: tensor.clone() for name, tensor in teacher.named_buffers()}
    teacher.load_state_dict(start, strict=False)
    y = chain(points.flatten(1))
    assert torch.equal(y, features)
    for name, tensor in teacher.named_buffers():
        assert torch.equal(tensor, moved[name]) and not torch.equal(tensor, start[name]), name
    assert chain.skips == (-1, -1, -1, 0, -1, -1, 3)
    assert chain.runs_at_once(points.flatten(1)) == ("cpp" not in backends.MISSING)
    with torch.no_grad():  # nothing is recorded then, and layer by layer takes less memory
        assert not chain.runs_at_once(points.flatten(1))
    assert {id(weight) for weight in chain.weights()} <= {id(p) for p in teacher.parameters()}


@pytest.mark.parametrize("rows", (10, 50))
@pytest.mark.parametrize("backend", ("cpp", None))
def test_one_node_gives_the_bits_of_many(rows, backend):
    """Of x and of all parameters, over two passes, by our products and by PyTorch's."""
    require("cpp", "batch_norm_relu")
    gradients: dict[bool, list[Tensor]] = {}
    for one_node in (True, False):
        torch.manual_seed(0)
        teacher = Teacher(width=32, blocks=2, backend=backend)
        teacher.blocks[0].linear2.weight.requires_grad_(False)
        points = (0.1 * normal(rows, 17, 2).float()).requires_grad_()
        (first, _), (second, _) = two_passes(teacher)
        apart = mock.patch("ites.models.layers.runs_as_one_node", lambda *_: False)
        with nullcontext() if one_node else apart:
            with first:
                features = teacher.trunk(points)
                nodes = _nodes(features)
            with second:
                again = teacher.trunk(0.5 * points + features.mean())
        assert (sum("Norm" in name or "Gradient" in name for name in nodes) == 0) == one_node
        (features.square().sum() + again.sum()).backward()
        gradients[one_node] = [points.grad, *(p.grad for p in teacher.parameters())]
    assert gradients[True][0].any()
    for ours, theirs in zip(gradients[True], gradients[False], strict=True):
        assert (ours is None) == (theirs is None)
        assert ours is None or torch.equal(ours, theirs)


def _nodes(tensor: Tensor) -> list[str]:
    """The names of the nodes of autograd behind a tensor."""
    found, todo = [], [tensor.grad_fn]
    while todo:
        node = todo.pop()
        if node is not None:
            found.append(type(node).__name__)
            todo += [parent for parent, _ in node.next_functions]
    return found


def test_gpus_without_clusters_take_the_other_ops():
    """Compute capability 8.0: named "cuda" or not, the launches are those of the two ops."""
    x = torch.empty(8, 4, device="meta")
    weights = [torch.empty(8, 4, device="meta")]
    missing = {name: why for name, why in backends.MISSING.items() if name != "cuda"}
    for capability, expected in (((8, 0), False), ((9, 0), True), ((12, 0), True)):
        with (
            mock.patch.object(backends, "MISSING", missing),
            mock.patch.object(backends, "_chosen", {}),
            mock.patch.object(torch.cuda, "is_available", lambda: True),
            mock.patch.object(torch.cuda, "device_count", lambda: 1),
            mock.patch.object(
                torch.cuda, "get_device_capability", lambda index, given=capability: given
            ),
            mock.patch.object(torch, "is_autocast_enabled", lambda device: False),
        ):
            reason = backends.why_not("cuda", "linear_norm_relu", "cuda", torch.float32)
            assert (reason is None) == expected
            assert backends.why_not("cuda", "batch_norm_relu", "cuda", torch.float32) is None
            fake = mock.MagicMock(wraps=x, device=mock.Mock(type="cuda"), dtype=torch.float32)
            fake.shape, fake.__len__.return_value = x.shape, 8
            for backend in (None, "cuda"):
                assert runs_at_once(fake, weights, [-1], backend) == expected
            assert not runs_at_once(fake, weights, [-1], "triton")
            fake.__len__.return_value = MOST_ROWS + 1
            assert not runs_at_once(fake, weights, [-1])
            assert expected or "compute capability 9.0" in str(reason)


def test_refusals():
    x, weight, ones = torch.ones(5, 3), torch.ones(4, 3), torch.ones(4)
    call = ops.linear_norm_relu
    with pytest.raises(ValueError, match=r"linear_norm_relu: x must have shape \(N, K\), got"):
        call(x[0], ops.NormLayers([weight], [ones], [ones], [-1]))
    with pytest.raises(ValueError, match=r"weights\[1\] must have shape \(M, 4\), got \(4, 3\)"):
        call(x, ops.NormLayers([weight] * 2, [ones] * 2, [ones] * 2, [-1, -1]))
    with pytest.raises(ValueError, match=r"gammas\[0\] must have shape \(4\), got \(3,\)"):
        call(x, ops.NormLayers([weight], [ones[:3]], [ones], [-1]))
    with pytest.raises(ValueError, match=r"skips\[0\] must be -1 or an earlier layer of 4 outputs"):
        call(x, ops.NormLayers([weight], [ones], [ones], [0]))
    with pytest.raises(ValueError, match="expected one or more of each of a layer's parts, got 0"):
        call(x, ops.NormLayers([], [], [], []))
    with pytest.raises(TypeError, match="beta must be torch.float32 on cpu like x, got"):
        call(x, ops.NormLayers([weight], [ones], [ones.double()], [-1]))
    with pytest.raises(ValueError, match="factors are collected where runs_at_once is true"):
        call(
            x,
            ops.NormLayers([weight], [ones], [ones], [-1]),
            backend="reference",
            factors=ops.WeightFactors(),
        )
