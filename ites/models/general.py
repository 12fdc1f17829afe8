"""The teacher of recipe "general": one model for any camera, people of any size, missing joints.

A pose is first scaled by itself: the 2D lengths of its bones add up to a constant. So distance,
zoom and the image's size do not matter. A mask tells the network which joints are missing.

In training each camera's elevation is known, as a phone's gravity sensor tells it. The network
learns to estimate it, so lifting needs no sensor. Where two cameras see a person at the same time,
the two lifts must agree; how the cameras stand to each other is not known.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from ites import ops
from ites.models.disturb import disturb, uniform
from ites.models.layers import MOMENTUM, Linear, expect_poses, update_running
from ites.models.mirror import mirror_image, other_sides
from ites.models.prior import soft_clamp
from ites.models.sizes import TOTAL, own_scale
from ites.models.teacher import TeacherOutput, UprightTeacher, bone_spread
from ites.pose import geometry
from ites.pose.skeleton import root_relative

INPUT = 10.0
"""Factor of the network's input."""
NOISELESS, MOST_MOVED = 1.5 * 0.0068**2, 0.8
"""A squared distance between 2D poses and their reprojections, network units, below which the poses
are taken as exact: 1.5 times the mean of exact poses. The largest share of denoising."""


class GeneralLosses(NamedTuple):
    """The losses of one step of recipe "general", scalars."""

    reprojection: Tensor
    turn: Tensor
    prior: Tensor
    bones: Tensor
    elevation: Tensor
    pair: Tensor


class _Estimate(NamedTuple):
    """What is estimated of 2D poses, in their units: complete points (B, J, 2), depths (B, J, 1),
    elevations (B,), and the mean difference (B,) between the depths of a pose and of its mirror
    image."""

    points: Tensor
    depth: Tensor
    elevation: Tensor
    difference: Tensor


class GeneralTeacher(UprightTeacher):
    """The teacher of recipe "general".

    Points may be nan where a joint is missing; lifted poses are complete. They may have any size;
    depths are in their units.

    Args: see `Teacher`.
    """

    recipe, masks = "general", True
    shares: Tensor
    ends: Tensor
    mirror: Tensor

    def add_modules(self, width: int) -> None:
        """Create the elevation head, the inputs for missing joints and the direct depths."""
        super().add_modules(width)
        joints = self.skeleton.num_joints
        self.seen_input = Linear(joints, width, self.backend)
        self.direct_depth = Linear(width, joints, self.backend)
        bones = len(self.skeleton.bones)
        self.register_buffer("shares", torch.full((bones,), 1 / bones))
        self.register_buffer("ends", self.bones[:2].contiguous(), persistent=False)
        mirror = torch.tensor(self.skeleton.mirror)
        self.register_buffer("mirror", mirror, persistent=False)

    def reset_parameters(self) -> None:
        """Draw the initial values; depths start as the dictionary's."""
        super().reset_parameters()
        nn.init.zeros_(self.direct_depth.weight)

    def sizes(self) -> dict[str, int | float]:
        """The constructor arguments of this model, without the skeleton."""
        return super().sizes() | {"general": True}

    def trunk(self, points: Tensor, momentum: float = MOMENTUM) -> Tensor:
        """Features (B, W) of scaled 2D poses (B, J, 2), nan where a joint is missing."""
        expect_poses(self, points, self.skeleton)
        seen = points.isfinite().all(-1)
        there = points.where(seen[..., None], points.new_zeros(()))
        count = seen.sum(1, keepdim=True).clamp(min=1)[..., None]
        there = (there - there.sum(1, keepdim=True) / count) * seen[..., None]
        return self._features(INPUT * there.flatten(1), (~seen).to(points), momentum)

    def _features(self, there: Tensor, missing: Tensor, momentum: float) -> Tensor:
        marked = self.seen_input(missing, biased=False)
        x = self.input_norm.after(self.input, there, marked)
        for block in self.blocks:
            x = block(x)
        if self.training:
            update_running(self.norms, momentum)
        return x

    def forward(self, points: Tensor) -> TeacherOutput:
        """Lift 2D poses (B, J, 2), nan where a joint is missing, in their units.

        The depths of the camera's pose are those of the joints, which the network corrects; the
        mean with the mirror image's is `depth`.
        """
        points = self._estimate(points).points
        scale = own_scale(points, self.skeleton, self.shares)[:, None, None]
        features = self.trunk(points * scale)
        output = self._pose_of(features, torch.zeros_like(points))[0]
        xy = root_relative(output.camera_pose, self.skeleton.root)[..., :2]
        camera_pose = torch.cat([xy, self._depth(features, output.camera_pose)], -1)
        canonical, camera_pose = output.canonical / scale, camera_pose / scale
        return output._replace(canonical=canonical, camera_pose=camera_pose)

    def _flipped(self) -> list[tuple[Tensor, object]]:
        own = (self.direct_depth.weight, self.direct_depth.bias)
        return super()._flipped() + [(parameter, slice(None)) for parameter in own]

    def clean(self, points: Tensor) -> Tensor:
        """2D poses (B, J, 2), root-relative and denoised; missing joints are the network's."""
        return self._estimate(points).points

    def depth(self, points: Tensor) -> Tensor:
        """Camera-frame depths (B, J, 1) of 2D poses (B, J, 2)."""
        return self._estimate(points).depth

    def pose(self, points: Tensor) -> Tensor:
        """3D poses (B, J, 3) of 2D poses (B, J, 2): `backproject(points, depth)`."""
        expect_poses(self, points, self.skeleton)
        if not self.training and ops.fuses_mirrored(points, self.backend):
            return self._pose_fused(points)
        points, depth, *_ = self._estimate(points)
        return geometry.backproject(points, depth, self.distance)

    def _pose_fused(self, points: Tensor) -> Tensor:
        """`pose` with one launch before and one after each pass through the network."""
        complete, depth, pose = self._pose_once_fused(points)
        if not _recording() and points.isfinite().all():
            return pose
        return self._pose_once_fused(complete, points, depth)[2]

    def _pose_once_fused(
        self, points: Tensor, original: Tensor | None = None, depth: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        there, missing, scales = ops.mirrored_input(
            points, self.shares, self.ends, self.mirror, TOTAL, INPUT
        )
        features = self._features(there.flatten(1), missing, MOMENTUM)
        camera_pose = self._pose_of(features, there)[0].camera_pose
        return ops.mirrored_output(
            points,
            scales,
            camera_pose,
            self.direct_depth(features),
            self.mirror,
            self.skeleton.root,
            self.distance,
            NOISELESS,
            MOST_MOVED,
            original=original,
            depth=depth,
        )

    def elevation(self, points: Tensor) -> Tensor:
        """The camera's elevation per 2D pose (B, J, 2): (B,), radians, positive looking down."""
        return self._estimate(points).elevation

    def difference(self, points: Tensor) -> Tensor:
        """How far depths of poses (B, J, 2) and of their mirror images differ: (B,), in their
        units."""
        return self._estimate(points).difference

    def _estimate(self, points: Tensor) -> _Estimate:
        """Estimate from 2D poses (B, J, 2); those with missing joints once more when complete."""
        first = self._estimate_once(points)
        missing = ~points.isfinite().flatten(1).all(1)
        if not _recording() and not missing.any():
            return first
        second = self._estimate_once(first.points)
        return _Estimate(
            first.points,
            torch.where(missing[:, None, None], second.depth, first.depth),
            torch.where(missing, second.elevation, first.elevation),
            torch.where(missing, second.difference, first.difference),
        )

    def _estimate_once(self, points: Tensor) -> _Estimate:
        """The means of the estimates from 2D poses (B, J, 2) and from their mirror images."""
        expect_poses(self, points, self.skeleton)
        scale = own_scale(points, self.skeleton, self.shares)[:, None, None]
        whole = points.isfinite().all(-1, keepdim=True)
        scaled = (points * scale).where(whole, torch.nan)
        both = torch.cat([scaled, mirror_image(scaled, self.skeleton)])
        depth, flat, elevation = self._lifted(self.trunk(both))
        (d1, d2), (p1, p2) = depth.unflatten(0, (2, -1)), flat.unflatten(0, (2, -1))
        d2 = other_sides(d2, self.skeleton)
        difference = (d1 - d2).abs().mean((1, 2)) / scale[:, 0, 0]
        depth = (d1 + d2) / 2
        guess = (p1 + mirror_image(p2, self.skeleton)) / 2
        complete = self._denoised(self._complete(scaled, guess), guess, scaled.isfinite())
        elevation = elevation.view(2, -1).mean(0)
        return _Estimate(complete / scale, depth / scale, elevation, difference)

    def _complete(self, points: Tensor, guess: Tensor) -> Tensor:
        """2D poses (B, J, 2), where joints are missing those of `guess`; root-relative.

        Where the root itself is missing, the guess is moved to the joints that are seen.
        """
        seen = points.isfinite()
        count = seen.sum(1, keepdim=True).clamp(min=1)
        away = (points - guess).nan_to_num().sum(1, keepdim=True) / count
        root = seen[:, self.skeleton.root, None]
        anchor = points[:, self.skeleton.root, None] - guess[:, self.skeleton.root, None]
        points = torch.where(seen, points, guess + torch.where(root, anchor, away))
        return root_relative(points, self.skeleton.root)

    def _denoised(self, points: Tensor, guess: Tensor, seen: Tensor) -> Tensor:
        """Move 2D poses (B, J, 2) towards the network's `guess` where they are noisy.

        With the mean squared distance r^2 of the joints that are `seen`, the share is
        `1 - NOISELESS / r^2` within [0, `MOST_MOVED`]: noise exceeds what exact poses leave.
        """
        away = (guess - points).where(seen, points.new_zeros(()))
        count = seen.all(-1).sum(1).clamp(min=1)
        square = (away.square().sum((1, 2)) / count).clamp(min=1e-12)
        share = (1 - NOISELESS / square).clamp(0.0, MOST_MOVED)[:, None, None]
        return root_relative(points + share * away, self.skeleton.root)

    def _lifted(self, features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Depths, reprojections and elevations of features (B, W)."""
        flat = features.new_zeros(features.shape[0], self.skeleton.num_joints, 2)
        camera_pose = self._pose_of(features, flat)[0].camera_pose
        depth = self._depth(features, camera_pose)
        flat = root_relative(geometry.project(camera_pose, self.distance), self.skeleton.root)
        return depth, flat, self._elevation(features)

    def _depth(self, features: Tensor, camera_pose: Tensor) -> Tensor:
        depth = camera_pose[..., 2:] + self.direct_depth(features)[..., None]
        return root_relative(depth, self.skeleton.root)

    def general_losses(
        self,
        points: Tensor,
        elevation: Tensor,
        counter: Tensor,
        prior: nn.Module,
        noise: float = 1.0,
        pairs: Tensor | None = None,
    ) -> GeneralLosses:
        """The losses of one step, in two passes through the network.

        The network sees disturbed poses; the losses compare with the exact ones. The lifted pose is
        turned about the true vertical and seen by the camera of another pose of the batch, whose
        elevation e' is known: `X' = X @ Rx(e) @ Ry(a) @ Rx(-e')`.

        Args:
            points: (B, J, 2), a batch of exact 2D poses, root-relative, the camera not rolled.
            elevation: (B,), known, radians.
            counter: see `ites.ops.TurnDraw`.
            prior: returns the negative log density of views at elevations.
            noise: factor of the detectors' noise.
            pairs: (H,) bool, H = B // 2: which poses i and H + i are two views of one person; None:
                none.
        """
        half = uniform(counter, 0, len(points), 2)
        mirrored = half[:, 0] < 0.5
        if pairs is not None:
            first, second, rest = _halves(mirrored)
            mirrored = torch.cat([first, torch.where(pairs, first, second), rest])
        points = torch.where(mirrored[:, None, None], mirror_image(points, self.skeleton), points)
        error, depth, guessed, scale = self._try(points, counter, 1, noise)
        pose = geometry.backproject(points * scale, depth, self.distance)
        others = elevation.roll(1)
        turn = _turn(elevation, 2 * torch.pi * half[:, 1], others)
        views, turned = ops.rotate_project(
            pose, turn, self.distance, with_rotated=True, backend=self.backend
        )
        assert turned is not None
        view_error, depth, view_guessed, scale = self._try(views, counter, 3, noise, momentum=0)
        again = geometry.backproject(views, depth / scale, self.distance)
        away = (guessed - elevation).abs().mean() + (view_guessed - others).abs().mean()
        return GeneralLosses(
            error + view_error,
            torch.linalg.vector_norm(again - turned, dim=-1).mean(),
            soft_clamp(prior(views, others)).mean(),
            bone_spread(pose, self.bones),
            away,
            points.new_zeros(()) if pairs is None else self._pair(pose, points, elevation, pairs),
        )

    def _pair(self, pose: Tensor, points: Tensor, elevation: Tensor, pairs: Tensor) -> Tensor:
        """How far the lifts of two views of one person contradict each other.

        Each lifted pose is turned about the true vertical until it best fits the other one, in
        closed form, and seen at the other elevation. The loss is the mean distance to the 2D pose
        that the other camera saw, plus that between the two poses in 3D; each pose has its own
        scale.

        Args:
            pose: (B, J, 3), lifted.
            points: (B, J, 2), exact, at their own scale.
            elevation: (B,).
            pairs: see `general_losses`.
        """
        e1, e2, _ = _halves(elevation)
        there, known = _swapped(pose), _swapped(points)
        pose, elevation = pose[: 2 * len(pairs)], torch.cat([e1, e2])
        with torch.no_grad():
            upright = pose @ _about_x(elevation)
            (x1, _, z1), (x2, _, z2) = (
                part.unbind(-1) for part in (upright - upright.mean(1, keepdim=True)).chunk(2)
            )
            azimuth = torch.atan2((x1 * z2 - z1 * x2).sum(1), (x1 * x2 + z1 * z2).sum(1))
        turn = _turn(elevation, torch.cat([azimuth, -azimuth]), torch.cat([e2, e1]))
        seen, turned = ops.rotate_project(
            pose, turn, self.distance, with_rotated=True, backend=self.backend
        )
        assert turned is not None
        error = self._between(root_relative(seen, self.skeleton.root), known)
        error = error + self._between(turned, there)
        weight = pairs.repeat(2).to(error)
        return (error * weight).sum() / weight.sum().clamp(min=1)

    def _between(self, first: Tensor, second: Tensor) -> Tensor:
        """The mean distance (B,) between joints of poses (B, J, 2 or 3), each at its own scale."""
        scaled = [x * own_scale(x, self.skeleton)[:, None, None] for x in (first, second)]
        return torch.linalg.vector_norm(scaled[0] - scaled[1], dim=-1).mean(1)

    def _try(
        self,
        points: Tensor,
        counter: Tensor,
        stream: int,
        noise: float,
        momentum: float = MOMENTUM,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Lift exact 2D poses (B, J, 2), disturbed.

        Returns:
            The mean reprojection error against the exact poses; depths (B, J, 1) in units of the
            scaled poses; elevations (B,); the scale (B, 1, 1).
        """
        exact = points.detach()
        scale = own_scale(exact, self.skeleton)[:, None, None]
        disturbed, seen = disturb(exact * scale, counter, stream, noise)
        disturbed = disturbed.where(seen[..., None], torch.nan)
        again = own_scale(disturbed, self.skeleton, self.shares)[:, None, None]
        scale = scale * again
        features = self.trunk(disturbed * again, momentum)
        output, error = self._pose_of(features, exact * scale)
        depth = self._depth(features, output.camera_pose)
        return error.mean(), depth, self._elevation(features), scale

    @torch.no_grad()
    def take_statistics(self, points: Tensor) -> None:
        """Make BatchNorm's running statistics those of exact poses (B, J, 2), disturbed."""
        self.train()
        scale = own_scale(points, self.skeleton)[:, None, None]
        counter = torch.tensor([0, 1 << 50, 0], device=points.device)
        disturbed, seen = disturb(points * scale, counter, 1)
        disturbed = disturbed.where(seen[..., None], torch.nan)
        again = own_scale(disturbed, self.skeleton, self.shares)[:, None, None]
        self.trunk(disturbed * again, momentum=1)


def _recording() -> bool:
    """Whether the computation is being recorded, so that no branch may depend on numbers."""
    if torch.compiler.is_compiling():
        return True
    return torch.cuda.is_available() and torch.cuda.is_current_stream_capturing()


def _halves(rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The first and the second half of B rows, and the odd last one, if there is one."""
    half = len(rows) // 2
    return rows[:half], rows[half : 2 * half], rows[2 * half :]


def _swapped(rows: Tensor) -> Tensor:
    """B rows with their halves exchanged, without the odd last one."""
    first, second, _ = _halves(rows)
    return torch.cat([second, first])


def _turn(elevation: Tensor, azimuth: Tensor, other: Tensor) -> Tensor:
    """`Rx(elevation) @ Ry(azimuth) @ Rx(-other)`, (B, 3, 3)."""
    return _about_x(elevation) @ _about_y(azimuth) @ _about_x(-other)


def _about_x(angle: Tensor) -> Tensor:
    c, s = angle.cos(), angle.sin()
    o, i = torch.zeros_like(c), torch.ones_like(c)
    return torch.stack([i, o, o, o, c, -s, o, s, c], -1).unflatten(-1, (3, 3))


def _about_y(angle: Tensor) -> Tensor:
    c, s = angle.cos(), angle.sin()
    o, i = torch.zeros_like(c), torch.ones_like(c)
    return torch.stack([c, o, s, o, i, o, -s, o, c], -1).unflatten(-1, (3, 3))
