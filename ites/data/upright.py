"""Clips turned upright: from the camera's axes to gravity's."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ites.data.clips import Clip, Clips
from ites.errors import ItesError

LOW = 5.0
"""Percentile over frames of the lowest joint's height that is the floor: few wrong joints, and
jumps, do not move it."""


def upright_turn(gravity: Iterable[float]) -> NDArray[np.float64]:
    """The rotation from camera axes to gravity's: y along gravity, z level and forward.

    `X' = X @ R` with `R = [y x z, y, z]` as columns, y the gravity and z the camera's forward axis
    (its upper one, if it looks along gravity) without its part along y.

    Args:
        gravity: (3), camera axes.

    Returns:
        (3, 3), acts on row vectors from the right.
    """
    y = np.asarray(tuple(gravity), np.float64)
    y /= np.linalg.norm(y)
    forward = np.array([0.0, 0.0, 1.0]) if abs(y[2]) < 0.99 else np.array([0.0, -y[2], 0.0])
    z = forward - (forward @ y) * y
    z /= np.linalg.norm(z)
    return np.stack([np.cross(y, z), y, z], axis=1)


def stand_upright(clips: Clips, floor: bool = False) -> Clips:
    """Clips in gravity's axes: positions, truth and root path turned by `upright_turn`.

    Args:
        clips: in camera axes, each with `gravity`; or in gravity's already.
        floor: shift each root path so that y = 0 is at the lowest foot; see `floor_of`.

    Raises:
        ItesError: a clip has no gravity, or no root path for the floor.
    """
    if clips.frame == "gravity, floor at 0" or (clips.frame == "gravity" and not floor):
        return clips
    turned = []
    for clip in clips.clips:
        if clips.frame == "camera":
            clip = _turned(clip)
        if floor:
            clip = _on_floor(clip)
        turned.append(clip)
    return replace(clips, clips=turned, frame="gravity, floor at 0" if floor else "gravity")


def _turned(clip: Clip) -> Clip:
    if clip.gravity is None:
        raise ItesError(
            f"{clip.name}: up 'gravity' needs the camera's elevation, which it lacks; lift it "
            "with a run folder of recipe upright or general"
        )
    turn = upright_turn(clip.gravity)
    turned: dict[str, Any] = {}
    for name in ("positions", "truth", "root"):
        array = getattr(clip, name)
        turned[name] = None if array is None else (array @ turn).astype(np.float32)
    return replace(clip, **turned)


def _on_floor(clip: Clip) -> Clip:
    if clip.root is None or clip.positions is None:
        raise ItesError(f"{clip.name}: the floor needs a root path, which it lacks; lift it again")
    heights = -(clip.positions[..., 1] + clip.root[:, None, 1])
    down = np.array([0, floor_of(heights), 0], np.float32)
    return replace(clip, root=clip.root + down)


def floor_of(heights: NDArray[np.floating]) -> float:
    """The floor's height: the 5th percentile over frames of the lowest joint's height.

    Args:
        heights: (T, J), upwards; nan where unknown.
    """
    known = np.isfinite(heights).any(1)
    return float(np.percentile(np.nanmin(heights[known], axis=1), LOW)) if known.any() else 0.0
