"""CSV and JSON: positions as numbers, for spreadsheets and scripts."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ites import __version__
from ites.data.clips import Clip
from ites.export.motion import Motion

CONFIDENCES = ("sign_confidence", "elevation", "log_density", "expected_error")
"""Per-frame numbers of a lifted clip that a table repeats where they are known."""


def write_csv(path: Path, motions: Sequence[Motion], clips: Sequence[Clip]) -> None:
    """Write clips as CSV, one row per frame; an unknown joint's cells are empty.

    Lines that begin with `#` state the frame, the rates and the version. Columns are `clip`,
    `frame`, `time` (seconds), `<joint>_x`, `_y`, `_z`, and the known confidence measures of a pose.
    Frame and time count from the video's first frame, so people of one video share them.
    """
    joints = motions[0].skeleton.joints
    extra = [name for name in CONFIDENCES if any(getattr(c, name) is not None for c in clips)]
    with path.open("w", encoding="utf-8", newline="") as file:
        for line in _statement(motions):
            file.write(f"# {line}\n")
        writer = csv.writer(file, lineterminator="\n")
        columns = [f"{joint}_{axis}" for joint in joints for axis in "xyz"]
        writer.writerow(["clip", "frame", "time", *columns, *extra])
        for motion, clip in zip(motions, clips, strict=True):
            more = [_column(clip, name) for name in extra]
            rows = motion.positions.reshape(len(motion), -1)
            for index, second in enumerate(motion.seconds):
                numbers = [*rows[index], *(column[index] for column in more)]
                cells = ["" if not np.isfinite(value) else f"{value:.6g}" for value in numbers]
                second += clip.first_frame / motion.fps
                writer.writerow([motion.name, clip.first_frame + index, f"{second:.6f}", *cells])


def write_json(path: Path, motions: Sequence[Motion], clips: Sequence[Clip]) -> None:
    """Write clips as JSON: skeleton, frame, and per clip rate, first frame, positions [T][J][3].

    Unknown numbers are null.
    """
    skeleton = motions[0].skeleton
    content = {
        "format": "ites-poses",
        "version": __version__,
        "axes": motions[0].frame.axes,
        "unit": motions[0].frame.unit,
        "up": motions[0].up,
        "origin": motions[0].origin,
        "scale": motions[0].scale,
        "joints": skeleton.joints,
        "parents": skeleton.parents,
        "clips": [
            {
                "name": motion.name,
                "fps": motion.fps,
                "first_frame": clip.first_frame,
                "positions": _plain(motion.positions),
                **{
                    name: _plain(_column(clip, name))
                    for name in CONFIDENCES
                    if getattr(clip, name) is not None
                },
            }
            for motion, clip in zip(motions, clips, strict=True)
        ],
    }
    path.write_text(json.dumps(content, allow_nan=False) + "\n", encoding="utf-8")


def _statement(motions: Sequence[Motion]) -> list[str]:
    rates = sorted({motion.fps for motion in motions})
    return [
        f"ites {__version__}: 3D poses",
        f"frame: {motions[0].words}",
        f"frames per second: {', '.join(f'{rate:g}' for rate in rates)}",
    ]


def _column(clip: Clip, name: str) -> np.ndarray:
    values = getattr(clip, name)
    return np.full(len(clip), np.nan) if values is None else values


def _plain(values: np.ndarray) -> Any:
    rounded = np.round(values.astype(np.float64), 6)
    plain = rounded.astype(object)
    plain[~np.isfinite(rounded)] = None
    return plain.tolist()
