"""The student: a graph network trained by rotation-equivariant cycles and the teacher's depth."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ites import ops
from ites.models.denoiser import Denoiser
from ites.models.layers import (
    MOMENTUM,
    BatchNormReLU,
    GraphLayer,
    GraphWeights,
    SemGraphConv,
    expect_poses,
    update_running,
)
from ites.models.mirror import mean_depth
from ites.models.passes import two_passes
from ites.models.prior import soft_clamp
from ites.pose import geometry
from ites.pose.skeleton import HUMAN36M, Skeleton, root_relative


class StudentLosses(NamedTuple):
    """The losses of one step, scalars; `prior` only in recipe "upright" and if enabled."""

    distillation: Tensor
    equivariance: Tensor
    prior: Tensor | None = None

    def total(self, distillation_weight: float = 5.0, prior_weight: float = 0.0) -> Tensor:
        """The objective.

        `distillation_weight * distillation + equivariance + prior_weight * prior`.
        """
        total = distillation_weight * self.distillation + self.equivariance
        return total if self.prior is None else total + prior_weight * self.prior


BlockWeights = tuple[GraphWeights, GraphWeights]


class Block(nn.Module):
    """Two graph layers and a skip, without ReLU after the sum."""

    def __init__(self, skeleton: Skeleton, width: int, backend: str | None = None) -> None:
        super().__init__()
        self.layer1 = GraphLayer(skeleton, width, backend)
        self.layer2 = GraphLayer(skeleton, width, backend)

    def join(self) -> BlockWeights:
        """The weights of both layers; see `GraphLayer.join`."""
        return self.layer1.join(), self.layer2.join()

    def forward(self, x: Tensor, weights: BlockWeights | None = None) -> Tensor:
        """(B, J, C) to (B, J, C)."""
        first, second = weights or self.join()
        return self.layer2(self.layer1(x, weights=first), skip=x, weights=second)


class Student(nn.Module):
    """Lifts 2D poses by predicting the depth of every joint.

    Args:
        skeleton: joints, edges and pooling pairs.
        width: C, channels.
        blocks: residual blocks of two graph layers.
        distance: c, the subject's distance from the networks' camera.
        backend: of the ops; None chooses the fastest.

    Source: paper, section "Equivariant Student"; docs/method.md, 4.
    """

    kind, recipe, upright = "student", "paper", False
    masks = False  # see `ites.models.Teacher.masks`
    view_momentum = MOMENTUM  # of BatchNorm's running statistics in the pass over the views

    def __init__(
        self,
        skeleton: Skeleton = HUMAN36M,
        width: int = 128,
        blocks: int = 4,
        distance: float = geometry.DISTANCE,
        backend: str | None = None,
    ) -> None:
        super().__init__()
        self.skeleton, self.distance, self.backend = skeleton, distance, backend
        self.input = SemGraphConv(skeleton, 2, width, backend)
        self.input_norm = BatchNormReLU(width, backend=backend)
        self.blocks = nn.ModuleList(Block(skeleton, width, backend) for _ in range(blocks))
        self.output = SemGraphConv(skeleton, width, 1, backend)
        self.norms = [module for module in self.modules() if isinstance(module, BatchNormReLU)]
        self.add_modules()

    def add_modules(self) -> None:
        """Create a recipe's additional modules."""

    def sizes(self) -> dict[str, int | float]:
        """The constructor arguments of this model, without the skeleton."""
        return {
            "width": self.input.bias.numel(),
            "blocks": len(self.blocks),
            "distance": self.distance,
            "upright": self.upright,
        }

    def layers(self) -> list[Any]:
        """All graph layers, or what folding made of them, in the order of a pass."""
        return [layer for block in self.blocks for layer in block.children()]

    def join(self) -> list[BlockWeights]:
        """The weights of all blocks; see `GraphLayer.join`."""
        layers = self.layers()
        if self.training:
            return _in_blocks(
                ops.join_graph_layers([layer.joined() for layer in layers], self.backend)
            )
        return _in_blocks([layer.join() for layer in layers])

    def forward(
        self,
        points: Tensor,
        weights: list[BlockWeights] | None = None,
        momentum: float = MOMENTUM,
    ) -> Tensor:
        """Depths (B, J, 1) of root-relative 2D poses (B, J, 2), network units.

        In training this is a pass: it uses its own batch statistics and moves the running
        statistics towards them by `momentum`. `weights` are the result of `join`, if available.
        """
        expect_poses(self, points, self.skeleton)
        x = self.input_norm(self.input(points))
        for block, own in zip(self.blocks, weights or self.join(), strict=True):
            x = block(x, own)
        if self.training:
            update_running(self.norms, momentum)
        return self.output(x)

    def clean(self, points: Tensor) -> Tensor:
        """Clean 2D poses (B, J, 2); here the identity."""
        expect_poses(self, points, self.skeleton)
        return points

    def depth(self, points: Tensor) -> Tensor:
        """Clean root-relative 2D poses (B, J, 2) and return their depths (B, J, 1)."""
        return self._depth_of(self.clean(points))

    def pose(self, points: Tensor) -> Tensor:
        """3D poses P (B, J, 3): `concat(points * max(d + distance, 1), d)`, network units.

        The points are cleaned here.
        """
        points = self.clean(points)
        return geometry.backproject(points, self._depth_of(points), self.distance)

    def _depth_of(self, points: Tensor) -> Tensor:
        """The depths of cleaned 2D poses."""
        return self(points)

    def losses(
        self,
        points: Tensor,
        teacher_depth: Tensor,
        rotations: ops.Rotations,
        prior: nn.Module | None = None,
    ) -> StudentLosses:
        """The losses of one step, in two passes through the network.

        Args:
            points: (B, J, 2), a batch of root-relative 2D poses.
            teacher_depth: (B, J, 1), the teacher's depths of the same poses.
            rotations: n rotations per pose; see `ites.ops.rotate_project`.
            prior: returns the negative log density of the rotated views; see `ites.models.Prior`.
        """
        weights = self.join()
        apart = [tensor for layer in self.layers() for tensor in layer.joined()]
        flat = [tensor for block in weights for layer in block for tensor in layer]
        (first, once), (second, again) = two_passes(self, *flat, without=apart)
        with first:
            depth = self(points, _grouped(once))
        pose = geometry.backproject(points, depth, self.distance)
        views, _ = ops.rotate_project(pose, rotations, self.distance, backend=self.backend)
        with second:
            lifted = self(views, _grouped(again), self.view_momentum)
        equivariance = ops.equivariance_distance(
            pose, views, lifted, rotations, self.distance, self.backend
        ).mean()
        distillation = (depth - teacher_depth).abs().mean()
        unlikely = None if prior is None else soft_clamp(prior(views)).mean()
        return StudentLosses(distillation, equivariance, unlikely)


def _in_blocks(layers: Sequence[GraphWeights]) -> list[BlockWeights]:
    """The weights of all layers, two per block."""
    return list(zip(layers[::2], layers[1::2], strict=True))


def _grouped(tensors: Sequence[Tensor]) -> list[BlockWeights]:
    """The weights of all blocks from their tensors in a row."""
    return _in_blocks([GraphWeights(*tensors[i : i + 3]) for i in range(0, len(tensors), 3)])


class UprightStudent(Student):
    """The student of recipe "upright".

    Depths are relative to the root. Turned views do not change BatchNorm's running statistics.
    The input is denoised before lifting.

    Args: see `Student`.
    """

    recipe, upright = "upright", True
    view_momentum = 0.0

    def add_modules(self) -> None:
        """Create the denoiser."""
        self.denoiser = Denoiser(self.skeleton)

    def forward(
        self,
        points: Tensor,
        weights: list[BlockWeights] | None = None,
        momentum: float = MOMENTUM,
    ) -> Tensor:
        """Depths (B, J, 1) relative to the root's; see `Student.forward`."""
        return root_relative(super().forward(points, weights, momentum), self.skeleton.root)

    def clean(self, points: Tensor) -> Tensor:
        """Denoise 2D poses (B, J, 2)."""
        expect_poses(self, points, self.skeleton)
        return self.denoiser(points)

    def _depth_of(self, points: Tensor) -> Tensor:
        """The depths of cleaned 2D poses, averaged with those of their mirror images."""
        return mean_depth(self, points, self.skeleton)

    @torch.no_grad()
    def take_statistics(self, points: Tensor) -> None:
        """Make BatchNorm's running statistics those of denoised poses (B, J, 2)."""
        self.train()
        self(points, momentum=1)
