"""Ultralytics: results as JSON, and its arrays `xy`, `data`, `xyn`.

Source: ultralytics/engine/results.py (`Results.summary`, `to_json`): a list per image of
`{"name", "class", "confidence", "box", "track_id", "keypoints": {"x", "y", "visible"}}`; a list of
such lists for a video. A joint that it is unsure of is put at (0, 0), whatever its confidence.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ites.data.readers.recording import Detections, Frame, Person, number, numbers, track_id
from ites.errors import ItesError, shorten

FORMAT = "Ultralytics"
MIN_CONFIDENCE = 0.5
"""Ultralytics sets joints below 0.5 to (0, 0)."""


def is_frame(content: Any) -> bool:
    """Whether content is the list of people of one image."""
    return isinstance(content, list) and bool(content) and all(map(_is_person, content[:10]))


def _is_person(entry: Any) -> bool:
    keypoints = entry.get("keypoints") if isinstance(entry, dict) else None
    return isinstance(keypoints, dict) and "x" in keypoints and "y" in keypoints


def recognises(content: Any) -> bool:
    """Whether JSON content is of one image or of a video."""
    if is_frame(content):
        return True
    frames = list(content.values()) if isinstance(content, dict) else content
    return (
        isinstance(frames, list)
        and all(isinstance(frame, list) for frame in frames)
        and any(is_frame(frame) for frame in frames)
    )


def people_of(frame: Any, where: str) -> list[Person]:
    """The people of one image.

    Raises:
        ItesError: an entry is not what it should be.
    """
    found = []
    for index, entry in enumerate(frame):
        person_at = f"{where}: entry {index}"
        if not _is_person(entry):
            raise ItesError(f"{person_at}: expected keypoints x, y, got {shorten(entry, 80)}")
        columns = [numbers(entry["keypoints"][key], person_at).reshape(-1) for key in "xy"]
        sure = entry["keypoints"].get("visible")
        columns.append(
            np.ones(len(columns[0])) if sure is None else numbers(sure, person_at).reshape(-1)
        )
        if len({len(column) for column in columns}) != 1 or not len(columns[0]):
            raise ItesError(
                f"{person_at}: expected as many x as y and visible, got "
                f"{', '.join(str(len(column)) for column in columns)}"
            )
        score = number(entry.get("confidence"), person_at)
        joints = np.column_stack(columns).astype(np.float32)
        found.append(Person(joints, score, track_id(entry.get("track_id"))))
    return found


def parse(content: Any, where: str, name: str) -> Detections:
    """Detections of JSON content that `recognises`; `name` is the image's where it is one."""
    if is_frame(content):
        frames = [Frame(name, people_of(content, where))]
    else:
        items = content.items() if isinstance(content, dict) else enumerate(content)
        frames = [
            Frame(key, people_of(frame, f"{where}: frame {shorten(key, 40)}"))
            for key, frame in items
        ]
    return Detections(FORMAT, frames, min_confidence=MIN_CONFIDENCE)
