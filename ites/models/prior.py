"""The prior: how likely a 2D pose is, learned from 2D poses alone."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ites.models.components import principal_components
from ites.models.layers import Linear, expect_poses
from ites.pose.skeleton import HUMAN36M, Skeleton, root_relative

_LIMIT = 2.0  # of a layer's log scale
_FLOOR = 1e-4  # least spread of a component, of the largest
DENSITY_LIMIT = 100.0  # nats


def soft_clamp(density: Tensor) -> Tensor:
    """`DENSITY_LIMIT * tanh(density / DENSITY_LIMIT)`: no negative log density outweighs the rest.

    The gradient never becomes exactly zero, as that of a hard clamp does.
    """
    return DENSITY_LIMIT * torch.tanh(density / DENSITY_LIMIT)


class Coupling(nn.Module):
    """An affine coupling: half of the components scale and shift the other half."""

    def __init__(self, components: int, width: int) -> None:
        super().__init__()
        self.kept = components // 2
        self.net = nn.Sequential(
            Linear(self.kept, width),
            nn.ReLU(),
            Linear(width, width),
            nn.ReLU(),
            Linear(width, 2 * (components - self.kept)),
        )
        nn.init.zeros_(self.net[-1].weight)  # type: ignore[arg-type]
        nn.init.zeros_(self.net[-1].bias)  # type: ignore[arg-type]

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """(B, K) to (B, K), and the logarithm (B,) of the volume's change."""
        kept, moved = z[:, : self.kept], z[:, self.kept :]
        scale, shift = self.net(kept).chunk(2, dim=1)
        scale = _LIMIT * torch.tanh(scale)
        return torch.cat([kept, moved * scale.exp() + shift], dim=1), scale.sum(1)


class Prior(nn.Module):
    """The density of root-relative 2D poses: a normalizing flow on their principal components.

    Args:
        skeleton: joints J and their root.
        width: features of a coupling's network.
        blocks: coupling layers.
        components: K, whitened principal components that are modelled; the rest is noise.

    Source: ElePose, CVPR 2022, section 3.2; RealNVP, ICLR 2017.
    """

    kind = "prior"
    order: Tensor
    centre: Tensor
    whiten: Tensor

    def __init__(
        self,
        skeleton: Skeleton = HUMAN36M,
        width: int = 256,
        blocks: int = 6,
        components: int = 26,
        backend: str | None = None,
    ) -> None:
        super().__init__()
        self.skeleton, self.backend, self.width = skeleton, backend, width
        coordinates = 2 * (skeleton.num_joints - 1)
        self.components = min(components, coordinates)
        self.couplings = nn.ModuleList(Coupling(self.components, width) for _ in range(blocks))
        self.register_buffer("centre", torch.zeros(coordinates))
        self.register_buffer("whiten", torch.zeros(coordinates, self.components))
        orders = [torch.randperm(self.components) for _ in range(blocks)]
        self.register_buffer("order", torch.stack(orders) if orders else torch.zeros(0, 0).long())

    def sizes(self) -> dict[str, int | float]:
        """The arguments that rebuild this model, beside the skeleton."""
        return {
            "width": self.width,
            "blocks": len(self.couplings),
            "components": self.components,
        }

    @torch.no_grad()
    def fit(self, points: Tensor) -> None:
        """Whiten by the principal components of 2D poses (N, J, 2), network units.

        Raises:
            ValueError: there are fewer than two poses, or all are the same.
        """
        rows = self._relative(points).double()
        if len(rows) < 2:
            raise ValueError(f"Prior.fit: expected at least 2 poses, got {len(rows)}")
        centre, variance, axes = principal_components(rows)
        variance, axes = variance.flip(0)[: self.components], axes.flip(1)[:, : self.components]
        if not variance[0] > 0:
            raise ValueError("Prior.fit: all poses are the same")
        # An axis has no sign of its own: its largest entry is positive.
        largest = axes.gather(0, axes.abs().argmax(0, keepdim=True))
        spread = variance.clamp(min=variance[0] * _FLOOR**2).sqrt()
        self.centre.copy_(centre)
        self.whiten.copy_(axes * largest.sign() / spread)

    def forward(self, points: Tensor) -> Tensor:
        """Negative log density (B,), nats, of the whitened components of 2D poses (B, J, 2)."""
        z = (self._relative(points) - self.centre) @ self.whiten
        volume = torch.zeros_like(z[:, 0])
        for coupling, order in zip(self.couplings, self.order, strict=True):
            z, change = coupling(z.index_select(1, order))
            volume = volume + change
        normal = 0.5 * z.square().sum(1) + 0.5 * self.components * _LOG_2_PI
        return normal - volume

    def _relative(self, points: Tensor) -> Tensor:
        expect_poses(self, points, self.skeleton)
        root = self.skeleton.root
        joints = root_relative(points, root)
        return torch.cat([joints[:, :root], joints[:, root + 1 :]], dim=1).flatten(1)


_LOG_2_PI = 1.8378770664093453
