"""A person who walks, as tests see them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ites.data.clips import Clip
from ites.pose.skeleton import HUMAN36M

JOINT = {name: index for index, name in enumerate(HUMAN36M.joints)}


def walk(frames: int = 60, fps: float = 25.0, scale: float = 250.0, turn: float = 0.6) -> Clip:
    """A person of 1.7 m who walks, seen from the side at an angle, pixels."""
    t = np.arange(frames) / fps
    phase = 2 * np.pi * 0.9 * t
    flat = np.zeros((frames, 17, 3))  # x forward, y up, z to the left

    def put(name: str, x: float | np.ndarray, y: float | np.ndarray, z: float) -> None:
        flat[:, JOINT[name]] = np.stack(np.broadcast_arrays(x, y, z), -1)

    put("pelvis", 0, 0.95, 0)
    put("spine", 0, 1.2, 0)
    put("thorax", 0.02, 1.43, 0)
    put("neck", 0.05, 1.53, 0)
    put("head", 0.05, 1.68, 0)
    for side, sign in (("left", 1), ("right", -1)):
        swing = sign * np.sin(phase)
        put(f"{side}_hip", 0, 0.95, sign * 0.12)
        put(f"{side}_knee", 0.24 * swing, 0.52, sign * 0.12)
        put(f"{side}_ankle", 0.42 * swing - 0.08, 0.12 + 0.05 * np.cos(phase), sign * 0.12)
        put(f"{side}_shoulder", 0, 1.43, sign * 0.17)
        put(f"{side}_elbow", -0.12 * swing, 1.16, sign * 0.2)
        put(f"{side}_wrist", -0.3 * swing + 0.1, 0.95, sign * 0.2)
    x = flat[..., 0] * np.cos(turn) + flat[..., 2] * np.sin(turn) + 0.3 * t[:, None]
    points = np.stack([400 + scale * x, 700 - scale * flat[..., 1]], -1)
    points += np.random.default_rng(0).normal(0, 1.0, points.shape)
    return Clip("walk", points.astype(np.float32), fps=fps, image_size=(1280, 960))


def turned(clip: Clip, quarters: int) -> Clip:
    """The image turned clockwise by quarters of a circle."""
    x, y = clip.keypoints[..., 0], clip.keypoints[..., 1]
    width, height = clip.image_size or (0, 0)
    new = {
        1: (height - y, x),
        2: (width - x, height - y),
        3: (y, width - x),
    }[quarters]
    size = (height, width) if quarters % 2 else (width, height)
    return replace(clip, keypoints=np.stack(new, -1).astype(np.float32), image_size=size)
