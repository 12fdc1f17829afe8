"""AlphaPose's other JSON forms: a dict by image name, of `bodies` (cmu) or `people` (open).

Source: AlphaPose, docs/output.md: `{"0.jpg": {"version": ..., "bodies": [{"joints": [...]}]}}` and
`{"0.jpg": {"version": ..., "people": [{"pose_keypoints_2d": [...]}]}}`, of 18 joints in the order
of OpenPose's COCO model. With --sep-json each image has a separate file. AlphaPose's default list
is COCO's, with `idx` if tracking is on.
"""

from __future__ import annotations

from typing import Any

from ites.data.readers.recording import Detections, Frame, Person, joints_from, number, track_id
from ites.errors import ItesError, shorten

FORMAT = "AlphaPose"
MIN_CONFIDENCE = 0.1
"""For heatmap detectors; a lower confidence is a guess."""
_JOINTS = ("joints", "pose_keypoints_2d", "keypoints")


def is_frame(content: Any) -> bool:
    """Whether content is one frame of form "cmu"."""
    return isinstance(content, dict) and isinstance(content.get("bodies"), list)


def recognises(content: Any) -> bool:
    """Whether JSON content is a dict of frames by image name."""
    return (
        isinstance(content, dict)
        and bool(content)
        and all(
            isinstance(frame, dict) and ("bodies" in frame or "people" in frame)
            for frame in list(content.values())[:10]
        )
    )


def people_of(frame: Any, where: str) -> list[Person]:
    """The people in a frame of either form.

    Raises:
        ItesError: a person is malformed.
    """
    entries = frame.get("bodies", frame.get("people")) if isinstance(frame, dict) else None
    if not isinstance(entries, list):
        raise ItesError(f"{where}: expected bodies or people, got {shorten(frame, 80)}")
    found = []
    for index, entry in enumerate(entries):
        person_at = f"{where}: person {index}"
        values = (
            next((entry[key] for key in _JOINTS if key in entry), None)
            if isinstance(entry, dict)
            else None
        )
        if values is None:
            raise ItesError(f"{person_at}: expected joints, got {shorten(entry, 80)}")
        label = track_id(entry.get("idx", entry.get("person_id")))
        score = number(entry.get("score"), person_at)
        found.append(Person(joints_from(values, person_at), score, label))
    return found


def parse(content: dict[str, Any], where: str) -> Detections:
    """Detections of JSON content that `recognises` accepts."""
    frames = [
        Frame(name, people_of(frame, f"{where}: {shorten(name, 40)}"))
        for name, frame in content.items()
    ]
    return Detections(FORMAT, frames, min_confidence=MIN_CONFIDENCE)
