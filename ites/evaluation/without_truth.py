"""How good lifted poses are, measured without any 3D.

A right pose has bones of constant length, equal on the left and the right. It looks like a person
from other sides. A view of it from another side, lifted again, gives the same pose. None of these
proves a pose right, but each can show that one is wrong. `ites.evaluation.verdict` weighs them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ites.data.lifted import SURE_SIGN
from ites.models.predict import Pose, lift_points
from ites.models.trust import Trust
from ites.pose import geometry
from ites.pose.bones import bone_lengths
from ites.pose.metrics import pose_errors
from ites.pose.skeleton import Skeleton, root_relative

Floats = NDArray[np.float32]

BODY = 600.0
"""Assumed millimetres of a clip's mean root-to-head distance."""
AZIMUTHS = (45.0, 135.0, 225.0, 315.0)
"""Turns of a lifted pose about the vertical, degrees."""
TILTS = (-15.0, 0.0, 15.0)
"""What the elevations of views add to the camera's where two lifters are compared, degrees."""
LEAST_CLIP = 10
"""Frames below which the variation of bone lengths in a clip is not measured."""
TURNED = 1024
"""Poses that are turned, evenly spaced."""


@dataclass(frozen=True)
class Figure:
    """One figure of `measure`: its key, its heading and its unit."""

    name: str
    title: str
    unit: str


FIGURES = (
    Figure("reprojection_px", "reprojection", "px"),
    Figure("reprojection_mm", "reprojection", "mm"),
    Figure("bone_variation", "bone length varies", "%"),
    Figure("asymmetry", "left and right differ", "%"),
    Figure("equivariance", "equivariance", "mm"),
    Figure("cycle", "cycle", "mm"),
    Figure("wrong_views", "wrong sign of views", "%"),
    Figure("log_density", "log density", "nats"),
    Figure("sign_confidence", "sign confidence", "%"),
    Figure("doubtful", "doubtful", "%"),
)
"""In the order of a table."""
MEANING = (
    "Reprojection: distance of the lifted pose's projection from the keypoints; what the model "
    "takes for noise. Millimetres on a body of 600 mm from pelvis to head.",
    "Bone length varies: standard deviation over a clip by the mean, over all bones. Left and "
    "right differ: mean difference of mirrored bones by their mean.",
    "Equivariance: a pose is turned about the vertical, seen and lifted again; its distance from "
    "the turned pose. Cycle: the second lift, turned back and projected, beside the first view.",
    "Wrong sign of views: turned views whose depths are lifted with the wrong sign. Their right "
    "depths are known, because the lifted pose made the views.",
    "Log density: how likely the turned views are by the prior of these keypoints. Sign "
    f"confidence: mean probability of the depth's sign; doubtful: poses below {SURE_SIGN:.0%}.",
    "Flat: every joint at the root's depth.",
)
"""The meaning of the figures, a line each."""


@dataclass(frozen=True)
class HeldOut:
    """Poses that were held out of training.

    Attributes:
        points: (N, J, 2), the network's input, root-relative.
        lengths: frames per clip, N in all.
        pixels: (N,), pixels per network unit of the image.
        skeleton: of the points.
    """

    points: Floats
    lengths: Sequence[int]
    pixels: Floats
    skeleton: Skeleton


@torch.inference_mode()
def measure(
    lift: Pose,
    held: HeldOut,
    judge: Trust,
    device: torch.device | str = "cpu",
    explains: Pose | None = None,
) -> dict[str, float]:
    """Measure a lifter on held-out poses; `FIGURES` names the results.

    Args:
        lift: a model's `pose`: (B, J, 2) to (B, J, 3), network units.
        held: the poses.
        judge: of a trained run; its teacher estimates the vertical, its prior the density of views.
        device: where `lift` and the judge run.
        explains: the pose that is reprojected, such as the teacher's own out of its dictionary;
            None: the lifted one.
    """
    skeleton, points = held.skeleton, held.points
    poses = lift_points(lift, points, skeleton, device=device)
    judgement = judge(points, poses, device)
    shown = poses if explains is None else lift_points(explains, points, skeleton, device=device)
    again = geometry.project(torch.from_numpy(shown)).numpy()
    off = np.linalg.norm(again - root_relative(points, skeleton.root), axis=-1).mean(1)
    size = np.concatenate([_millimetres(part, skeleton) for part in _clips(poses, held.lengths)])
    varies, differs = _bones(poses * size[:, None, None], held)
    step = max(1, len(points) // TURNED)
    turned = _turned(
        lift, torch.from_numpy(poses[::step]), judgement.elevation[::step], skeleton, device
    )
    return {
        "reprojection_px": float((off * held.pixels).mean()),
        "reprojection_mm": float((off * geometry.DISTANCE * size).mean()),
        "bone_variation": varies,
        "asymmetry": differs,
        "equivariance": float((turned.equivariance * size[::step]).mean()),
        "cycle": float((turned.cycle * geometry.DISTANCE * size[::step]).mean()),
        "wrong_views": 100 * turned.wrong,
        "log_density": float(judgement.log_density.mean()),
        "sign_confidence": 100 * float(judgement.sign_confidence.mean()),
        "doubtful": 100 * float((judgement.sign_confidence < SURE_SIGN).mean()),
    }


class Scores(NamedTuple):
    """The scores of a lifter on M held-out poses, pose by pose; see `scores`.

    Attributes:
        poses: (M, J, 3), lifted, millimetres.
        equivariance: (M,), as the figure of `measure`, but from more elevations, millimetres.
        bones: (M,), mean deviation of the bones from their means over the clip, millimetres; nan in
            clips of fewer than `LEAST_CLIP` frames.
        log_density: (M,) of the turned views, nats.
        expected_error: mean error that the judge expects of the poses, millimetres; inf: unknown.
    """

    poses: Floats
    equivariance: Floats
    bones: Floats
    log_density: Floats
    expected_error: float


@torch.inference_mode()
def scores(
    lift: Pose,
    held: HeldOut,
    judge: Trust,
    device: torch.device | str = "cpu",
    tilts: Sequence[float] = TILTS,
) -> Scores:
    """Rate a lifter pose by pose, so that two lifters can be compared on the same poses.

    Args:
        lift, held, device: see `measure`.
        judge: one for all lifters that are compared.
        tilts: what the views' elevations add to the camera's, degrees.
    """
    skeleton, step = held.skeleton, max(1, len(held.points) // TURNED)
    poses = lift_points(lift, held.points, skeleton, device=device)
    size = np.concatenate([_millimetres(part, skeleton) for part in _clips(poses, held.lengths)])
    metric = poses * size[:, None, None]
    lengths = bone_lengths(metric, skeleton)
    away = [np.abs(part - part.mean(0)).mean(1) for part in _clips(lengths, held.lengths)]
    away = [part if len(part) >= LEAST_CLIP else np.full_like(part, np.nan) for part in away]
    some = slice(None, None, step)
    judged = judge(held.points[some], poses[some], device)
    turned = _turned(lift, torch.from_numpy(poses[some]), judged.elevation, skeleton, device, tilts)
    expected = math.inf
    if judged.expected_error is not None:
        expected = float((judged.expected_error * lengths[some].sum(1)).mean())
    return Scores(
        metric[some],
        turned.equivariance * size[some],
        np.concatenate(away)[some],
        judged.log_density,
        expected,
    )


def flat(points: Tensor) -> Tensor:
    """The lifter to compare with: points (B, J, 2) at the root's depth, (B, J, 3)."""
    return geometry.backproject(points, torch.zeros_like(points[..., :1]))


def _clips(rows: Floats, lengths: Sequence[int]) -> list[Floats]:
    return np.split(rows, np.cumsum(lengths)[:-1])


def _millimetres(poses: Floats, skeleton: Skeleton) -> Floats:
    """Millimetres per network unit (T,) of one clip's poses.

    2D does not determine the distance from the camera. So all poses of a clip get the same summed
    bone length.
    """
    total = bone_lengths(poses, skeleton).sum(-1).clip(min=1e-6)
    heads = np.linalg.norm(poses[:, skeleton.head] - poses[:, skeleton.root], axis=-1)
    return (BODY / max(float((heads / total).mean()), 1e-6) / total).astype(np.float32)


def _bones(poses: Floats, held: HeldOut) -> tuple[float, float]:
    """How much bone lengths vary over clips, and how much mirrored bones differ, percent."""
    skeleton = held.skeleton
    lengths, joints = bone_lengths(poses, skeleton), [joint for _, joint in skeleton.bones]
    place = {int(joint): bone for bone, joint in enumerate(joints)}
    other = [place[skeleton.mirror[int(joint)]] for joint in joints]
    paired = np.array([bone != mirrored for bone, mirrored in enumerate(other)])
    long = [part for part in _clips(lengths, held.lengths) if len(part) >= LEAST_CLIP]
    frames = sum(map(len, long))
    spread = sum(float(part.std(0).mean()) * len(part) for part in long)
    varies = 100 * spread / frames / float(lengths.mean()) if frames else math.nan
    difference = np.abs(lengths - lengths[:, other])[:, paired]
    differs = 100 * float(difference.mean()) / float(lengths[:, paired].mean())
    return varies, differs if paired.any() else 0.0


@dataclass(frozen=True)
class _Turned:
    """Of M poses, network units: distances (M,), and the share of wrong signs."""

    equivariance: Floats
    cycle: Floats
    wrong: float


def _turned(
    lift: Pose,
    poses: Tensor,
    elevation: Floats,
    skeleton: Skeleton,
    device: torch.device | str,
    tilts: Sequence[float] = (0.0,),
) -> _Turned:
    """Turn poses about the true vertical, project and lift them again.

    `Q = P Rx(e) Ry(a) Rx(-e - t)`, `Q' = lift(project(Q))`; equivariance: `mean |Q' - Q|`; cycle:
    `mean |project(Q' (Rx(e) Ry(a) Rx(-e - t))^T) - project(P)|`. The tilts t are in degrees.
    """
    flat, apart, around, wrong = geometry.project(poses), [], [], []
    for azimuth, tilt in product(AZIMUTHS, tilts):
        about = geometry.so3_exp(torch.tensor([0.0, math.radians(azimuth), 0.0]))
        seen_from = elevation + np.float32(math.radians(tilt))
        rotation = _leaning(elevation) @ about @ _leaning(seen_from).mT
        turned = poses @ rotation
        views = geometry.project(turned).numpy()
        again = torch.from_numpy(lift_points(lift, views, skeleton, device=device))
        apart.append((again - turned).norm(dim=-1).mean(1))
        back = geometry.project(again @ rotation.mT)
        around.append((back - flat).norm(dim=-1).mean(1))
        wrong.append(pose_errors(again, turned, joints=[0])["wrong_sign"])
    return _Turned(
        torch.stack(apart).mean(0).numpy(),
        torch.stack(around).mean(0).numpy(),
        float(torch.stack(wrong).mean()),
    )


def _leaning(elevation: Floats) -> Tensor:
    """`Rx(elevation)`, (M, 3, 3)."""
    return geometry.so3_exp(torch.nn.functional.pad(torch.from_numpy(elevation)[:, None], (0, 2)))
