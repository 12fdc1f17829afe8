"""Lift 2D keypoints to 3D with a trained model. Files, frames and units: `docs/lifting.md`."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ites.camera import normalise, scale_for
from ites.checkpoint import load_model
from ites.clips import Clips, fill_missing, read_keypoints, root_relative, write_clips
from ites.errors import ItesError
from ites.skeleton import Skeleton

BODY_SIZE = 0.72
"""Assumed distance from pelvis to crown, metres: the mean of 17 subjects of the CMU database."""
FIELD_OF_VIEW = 55.0
"""Assumed horizontal field of view, degrees: about that of a phone or a webcam."""
FPS = 25.0
"""Assumed frames a second."""
BATCH_SIZE = 4096
"""Poses lifted at a time."""
SCALES = ("auto", "checkpoint", "clip")


def lift(
    run: str | os.PathLike[str],
    keypoints: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    stage: str | None = None,
    split: str | None = None,
    layout: str | None = None,
    focal_length: float | None = None,
    field_of_view: float | None = None,
    image_size: tuple[int, int] | None = None,
    fps: float | None = None,
    scale: str = "auto",
    body_size: float = BODY_SIZE,
    batch_size: int = BATCH_SIZE,
    device: str | None = None,
) -> dict[str, Any]:
    """Lift the keypoints of a file and write the 3D poses.

    Args:
        run: a run folder or a checkpoint.
        keypoints: a pose store, an .npz or an .npy file; see `ites.clips.read_keypoints`.
        out: the .npz or .h5 file to write; `docs/lifting.md` lists its keys.
        stage: "teacher" or "student"; None: what the checkpoint is, of a folder its student, or
            else its teacher.
        split: of a store, the split to lift; None: "test" where there is one, else all.
        layout: the joints' order in an array, one of `ites.skeleton.LAYOUTS`, to convert from.
        focal_length: pixels, x and y alike; overrides the file's.
        field_of_view: horizontal, degrees, in place of the focal length.
        image_size: (width, height) in pixels; overrides the file's.
        fps: frames a second; overrides the file's.
        scale: what brings keypoints to the network's size. "checkpoint": the training split's
            factor, right for the cameras trained on; "clip": each clip's own, such that its mean
            root-to-head distance is 1/5, which needs no camera; "auto": "checkpoint" where the
            camera is known, else "clip".
        body_size: mean distance from root to head that a lifted clip is given, metres.
        batch_size: poses lifted at a time.
        device: "cpu", "cuda", ...; None or "auto": a GPU where there is one.

    Returns:
        A summary: poses, clips, seconds and poses_per_second (of the lifting alone), model, device,
        out, and notes: what was assumed, a line each.

    Raises:
        ItesError: a file is not what it should be, or an argument is out of range.
    """
    for name, value in (
        ("focal_length", focal_length),
        ("fps", fps),
        ("body_size", body_size),
        ("batch_size", batch_size),
    ):
        if value is not None and not value > 0:
            raise ItesError(f"lift: {name} must be positive, got {value}")
    if device in (None, "auto"):
        device = "cuda" if torch.cuda.is_available() else "cpu"
    model, metadata = load_model(run, stage, device)
    model.float()
    clips = read_keypoints(keypoints, model.skeleton, split, layout)
    if clips.skeleton.parents != model.skeleton.parents:
        raise ItesError(
            f"{keypoints}: the model lifts {model.skeleton.name} ({model.skeleton.num_joints} "
            f"joints), got {clips.skeleton.name} ({clips.skeleton.num_joints} joints)"
        )
    clips, notes = assume_camera(clips, focal_length, field_of_view, image_size, fps)
    start = time.perf_counter()
    clips, more = lift_clips(
        model.pose, clips, metadata.scale, scale=scale, body_size=body_size,
        batch_size=batch_size, device=device,
    )  # fmt: skip
    seconds = time.perf_counter() - start
    summary = {
        "poses": len(clips),
        "clips": len(clips.clips),
        "seconds": seconds,
        "poses_per_second": len(clips) / seconds,
        "model": metadata.kind,
        "run": str(run),
        "keypoints": str(keypoints),
        "device": device,
        "notes": notes + more,
    }
    write_clips(out, replace(clips, settings=summary))
    return {**summary, "out": str(out)}


def assume_camera(
    clips: Clips,
    focal_length: float | None = None,
    field_of_view: float | None = None,
    image_size: tuple[int, int] | None = None,
    fps: float | None = None,
) -> tuple[Clips, list[str]]:
    """Put the caller's camera in place of the file's.

    `focal_length = width / (2 tan(field_of_view / 2))`; a width that nobody gave is taken to reach
    from 0 to the rightmost keypoint.

    Args:
        clips: as read.
        focal_length: pixels; None keeps the clip's own.
        field_of_view: horizontal, degrees; in place of `focal_length`.
        image_size: (width, height) in pixels; None keeps the clip's own.
        fps: frames a second; None keeps the clip's own, or else 25.

    Returns:
        The clips, and what was assumed, a line each.

    Raises:
        ItesError: both a focal length and a field of view, or one out of range.
    """
    if focal_length is not None and field_of_view is not None:
        raise ItesError("lift: give a focal length or a field of view, not both")
    if field_of_view is not None and not 0 < field_of_view < 180:
        raise ItesError(f"lift: field_of_view must lie between 0 and 180, got {field_of_view}")
    given, notes = [], []
    for clip in clips.clips:
        size = image_size or clip.image_size
        focal = (focal_length, focal_length) if focal_length else clip.focal_length
        if field_of_view is not None:
            focal, width = _from_field_of_view(field_of_view, size, clip.keypoints)
            notes.append(f"focal length {focal[0]:.0f} px: {field_of_view:g} degrees over {width}")
        rate = fps or clip.fps
        if not rate > 0:
            rate = FPS
            notes.append(f"{FPS:g} frames a second, assumed (--fps)")
        given.append(replace(clip, focal_length=focal, image_size=size, fps=rate))
    return replace(clips, clips=given), list(dict.fromkeys(notes))


def _from_field_of_view(
    degrees: float, image_size: tuple[int, int] | None, keypoints: NDArray[np.floating]
) -> tuple[tuple[float, float], str]:
    """(fx, fy) in pixels, and in words the width that it was taken from."""
    if image_size is not None:
        width, words = image_size[0], f"{image_size[0]} px of image"
    else:
        width = max(1, math.ceil(keypoints[..., 0].max()))
        words = f"{width} px, the keypoints' extent (--image-size)"
    focal = width / (2 * math.tan(math.radians(degrees) / 2))
    return (focal, focal), words


def lift_clips(
    pose: Callable[[Tensor], Tensor],
    clips: Clips,
    training_scale: float,
    *,
    scale: str = "auto",
    body_size: float = BODY_SIZE,
    batch_size: int = BATCH_SIZE,
    device: str = "cpu",
) -> tuple[Clips, list[str]]:
    """Lift clips in memory.

    `points = scale * (keypoints - root keypoint) / focal_length`, then `pose(points)` made
    root-relative, times `metres_per_unit`. Missing joints are filled before.

    Args:
        pose: a model's `pose`: points (B, J, 2) float32 to (B, J, 3), network units.
        clips: each with a positive `fps`; `focal_length` where it is known.
        training_scale: the factor stored in the checkpoint.
        scale, body_size, batch_size, device: see `lift`.

    Returns:
        The clips with `keypoints` filled, `positions`, `focal_length` and `metres_per_unit`; and
        what was assumed, a line each.

    Raises:
        ItesError: `scale` is none of `SCALES`, or a joint is missing in a whole clip.
    """
    if scale not in SCALES:
        raise ItesError(f"lift: scale must be one of {', '.join(SCALES)}, got {scale!r}")
    notes, ready, points, sizes, filled = [], [], [], [], 0
    for clip in clips.clips:
        clip, missing = fill_missing(clip, clips.skeleton)
        filled += missing
        own = scale == "clip" or (scale == "auto" and clip.focal_length is None)
        if clip.focal_length is None:
            focal, width = _from_field_of_view(FIELD_OF_VIEW, clip.image_size, clip.keypoints)
            clip = replace(clip, focal_length=focal)
            notes.append(
                f"focal length {focal[0]:.0f} px, assumed: {FIELD_OF_VIEW:g} degrees over {width} "
                "(--focal-length or --field-of-view)"
            )
        focal_length = np.asarray(clip.focal_length, np.float32)
        flat = normalise(clip.keypoints, focal_length, root=clips.skeleton.root)
        unit = scale_for(flat, clips.skeleton)
        if own:
            notes.append("size by each clip's own mean root-to-head distance (--scale)")
        else:
            notes.append(f"size by the training split's scale, {training_scale:.4g} (--scale)")
            sizes.append(training_scale / unit)
        ready.append(clip)
        points.append(flat * np.float32(unit if own else training_scale))
    if filled:
        notes.append(f"{filled} missing joints filled in, linearly in time")
    if sizes and not 2 / 3 < np.median(sizes) < 3 / 2:
        notes.append(
            f"people look {np.median(sizes):.2g} times as large as those trained on: "
            "--scale clip may serve better"
        )
    notes.append(f"metres by a mean of {body_size:g} m from root to head, assumed (--body-size)")
    lifted = lift_points(pose, np.concatenate(points), clips.skeleton, batch_size, device)
    done, row = [], 0
    for clip in ready:
        positions = lifted[row : row + len(clip)]
        row += len(clip)
        metres = metres_per_unit(positions, clips.skeleton, body_size)
        positions = positions * metres[:, None, None]
        done.append(replace(clip, positions=positions, metres_per_unit=metres))
    return replace(clips, clips=done), list(dict.fromkeys(notes))


@torch.inference_mode()
def lift_points(
    pose: Callable[[Tensor], Tensor],
    points: NDArray[np.float32],
    skeleton: Skeleton,
    batch_size: int = BATCH_SIZE,
    device: str = "cpu",
) -> NDArray[np.float32]:
    """Lift normalised 2D poses.

    Args:
        pose: see `lift_clips`.
        points: (N, J, 2) float32, network units, root at the origin.
        skeleton: its root is what the result is relative to.
        batch_size: poses at a time.
        device: where `pose` runs.

    Returns:
        (N, J, 3) float32, network units, camera frame, root-relative.

    Raises:
        ItesError: a lifted pose is not finite.
    """
    source = torch.from_numpy(points)
    lifted = np.empty((*points.shape[:2], 3), np.float32)
    for start in range(0, len(points), batch_size):
        rows = slice(start, start + batch_size)
        lifted[rows] = pose(source[rows].to(device)).float().cpu().numpy()
    if not np.isfinite(lifted).all():
        raise ItesError("lift: the model's output is not finite; was its training sound?")
    return root_relative(lifted, skeleton)


def metres_per_unit(
    positions: NDArray[np.float32], skeleton: Skeleton, body_size: float = BODY_SIZE
) -> NDArray[np.float32]:
    """The factor from network units to metres, a pose.

    2D cannot tell a small person near by from a tall one far off, and the networks put everyone at
    the same distance: who walks up to the camera grows. So the factors give all poses of a clip the
    same summed length of bones, and the clip a mean root-to-head distance of `body_size`.

    Args:
        positions: (T, J, 3), network units, root-relative, one clip.
        skeleton: whose bones they are.
        body_size: metres.

    Returns:
        (T,) float32.
    """
    parents, joints = np.array(skeleton.bones).T
    bones = np.linalg.norm(positions[:, joints] - positions[:, parents], axis=-1).sum(-1)
    factors = 1 / np.maximum(bones, 1e-6)
    heads = np.linalg.norm(positions[:, skeleton.head], axis=-1)
    return factors * np.float32(body_size / max(float(np.mean(heads * factors)), 1e-6))
