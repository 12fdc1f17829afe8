"""The prior: the density of 2D poses, learned from 2D poses alone."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ites.models.components import principal_components
from ites.models.layers import Linear, expect_poses
from ites.models.sizes import own_scale
from ites.pose.skeleton import HUMAN36M, Skeleton, root_relative

_LIMIT = 2.0  # bound of a layer's log scale
_FLOOR = 1e-4  # minimum spread of a component, relative to the largest
DENSITY_LIMIT = 100.0  # nats


def soft_clamp(density: Tensor) -> Tensor:
    """`DENSITY_LIMIT * tanh(density / DENSITY_LIMIT)`: limits the weight of unlikely poses.

    Unlike with a hard clamp, the gradient never becomes exactly zero.
    """
    return DENSITY_LIMIT * torch.tanh(density / DENSITY_LIMIT)


class Coupling(nn.Module):
    """An affine coupling: half of the components scale and shift the other half."""

    def __init__(self, components: int, width: int, conditions: int = 0) -> None:
        super().__init__()
        self.kept = components // 2
        self.net = nn.Sequential(
            Linear(self.kept + conditions, width),
            nn.ReLU(),
            Linear(width, width),
            nn.ReLU(),
            Linear(width, 2 * (components - self.kept)),
        )
        nn.init.zeros_(self.net[-1].weight)  # type: ignore[arg-type]
        nn.init.zeros_(self.net[-1].bias)  # type: ignore[arg-type]

    def forward(self, z: Tensor, condition: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(B, K) to (B, K), and the logarithm (B,) of the volume's change."""
        kept, moved = z[:, : self.kept], z[:, self.kept :]
        given = kept if condition is None else torch.cat([kept, condition], dim=1)
        scale, shift = self.net(given).chunk(2, dim=1)
        scale = _LIMIT * torch.tanh(scale)
        return torch.cat([kept, moved * scale.exp() + shift], dim=1), scale.sum(1)


class Prior(nn.Module):
    """The density of root-relative 2D poses: a normalizing flow on their principal components.

    Args:
        skeleton: joints J and their root.
        width: features of a coupling's network.
        blocks: coupling layers.
        components: K, the modelled whitened principal components; the rest is noise.

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
        self.add_couplings(blocks, width)
        self.register_buffer("centre", torch.zeros(coordinates))
        self.register_buffer("whiten", torch.zeros(coordinates, self.components))
        orders = [torch.randperm(self.components) for _ in range(blocks)]
        self.register_buffer("order", torch.stack(orders) if orders else torch.zeros(0, 0).long())

    def add_couplings(self, blocks: int, width: int) -> None:
        """Create the coupling layers."""
        self.couplings = nn.ModuleList(Coupling(self.components, width) for _ in range(blocks))

    def sizes(self) -> dict[str, int | float]:
        """The constructor arguments of this model, without the skeleton."""
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
        # The sign of an axis is arbitrary: its largest entry is made positive.
        largest = axes.gather(0, axes.abs().argmax(0, keepdim=True))
        spread = variance.clamp(min=variance[0] * _FLOOR**2).sqrt()
        self.centre.copy_(centre)
        self.whiten.copy_(axes * largest.sign() / spread)

    def forward(self, points: Tensor) -> Tensor:
        """Negative log density (B,), nats, of the whitened components of 2D poses (B, J, 2)."""
        return self._density(points)

    def at(self, points: Tensor, elevation: Tensor) -> Tensor:
        """The same for views at elevations (B,), radians, which this prior does not distinguish."""
        return self(points)

    def _density(self, points: Tensor, condition: Tensor | None = None) -> Tensor:
        z = (self._relative(points) - self.centre) @ self.whiten
        volume = torch.zeros_like(z[:, 0])
        for coupling, order in zip(self.couplings, self.order, strict=True):
            z, change = coupling(z.index_select(1, order), condition)
            volume = volume + change
        normal = 0.5 * z.square().sum(1) + 0.5 * self.components * _LOG_2_PI
        return normal - volume

    def _relative(self, points: Tensor) -> Tensor:
        expect_poses(self, points, self.skeleton)
        root = self.skeleton.root
        joints = root_relative(points, root)
        return torch.cat([joints[:, :root], joints[:, root + 1 :]], dim=1).flatten(1)


class GeneralPrior(Prior):
    """The density of recipe "general": of 2D poses at their own scale, by the camera's elevation.

    Without an elevation it is the mean density over `ELEVATIONS`.

    Args: see `Prior`.
    """

    def add_couplings(self, blocks: int, width: int) -> None:
        """Create couplings that take the elevation's sine and cosine."""
        self.couplings = nn.ModuleList(Coupling(self.components, width, 2) for _ in range(blocks))

    def sizes(self) -> dict[str, int | float]:
        """The constructor arguments of this model, without the skeleton."""
        return super().sizes() | {"general": True}

    def at(self, points: Tensor, elevation: Tensor) -> Tensor:
        """Negative log density (B,), nats, of 2D poses (B, J, 2) at elevations (B,), radians."""
        return self(points, elevation)

    def forward(self, points: Tensor, elevation: Tensor | None = None) -> Tensor:
        """Negative log density (B,), nats, of 2D poses (B, J, 2), optionally at elevations (B,)."""
        if elevation is None:
            each = [self(points, points.new_full((len(points),), e)) for e in ELEVATIONS]
            return math.log(len(each)) - torch.logsumexp(-torch.stack(each), 0)
        points = points * own_scale(points, self.skeleton)[:, None, None]
        # Of about unit spread over the range of elevations.
        return self._density(points, torch.stack([4 * elevation.sin(), 8 * elevation.cos() - 7], 1))


ELEVATIONS = (-0.2, 0.0, 0.2, 0.4, 0.7)
"""Elevations over which a density without an elevation is averaged, radians."""
_LOG_2_PI = 1.8378770664093453
