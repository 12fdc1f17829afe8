"""The layers of both networks."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ites import ops
from ites.ops import GraphWeights, WeightFactors
from ites.ops._registry import expect
from ites.ops.backends import choose
from ites.ops.linear_norm import runs_as_one_node, runs_at_once
from ites.pose.skeleton import Skeleton

MOMENTUM = 0.1  # of BatchNorm's running statistics


def expect_poses(model: nn.Module, points: Tensor, skeleton: Skeleton) -> None:
    """Check that a model's input consists of 2D poses (B, J, 2) of its skeleton.

    Raises:
        TypeError: the input is no tensor.
        ValueError: the shape differs; the message states both shapes.
    """
    if not isinstance(points, Tensor):
        raise TypeError(
            f"{type(model).__name__}: points must be a torch.Tensor, got {type(points).__name__}"
        )
    expect(type(model).__name__, "points", points, "B", skeleton.num_joints, 2)


class BatchStatistics(NamedTuple):
    """Batch statistics of a pass for the running statistics: (C,) each, without gradient.

    The mean is `mean + shift` if a shift is given. The unbiased variance is `var * correction`.
    """

    mean: Tensor
    var: Tensor
    correction: float
    shift: Tensor | None


class Linear(nn.Linear):
    """A linear layer by `ites.ops.linear`.

    Args:
        inputs, outputs: features.
        backend: of the op.
    """

    def __init__(self, inputs: int, outputs: int, backend: str | None = None) -> None:
        super().__init__(inputs, outputs)
        self.backend = backend

    def forward(self, x: Tensor, biased: bool = True) -> Tensor:
        """(..., inputs) to (..., outputs), optionally without the bias."""
        return ops.linear(x, self.weight, self.bias if biased else None, self.backend)


class BatchNormReLU(nn.Module):
    """Batch normalisation over rows, with its residual and ReLU.

    In training it uses the batch's statistics and keeps them for `update_running`, which the model
    calls at the end of a pass. In evaluation it uses the running statistics. eps is 1e-5.

    Args:
        channels: C.
        relu: whether ReLU is applied.
        skip_after: whether the residual is added after ReLU.
        backend: of `ites.ops.batch_norm_relu`.

    Attributes:
        synchronised: whether the statistics cover the rows of all `torch.distributed` ranks
            instead of this rank's only.
    """

    eps = 1e-5
    synchronised = False
    running_mean: Tensor
    running_var: Tensor

    def __init__(
        self,
        channels: int,
        relu: bool = True,
        skip_after: bool = False,
        backend: str | None = None,
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))
        self.relu, self.skip_after, self.backend = relu, skip_after, backend
        self.batch: BatchStatistics | None = None

    def after(self, layer: Linear, x: Tensor, skip: Tensor | None = None) -> Tensor:
        """`self(layer(x), skip)`; in training without the layer's bias, which has no effect.

        Subtracting the batch mean cancels the bias: the result does not depend on it, and its
        gradient is exactly zero; `ites.models.passes` provides it. Only the running mean includes
        the bias.
        """
        if not self.training:
            return self(layer(x), skip)
        return self(layer(x, biased=False), skip, layer.bias)

    def after_keeping(self, layer: Linear, x: Tensor) -> tuple[Tensor, Tensor]:
        """`after(layer, x)`, and x for a residual; see `ites.ops.linear_keeping`."""
        if not self.training:
            return self.after(layer, x), x
        y, x = ops.linear_keeping(x, layer.weight, layer.backend)
        return self(y, None, layer.bias), x

    def forward(self, x: Tensor, skip: Tensor | None = None, shift: Tensor | None = None) -> Tensor:
        """x and skip: (..., C) with all leading dimensions as rows; shift (C,): see `after`."""
        if not self.training:
            return self._normalise(x, skip, self.running_mean, self.running_var)
        rows = x.flatten(0, -2)
        if self.synchronised:
            mean, var, count = _statistics_of_all_ranks(rows)
            unbiased = (var * (count / (count - 1).clamp(min=1))).detach()
            self.batch = BatchStatistics(mean.detach(), unbiased, 1.0, shift)
            return self._normalise(x, skip, mean, var).to(x.dtype)
        y, mean, var = ops.batch_norm_relu(
            rows,
            self.weight,
            self.bias,
            None if skip is None else skip.flatten(0, -2),
            relu=self.relu,
            skip_after=self.skip_after,
            eps=self.eps,
            backend=self.backend,
        )
        if len(rows):
            correction = len(rows) / max(len(rows) - 1, 1)
            self.batch = BatchStatistics(mean, var, correction, shift)
        return y.view_as(x)

    def _normalise(self, x: Tensor, skip: Tensor | None, mean: Tensor, var: Tensor) -> Tensor:
        scale = self.weight * (var + self.eps).rsqrt()
        y = x * scale + (self.bias - mean * scale)
        if skip is not None and not self.skip_after:
            y = y + skip
        if self.relu:
            y = y.relu()
        return y if skip is None or not self.skip_after else y + skip


class Chain:
    """Layers that follow one another: `norm(linear(x), skip)` each, all with ReLU.

    Args:
        layers: of each its linear layer, its norm, and the index of the earlier layer whose output
            is the residual, -1 for none.
    """

    def __init__(self, layers: Iterable[tuple[Linear, BatchNormReLU, int]]) -> None:
        self.linears, self.norms, self.skips = zip(*layers, strict=True)

    def weights(self) -> list[Tensor]:
        """The weights of the linear layers; within a pass, those of the pass."""
        return [linear.weight for linear in self.linears]

    def runs_at_once(self, x: Tensor) -> bool:
        """Whether training has kernels, or a node of autograd, of its own for these rows (N, K)."""
        training = all(norm.training and not norm.synchronised for norm in self.norms)
        backend = self.norms[0].backend
        return training and (
            runs_at_once(x, self.weights(), self.skips, backend)
            or runs_as_one_node(x, self.skips, backend)
        )

    def __call__(
        self, x: Tensor, momentum: float = MOMENTUM, factors: WeightFactors | None = None
    ) -> Tensor:
        """Run training on rows (N, K) and move the running statistics by `momentum`.

        See `ites.ops.linear_norm_relu`, and `update_running`.
        """
        layers = ops.NormLayers(
            self.weights(),
            [norm.weight for norm in self.norms],
            [norm.bias for norm in self.norms],
            self.skips,
        )
        running = ops.RunningStatistics(
            [norm.running_mean for norm in self.norms],
            [norm.running_var for norm in self.norms],
            [linear.bias for linear in self.linears],
            momentum,
        )
        backend = self.norms[0].backend
        return ops.linear_norm_relu(
            x, layers, BatchNormReLU.eps, backend, factors, running if momentum else None
        )[0]


@torch.no_grad()
def update_running(norms: Iterable[BatchNormReLU], momentum: float = MOMENTUM) -> None:
    """Move the running statistics of all layers towards those of the pass, in few launches.

    `running = (1 - momentum) * running + momentum * statistic`, with the unbiased variance. A
    momentum of 0 discards the pass.
    """
    norms = [norm for norm in norms if norm.batch]
    if not norms:  # a pass over no rows
        return
    if momentum:
        _move(norms, momentum)
    for norm in norms:
        norm.batch = None


def _move(norms: list[BatchNormReLU], momentum: float) -> None:
    together: dict[float, list[BatchNormReLU]] = {}
    for norm in norms:
        if norm.batch is not None:
            together.setdefault(norm.batch.correction, []).append(norm)
    for correction, some in together.items():
        means, variances, _, shifts = zip(*(n.batch for n in some if n.batch), strict=True)
        ops.move_running(
            [norm.running_mean for norm in some],
            [norm.running_var for norm in some],
            list(means),
            list(variances),
            list(shifts),
            correction,
            momentum,
            some[0].backend,
        )


def _statistics_of_all_ranks(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean, biased variance (C,) and number of the rows (N, C) of all ranks together."""
    x = x.to(torch.promote_types(x.dtype, torch.float32))
    rows = max(len(x), 1)  # a rank without rows contributes with weight 0
    mean = x.sum(0) / rows
    var = (x - mean).square().sum(0) / rows
    own = torch.cat([mean, var, mean.new_full((1,), len(x))])
    means, variances, counts = _Gather.apply(own).split([len(mean), len(mean), 1], dim=1)
    count = counts.sum()
    share = counts / count  # [ranks, 1]
    mean = (share * means).sum(0)
    var = (share * (variances + (means - mean).square())).sum(0)
    return mean, var, count


class _Gather(torch.autograd.Function):
    """Stack every rank's tensor, one per row; the gradients of all ranks add up."""

    @staticmethod
    def forward(ctx: Any, own: Tensor) -> Tensor:
        rows = [torch.empty_like(own) for _ in range(dist.get_world_size())]
        dist.all_gather(rows, own)
        return torch.stack(rows)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        grad = grad.clone()
        dist.all_reduce(grad)
        return grad[dist.get_rank()]


class SemGraphConv(nn.Module):
    """Semantic graph convolution over a skeleton; see `ites.ops.semantic_graph_conv`.

    Args:
        skeleton: whose edges carry the learned weights.
        inputs, outputs: channels.
        backend: of the ops.
    """

    def __init__(
        self, skeleton: Skeleton, inputs: int, outputs: int, backend: str | None = None
    ) -> None:
        super().__init__()
        self.skeleton, self.backend = skeleton, backend
        self.weight = nn.Parameter(torch.empty(2, inputs, outputs))
        self.logits = nn.Parameter(torch.ones(len(skeleton.edges)))
        self.bias = nn.Parameter(torch.empty(outputs))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the initial values of docs/method.md, 4.7."""
        nn.init.xavier_uniform_(self.weight, gain=1.414)
        bound = self.bias.numel() ** -0.5
        nn.init.uniform_(self.bias, -bound, bound)
        nn.init.ones_(self.logits)

    def forward(self, x: Tensor) -> Tensor:
        """(B, J, inputs) to (B, J, outputs)."""
        graph = ops.graph_of(self.skeleton, x.device)
        return ops.semantic_graph_conv(x, self.weight, self.logits, self.bias, graph, self.backend)


class NonLocal(nn.Module):
    """Parameters of the non-local block: attention of each joint over pooled pairs of joints.

    `GraphLayer` computes it together with the graph convolution.

    Args:
        channels: C; the block works in M = C // 2 channels.
    """

    def __init__(self, channels: int, backend: str | None = None) -> None:
        super().__init__()
        inner = channels // 2
        self.g = Linear(channels, inner)
        self.theta = Linear(channels, inner)
        self.phi = Linear(channels, inner)
        self.affinity = nn.Parameter(torch.empty(2, inner))  # u, v
        self.out = Linear(inner, channels, backend)
        self.norm = BatchNormReLU(channels, relu=False, backend=backend)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the initial values of docs/method.md, 4.7."""
        for linear in (self.g, self.theta, self.phi, self.out):
            nn.init.kaiming_normal_(linear.weight)
            nn.init.zeros_(linear.bias)
        # Fans as of the one-row convolution that (u, v) is.
        nn.init.kaiming_normal_(self.affinity.view(1, -1))
        nn.init.zeros_(self.norm.weight)
        nn.init.zeros_(self.norm.bias)


class GraphLayer(nn.Module):
    """`ReLU(BatchNorm(SemGraphConv(x) + NonLocal(x)))`, plus an optional residual.

    One matrix product computes the columns of both branches. `ites.ops.graph_project_mix` mixes
    them over the joints. A second product completes the non-local branch. theta enters only as
    u . theta, so its convolution becomes one column.

    Args:
        skeleton: see `SemGraphConv`.
        channels: C.
        backend: of the ops.

    Source: docs/method.md, 4.3.
    """

    factors: WeightFactors | None = None
    """Collects the factors of the weights' gradients; see `ites.models.passes`."""

    def __init__(self, skeleton: Skeleton, channels: int, backend: str | None = None) -> None:
        super().__init__()
        self.backend = backend
        self.conv = SemGraphConv(skeleton, channels, channels, backend)
        self.non_local = NonLocal(channels, backend)
        self.norm = BatchNormReLU(channels, skip_after=True, backend=backend)

    def forward(
        self, x: Tensor, skip: Tensor | None = None, weights: GraphWeights | None = None
    ) -> Tensor:
        """x, skip and the result: (B, J, C); `weights`: the result of `join`, if available."""
        channels, non_local = x.shape[-1], self.non_local
        weights = weights or self.join()
        y, t = ops.graph_project_mix(
            x,
            weights.projection,
            self.conv.logits,
            weights.bias,
            ops.graph_of(self.conv.skeleton, x.device),
            channels,
            phi_weight=weights.phi_weight,
            residual=True,
            backend=self.backend,
            factors=self.factors,
        )
        assert t is not None
        if self.training and not self.norm.synchronised:
            chosen = choose("batch_norm_relu", y.device.type, y.dtype, self.backend)
            product = choose("linear", y.device.type, y.dtype, self.backend)
            if chosen == "cuda" or chosen == product == "cpp":
                return self._end(t, y, skip, chosen)
        return self.norm(non_local.norm.after(non_local.out, t, skip=y), skip=skip)

    def _end(self, t: Tensor, y: Tensor, skip: Tensor | None, backend: str) -> Tensor:
        """The non-local block's product and both norms.

        In C++ they are one call. In CUDA the norms are one, and the first one's bias, which the
        second cancels, has no effect.
        """
        inner, outer, out = self.non_local.norm, self.norm, self.non_local.out
        rows, shift = t.flatten(0, -2), None
        rest = (
            y.flatten(0, -2),
            outer.weight,
            outer.bias,
            None if skip is None else skip.flatten(0, -2),
            outer.eps,
            self.backend,
        )
        if backend == "cpp":
            result, statistics = ops.linear_nested_norm_relu(
                rows, out.weight, inner.weight, inner.bias, *rest
            )
        else:
            product, _ = ops.linear_keeping(rows, out.weight, self.backend, self.factors)
            result, statistics = ops.nested_norm_relu(product, inner.weight, *rest)
            shift = inner.bias
        if len(rows):
            mean, var, outer_mean, outer_var = statistics.unbind()
            correction = len(rows) / max(len(rows) - 1, 1)
            inner.batch = BatchStatistics(mean, var, correction, out.bias)
            outer.batch = BatchStatistics(outer_mean, outer_var, correction, shift)
        return result.view_as(y)

    def joined(self) -> list[Tensor]:
        """The parameters that only `join` uses."""
        conv, block = self.conv, self.non_local
        linears = (block.g, block.theta, block.phi)
        pairs: list[Any] = [tensor for linear in linears for tensor in (linear.weight, linear.bias)]
        return [conv.weight, conv.bias, *pairs, block.affinity]

    def join(self) -> GraphWeights:
        """Join the weights; the passes of a step can share them."""
        return ops.join_graph_layers([self.joined()], self.backend)[0]
