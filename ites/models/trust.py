"""The confidence in a lifted pose, for runs of recipes "upright" and "general".

A pose with the right depths still looks human when it is turned about the true vertical. A pose
with wrong depths leans and bends unnaturally. The prior, a density of 2D poses, distinguishes the
two. It thus rates a lifted pose and the sign of its depth.

The odds of the sign are learned from 2D alone. Training poses that the teacher has lifted are
turned, projected and lifted again. The depths of these views are known, so the fit relates the
density to the frequency of right signs. The student's odds use the teacher's views too.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ites import ops
from ites.models.general import GeneralTeacher
from ites.models.prior import DENSITY_LIMIT, Prior, soft_clamp
from ites.models.teacher import UprightTeacher, spread_of
from ites.pose import geometry
from ites.pose.metrics import p_mpjpe, pose_errors
from ites.pose.skeleton import Skeleton

VIEWS = 4
"""Number of views around a pose; 16 views give no more information on its error."""
BATCH = 2048
"""Poses per batch."""
RIDGE = 1e-9
"""Added to the curvature in the fit of the odds, so that it is never singular."""
SIGNS = 4
"""The number of predictors of a pose's error; see `Trust.signs_of_error`."""
CALIBRATION = 4096, 4
"""Training poses, and views per pose, for the fit of the odds."""


class Judgement(NamedTuple):
    """The confidence measures of N poses; arrays (N,) float32.

    elevation: the camera's downward angle, radians. log_density: mean over the views of the turned
    pose, nats. sign_confidence: the probability that the depth's sign is right. expected_error: of
    the joints after the optimal similarity, as a share of the summed length of the bones; None
    if the run does not estimate it.
    """

    elevation: NDArray[np.float32]
    log_density: NDArray[np.float32]
    sign_confidence: NDArray[np.float32]
    expected_error: NDArray[np.float32] | None = None


class Odds(NamedTuple):
    """The log odds that the depth's sign is right: `bias + slope * log_density`.

    error: weights of the logarithm of the expected error, see `Trust.signs_of_error`; () if the
    run does not estimate it.
    """

    bias: float
    slope: float
    error: tuple[float, ...] = ()


class Trust:
    """Rates lifted poses.

    Args:
        teacher: of recipe "upright" or "general"; it predicts the camera's elevation.
        prior: the density of views.
        odds: of the sign, by the density.
    """

    def __init__(self, teacher: UprightTeacher, prior: Prior, odds: Odds) -> None:
        self.teacher, self.prior, self.odds = teacher.float(), prior.float(), odds

    @torch.inference_mode()
    def __call__(
        self, points: NDArray[np.float32], poses: NDArray[np.float32], device: torch.device | str
    ) -> Judgement:
        """Rate poses.

        Args:
            points: (N, J, 2), the network's input, root-relative.
            poses: (N, J, 3), lifted from it, network units, root-relative.
            device: the models' device.
        """
        flat, depths = torch.from_numpy(points), torch.from_numpy(poses[..., 2:])
        parts = [
            self.judge(a.to(device), b.to(device))
            for a, b in zip(flat.split(BATCH), depths.split(BATCH), strict=True)
        ]
        elevation, density = (torch.cat(column).cpu() for column in zip(*parts, strict=True))
        confidence = torch.sigmoid(self.odds.bias + self.odds.slope * density)
        judged = Judgement(elevation.numpy(), density.numpy(), confidence.numpy())
        if not self.odds.error:
            return judged
        weights = torch.tensor(self.odds.error)
        errors = [
            (self.signs_of_error(a.to(device), b.to(device), c.to(device)).cpu() @ weights).exp()
            for a, b, c in zip(
                flat.split(BATCH), depths.split(BATCH), density.split(BATCH), strict=True
            )
        ]
        return judged._replace(expected_error=torch.cat(errors).numpy())

    def signs_of_error(self, points: Tensor, depth: Tensor, density: Tensor) -> Tensor:
        """The predictors of the error of poses, (B, `SIGNS`): points (B, J, 2) at depths (B, J, 1).

        1; the log density; the logarithm of the difference to the mirror image's lift, over the
        summed length of the bones; the share of missing joints.
        """
        assert isinstance(self.teacher, GeneralTeacher)
        seen = points.isfinite().all(-1)
        pose = geometry.backproject(self.teacher.clean(points), depth, self.teacher.distance)
        share = self.teacher.difference(points) / body_length(pose, self.teacher.skeleton)
        return torch.stack(
            [
                torch.ones_like(density),
                density.clamp(min=-DENSITY_LIMIT) / 10,
                share.clamp(min=1e-4).log(),
                (~seen).float().mean(1),
            ],
            dim=1,
        )

    @torch.inference_mode()
    def fit_error(
        self, lift: Callable[[Tensor], Tensor], first: Tensor, second: Tensor
    ) -> tuple[float, ...]:
        """Fit the weights of the expected error to people whom two cameras see at the same time.

        Two lifts of one person differ by both their errors. If these are independent and equally
        large, each is the difference over the square root of 2.

        Args:
            lift: a model's `depth`: points (B, J, 2) to (B, J, 1).
            first, second: (N, J, 2), 2D poses of the same people by two cameras, as a detector sees
                them; nan where a joint is missing.

        Returns:
            The weights of `signs_of_error`; their mean error is that of the pairs.
        """
        signs, poses = [], []
        for points in (first, second):
            depth = lift(points)
            _, density = self.judge(points, depth)
            signs.append(self.signs_of_error(points, depth, density))
            whole = self.teacher.clean(points)
            pose = geometry.backproject(whole, depth, self.teacher.distance)
            poses.append(pose / body_length(pose, self.teacher.skeleton)[:, None, None])
        apart = p_mpjpe(poses[0].double(), poses[1].double()) / math.sqrt(2)
        rows, target = torch.cat(signs).double(), apart.clamp(min=1e-6).log().repeat(2)
        ridge = 1e-3 * torch.eye(rows.shape[1], dtype=rows.dtype, device=rows.device)
        weights = torch.linalg.solve(rows.T @ rows + ridge, rows.T @ target)
        weights[0] += (apart.mean() / (rows @ weights).exp().mean()).log()
        return tuple(weights.tolist())

    def judge(self, points: Tensor, depth: Tensor) -> tuple[Tensor, Tensor]:
        """The camera's elevation and the log density (B,) of poses: points (B, J, 2) at depths.

        `- mean over k of soft_clamp(prior(project(X @ Rx(e) @ Ry(a_k) @ Rx(-e))))` with
        `a_k = 2 pi (k + 1/2) / VIEWS`: the camera goes around the person.
        """
        elevation = self.teacher.elevation(points)
        pose = geometry.backproject(self.teacher.clean(points), depth, self.teacher.distance)
        down = geometry.so3_exp(torch.nn.functional.pad(elevation[:, None], (0, 2)))  # Rx(e)
        density = torch.zeros_like(elevation)
        for k in range(VIEWS):
            azimuth = elevation.new_tensor([0, 2 * torch.pi * (k + 0.5) / VIEWS, 0])
            turned = pose @ (down @ geometry.so3_exp(azimuth) @ down.mT)
            view = geometry.project(turned, self.teacher.distance)
            density -= soft_clamp(self.prior.at(view, elevation))
        return elevation, density / VIEWS

    @torch.inference_mode()
    def fit(self, lift: Callable[[Tensor], Tensor], points: Tensor, samples: int) -> Odds:
        """Fit the odds to turned views, whose depths are known, by Platt scaling.

        Args:
            lift: a model's `depth`: points (B, J, 2) to (B, J, 1).
            points: (N, J, 2) of the training, on the models' device.
            samples: views per pose.

        Source: Platt, 1999.
        """
        densities, wrong = [], []
        for start in range(0, len(points), BATCH):
            batch = points[start : start + BATCH]
            counter = torch.tensor([0, 0, start], device=batch.device)
            elevation, depth = self.teacher.elevation(batch), self.teacher.depth(batch)
            pose = geometry.backproject(self.teacher.clean(batch), depth, self.teacher.distance)
            turns = ops.TurnDraw(counter, elevation, spread_of(elevation), samples)
            views, known = ops.rotate_project(pose, turns, self.teacher.distance, with_rotated=True)
            assert known is not None
            depth = lift(views)
            densities.append(self.judge(views, depth)[1])
            again = geometry.backproject(views, depth, self.teacher.distance)
            wrong.append(pose_errors(again, known)["wrong_sign"])
        return _platt(torch.cat(densities), torch.cat(wrong) == 0)


def body_length(pose: Tensor, skeleton: Skeleton) -> Tensor:
    """The summed length (B,) of the bones of 3D poses (B, J, 3)."""
    parents, joints = zip(*skeleton.bones, strict=True)
    bones = torch.linalg.vector_norm(pose[:, list(joints)] - pose[:, list(parents)], dim=-1)
    return bones.sum(1).clamp(min=1e-9)


def _platt(density: Tensor, right: Tensor) -> Odds:
    """Fit a logistic curve to outcomes (N,) at densities (N,) by Newton's method."""
    # Targets strictly between 0 and 1 keep the fit finite even if all signs are right.
    count = right.sum().item()
    target = torch.where(right, (count + 1) / (count + 2), 1 / (len(right) - count + 2)).double()
    bias = torch.logit(target.mean()).item()
    spread = density.double().std(unbiased=False)
    if not spread > 1e-6 or not len(density):  # a single density value determines no slope
        return Odds(bias, 0.0)
    shift = density.double().mean()
    scaled = (density.double() - shift) / spread
    x = torch.stack([torch.ones_like(scaled), scaled], dim=1)
    weights = x.new_tensor([bias, 0.0])
    ridge = RIDGE * torch.eye(2, dtype=x.dtype, device=x.device)
    for _ in range(30):
        chance = torch.sigmoid(x @ weights)
        curvature = (x * (chance * (1 - chance))[:, None]).T @ x + ridge
        weights -= torch.linalg.solve(curvature, x.T @ (chance - target))
    slope = weights[1] / spread
    return Odds((weights[0] - slope * shift).item(), slope.item())
