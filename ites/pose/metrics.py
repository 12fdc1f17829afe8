"""Errors of predicted poses: the usual protocols and the ITES protocol.

Poses are float tensors (N, J, 3), in metres, in the camera frame (x right, y down, z forward).
Every function computes in float64 and returns one number per pose, so that a caller may average
over poses, actions or subjects as needed. A rotation acts on row vectors: `X' = X @ R`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ites.pose.skeleton import root_relative

PCK_THRESHOLD = 0.15
"""Error in metres below which MPI-INF-3DHP counts a joint as correct."""

PCK_JOINTS = (2, 3, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16)
"""The joints of the Human3.6M skeleton that PCK and AUC count: all but the pelvis and the hips."""

CHUNK = 32768
"""Poses per float64 batch of `pose_errors`, about 150 MB."""


def mpjpe(pred: Tensor, gt: Tensor, root: int = 0) -> Tensor:
    """Mean per-joint position error after moving both roots to the origin.

    `mean_j |(pred_j - pred_root) - (gt_j - gt_root)|`

    Args:
        pred: predicted poses (N, J, 3), metres.
        gt: true poses (N, J, 3), metres.
        root: index of the root joint.

    Returns:
        Errors (N), float64, metres.

    Raises:
        ValueError: the shapes differ, are not (N, J, 3), or a value is not finite.
    """
    pred, gt = _checked("mpjpe", pred, gt)
    return _distance(root_relative(pred, root), root_relative(gt, root)).mean(-1)


def n_mpjpe(pred: Tensor, gt: Tensor, root: int = 0) -> Tensor:
    """MPJPE after the least-squares scale: roots aligned, then `<pred, gt> / <pred, pred>`.

    Arguments, result and errors as in `mpjpe`. From Rhodin et al., CVPR 2018.
    """
    pred, gt = _checked("n_mpjpe", pred, gt)
    return _n_mpjpe(root_relative(pred, root), root_relative(gt, root))


def p_mpjpe(pred: Tensor, gt: Tensor) -> Tensor:
    """MPJPE after the optimal similarity (rotation, translation, scale); see `align`.

    Arguments, result and errors as in `mpjpe`.
    """
    pred, gt = _checked("p_mpjpe", pred, gt)
    return _distance(_similarity(pred, gt).aligned(), gt).mean(-1)


def align(pred: Tensor, gt: Tensor) -> Tensor:
    """Predicted poses after the optimal similarity to the truth, reflections excluded.

    Minimises `sum_j |s pred_j @ R + t - gt_j|^2` over scale s, proper rotation R, translation t.

    Args:
        pred: predicted poses (N, J, 3).
        gt: true poses (N, J, 3).

    Returns:
        Aligned poses (N, J, 3), float64, in the truth's unit and frame. A pose whose joints all
        coincide stays a point, at the truth's mean.

    Raises:
        ValueError: the shapes differ, are not (N, J, 3), or a value is not finite.
    """
    pred, gt = _checked("align", pred, gt)
    return _similarity(pred, gt).aligned()


def similarity_scale(pred: Tensor, gt: Tensor) -> Tensor:
    """Scale of the optimal similarity, without the correction that excludes reflections.

    `(s1 + s2 + s3) / |pred|^2`, s being the singular values of `pred^T gt`, both about their
    means. Reflections being allowed, a pose and its depth-flipped twin have the same scale.

    Arguments and errors as in `align`; returns scales (N), float64, 0 for a pose that is a point.
    """
    pred, gt = _checked("similarity_scale", pred, gt)
    return _similarity(pred, gt).scale()


def flip_depth(pose: Tensor) -> Tensor:
    """The depth-flipped twin of poses (..., 3): z negated."""
    return pose * pose.new_tensor([1.0, 1.0, -1.0])


def pck(distance: Tensor, threshold: float = PCK_THRESHOLD) -> Tensor:
    """Share of correct keypoints: joints nearer than the threshold, strictly.

    Args:
        distance: distances (..., J) of the joints to count, metres.
        threshold: metres.

    Returns:
        Shares (...), float64, in [0, 1].
    """
    return (distance < threshold).double().mean(-1)


def auc(distance: Tensor) -> Tensor:
    """Area under the PCK curve: `pck` averaged over the 31 thresholds 0, 5, ..., 150 mm.

    Arguments and result as in `pck`. From Mehta et al., 3DV 2017 (MPI-INF-3DHP).
    """
    thresholds = torch.arange(0, 151, 5, dtype=torch.float64, device=distance.device) / 1000
    reached = torch.bucketize(distance.double().contiguous(), thresholds, right=True)
    return 1 - reached.double().mean(-1) / len(thresholds)


@dataclass(frozen=True)
class ItesProtocol:
    """The figures that the released program reports of N poses, under its names.

    Lengths are float64, metres; `_flip` is the depth-flipped twin of the same pose, scaled and
    aligned afresh. The shares are over all poses and the counted joints, each joint by the better
    of its two depth signs: an oracle.
    """

    scaled: Tensor  # (N, J, 3) scaled, then relative to the root
    mpjpe: Tensor  # (N)
    mpjpe_flip: Tensor  # (N)
    pmpjpe: Tensor  # (N)
    pmpjpe_flip: Tensor  # (N)
    pck150: float
    auc: float
    p_pck150: float
    p_auc: float

    @property
    def wrong_sign(self) -> Tensor:
        """Poses (N), bool, whose flipped twin has the strictly smaller scaled MPJPE."""
        return self.mpjpe_flip < self.mpjpe


def ites_protocol(
    pred: Tensor, gt: Tensor, joints: Sequence[int] = PCK_JOINTS, root: int = 0
) -> ItesProtocol:
    """The evaluation of the released ITES program, pose by pose.

    Each pose gets the scale of its optimal similarity (`similarity_scale`) but not the rotation,
    then is made root-relative; P-MPJPE is taken after `align`. All of it for the pose and for its
    depth-flipped twin.

    Args:
        pred: predicted poses (N, J, 3), any unit.
        gt: true poses (N, J, 3), metres.
        joints: joints that PCK and AUC count.
        root: index of the root joint.

    Returns:
        An `ItesProtocol`.

    Raises:
        ValueError: the shapes differ, are not (N, J, 3), or a value is not finite; if a joint
            is out of range; if there is no pose.
    """
    _check("ites_protocol", pred, gt, joints)
    if not len(pred):
        raise ValueError("ites_protocol: at least one pose is needed, got none")
    signs = _both_signs(pred.double(), gt.double(), root)
    nearest = signs.distance.amin(0)[:, list(joints)]  # (N, K)
    p_nearest = signs.p_distance.amin(0)[:, list(joints)]
    return ItesProtocol(
        signs.scaled,
        *signs.distance.mean(-1),
        *signs.p_distance.mean(-1),
        *(float(share.mean()) for x in (nearest, p_nearest) for share in (pck(x), auc(x))),
    )


def pose_errors(
    pred: Tensor, gt: Tensor, unit: float = 1.0, joints: Sequence[int] = PCK_JOINTS, root: int = 0
) -> dict[str, Tensor]:
    """Every figure of every protocol, pose by pose, in bounded memory.

    Args:
        pred: predicted poses (N, J, 3), network units.
        gt: true poses (N, J, 3), metres.
        unit: metres in one network unit; only `mpjpe` depends on it.
        joints: joints that PCK and AUC count.
        root: index of the root joint.

    Returns:
        Tensors (N), float64, by name. Metres: `mpjpe` (roots aligned), `n_mpjpe`
        (and the least-squares scale), `p_mpjpe` (the optimal similarity), `scaled_mpjpe`
        (roots and the similarity's scale). Shares: `pck` and `auc` (aligned as
        `scaled_mpjpe`), `p_pck` and `p_auc` (as `p_mpjpe`). A name with `_oracle` takes
        the better depth sign: of the pose for lengths, of each joint for shares. `wrong_sign` is
        1 where the flipped twin has the strictly smaller `scaled_mpjpe`.

    Raises:
        ValueError: the shapes differ, are not (N, J, 3), or a value is not finite; if a joint
            is out of range.
    """
    _check("pose_errors", pred, gt, joints)
    chunks = [
        _chunk_errors(p.double(), g.double(), unit, list(joints), root)
        for p, g in zip(pred.split(CHUNK), gt.split(CHUNK), strict=True)
    ]
    return {name: torch.cat([chunk[name] for chunk in chunks]) for name in chunks[0]}


def _chunk_errors(
    pred: Tensor, gt: Tensor, unit: float, joints: list[int], root: int
) -> dict[str, Tensor]:
    relative, truth = root_relative(pred, root), root_relative(gt, root)
    signs = _both_signs(pred, gt, root)
    scaled, flipped = signs.distance.mean(-1)
    aligned, aligned_flip = signs.p_distance.mean(-1)
    errors = {
        "mpjpe": _distance(relative * unit, truth).mean(-1),
        "n_mpjpe": _n_mpjpe(relative, truth),
        "p_mpjpe": aligned,
        "p_mpjpe_oracle": torch.minimum(aligned, aligned_flip),
        "scaled_mpjpe": scaled,
        "scaled_mpjpe_oracle": torch.minimum(scaled, flipped),
        "wrong_sign": (flipped < scaled).double(),
    }
    for prefix, distance in (("", signs.distance), ("p_", signs.p_distance)):
        for suffix, counted in (("", distance[0]), ("_oracle", distance.amin(0))):
            errors[f"{prefix}pck{suffix}"] = pck(counted[:, joints])
            errors[f"{prefix}auc{suffix}"] = auc(counted[:, joints])
    return errors


class _Similarity(NamedTuple):
    """The cross-covariance `pred^T gt = left @ diag(singular) @ right`, about the means."""

    centred: Tensor  # (N, J, 3) pred about its mean
    mean: Tensor  # (N, 1, 3) of gt
    left: Tensor  # (N, 3, 3)
    singular: Tensor  # (N, 3) descending
    right: Tensor  # (N, 3, 3)
    sign: Tensor  # (N) determinant of left @ right: -1 where the best orthogonal map reflects

    def scale(self, sign: Tensor | float = 1.0) -> Tensor:
        """Scale (N), with the given sign of the last singular value."""
        trace = self.singular[:, 0] + self.singular[:, 1] + self.singular[:, 2] * sign
        size = self.centred.square().sum((-2, -1))
        return trace / size.clamp(min=torch.finfo(size.dtype).tiny)

    def aligned(self, flip: bool = False) -> Tensor:
        """The pose, or its depth-flipped twin, after the optimal similarity (N, J, 3).

        With F = diag(1, 1, -1) the twin's cross-covariance is F @ pred^T gt. F moves from the pose
        into the rotation, so only the determinant's sign changes.
        """
        sign = -self.sign if flip else self.sign
        left = torch.stack((*self.left.unbind(-1)[:2], self.left[..., 2] * sign[:, None]), -1)
        scaled_rotation = self.scale(sign)[:, None, None] * (left @ self.right)
        return self.centred @ scaled_rotation + self.mean


def _similarity(pred: Tensor, gt: Tensor) -> _Similarity:
    # Relative to a joint first: joints that coincide then have a spread of exactly zero.
    centred = pred - pred[:, :1]
    centred = centred - centred.mean(1, keepdim=True)
    mean = gt.mean(1, keepdim=True)
    left, singular, right = torch.linalg.svd(centred.mT @ (gt - mean))
    x, y, z = (left @ right).unbind(-1)
    sign = torch.linalg.vecdot(torch.linalg.cross(x, y), z).sign()
    return _Similarity(centred, mean, left, singular, right, sign)


class _BothSigns(NamedTuple):
    scaled: Tensor  # (N, J, 3) scaled, root-relative
    distance: Tensor  # [2, N, J] to the truth, of the scaled pose and of its flipped twin
    p_distance: Tensor  # [2, N, J] the same after the optimal similarity


def _both_signs(pred: Tensor, gt: Tensor, root: int) -> _BothSigns:
    similarity = _similarity(pred, gt)
    truth = root_relative(gt, root)
    scaled = similarity.scale()[:, None, None] * root_relative(pred, root)
    poses = (scaled, flip_depth(scaled))
    return _BothSigns(
        scaled,
        torch.stack([_distance(pose, truth) for pose in poses]),
        torch.stack([_distance(similarity.aligned(flip), gt) for flip in (False, True)]),
    )


def _n_mpjpe(pred: Tensor, gt: Tensor) -> Tensor:
    size = pred.square().sum((-2, -1), keepdim=True)
    scale = (pred * gt).sum((-2, -1), keepdim=True) / size.clamp(min=torch.finfo(size.dtype).tiny)
    return _distance(scale * pred, gt).mean(-1)


def _distance(a: Tensor, b: Tensor) -> Tensor:
    return torch.linalg.vector_norm(a - b, dim=-1)  # (N, J)


def _checked(who: str, pred: Tensor, gt: Tensor) -> tuple[Tensor, Tensor]:
    _check(who, pred, gt)
    return pred.double(), gt.double()


def _check(who: str, pred: Tensor, gt: Tensor, joints: Sequence[int] = ()) -> None:
    if pred.shape != gt.shape or pred.dim() != 3 or pred.shape[-1] != 3 or not pred.shape[1]:
        shapes = f"{tuple(pred.shape)} and {tuple(gt.shape)}"
        raise ValueError(f"{who}: pred and gt must both have shape (N, J, 3), got {shapes}")
    if beyond := [joint for joint in joints if not 0 <= joint < pred.shape[1]]:
        raise ValueError(f"{who}: joints must lie in 0..{pred.shape[1] - 1}, got {beyond}")
    for name, pose in (("pred", pred), ("gt", gt)):
        if not (finite := pose.isfinite()).all():
            wrong = (~finite).any(-1).any(-1).nonzero()
            raise ValueError(
                f"{who}: {name} must be finite, got {len(wrong)} poses with NaN or infinity, "
                f"the first at index {int(wrong[0])}"
            )
