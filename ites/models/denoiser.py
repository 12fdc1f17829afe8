"""The denoiser: removes keypoint noise from 2D poses, learned from 2D poses alone."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ites.models.components import principal_components
from ites.pose.skeleton import HUMAN36M, Skeleton, root_relative

_FLOOR = 1e-3  # spread of a component, of the largest, below which joints are made of one another


class Denoiser(nn.Module):
    """A Wiener filter of 2D poses on their principal components.

    Independent noise of equal size in all coordinates adds the same variance s to every component.
    The filter estimates s as the smallest variance. A component of variance v keeps the share
    (v - s) / v of its deviation from the mean. Poses are centred on the mean of their joints,
    because all joints would share the noise of the root. Exact keypoints have s near 0 and stay as
    they are. Before `fit` the filter changes nothing.

    Args:
        skeleton: joints J and their root.

    Source: Wiener, 1949; Tipping and Bishop, Probabilistic PCA, 1999.
    """

    matrix: Tensor
    offset: Tensor

    def __init__(self, skeleton: Skeleton = HUMAN36M) -> None:
        super().__init__()
        self.skeleton = skeleton
        coordinates = 2 * skeleton.num_joints
        self.register_buffer("matrix", self._rooted(torch.eye(coordinates)))
        self.register_buffer("offset", torch.zeros(coordinates))

    @torch.no_grad()
    def fit(self, points: Tensor) -> None:
        """Learn the noise from 2D poses (N, J, 2), network units; too few poses change nothing."""
        rows = (points - points.mean(1, keepdim=True)).flatten(1).double()
        if len(rows) <= rows.shape[1]:
            return
        mean, variance, axes = principal_components(rows)
        real = variance > _FLOOR**2 * variance[-1]
        variance, axes = variance[real], axes[:, real]
        if not len(variance):
            return
        kept = (axes * (1 - variance[0] / variance)) @ axes.T
        self.matrix.copy_(self._rooted(kept))
        self.offset.copy_(self._rooted((mean - mean @ kept)[None])[0])

    def forward(self, points: Tensor) -> Tensor:
        """2D poses (B, J, 2) without their noise, root-relative."""
        return (points.flatten(1) @ self.matrix + self.offset).view_as(points)

    def _rooted(self, rows: Tensor) -> Tensor:
        """Rows (N, 2J) of root-relative poses."""
        return root_relative(rows.unflatten(1, (-1, 2)), self.skeleton.root).flatten(1)
