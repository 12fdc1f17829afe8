"""Semantic graph convolution and the non-local block."""

from __future__ import annotations

import pytest
import torch
from op_contract import FORK, HAND, KERNELS, Arguments, OpContract, device_of, normal, require

from ites import ops
from ites.ops import Graph
from ites.ops import graph as graph_module
from ites.ops.backends import INTERPRETED
from ites.pose.skeleton import HUMAN36M

CPU = torch.device("cpu")


def _set(at, value):
    def change(table):
        table.view(-1)[at] = value
        return table

    return change


BAD_TABLES = [
    ("row_start", lambda t: t.long(), "graph.row_start must be contiguous int32 on cpu, got"),
    ("row_start", _set(0, 1), "graph.row_start must ascend from 0 to the 49 edges, got"),
    ("row_start", _set(3, 2**31 - 1), "graph.row_start must ascend from 0"),
    ("row_start", _set(-1, 48), "graph.row_start must ascend from 0"),
    ("row_start", lambda t: t[:0], "graph.row_start must ascend from 0"),
    ("columns", _set(4, -1), "graph.columns must ascend in each row, from 0 to 16 at most, got"),
    ("columns", _set(-1, 17), "graph.columns must ascend in each row"),
    ("columns", lambda t: t.flip(0), "graph.columns must ascend in each row"),
    ("columns", lambda t: t.repeat_interleave(2)[::2], "graph.columns must be contiguous"),
    ("columns", lambda t: t.to("meta"), "graph.columns must be contiguous int32 on cpu, got"),
    ("pairs", _set(0, -1), "graph.pairs must be joints 0 to 16, got"),
    ("pairs", _set(3, 17), "graph.pairs must be joints 0 to 16, got"),
    ("pairs", lambda t: t[:, :1], r"graph.pairs must have shape \(P, 2\), got"),
]


class GraphMix(OpContract):
    op = "graph_mix"
    channels, attended, padding = 20, 12, 3

    @staticmethod
    def call(arguments: Arguments, backend: str):
        return ops.graph_mix(**arguments, backend=backend)

    def sample(self, batch, skeleton):
        channels, attended = self.channels, self.attended
        columns = 2 * channels + (2 * attended + 1 if attended else 0) + self.padding
        features = normal(batch, skeleton.num_joints, columns)
        if batch > 4:
            features[0] = 1.5  # every max is a tie
        return {
            "features": features.requires_grad_(),
            "logits": normal(len(skeleton.edges), seed=1).requires_grad_(),
            "bias": normal(channels + (attended + 1 if attended else 0), seed=2).requires_grad_(),
            "graph": ops.graph_of(skeleton, CPU),
            "channels": channels,
            "phi_weight": normal(attended, seed=3).requires_grad_() if attended else None,
            "residual": normal(batch, skeleton.num_joints, channels, seed=4).requires_grad_()
            if channels
            else None,
        }


class TestGraphMix(GraphMix):
    """Both branches at once, as the student's layers use it."""

    @pytest.mark.parametrize("backend", KERNELS)
    @pytest.mark.parametrize("channels, attended", ((128, 64), (32, 16), (1, 0), (7, 5), (0, 64)))
    def test_widths(self, backend, channels, attended):
        require(backend, self.op)
        case = type(self)()
        case.channels, case.attended = channels, attended
        case.compare(case.sample(11, HUMAN36M), backend, torch.float32)

    @pytest.mark.parametrize("backend", ("reference", *KERNELS))
    @pytest.mark.parametrize("place", (0, 1))
    def test_a_nan_in_either_joint_of_a_pair_is_not_hidden(self, backend, place):
        require(backend, self.op)
        device, sample = device_of(backend), self.sample(3, HUMAN36M)
        arguments = {
            name: value.detach().to(device, torch.float32)
            if isinstance(value, torch.Tensor)
            else value
            for name, value in sample.items()
        }
        arguments["graph"] = Graph(*(table.to(device) for table in sample["graph"]))
        joint = sample["graph"].pairs[2, place]
        arguments["features"][1, joint, 2 * self.channels] = torch.nan
        y, t = ops.graph_mix(**arguments, backend=backend)
        assert y.isfinite().all() and t[[0, 2]].isfinite().all()
        assert t[1, :, 0].isnan().all() and t[1, :, 1:].isfinite().all()

    @pytest.mark.parametrize("backend", KERNELS)
    @pytest.mark.parametrize("dtype", (torch.bfloat16, torch.float16), ids=("bf16", "fp16"))
    def test_half_types(self, backend, dtype):
        """No more than twice the error that plain PyTorch in that type makes against float64.

        Triton's interpreter cuts float32 to bfloat16 where a GPU rounds: its outputs there are,
        bit for bit, the float32 kernel's with the lower halves cut off.
        """
        require(backend, self.op, dtype)
        device = device_of(backend)
        sample = self.sample(33, HUMAN36M)
        exact = {
            n: t.detach().to(dtype).double() if n in ("features", "residual") else t
            for n, t in sample.items()
        }
        truth = ops.graph_mix(**exact, backend="reference")

        def half(name, value):
            if isinstance(value, Graph):
                return Graph(*(table.to(device) for table in value))
            if not isinstance(value, torch.Tensor):
                return value
            return value.detach().to(
                device, dtype if name in ("features", "residual") else torch.float32
            )

        arguments = {n: half(n, t) for n, t in sample.items()}
        ours = ops.graph_mix(**arguments, backend=backend)
        if backend == "triton" and INTERPRETED and dtype == torch.bfloat16:
            wide = {
                n: t.float() if n in ("features", "residual") else t for n, t in arguments.items()
            }
            for a, b in zip(ours, ops.graph_mix(**wide, backend=backend), strict=True):
                assert a.dtype == dtype
                assert torch.equal(a.float().view(torch.int32), b.view(torch.int32) & -0x10000)
            return
        plain = ops.graph_mix(**arguments, backend="reference")
        for a, b, t in zip(ours, plain, truth, strict=True):
            assert a.dtype == dtype
            bound = 2 * (b.cpu().double() - t).abs().max()
            assert (a.cpu().double() - t).abs().max() <= bound

    def test_a_tie_gives_its_gradient_to_the_first(self):
        for backend in ("reference", "cpp"):
            require(backend, self.op)
            features = torch.ones(1, 2, 3, requires_grad=True)
            graph = Graph(
                *(torch.tensor(t, dtype=torch.int32) for t in ([0, 1, 2], [0, 1], [[1, 0]]))
            )
            _, t = ops.graph_mix(
                features, torch.zeros(2), torch.zeros(2), graph, 0, torch.ones(1), backend=backend
            )
            t.sum().backward()
            assert t.flatten().tolist() == [2.0, 2.0]
            # relu(theta + phi) g: to g 2 rows x 2, to phi 2 x 1, both at joint 1; to theta 1 each
            assert features.grad[0].tolist() == [[0, 0, 1], [4, 2, 1]]

    def test_refusals(self):
        sample = self.sample(2, HUMAN36M)
        with pytest.raises(ValueError, match="at least 65 columns, got 60"):
            ops.graph_mix(**{**sample, "features": sample["features"][..., :60]})
        with pytest.raises(ValueError, match=r"logits must have shape \(49\), got \(48,\)"):
            ops.graph_mix(**{**sample, "logits": sample["logits"][1:]})
        with pytest.raises(ValueError, match=r"features must have shape \(B, 17, S\)"):
            ops.graph_mix(**{**sample, "features": sample["features"][:, 1:]})
        with pytest.raises(TypeError, match="must be floating, got torch.int64"):
            ops.graph_mix(**{**sample, "features": sample["features"].long()})

    @pytest.mark.parametrize("backend", ("reference", "cpp"))
    @pytest.mark.parametrize("table, wrong, message", BAD_TABLES)
    def test_bad_tables_are_refused(self, backend, table, wrong, message):
        require(backend, self.op)
        sample = self.sample(2, HUMAN36M)
        graph = sample["graph"]
        bad = graph._replace(**{table: wrong(getattr(graph, table).clone())})
        with pytest.raises((ValueError, TypeError), match=message):
            ops.graph_mix(**{**sample, "graph": bad}, backend=backend)

    def test_a_table_is_checked_again_once_it_was_written_to(self):
        sample = self.sample(2, HUMAN36M)
        sample["graph"] = Graph(*(table.clone() for table in sample["graph"]))
        ops.graph_mix(**sample)
        sample["graph"].columns[0] = 99
        with pytest.raises(ValueError, match="graph.columns must ascend"):
            ops.graph_mix(**sample)

    def test_a_table_is_read_once(self, monkeypatch):
        sample, calls = self.sample(2, HUMAN36M), []
        sample["graph"] = Graph(*(table.clone() for table in sample["graph"]))
        real = graph_module._check_entries
        monkeypatch.setattr(
            graph_module, "_check_entries", lambda *a: (calls.append(a[0]), real(*a))
        )
        for _ in range(3):
            ops.graph_mix(**sample)
        assert len(calls) == 1
        known = len(graph_module._valid)
        del sample
        assert len(graph_module._valid) == known - 1  # and forgotten with the table


class TestGraphProjectMix(GraphMix):
    """The product and the mixing in one, and the same two one after the other."""

    op = "graph_mix"
    called = {"cpp": "graph_project_mix"}

    @staticmethod
    def call(arguments: Arguments, backend: str):
        return ops.graph_project_mix(**arguments, backend=backend)

    def sample(self, batch, skeleton):
        mixing = super().sample(batch, skeleton)
        features, _ = mixing.pop("features"), mixing.pop("residual")
        x = normal(batch, skeleton.num_joints, self.channels, seed=5)
        projection = normal(self.channels, features.shape[2], seed=6) / self.channels**0.5
        return {
            "x": x.requires_grad_(),
            "projection": projection.requires_grad_(),
            **mixing,
            "residual": True,
        }

    @pytest.mark.parametrize("backend", ("cpp",))
    @pytest.mark.parametrize("batch", (1, 16, 40, 257))
    @pytest.mark.parametrize("attended, residual", ((64, True), (64, False), (0, True), (0, False)))
    def test_is_a_product_and_a_mixing(self, backend, batch, attended, residual):
        require(backend, self.op)
        case = type(self)()
        case.channels, case.attended = 128, attended
        sample = {**case.sample(batch, HUMAN36M), "residual": residual}
        parts = {n: v for n, v in sample.items() if n not in ("x", "projection", "residual")}

        def two(arguments, _):
            x, projection = arguments["x"], arguments["projection"]
            given = {n: arguments[n] for n in parts}
            return ops.graph_mix(
                x @ projection, **given, residual=x if residual else None, backend=backend
            )

        ours, grads, weights = case.run(sample, backend)
        case.call, theirs = two, None
        theirs, their_grads, _ = case.run(sample, backend, weights)
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(grads, their_grads, rtol=1e-10, atol=1e-10)
        with torch.no_grad():  # features are not kept
            again = [o for o in ops.graph_project_mix(**sample, backend=backend) if o is not None]
        assert all(map(torch.equal, again, ours))

    def test_refusals(self):
        sample = self.sample(2, HUMAN36M)
        with pytest.raises(ValueError, match="at least 65 columns, got 60"):
            ops.graph_project_mix(**{**sample, "projection": sample["projection"][:, :60]})
        with pytest.raises(
            ValueError, match=r"projection must have shape \(20, S\), got \(19, 68\)"
        ):
            ops.graph_project_mix(**{**sample, "projection": sample["projection"][1:]})
        with pytest.raises(ValueError, match="20 channels to be added to y, got 8"):
            ops.graph_project_mix(**{**sample, "x": sample["x"][..., :8],
                                     "projection": sample["projection"][:8]})  # fmt: skip


class TestGraphMixWithoutAttention(GraphMix):
    """The convolution alone, as the student's first and last layer use it."""

    attended, padding = 0, 0


class TestSemanticGraphConv(OpContract):
    op = "graph_mix"
    called = {"cpp": "graph_project_mix"}

    @staticmethod
    def call(arguments: Arguments, backend: str):
        return (ops.semantic_graph_conv(**arguments, backend=backend),)

    def sample(self, batch, skeleton):
        return {
            "x": normal(batch, skeleton.num_joints, 8).requires_grad_(),
            "weight": normal(2, 8, 10, seed=1).requires_grad_(),
            "logits": normal(len(skeleton.edges), seed=2).requires_grad_(),
            "bias": normal(10, seed=3).requires_grad_(),
            "graph": ops.graph_of(skeleton, CPU),
        }


def test_what_a_lifting_made_serves_a_training():
    """The tables are made once; made in inference mode they could not be saved for a gradient."""
    ops.graph_of.cache_clear()
    sample = TestSemanticGraphConv().sample(3, HUMAN36M)
    with torch.inference_mode():
        sample["graph"] = ops.graph_of(HUMAN36M, CPU)
    ops.semantic_graph_conv(**sample).sum().backward()
    assert sample["x"].grad.abs().sum() > 0


@pytest.mark.parametrize("skeleton", (HUMAN36M, FORK, HAND), ids=lambda s: s.name)
def test_convolution_by_dense_matrices(skeleton):
    """(A * I) @ (x @ W0) + (A * (1 - I)) @ (x @ W1) + b, written as it stands in the paper."""
    sample = TestSemanticGraphConv().sample(3, skeleton)
    mask = torch.full((skeleton.num_joints,) * 2, -torch.inf, dtype=torch.float64)
    for logit, (row, column) in zip(sample["logits"], skeleton.edges, strict=True):
        mask[row, column] = logit
    a, eye = mask.softmax(-1), torch.eye(skeleton.num_joints)
    x, (w0, w1) = sample["x"], sample["weight"]
    expected = (a * eye) @ (x @ w0) + (a * (1 - eye)) @ (x @ w1) + sample["bias"]
    torch.testing.assert_close(ops.semantic_graph_conv(**sample, backend="reference"), expected)


def test_non_local_by_loops():
    """Each pair of joint and pooled position by itself."""
    projected, v, bias = normal(2, 17, 2 * 6 + 1), normal(6, seed=1), normal(7, seed=2)
    expected = torch.zeros(2, 17, 6, dtype=torch.float64)
    for pose in range(2):
        for joint in range(17):
            for a, b in HUMAN36M.pooling:
                g = torch.maximum(projected[pose, a, :6], projected[pose, b, :6]) + bias[:6]
                phi = torch.maximum(projected[pose, a, 6:12], projected[pose, b, 6:12])
                affinity = (projected[pose, joint, 12] + v @ phi + bias[6]).relu()
                expected[pose, joint] += affinity / len(HUMAN36M.pooling) * g
    graph, no_logits = ops.graph_of(HUMAN36M, CPU), normal(len(HUMAN36M.edges)) * 0
    for backend in ("reference", "cpp"):
        require(backend, "graph_mix", torch.float64)
        ours = ops.graph_mix(projected, no_logits, bias, graph, 0, v, backend=backend)[1]
        torch.testing.assert_close(ours, expected)


def test_convolution_by_message_passing():
    """Values and gradients against messages gathered and scattered edge by edge.

    The form in which PyTorch Geometric writes a convolution: x_j, weighted by its edge, is added up
    at i.
    """
    sample = TestSemanticGraphConv().sample(5, HUMAN36M)
    names = ("x", "weight", "logits", "bias")
    rows, columns = torch.tensor(HUMAN36M.edges).unbind(-1)
    weights = sample["logits"].exp()
    weights = weights / weights.new_zeros(17).index_add(0, rows, weights)[rows]
    at_self, at_neighbour = (sample["x"] @ weight for weight in sample["weight"])
    own = (rows == columns)[:, None]
    messages = torch.where(own, at_self[:, columns], at_neighbour[:, columns]) * weights[:, None]
    expected = torch.zeros(5, 17, 10, dtype=torch.float64).index_add(1, rows, messages)
    expected = expected + sample["bias"]
    grad = normal(5, 17, 10, seed=6)
    wanted = torch.autograd.grad(expected, [sample[name] for name in names], grad)
    for backend in ("reference", "cpp"):
        require(backend, "graph_mix", torch.float64)
        ours = ops.semantic_graph_conv(**sample, backend=backend)
        torch.testing.assert_close(ours, expected)
        grads = torch.autograd.grad(ours, [sample[name] for name in names], grad)
        for a, b in zip(grads, wanted, strict=True):
            torch.testing.assert_close(a, b)
