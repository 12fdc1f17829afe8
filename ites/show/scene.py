"""What every picture of clips shares: colours, which clips are shown, windows and sides."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ites.data.clips import ASSUMED_FPS, Clip, Clips
from ites.data.lifted import PER_FRAME
from ites.errors import ItesError
from ites.pose.skeleton import Skeleton

COLOURS = {"right": "#d55e00", "middle": "#3e4c59", "left": "#0072b2", "truth": "#9aa5b1"}
"""Okabe and Ito's orange and blue, which the colour-blind tell apart too."""
MAX_CLIPS = 8
MAX_FRAMES = 1500


def choose(
    clips: Clips, name: str | None, max_clips: int, max_frames: int
) -> tuple[Clips, list[str]]:
    """Choose the clips to show, aligned to their ground truth; and say what is left out.

    Raises:
        ItesError: no clip's name holds `name`, or a limit is not positive.
    """
    if max_clips < 1 or max_frames < 1:
        raise ItesError(
            f"view: at least 1 clip, 1 frame, got {max_clips} clips, {max_frames} frames"
        )
    found = [c for c in clips.clips if len(c) and (name is None or name in c.name)]
    if not found:
        names = ", ".join(c.name for c in clips.clips[:5])
        raise ItesError(f"view: none of {len(clips.clips)} clips ({names}, ...) is named {name!r}")
    picks = np.linspace(0, len(found) - 1, min(max_clips, len(found))).round().astype(int)
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


def _cut(clip: Clip, frames: int) -> Clip:
    arrays = {key: getattr(clip, key) for key in PER_FRAME}
    own = {key: values[:frames] for key, values in arrays.items() if values is not None}
    return replace(clip, fps=clip.fps if clip.fps > 0 else ASSUMED_FPS, **own)


def to_truth(clip: Clip) -> Clip:
    """The clip with each lifted pose scaled to its ground truth, if there is one.

    The factor is N-MPJPE's, each pose's least-squares one: `<lifted, truth> / <lifted, lifted>`,
    over the joints that were lifted.
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
    """The square part of the image that holds the person: left, right, top, bottom, pixels."""
    points = clip.keypoints.reshape(-1, 2).astype(float)
    points = points[np.isfinite(points).all(1)]
    if not len(points):
        points = np.array([[0, 0], clip.image_size or (1000, 1000)], float)
    low, high = points.min(0), points.max(0)
    half = 0.56 * max(*(high - low), 1.0)
    x, y = (low + high) / 2
    return x - half, x + half, y - half, y + half


def box(clip: Clip) -> tuple[float, float, float]:
    """The upright box around the root's axis that holds the clip: half width, bottom, top (m)."""
    arrays = [a.reshape(-1, 3) for a in (clip.positions, clip.truth) if a is not None]
    joints = np.concatenate([*arrays, np.zeros((1, 3))])
    joints = joints[np.isfinite(joints).all(1)]
    half = max(1.06 * float(np.abs(joints[:, [0, 2]]).max()), 0.3)
    bottom, top = -float(joints[:, 1].max()), -float(joints[:, 1].min())
    return half, min(bottom, -0.3) - 0.05, max(top, 0.3) + 0.05
