"""Ultralytics: results as JSON, and its arrays `xy`, `data`, `xyn`.

Source: ultralytics/engine/results.py (`Results.summary`, `to_json`): a list per image of
`{"name", "class", "confidence", "box", "track_id", "keypoints": {"x", "y", "visible"}}`; a list of
such lists for a video. Uncertain joints are at (0, 0), with any confidence. With save_txt a text
file per image, `labels/video_1.txt`, has one line per person: class, the box's x, y, width, height,
17 times x, y or x, y, confidence, all normalised. The person's confidence and track id may follow.
Images without people have no file.
"""

from __future__ import annotations

import re
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
        ItesError: an entry is malformed.
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
    """Detections of JSON content that `recognises` accepts; `name` is that of a single image."""
    if is_frame(content):
        frames = [Frame(name, people_of(content, where))]
    else:
        items = content.items() if isinstance(content, dict) else enumerate(content)
        frames = [
            Frame(key, people_of(frame, f"{where}: frame {shorten(key, 40)}"))
            for key, frame in items
        ]
    return Detections(FORMAT, frames, min_confidence=MIN_CONFIDENCE)


def is_labels(text: str) -> bool:
    """Whether the first line of a text is a label file's person."""
    cells = text.split("\n", 1)[0].split()
    return _width(len(cells)) > 0 and all(map(_NUMBER.fullmatch, cells))


_NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?(e[-+]?[0-9]+)?")


def _width(cells: int) -> int:
    """Numbers per joint in a line with the given number of cells; 0 if it is not a person's."""
    return next((per for per in (2, 3) if 0 <= cells - 5 - 17 * per <= 2), 0)


def parse_labels(text: str, where: str, name: str) -> Detections:
    """Detections of one image's label file.

    Raises:
        ItesError: a line is not a person.
    """
    people = []
    for index, line in enumerate(text.splitlines()):
        cells, line_at = line.split(), f"{where}: line {index + 1}"
        if not cells:
            continue
        per = _width(len(cells))
        if not per:
            raise ItesError(f"{line_at}: expected 17 joints of a person, got {len(cells)} numbers")
        try:
            plain = [float(cell) for cell in cells]
        except ValueError:
            raise ItesError(f"{line_at}: expected numbers, got {shorten(line, 60)}") from None
        values = numbers(plain, line_at)
        joints = np.ones((17, 3), np.float32)
        joints[:, :per] = values[5 : 5 + 17 * per].reshape(17, per)
        rest = [float(value) for value in values[5 + 17 * per :]]
        label = track_id(rest[-1]) if rest and rest[-1].is_integer() and rest[-1] > 0 else None
        people.append(Person(joints, rest[0] if rest else 1.0, label))
    return Detections(FORMAT, [Frame(name, people)], layout="coco17", min_confidence=MIN_CONFIDENCE)
