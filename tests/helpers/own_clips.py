"""Clips of a user's own, and the settings of a fit that takes seconds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from walking import walk

CLIPS, FRAMES = 5, 32
TINY = {
    "steps": 4,
    "batch": 32,
    "prior": {"width": 8, "blocks": 1},
    "teacher": {"width": 16, "blocks": 1},
    "student": {"width": 8, "blocks": 1},
    "log_every": 2,
    "device": "cpu",
}
"""Settings of a training that learns nothing but is over in seconds."""


def write_clips(folder: Path) -> list[Path]:
    """Five files of 32 frames each: a person who walks in five directions."""
    files = []
    for number in range(CLIPS):
        clip = walk(FRAMES, fps=12.0, turn=0.3 + number * 2 * np.pi / CLIPS)
        files.append(folder / f"clip{number}.npz")
        np.savez(files[-1], keypoints=clip.keypoints, fps=12.0, image_size=(1280, 960))
    return files
