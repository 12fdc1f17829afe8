"""OpenPose: one JSON file per frame, `{"people": [{"pose_keypoints_2d": [x, y, c, ...]}]}`.

Source: OpenPose, doc/02_output.md. 25 joints are BODY_25 or BODY_25B, 18 its COCO model; RTMLib and
Pose2Sim write the same with 17, 26 or 133 joints of other detectors. Coordinates are pixels, or
0..1 or -1..1 by OpenPose's --keypoint_scale.
"""

from __future__ import annotations

from typing import Any

from ites.data.readers.recording import Detections, Frame, Person, joints_from, track_id
from ites.errors import ItesError, shorten

FORMAT = "OpenPose"
MIN_CONFIDENCE = 0.1
"""OpenPose draws joints from 0.05 on; between that and 0.1 they are mostly wrong."""
KEYS = ("pose_keypoints_2d", "pose_keypoints")
"""Of versions 1.2 and before that 1.0."""


def recognises(content: Any) -> bool:
    """Whether JSON content is an OpenPose frame."""
    people = content.get("people") if isinstance(content, dict) else None
    return isinstance(people, list) and all(
        isinstance(person, dict) and any(key in person for key in KEYS) for person in people[:10]
    )


def people_of(content: dict[str, Any], where: str) -> list[Person]:
    """The people in a frame.

    Raises:
        ItesError: a person is malformed.
    """
    found = []
    for index, entry in enumerate(content["people"]):
        person_at = f"{where}: person {index}"
        values = (
            next((entry[key] for key in KEYS if key in entry), None)
            if isinstance(entry, dict)
            else None
        )
        if not isinstance(values, list):
            raise ItesError(f"{person_at}: expected {KEYS[0]}, got {shorten(entry, 80)}")
        if values:
            joints = joints_from(values, person_at)
            weights = joints[joints[:, 2] > 0, 2]
            found.append(Person(joints, float(weights.sum()), track_id(entry.get("person_id"))))
    return found


def parse(content: Any, where: str, name: str) -> Detections:
    """Detections of one frame's content.

    Args:
        content: JSON content that `recognises` accepts.
        where: the file, for messages.
        name: the frame's name.
    """
    return Detections(
        FORMAT,
        [Frame(name, people_of(content, where))],
        min_confidence=MIN_CONFIDENCE,
        signed=True,
    )
