"""Lifted poses as clips: fitted to each clip as a whole, in metres, in the camera's axes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ites.data.clips import Clip, Clips, seen_joints
from ites.inference.sight import Sight, gravity_of, root_path
from ites.inference.size import BodySize, metres_per_unit
from ites.models import Prior
from ites.models.temporal import Views, consistent_poses, moved_by
from ites.models.trust import Judgement
from ites.pose import geometry
from ites.pose.bones import bone_lengths
from ites.pose.missing import unknown
from ites.pose.smoothing import SMOOTHERS, running_median

ELEVATION = 3.0
"""Window, seconds, of the running median of elevations in a sequence."""


def make_consistent(
    clips: Clips,
    points: NDArray[np.float32],
    flat: NDArray[np.float32],
    lifted: NDArray[np.float32],
    sights: Sequence[Sight] = (),
    *,
    device: torch.device | str = "cpu",
    masked: bool = False,
    views: Views | None = None,
) -> NDArray[np.float32]:
    """Lifted poses (N, J, 3), network units, that suit each clip as a whole.

    Args:
        clips: their lengths, frame rates and confidences define the clips' rows and what was seen.
        points: (N, J, 2), the network's input, nan where a joint is missing.
        flat: (N, J, 2), the same, cleaned.
        lifted: (N, J, 3), root-relative.
        sights: of the clips; bones of a known camera are measured in its perspective.
        device: where the fit runs; see `ites.models.temporal.consistent_poses`.
        masked: whether the network completes missing joints and cleans noise, so that the fit may
            move keypoints too.
        views: what rates turned poses.
    """
    given, kept = torch.from_numpy(points), torch.from_numpy(flat)
    lengths = [len(clip) for clip in clips.clips]
    seen = torch.from_numpy(np.concatenate([seen_joints(clip) for clip in clips.clips]))
    sizes = [sight.size if sight.exact else 1.0 for sight in sights] or [1.0] * len(lengths)
    size = torch.repeat_interleave(torch.tensor(sizes), torch.tensor(lengths))[:, None, None]
    kept, depth = consistent_poses(
        kept / size,
        torch.from_numpy(lifted[..., 2:]),
        lengths,
        clips.skeleton,
        [clip.fps for clip in clips.clips],
        geometry.DISTANCE * size,
        device,
        seen,
        moved_by(given, kept) / size[:, 0, 0] if masked else None,
        views,
    )
    return geometry.backproject(kept * size, depth).numpy()


def views_of(clips: Clips, elevation: NDArray[np.float32], density: Prior) -> Views:
    """What rates the turned poses of clips.

    Args:
        clips: their lengths and frame rates.
        elevation: (N,) of the lines of sight as a model estimates them, radians; a running median
            over `ELEVATION` smooths them.
        density: of views.
    """
    parts = np.split(elevation, np.cumsum([len(clip) for clip in clips.clips])[:-1])
    smooth = [
        running_median(part, clip.fps, ELEVATION)
        for part, clip in zip(parts, clips.clips, strict=True)
    ]
    return Views(density.at, torch.from_numpy(np.concatenate(smooth).astype(np.float32)))


def to_clips(
    clips: Clips,
    lifted: NDArray[np.float32],
    size: BodySize,
    judgement: Judgement | None = None,
    sights: Sequence[Sight] = (),
) -> Clips:
    """The clips with their rows of `lifted` (N, J, 3), network units, as `positions` in metres.

    With `sights`, positions are turned to camera axes, and the root's path is added. Rows of the
    judgement are added if there is one, and gravity. Unknown values are nan: a joint that is never
    seen in the clip, and all joints of a frame without any seen joint.

    Args:
        clips: with N frames in all.
        lifted: (N, J, 3), network units, root-relative, the clips one after the other.
        size: of the body, which sets the scale; see `metres_per_unit`.
        judgement: the confidence measures (N,), or None.
        sights: of each clip, or none where no camera is turned.

    Returns:
        The clips with float32 positions in the unit of `size` and `metres_per_unit` (T,); with a
        judgement its measures; with sights `root` (T, 3), and with both `gravity`.
    """
    done, start = [], 0
    for index, clip in enumerate(clips.clips):
        rows = slice(start, start + len(clip))
        start = rows.stop
        seen = seen_joints(clip)
        poses = sights[index].to_camera(lifted[rows]) if sights else lifted[rows]
        nothing = unknown(seen, clip.fps)
        empty = np.asarray(nothing.all(1))
        metres = metres_per_unit(poses, clips.skeleton, size, seen, empty)
        judged: dict[str, Any] = {}
        for name, values in ({} if judgement is None else judgement._asdict()).items():
            if values is not None:
                judged[name] = _nan_where(empty, values[rows])
        if "expected_error" in judged:
            bones = bone_lengths(poses, clips.skeleton).sum(-1)
            judged["expected_error"] *= (1000 * bones * metres).astype(np.float32)
        positions = _nan_where(nothing[..., None], poses * metres[:, None, None])
        metres = _nan_where(empty, metres)
        if sights:
            sight = sights[index]
            judged["root"] = root_path(positions, metres, sight, clips.skeleton, clip.fps)
            found = None if judgement is None else gravity_of(judged["elevation"], sight)
            judged["gravity"] = found
        done.append(
            replace(
                clip,
                keypoints=_nan_where(nothing[..., None], clip.keypoints),
                positions=positions,
                metres_per_unit=metres,
                **judged,
            )
        )
    return replace(clips, clips=done, unit=size.unit)


def smoothed(clip: Clip, smooth: str) -> Clip:
    """A lifted clip whose joints' trajectories are filtered by one of `SMOOTHERS`."""
    assert clip.positions is not None
    return replace(clip, positions=SMOOTHERS[smooth](clip.positions, clip.fps))


def _nan_where(nothing: NDArray[np.bool_], values: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.where(nothing, np.float32(np.nan), values) if nothing.any() else values
