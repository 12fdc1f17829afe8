"""The teacher: a pose dictionary trained by rotation-invariant cycles."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ites import ops
from ites.models.denoiser import Denoiser
from ites.models.layers import (
    MOMENTUM,
    BatchNormReLU,
    Chain,
    Linear,
    expect_poses,
    update_running,
)
from ites.models.mirror import mean_depth, mirror_image
from ites.models.passes import two_passes
from ites.models.prior import soft_clamp
from ites.ops import WeightFactors
from ites.pose import geometry
from ites.pose.skeleton import HUMAN36M, Skeleton, root_relative


class TeacherOutput(NamedTuple):
    """The teacher's output for B poses; network units, conventions of `ites.pose.geometry`.

    coefficients (B, K); rotation_vector (B, 3), radians; canonical (B, J, 3), the pose in the
    dictionary's frame; camera_pose (B, J, 3), the same in the camera's frame.
    """

    coefficients: Tensor
    rotation_vector: Tensor
    canonical: Tensor
    camera_pose: Tensor


class TeacherLosses(NamedTuple):
    """The losses of one step, scalars."""

    reprojection: Tensor
    cycle: Tensor

    def total(self, reprojection_weight: float = 5.0) -> Tensor:
        """The objective: `reprojection_weight * reprojection + cycle`."""
        return reprojection_weight * self.reprojection + self.cycle


class TurnLosses(NamedTuple):
    """The losses of one step of recipe "upright", scalars."""

    reprojection: Tensor
    turn: Tensor
    prior: Tensor
    bones: Tensor
    start_elevation: Tensor


class Block(nn.Module):
    """W -> W/4 -> W/4 -> W, linear and batch-normalised; ReLU follows the sum with the input."""

    def __init__(self, width: int, backend: str | None = None) -> None:
        super().__init__()
        inner = width // 4
        self.linear1 = Linear(width, inner, backend)
        self.norm1 = BatchNormReLU(inner, backend=backend)
        self.linear2 = Linear(inner, inner, backend)
        self.norm2 = BatchNormReLU(inner, backend=backend)
        self.linear3 = Linear(inner, width, backend)
        self.norm3 = BatchNormReLU(width, backend=backend)

    def forward(self, x: Tensor) -> Tensor:
        """(B, W) to (B, W)."""
        y, x = self.norm1.after_keeping(self.linear1, x)
        y = self.norm2.after(self.linear2, y)
        return self.norm3.after(self.linear3, y, skip=x)

    def layers(self, skip: int) -> list[tuple[Linear, BatchNormReLU, int]]:
        """The layers as a part of a `Chain`, whose layer `skip` gives the block's input."""
        return [
            (self.linear1, self.norm1, -1),
            (self.linear2, self.norm2, -1),
            (self.linear3, self.norm3, skip),
        ]


ELEVATION_LIMIT = 1.0  # largest difference in radians between an elevation and the start elevation


def spread_of(elevation: Tensor) -> Tensor:
    """Mean and standard deviation (2,) of elevations (B,), without gradient."""
    elevation = elevation.detach()
    return torch.stack([elevation.mean(), elevation.std(correction=0)])


def bones_of(skeleton: Skeleton) -> list[list[int]]:
    """The two joints of each bone, and the index of its mirrored bone."""
    bones = [(child, parent) for child, parent in enumerate(skeleton.parents) if parent >= 0]
    place = {child: index for index, (child, _) in enumerate(bones)}
    children, parents = zip(*bones, strict=True)
    return [list(children), list(parents), [place[skeleton.mirror[child]] for child in children]]


def bone_spread(pose: Tensor, bones: Tensor) -> Tensor:
    """Mean deviation of the proportions of 3D poses (B, J, 3) from the batch's mean body.

    `mean |s - m|`: s are a pose's bone lengths divided by their mean. m is the mean of s over the
    batch and over left and right. The gradient also flows through m.

    Args:
        pose: (B, J, 3), any unit.
        bones: see `bones_of`.

    Source: ElePose, CVPR 2022, relative bone lengths; here learned, not given.
    """
    children, parents, others = bones
    lengths = torch.linalg.vector_norm(pose[:, children] - pose[:, parents], dim=-1)
    share = lengths / lengths.mean(1, keepdim=True)
    body = share.mean(0)
    return (share - (body + body[others]) / 2).abs().mean()


class Teacher(nn.Module):
    """Lifts 2D poses to a learned dictionary of 3D poses and a camera rotation.

    Args:
        skeleton: joints J and their root.
        width: W of the trunk.
        blocks: L, residual blocks.
        atoms: K, dictionary atoms.
        distance: c, the subject's distance from the networks' camera.
        backend: of the ops; None chooses the fastest.

    Source: paper, section "Invariant Teacher"; docs/method.md, 3.
    """

    kind, recipe, upright = "teacher", "paper", False
    masks = False
    """Whether points may be nan where a joint is missing."""
    factors: WeightFactors | None = None
    """Collects the factors of the trunk's weight gradients; see `ites.models.passes`."""

    def __init__(
        self,
        skeleton: Skeleton = HUMAN36M,
        width: int = 1024,
        blocks: int = 6,
        atoms: int = 12,
        distance: float = geometry.DISTANCE,
        backend: str | None = None,
    ) -> None:
        super().__init__()
        self.skeleton, self.distance, self.backend = skeleton, distance, backend
        joints = skeleton.num_joints
        self.input = Linear(2 * joints, width, backend)
        self.input_norm = BatchNormReLU(width, backend=backend)
        self.blocks = nn.ModuleList(Block(width, backend) for _ in range(blocks))
        self.coefficients = Linear(width, atoms, backend)
        self.rotation_vector = Linear(width, 3, backend)
        self.add_modules(width)
        self.dictionary = nn.Parameter(torch.empty(atoms, 3 * joints))
        self.mean_pose = nn.Parameter(torch.empty(3 * joints))
        self.norms = [module for module in self.modules() if isinstance(module, BatchNormReLU)]
        self.reset_parameters()

    def add_modules(self, width: int) -> None:
        """Create a recipe's additional modules; called before the weights are drawn."""

    def reset_parameters(self) -> None:
        """Draw the initial values of docs/method.md, 3.5."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.01)
                nn.init.zeros_(module.bias)
            elif isinstance(module, BatchNormReLU):
                nn.init.uniform_(module.weight)
                nn.init.zeros_(module.bias)
        nn.init.normal_(self.dictionary, std=0.01)
        nn.init.zeros_(self.mean_pose)

    def sizes(self) -> dict[str, int | float]:
        """The constructor arguments of this model, without the skeleton."""
        return {
            "width": self.input.out_features,
            "blocks": len(self.blocks),
            "atoms": len(self.dictionary),
            "distance": self.distance,
            "upright": self.upright,
        }

    def trunk(self, points: Tensor, momentum: float = MOMENTUM) -> Tensor:
        """Features (B, W) of 2D poses (B, J, 2).

        In training this is a pass: it uses its own batch statistics and moves the running
        statistics towards them by `momentum`.
        """
        expect_poses(self, points, self.skeleton)
        x = points.flatten(1)
        if self.training and self.chain().runs_at_once(x):
            x = self.chain()(x, momentum, self.factors)
        else:
            x = self.input_norm.after(self.input, x)
            for block in self.blocks:
                x = block(x)
        if self.training:
            update_running(self.norms, momentum)
        return x

    def chain(self) -> Chain:
        """The layers of the trunk in their order."""
        layers = [(self.input, self.input_norm, -1)]
        for block in self.blocks:
            assert isinstance(block, Block)
            layers.extend(block.layers(len(layers) - 1))
        return Chain(layers)

    def forward(self, points: Tensor) -> TeacherOutput:
        """Clean and lift 2D poses (B, J, 2), network units."""
        return self._lift(self.clean(points))[0]

    def depth(self, points: Tensor) -> Tensor:
        """Camera-frame depths (B, J, 1) of 2D poses (B, J, 2): the student's labels."""
        return self._depth_of(self.clean(points))

    def clean(self, points: Tensor) -> Tensor:
        """Clean 2D poses (B, J, 2): make them relative to the root."""
        expect_poses(self, points, self.skeleton)
        return self._centre(points)

    def pose(self, points: Tensor) -> Tensor:
        """3D poses (B, J, 3) for evaluation: the cleaned points at the teacher's depths.

        `concat(points * (distance + d), d)` with an unclamped factor. Source: docs/method.md, 5.1.
        """
        points = self.clean(points)
        depth = self._depth_of(points)
        return torch.cat([points * (self.distance + depth), depth], dim=-1)

    def _depth_of(self, points: Tensor) -> Tensor:
        """The depths of cleaned 2D poses."""
        features = self.trunk(points)
        return self._depth(features, self._pose_of(features, points)[0].camera_pose)

    def losses(self, points: Tensor, rotations: ops.Rotations, centre_cycle: bool) -> TeacherLosses:
        """The losses of one step, in two passes through the network.

        Args:
            points: (B, J, 2), a batch of 2D poses.
            rotations: n rotations per pose; see `ites.ops.rotate_project`.
            centre_cycle: whether the cycle's canonical pose is centred on the root, as in the first
                15 epochs.
        """
        (first, _), (second, _) = two_passes(self)
        with first:
            output, error = self._lift(self._centre(points))
        start = output.canonical
        if centre_cycle:
            start = root_relative(start, self.skeleton.root)
        views, _ = ops.rotate_project(start, rotations, self.distance, backend=self.backend)
        with second:
            again = self.coefficients(self.trunk(views))
            cycle = ops.invariance_distance(
                again, self.dictionary, self.mean_pose, start, self.backend
            ).mean()
        return TeacherLosses(error.mean(), cycle)

    def _depth(self, features: Tensor, camera_pose: Tensor) -> Tensor:
        """The joints' depths (B, J, 1) of features (B, W) and the dictionary's pose (B, J, 3)."""
        return camera_pose[..., 2:]

    def _centre(self, points: Tensor) -> Tensor:
        return root_relative(points, self.skeleton.root)

    def _lift(self, points: Tensor) -> tuple[TeacherOutput, Tensor]:
        return self._pose_of(self.trunk(points), points)

    def _pose_of(self, features: Tensor, points: Tensor) -> tuple[TeacherOutput, Tensor]:
        coefficients, w = self.coefficients(features), self.rotation_vector(features)
        error, canonical, camera_pose = ops.dictionary_reprojection(
            coefficients,
            self.dictionary,
            self.mean_pose,
            w,
            points,
            self.distance,
            self.backend,
        )
        return TeacherOutput(coefficients, w, canonical, camera_pose), error


class UprightTeacher(Teacher):
    """The teacher of recipe "upright", which also estimates the elevation of the camera.

    Elevations are relative to `start_elevation` (), radians. Depths are relative to the root.
    The input is denoised before lifting.

    Args: see `Teacher`.
    """

    recipe, upright = "upright", True
    bones: Tensor
    start_elevation: Tensor

    def add_modules(self, width: int) -> None:
        """Create the elevation head, its start value, the denoiser and the bone table."""
        self.elevation_angle = Linear(width, 1, self.backend)
        self.register_buffer("start_elevation", torch.zeros(()))
        self.denoiser = Denoiser(self.skeleton)
        bones = torch.tensor(bones_of(self.skeleton))
        self.register_buffer("bones", bones, persistent=False)

    def elevation(self, points: Tensor) -> Tensor:
        """The camera's elevation per 2D pose (B, J, 2): (B,), radians, positive looking down.

        The estimates from the pose and from its mirror image are averaged.
        """
        points = self.clean(points)
        both = torch.cat([points, mirror_image(points, self.skeleton)])
        return self._elevation(self.trunk(both)).view(2, -1).mean(0)

    def clean(self, points: Tensor) -> Tensor:
        """Clean 2D poses (B, J, 2): denoise them and make them relative to the root."""
        expect_poses(self, points, self.skeleton)
        return self.denoiser(points)

    def _depth_of(self, points: Tensor) -> Tensor:
        """The depths of cleaned 2D poses, averaged with those of their mirror images."""
        return mean_depth(super()._depth_of, points, self.skeleton)

    def turn_losses(
        self, points: Tensor, counter: Tensor, samples: int, prior: nn.Module
    ) -> TurnLosses:
        """The losses of one step of recipe "upright", in two passes through the network.

        Each lifted pose is turned about the true vertical and projected into a camera whose
        elevation is drawn from the batch's distribution. The view is lifted again. The losses
        compare this lift with the turned pose and penalise views that are unlikely by the prior.

        Args:
            points: (B, J, 2), a batch of 2D poses, denoised.
            counter, samples: see `ites.ops.TurnDraw`.
            prior: returns the negative log density of the views; see `ites.models.Prior`.

        Source: ElePose, CVPR 2022, section 3; docs/method.md, 7.4.
        """
        points = self._centre(points)
        (first, _), (second, _) = two_passes(self)
        with first:
            features = self.trunk(points)
            output, error = self._pose_of(features, points)
            elevation = self._elevation(features)
        depth = self._depth(features, output.camera_pose)
        pose = geometry.backproject(points, depth, self.distance)
        turns = ops.TurnDraw(counter, elevation, spread_of(elevation), samples)
        views, _ = ops.rotate_project(pose, turns, self.distance, backend=self.backend)
        with second:
            features = self.trunk(views, momentum=0)
            again, view_error = self._pose_of(features, views.detach())
            depth = self._depth(features, again.camera_pose)
        turn = ops.equivariance_distance(
            pose, views, depth, turns, self.distance, self.backend
        ).mean()
        reprojection, unlikely = error.mean() + view_error.mean(), soft_clamp(prior(views)).mean()
        bones = bone_spread(pose, self.bones)
        level = (elevation - self.start_elevation).square().mean()
        return TurnLosses(reprojection, turn, unlikely, bones, level)

    @torch.no_grad()
    def flip(self, momenta: Callable[[Tensor], Iterable[Tensor]] = lambda _: ()) -> None:
        """Negate all depths and elevations that the teacher predicts, exactly.

        Args:
            momenta: returns a parameter's optimiser buffers that have the gradient's sign.
        """
        self.start_elevation.neg_()
        for parameter, place in self._flipped():
            for tensor in (parameter, *momenta(parameter)):
                tensor[place].neg_()  # type: ignore[index]

    def _flipped(self) -> list[tuple[Tensor, object]]:
        """What `flip` negates: parameters, and the part of each."""
        every, depths = slice(None), slice(2, None, 3)
        turned = slice(0, 2)  # a rotation vector is an axial vector under reflection
        return [
            (self.dictionary, (every, depths)),
            (self.mean_pose, depths),
            (self.rotation_vector.weight, turned),
            (self.rotation_vector.bias, turned),
            (self.elevation_angle.weight, every),
            (self.elevation_angle.bias, every),
        ]

    @torch.no_grad()
    def flip_helps(self, points: Tensor, prior: nn.Module) -> bool:
        """Whether turned views of the lifted poses are more likely with all depths negated.

        Turned about the vertical, a pose and its depth-flipped twin show nearly the same views if
        the camera looks up instead of down. Only perspective distinguishes the two over all poses:
        near limbs look larger.

        Args:
            points: (B, J, 2), a sample of the training poses, denoised.
            prior: see `turn_losses`.
        """
        training = self.training
        self.eval()
        points = self._centre(points)
        features = self.trunk(points)
        depth = self._depth(features, self._pose_of(features, points)[0].camera_pose)
        elevation = self._elevation(features)
        self.train(training)
        counter = torch.zeros(3, dtype=torch.int64, device=points.device)
        unlikely = []
        for sign in (1, -1):
            pose = geometry.backproject(points, sign * depth, self.distance)
            turns = ops.TurnDraw(counter, sign * elevation, sign * spread_of(elevation), 4)
            views, _ = ops.rotate_project(pose, turns, self.distance, backend=self.backend)
            unlikely.append(soft_clamp(prior(views)).mean())
        return bool(unlikely[1] < unlikely[0])

    @torch.no_grad()
    def take_statistics(self, points: Tensor) -> None:
        """Make BatchNorm's running statistics those of denoised poses (B, J, 2)."""
        self.train()
        self.trunk(self._centre(points), momentum=1)

    def _elevation(self, features: Tensor) -> Tensor:
        away = ELEVATION_LIMIT * torch.tanh(self.elevation_angle(features).squeeze(-1))
        return self.start_elevation + away

    def _depth(self, features: Tensor, camera_pose: Tensor) -> Tensor:
        return root_relative(camera_pose[..., 2:], self.skeleton.root)
