"""MediaPipe: 33 pose landmarks per person, in JSON.

Source: MediaPipe, Pose Landmarker: x and y normalised by the image's width and height, the depth z
(not a confidence, so it is omitted), `visibility` and `presence`. Programs write a list of
landmarks per frame, or dicts with `landmarks`, `pose_landmarks` or `landmark`. Each list of 33
landmarks in a frame is a person. World landmarks, in metres, are omitted.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ites.data.readers.coco import image_id
from ites.data.readers.frames import natural
from ites.data.readers.nested import image_size, rate
from ites.data.readers.recording import Detections, Frame, Person, numbers, track_id
from ites.errors import ItesError, shorten

FORMAT = "MediaPipe"
JOINTS = 33
MIN_CONFIDENCE = 0.1
"""MediaPipe estimates hidden joints too; only joints it rates invisible are omitted."""
_FRAMES = ("frames", "results", "data", "poses", "pose_landmarks", "landmarks", "keypoints")
_NUMBERS = (
    "frame", "frame_id", "frame_index", "frame_idx", "frame_number", "index", "image_id",
    "timestamp_ms", "timestamp", "time_ms", "time",
)  # fmt: skip
_SCORES = ("visibility", "score", "confidence", "presence")
_DEPTH = 8


def is_person(value: Any) -> bool:
    """Whether a value is a list of 33 landmarks."""
    if not isinstance(value, list) or len(value) != JOINTS:
        return False
    if all(isinstance(mark, dict) and "x" in mark and "y" in mark for mark in value):
        return True
    return all(
        isinstance(mark, list)
        and 2 <= len(mark) <= 5
        and all(x is None or isinstance(x, (int, float)) for x in mark)
        for mark in value
    )


def people_in(value: Any, depth: int = 0) -> list[Any]:
    """All lists of 33 landmarks in a frame except world landmarks, with their track ids."""
    if is_person(value):
        return [(value, None)]
    if depth > _DEPTH:
        return []
    found = []
    if isinstance(value, dict):
        own = track_id(value.get("track_id", value.get("person_id")))
        for key, entry in value.items():
            if "world" not in str(key).lower():
                found += [(one, label or own) for one, label in people_in(entry, depth + 1)]
    elif isinstance(value, list):
        for entry in value[:100]:
            found += people_in(entry, depth + 1)
    return found


def recognises(content: Any) -> bool:
    """Whether 33 landmarks are in the first frames of JSON content."""
    frames = _frames(content)
    return any(people_in(frame) for _, frame in frames[:1000])


def parse(content: Any, where: str) -> Detections:
    """Detections of JSON content that `recognises` accepts.

    Raises:
        ItesError: a landmark is malformed.
    """
    found = Detections(FORMAT, layout="mediapipe33", min_confidence=MIN_CONFIDENCE)
    for key, frame in _frames(content):
        frame_at = f"{where}: frame {shorten(key, 40)}"
        people = [Person(_joints(marks, frame_at), 1.0, label) for marks, label in people_in(frame)]
        found.frames.append(Frame(key, people))
    found.image_size, found.fps = image_size(content), rate(content)
    return found


def _frames(content: Any) -> list[tuple[Any, Any]]:
    """Frames with their ids: the items of the outermost list, or of a dict with number keys."""
    if is_person(content):
        return [(0, content)]
    if isinstance(content, dict):
        keys = list(content)
        if keys and all(str(key).strip().lstrip("-").isdigit() for key in keys):
            return [(int(key), content[key]) for key in sorted(keys, key=natural)]
        for key in _FRAMES:
            if isinstance(content.get(key), (list, dict)) and people_in(content[key]):
                return _frames(content[key])
        named = [key for key in keys if people_in(content[key])]
        if len(named) > 1 and not any("landmark" in str(key).lower() for key in named):
            return [
                (key, value) for key, value in content.items() if isinstance(value, (list, dict))
            ]
        return [(0, content)]
    if not isinstance(content, list):
        return []
    return [(_number(frame, index), frame) for index, frame in enumerate(content)]


def _number(frame: Any, index: int) -> int | float | str:
    if isinstance(frame, dict):
        for key in _NUMBERS:
            if key in frame:
                return image_id(frame[key], f"frame {index}")
    return index


def _joints(marks: list[Any], where: str) -> NDArray[np.float32]:
    rows = []
    for mark in marks:
        if isinstance(mark, dict):
            sure = next((mark[key] for key in _SCORES if mark.get(key) is not None), 1.0)
            rows.append([mark["x"], mark["y"], sure])
        elif len(mark) >= 2:
            rows.append([mark[0], mark[1], mark[3] if len(mark) > 3 else 1.0])
    try:
        return numbers(rows, where).astype(np.float32)
    except ItesError:
        raise ItesError(
            f"{where}: expected numbers as landmarks, got {shorten(rows, 60)}"
        ) from None
