"""What a stream's frame needs before and after the network; in CUDA one launch each.

Not run on a GPU. On a CPU these are PyTorch's operators. They have no gradient.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ites.ops._registry import (
    define,
    expect,
    expect_alike,
    expect_finite,
    expect_index,
    expect_indices,
)
from ites.ops.backends import choose
from ites.pose.missing import FAR, SHARE, SPREADS
from ites.pose.skeleton import root_relative

MOST_KEYPOINTS, LEAST_WINDOW, MOST_WINDOW = 192, 32, 1024  # of the CUDA kernels


@torch.no_grad()
def frame_points(
    keypoints: Tensor,
    root: int,
    head: int,
    *,
    layout: Tensor | None = None,
    factor: Tensor | None = None,
    sizes: Tensor | None = None,
    length: float = 1.0,
    backend: str | None = None,
) -> Tensor:
    """A network's input from a frame's keypoints.

    Impossible keypoints become nan; see `ites.pose.missing.impossible`. A layout maps them to a
    skeleton's joints. Then they are centred on the root and scaled by a factor or, so that the
    robust mean distance from root to head is `length`, by the sizes of the last frames.

    Args:
        keypoints: (B, K, 2), pixels; nan where missing.
        root, head: joints of the skeleton.
        layout: (R, J, K) weights; a joint is the first of R sums whose keypoints are all there.
            None: K = J.
        factor: (2,), or None.
        sizes: (W,), the sizes of the last frames, newest last, nan before the first; those of these
            frames are put in, and the oldest removed. None with a factor.
        length: of the input.
        backend: see `ites.ops.backends`.

    Returns:
        (B, J, 2); without factor and sizes in pixels, and not centred.

    Raises:
        ValueError, TypeError: a shape or dtype does not fit.
    """
    op = "frame_points"
    expect(op, "keypoints", keypoints, "B", "K", 2)
    if layout is not None:
        expect(op, "layout", layout, "R", "J", keypoints.shape[1])
    if factor is not None:
        expect(op, "factor", factor, 2)
        if sizes is not None:
            raise ValueError(f"{op}: factor and sizes exclude each other")
    if sizes is not None:
        _check_window(op, sizes)
    given = {"layout": layout, "factor": factor, "sizes": sizes}
    expect_alike(op, keypoints=keypoints, **{k: v for k, v in given.items() if v is not None})
    expect_finite(op, "length", length, least=0)
    joints = keypoints.shape[1] if layout is None else layout.shape[1]
    expect_index(op, "root", root, joints)
    expect_index(op, "head", head, joints)
    chosen = choose(op, keypoints.device.type, keypoints.dtype, backend)
    if chosen == "cuda" and keypoints.shape[1] <= MOST_KEYPOINTS and _fits(sizes):
        return _frame_points(
            keypoints.contiguous(), layout, factor, sizes, root, head, length, FAR, SPREADS, SHARE,
            "cuda",
        )  # fmt: skip
    keypoints = keypoints.where(~_impossible(keypoints)[..., None], torch.nan)
    if layout is not None:
        keypoints = mapped_joints(keypoints, layout)
    if sizes is not None:
        points = root_relative(keypoints, root)
        return points * (length / robust_window_mean(sizes, points[:, head].norm(dim=-1)))
    return keypoints if factor is None else root_relative(keypoints, root) * factor


@torch.no_grad()
def frame_metres(
    pose: Tensor,
    bones: Tensor,
    weights: Tensor | None,
    sizes: Tensor,
    root: int,
    head: int,
    *,
    metres: float,
    backend: str | None = None,
) -> Tensor:
    """Metres from a network's poses: each pose gets the same summed length of its bones.

    With the summed length s of a pose's bones and a length k of the body, a weighted sum of bones
    or the distance from root to head, the factor is `metres / (robust mean of k / s) / s`.

    Args:
        pose: (B, J, 3), any unit.
        bones: int64 (2, n): each bone's joint and its parent.
        weights: (n,), of the bones in k; None: k is the distance from root to head.
        sizes: (W,), k / s of the last frames; see `frame_points`.
        root, head: joints.
        metres: k in metres.
        backend: see `ites.ops.backends`.

    Returns:
        (B, J, 3), metres, relative to the root.

    Raises:
        ValueError, TypeError: a shape or dtype does not fit.
    """
    op = "frame_metres"
    expect(op, "pose", pose, "B", "J", 3)
    expect(op, "bones", bones, 2, "n")
    _check_window(op, sizes)
    expect_alike(op, pose=pose, sizes=sizes)
    if weights is not None:
        expect(op, "weights", weights, bones.shape[1])
        expect_alike(op, pose=pose, weights=weights)
    expect_finite(op, "metres", metres, least=0)
    expect_index(op, "root", root, pose.shape[1])
    expect_index(op, "head", head, pose.shape[1])
    chosen = choose(op, pose.device.type, pose.dtype, backend)
    if chosen == "cuda" and _fits(sizes):
        return _frame_metres(
            pose.contiguous(), bones, weights, sizes, root, head, metres, SPREADS, SHARE, "cuda"
        )
    _check_bones(op, pose, bones)
    pose = root_relative(pose, root)
    joints, parents = bones
    lengths = (pose[:, joints] - pose[:, parents]).norm(dim=-1)
    whole = lengths.sum(1).clamp(min=1e-6)
    known = pose[:, head].norm(dim=-1) if weights is None else (lengths * weights).sum(1)
    mean = robust_window_mean(sizes, known / whole)
    return pose * (metres / mean.clamp(min=1e-6) / whole)[:, None, None]


def robust_window_mean(sizes: Tensor, values: Tensor) -> Tensor:
    """The robust mean of the last values and these; see `ites.pose.missing.robust_mean`.

    Values that are not finite do not count.

    Args:
        sizes: (W,), changed in place.
        values: (B,).
    """
    length = len(sizes)
    values = values[-length:].where(values[-length:].isfinite(), torch.nan)
    finite = values.isfinite()
    # A stable sort moves the finite new values to the end without synchronisation.
    both = torch.cat([sizes, values])
    kept = torch.cat([torch.ones_like(sizes, dtype=torch.bool), finite])
    both = both[kept.to(torch.int8).argsort(stable=True)][-length:]
    sizes.copy_(both)
    median = _nanmedian(both)
    off = (both - median).abs()
    limit = torch.maximum(SPREADS * _nanmedian(off), SHARE * median.abs())
    return both.where(off <= limit, torch.nan).nanmean()


def _check_window(op: str, sizes: Tensor) -> None:
    expect(op, "sizes", sizes, "W")
    if not len(sizes):
        raise ValueError(f"{op}: sizes must hold at least one frame's, got none")


def _fits(sizes: Tensor | None) -> bool:
    """Whether the CUDA kernels take a window: the op would copy one that is not aligned."""
    if sizes is None:
        return True
    aligned = sizes.is_contiguous() and sizes.storage_offset() % 4 == 0
    return aligned and LEAST_WINDOW <= len(sizes) <= MOST_WINDOW


def _nanmedian(values: Tensor) -> Tensor:
    """The median of the values (N) that are not nan; the mean of the middle two if even."""
    ranked, count = values.sort().values, (~values.isnan()).sum()  # nan comes last
    last = len(values) - 1
    middle = torch.stack([(count - 1).clamp(min=0) // 2, (count // 2).clamp(max=last)])
    return ranked[middle].mean()


def _impossible(keypoints: Tensor) -> Tensor:
    """Which of (B, J, 2) are far from the body, per frame; see `ites.pose.missing.impossible`."""
    away = (keypoints - keypoints.nanmedian(1, keepdim=True).values).norm(dim=-1)
    size = away.nanmedian(1, keepdim=True).values
    return (away > FAR * size) & (size > 0)


def mapped_joints(keypoints: Tensor, layout: Tensor) -> Tensor:
    """(B, K, 2), nan where a joint is missing, to (B, J, 2), nan where none can be derived."""
    seen = keypoints.isfinite().all(-1)
    there = keypoints.where(seen[..., None], torch.zeros_like(keypoints))
    found = keypoints.new_full((len(keypoints), layout.shape[1], 2), torch.nan)
    for weights in reversed(layout.unbind()):
        needed = weights != 0
        whole = (seen[:, None] | ~needed).all(-1) & needed.any(-1)
        sums = (weights[..., None] * there[:, None]).sum(2)
        found = torch.where(whole[..., None], sums, found)
    return found


def _check_bones(op: str, pose: Tensor, bones: Tensor, *_: object) -> None:
    expect(op, "pose", pose, "B", "J", 3)
    expect_indices(op, "bones", bones, pose, pose.shape[1])


_frame_points = define(
    "frame",
    "frame_points(Tensor keypoints, Tensor? layout, Tensor? factor, Tensor(a!)? sizes, int root, "
    "int head, float length, float far, float spreads, float share) -> Tensor",
    lambda keypoints, layout, *_: keypoints.new_empty(
        keypoints.shape[0], keypoints.shape[1] if layout is None else layout.shape[1], 2
    ),
)
_frame_metres = define(
    "frame",
    "frame_metres(Tensor pose, Tensor bones, Tensor? weights, Tensor(a!) sizes, int root, "
    "int head, float metres, float spreads, float share) -> Tensor",
    lambda pose, *_: pose.new_empty(pose.shape),
    _check_bones,
)
