"""Common parts of all pictures of clips: colours, choice of clips, windows and sides."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ites.data.clips import ASSUMED_FPS, Clip, Clips
from ites.data.lifted import PER_FRAME
from ites.errors import ItesError
from ites.pose.skeleton import Skeleton

COLOURS = {"right": "#d55e00", "middle": "#3e4c59", "left": "#0072b2", "truth": "#9aa5b1"}
"""Okabe and Ito's orange and blue, which are safe for colour blindness."""
MAX_CLIPS = 8
MAX_FRAMES = 120_000
"""More than an hour at 30 frames per second."""


def choose(
    clips: Clips, name: str | None, max_clips: int, max_frames: int
) -> tuple[Clips, list[str]]:
    """Choose the clips to show, aligned to their ground truth; and note omitted content.

    Raises:
        ItesError: no clip's name contains `name`, or a limit is not positive.
    """
    if max_clips < 1 or max_frames < 1:
        raise ItesError(
            f"view: at least 1 clip, 1 frame, got {max_clips} clips, {max_frames} frames"
        )
    found = [c for c in clips.clips if len(c) and (name is None or name in c.name)]
    if not found:
        names = ", ".join(c.name for c in clips.clips[:5])
        raise ItesError(f"view: none of {len(clips.clips)} clips ({names}, ...) is named {name!r}")
    picks = _spread([members for _, members in scenes(found)], max_clips)
    notes = []
    if len(picks) < len(found):
        notes.append(f"{len(picks)} of {len(found)} clips shown; `clip` chooses others")
    long = sum(len(found[i]) > max_frames for i in picks)
    if long:
        notes.append(f"{long} clips cut to their first {max_frames} frames")
    if not all(found[i].fps > 0 for i in picks):
        notes.append(f"{ASSUMED_FPS:g} frames per second, assumed")
    shown = [to_truth(_cut(found[i], max_frames)) for i in picks]
    return replace(clips, clips=shown), notes


def _spread(groups: list[list[int]], most: int) -> list[int]:
    """At most so many clips of whole scenes, which are spread evenly over the file."""
    for count in range(min(most, len(groups)), 0, -1):
        places = np.linspace(0, len(groups) - 1, count).round().astype(int)
        picks = [clip for place in places for clip in groups[place]]
        if len(picks) <= most:
            return sorted(picks)
    return groups[0][:most]


def scenes(clips: list[Clip]) -> list[tuple[str, list[int]]]:
    """Clips of one video, which happen at the same time, by the video's name.

    They are named VIDEO#PERSON, and have one rate and one image size.
    """
    found: dict[tuple[object, ...], list[int]] = {}
    for index, clip in enumerate(clips):
        video, mark, _ = clip.name.rpartition("#")
        key = (video, clip.fps, clip.image_size) if mark else (index,)
        found.setdefault(key, []).append(index)
    names = {key: clips[members[0]].name for key, members in found.items()}
    return [
        (str(key[0]) if len(members) > 1 else names[key], members) for key, members in found.items()
    ]


def label_of(clip: Clip) -> str:
    """The person of a clip that is named VIDEO#PERSON; else nothing."""
    video, mark, person = clip.name.rpartition("#")
    return person if mark and video else ""


def root_path(clip: Clip) -> NDArray[np.floating] | None:
    """(T, 3) the root's place in the camera's frame, metres; None if unknown."""
    return clip.root if clip.root is not None and np.isfinite(clip.root).any() else None


def _cut(clip: Clip, frames: int) -> Clip:
    arrays = {key: getattr(clip, key) for key in PER_FRAME}
    own = {key: values[:frames] for key, values in arrays.items() if values is not None}
    return replace(clip, fps=clip.fps if clip.fps > 0 else ASSUMED_FPS, **own)


def to_truth(clip: Clip) -> Clip:
    """Scale each lifted pose of a clip to its ground truth, if there is one.

    The factor is that of N-MPJPE, least squares per pose over the lifted joints:
    `<lifted, truth> / <lifted, lifted>`.
    """
    if clip.positions is None or clip.truth is None:
        return clip
    lifted = np.nan_to_num(clip.positions)
    known = np.isfinite(clip.positions)
    product = (lifted * np.nan_to_num(clip.truth) * known).sum((1, 2), keepdims=True)
    square = np.square(lifted).sum((1, 2), keepdims=True)
    return replace(clip, positions=clip.positions * (product / np.maximum(square, 1e-12)))


def bones_by_side(skeleton: Skeleton) -> dict[str, list[tuple[int, int]]]:
    """The bones, (parent, joint), of the right side, the middle and the left side."""
    sides: dict[str, list[tuple[int, int]]] = {"right": [], "middle": [], "left": []}
    for parent, joint in skeleton.bones:
        left, right = joint in skeleton.left, joint in skeleton.right
        sides["left" if left else "right" if right else "middle"].append((parent, joint))
    return sides


def window(clip: Clip) -> tuple[float, float, float, float]:
    """The square part of the image around the person: left, right, top, bottom, pixels."""
    points = clip.keypoints.reshape(-1, 2).astype(float)
    points = points[np.isfinite(points).all(1)]
    if not len(points):
        points = np.array([[0, 0], clip.image_size or (1000, 1000)], float)
    low, high = points.min(0), points.max(0)
    half = 0.56 * max(*(high - low), 1.0)
    x, y = (low + high) / 2
    return x - half, x + half, y - half, y + half


def box(clip: Clip) -> tuple[float, float, float]:
    """The upright box around the root's axis that bounds the clip: half width, bottom, top (m).

    Of a clip of more than 2,000 frames some are measured.
    """
    every = len(clip) // 2000 + 1
    arrays = [a[::every].reshape(-1, 3) for a in (clip.positions, clip.truth) if a is not None]
    joints = np.concatenate([*arrays, np.zeros((1, 3))])
    joints = joints[np.isfinite(joints).all(1)]
    half = max(1.06 * float(np.abs(joints[:, [0, 2]]).max()), 0.3)
    bottom, top = -float(joints[:, 1].max()), -float(joints[:, 1].min())
    return half, min(bottom, -0.3) - 0.05, max(top, 0.3) + 0.05
