"""The layers that the two networks are made of."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ites import ops
from ites.skeleton import Skeleton


class BatchNormReLU(nn.Module):
    """Batch normalisation over rows, with its residual and ReLU.

    In training it uses the batch's statistics and updates the running ones with momentum 0.1 and
    the unbiased variance; in evaluation it uses the running ones. eps is 1e-5.

    Args:
        channels: C.
        relu: whether ReLU is applied.
        skip_after: whether the residual is added after ReLU.
        backend: of `ites.ops.batch_norm_relu`.
    """

    momentum = 0.1
    eps = 1e-5
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

    def forward(self, x: Tensor, skip: Tensor | None = None) -> Tensor:
        """x and skip: (..., C); all leading dimensions are rows."""
        if self.training:
            rows, flat_skip = x.flatten(0, -2), None if skip is None else skip.flatten(0, -2)
            y, mean, var = ops.batch_norm_relu(
                rows,
                self.weight,
                self.bias,
                flat_skip,
                relu=self.relu,
                skip_after=self.skip_after,
                eps=self.eps,
                backend=self.backend,
            )
            self._update(mean, var, len(rows))
            return y.view_as(x)
        scale = self.weight * (self.running_var + self.eps).rsqrt()
        y = x * scale + (self.bias - self.running_mean * scale)
        if skip is not None and not self.skip_after:
            y = y + skip
        if self.relu:
            y = y.relu()
        return y if skip is None or not self.skip_after else y + skip

    @torch.no_grad()
    def _update(self, mean: Tensor, var: Tensor, rows: int) -> None:
        unbiased = var * (rows / max(rows - 1, 1))
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), self.momentum)
        self.running_var.lerp_(unbiased.to(self.running_var.dtype), self.momentum)


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
        """Draw the initial values of METHOD, "Student"."""
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
        self.g = nn.Linear(channels, inner)
        self.theta = nn.Linear(channels, inner)
        self.phi = nn.Linear(channels, inner)
        self.affinity = nn.Parameter(torch.empty(2, inner))  # u, v
        self.out = nn.Linear(inner, channels)
        self.norm = BatchNormReLU(channels, relu=False, backend=backend)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the initial values of METHOD, "Student"."""
        for linear in (self.g, self.theta, self.phi, self.out):
            nn.init.kaiming_normal_(linear.weight)
            nn.init.zeros_(linear.bias)
        # Fans as of the one-row convolution that (u, v) is.
        nn.init.kaiming_normal_(self.affinity.view(1, -1))
        nn.init.zeros_(self.norm.weight)
        nn.init.zeros_(self.norm.bias)


class GraphLayer(nn.Module):
    """`ReLU(BatchNorm(SemGraphConv(x) + NonLocal(x)))`, plus a residual where one is given.

    One matrix product makes the columns of both branches, `ites.ops.graph_mix` mixes them over the
    joints, a second product closes the non-local branch. theta enters only through u . theta, so
    its convolution is folded into one column.

    Args:
        skeleton: see `SemGraphConv`.
        channels: C.
        backend: of the ops.

    Source: METHOD, "Student", layer.
    """

    def __init__(self, skeleton: Skeleton, channels: int, backend: str | None = None) -> None:
        super().__init__()
        self.backend = backend
        self.conv = SemGraphConv(skeleton, channels, channels, backend)
        self.non_local = NonLocal(channels, backend)
        self.norm = BatchNormReLU(channels, skip_after=True, backend=backend)

    def forward(self, x: Tensor, skip: Tensor | None = None) -> Tensor:
        """x and skip: (B, J, C); returns (B, J, C)."""
        channels, non_local = x.shape[-1], self.non_local
        y, t = ops.graph_mix(
            x @ self.projection(),
            self.conv.logits,
            self.projection_bias(),
            ops.graph_of(self.conv.skeleton, x.device),
            channels,
            phi_weight=non_local.affinity[1],
            residual=x,
            backend=self.backend,
        )
        return self.norm(non_local.norm(non_local.out(t), skip=y), skip=skip)

    def projection(self) -> Tensor:
        """[W0 | W1 | g | phi | theta' u | 0]: (C, S), S rounded up to a multiple of 8."""
        conv, block = self.conv.weight, self.non_local
        u = block.affinity[0]
        columns = [conv[0], conv[1], block.g.weight.T, block.phi.weight.T]
        columns.append((u @ block.theta.weight)[:, None])
        width = sum(column.shape[1] for column in columns)
        columns.append(u.new_zeros(conv.shape[1], -width % 8))
        return torch.cat(columns, dim=1)

    def projection_bias(self) -> Tensor:
        """[b | b_g | u . b_theta + v . b_phi]: (C + M + 1,)."""
        block = self.non_local
        constant = (block.affinity * torch.stack([block.theta.bias, block.phi.bias])).sum()
        return torch.cat([self.conv.bias, block.g.bias, constant[None]])
