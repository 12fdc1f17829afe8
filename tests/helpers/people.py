"""People in motion as detectors see them, for the tests of the readers."""

from __future__ import annotations

from typing import Any

import numpy as np

from ites.data.clips import Clip
from ites.pose.layouts import LAYOUT_JOINTS, to_human36m

# A standing person, facing the camera: each joint right of and below the middle of the hips, in
# heights.
STANDING = {
    "nose": (0.0, -0.42), "left_eye": (0.02, -0.44), "right_eye": (-0.02, -0.44),
    "left_ear": (0.05, -0.43), "right_ear": (-0.05, -0.43), "left_shoulder": (0.11, -0.30),
    "right_shoulder": (-0.11, -0.30), "left_elbow": (0.15, -0.12), "right_elbow": (-0.15, -0.12),
    "left_wrist": (0.17, 0.02), "right_wrist": (-0.17, 0.02), "left_hip": (0.06, 0.0),
    "right_hip": (-0.06, 0.0), "left_knee": (0.07, 0.23), "right_knee": (-0.07, 0.23),
    "left_ankle": (0.07, 0.45), "right_ankle": (-0.07, 0.45), "neck": (0.0, -0.30),
    "thorax": (0.0, -0.30), "upper_neck": (0.0, -0.34), "head_top": (0.0, -0.52),
    "mid_hip": (0.0, 0.0), "pelvis": (0.0, 0.0),
}  # fmt: skip


def walk(
    layout: str = "coco17",
    frames: int = 12,
    *,
    height: float = 400.0,
    start: tuple[float, float] = (700.0, 500.0),
    step: tuple[float, float] = (4.0, 1.0),
) -> np.ndarray:
    """Somebody who crosses the image: (T, K, 2) float32, pixels, with swinging arms and legs."""
    names = LAYOUT_JOINTS[layout]
    still = np.array([STANDING.get(name, (0.01 * (i % 7), 0.0)) for i, name in enumerate(names)])
    t = np.arange(frames)[:, None, None]
    swing = 0.03 * np.sin(0.5 * t + np.arange(len(names))[:, None]) * [1.0, 0.2]
    return (start + t * step + height * (still + swing)).astype(np.float32)


def scored(points: np.ndarray, score: float = 0.9) -> np.ndarray:
    """(..., K, 3): points with a confidence."""
    return np.concatenate([points, np.full_like(points[..., :1], score)], axis=-1)


def flat(points: np.ndarray, score: float = 0.9) -> list[float]:
    """One person's x, y, confidence as a list, rounded as detectors round."""
    return np.round(scored(points, score).astype(float), 3).ravel().tolist()


def same(clip: Clip, points: np.ndarray, layout: str = "coco17", rows: Any = slice(None)) -> None:
    """The clip's rows are these joints in Human3.6M's order, to the rounding of the file."""
    expected, _ = to_human36m(points, layout)
    np.testing.assert_allclose(clip.keypoints[rows], expected[rows], atol=0.01)
