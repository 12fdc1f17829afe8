"""People per frame in JSON, in the forms that programs and their users write without a standard.

- A person is an object with joints under a name of `JOINTS`, or an object of at least 5 named
  joints. Joints are a flat list, pairs or triples, objects with x and y, lists x and y, or an
  object of these by joint name. Confidences are in the joints, or in a list beside them.
- A frame is a person, a list of people, an object of people by track id, or an object that holds
  one of these under a name of `PEOPLE`. Lists in lists are joined.
- A file is a list of frames, or an object of frames by number or image name. It may also be an
  object that holds one of these under a name of `FRAMES`, beside the image size and the rate.

Sources: OpenPose's doc/02_output.md (frames joined to one list, as ComfyUI and DWPose write them
with canvas_width); MMPose's inferencer ("predictions") and demos of 0.x; Transformers'
`post_process_pose_estimation` (keypoints, scores); torchvision's and Detectron2's instances;
TensorFlow.js' pose-detection (named keypoints with score) and PoseNet (part, position);
easy_ViTPose, which writes `keypoints` and `skeleton` with y before x.
"""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ites.data.readers.coco import IDS, image_id
from ites.data.readers.recording import (
    Detections,
    Frame,
    Person,
    joints_from,
    number,
    numbers,
    track_id,
)
from ites.errors import ItesError, shorten
from ites.pose.layouts import BY_COUNT, joint_name, joints_of

FORMAT = "JSON of people"
MIN_CONFIDENCE = 0.1
"""Of an unknown detector."""
JOINTS = (
    "pose_keypoints_2d", "pose_keypoints", "keypoints", "keypoints_2d", "keypoints2d",
    "pred_keypoints", "landmarks", "pose_landmarks", "joints", "joints_2d", "kpts", "pose",
)  # fmt: skip
SCORES = (
    "keypoint_scores", "keypoints_scores", "keypoints_score", "scores", "confidences",
    "confidence", "visibility",
)  # fmt: skip
PEOPLE = (
    "people", "persons", "instances", "predictions", "results", "result", "detections", "poses",
    "humans", "bodies", "objects", "annotations", "skeletons", "person", "data", "preds",
)  # fmt: skip
FRAMES = ("frames", *PEOPLE, "images", "video", "sequence", "annotations", "keypoints")
NUMBERS = (
    "frame", "frame_id", "frame_index", "frame_idx", "frame_number", "frame_num", "frameIndex",
    "frameId", "image_id", "image", "image_name", "image_path", "filename", "file_name", "index",
    "timestamp_ms", "timestamp", "time_ms", "time",
)  # fmt: skip
ABOUT = ("metadata", "meta", "meta_info", "info", "video", "video_info", "image_info")
RATES = ("fps", "frame_rate", "framerate", "frames_per_second")
SIZES = (
    ("width", "height"), ("image_width", "image_height"), ("canvas_width", "canvas_height"),
    ("frame_width", "frame_height"), ("video_width", "video_height"), ("w", "h"),
    ("img_w", "img_h"),
)  # fmt: skip
FEWEST = 5
"""Minimum number of joints of a person without a name for them."""
_DEPTH = 8


def recognises(content: Any) -> bool:
    """Whether people are in the first frames of JSON content; not in lists of numbers alone."""
    if isinstance(content, dict) and isinstance(_joints(content), list):
        points = _joints(content)
        if not any(isinstance(entry, dict) for entry in points):
            return False
    return any(_people(value) for _, value in _frames(content)[:1000])


def parse(content: Any, where: str) -> Detections:
    """Detections of JSON content that `recognises` accepts.

    Raises:
        ItesError: a person is malformed.
    """
    found = Detections(FORMAT, min_confidence=MIN_CONFIDENCE)
    flipped = _is_easy_vitpose(content)
    frames = _frames(content)
    if len(frames) > 1 and all(bare for _, bare in map(_bare, frames)):
        found.notes.append("objects without a frame number are taken as one person per frame")
    names: tuple[str, ...] | None = None
    for key, value in frames:
        frame_at = f"{where}: frame {shorten(key, 40)}"
        people = []
        for entry, label in _people(value):
            for person, own in _persons(entry, label, frame_at):
                names = names or own
                if own != names:
                    raise ItesError(
                        f"{frame_at}: expected the joints {shorten(names or 'without names', 60)}, "
                        f"got {shorten(own or 'without names', 60)}"
                    )
                people.append(person)
        found.frames.append(Frame(key, people))
        size = image_size(value)
        if size is not None:
            found.sizes[key] = size
    if flipped:
        found.format = "easy_ViTPose"
        found.notes.append("easy_ViTPose writes y before x: exchanged")
        for frame in found.frames:
            for person in frame.people:
                person.joints[:, :2] = person.joints[:, 1::-1]
        names = _skeleton_names(content["skeleton"])
    elif _holds(frames, "pose_keypoints_2d"):
        found.format, found.signed = "OpenPose", True
    elif _holds(frames, "keypoint_scores") or _holds(frames, "bbox"):
        found.format, found.min_confidence = "MMPose", 0.3
    elif _holds(frames, "box") and _holds(frames, "class"):
        found.format, found.min_confidence = "Ultralytics", 0.5
    _name_joints(found, names, where)
    found.image_size, found.fps = image_size(content), rate(content)
    return found


def _name_joints(found: Detections, names: tuple[str, ...] | None, where: str) -> None:
    """Tell the layout of named joints, or their names.

    Raises:
        ItesError: there are more or fewer names than joints.
    """
    count = next((len(p.joints) for frame in found.frames for p in frame.people), 0)
    if names is None:
        return
    if len(names) != count:
        raise ItesError(f"{where}: expected names of {count} joints, got {len(names)}")
    joints = tuple(joint_name(name) for name in names)
    usual = BY_COUNT.get(count)
    if count == 33 and "left_eye_inner" in joints:
        found.layout = "mediapipe33"
    elif usual is not None and joints == joints_of(usual):
        found.layout = usual
    else:
        found.joints = joints if len(set(joints)) == count else names


def image_size(content: Any) -> tuple[int, int] | None:
    """(width, height), pixels, in an object or in one of its objects of `ABOUT`; else None."""
    for level in _about(content):
        for pair in SIZES:
            sides = [level.get(key) for key in pair]
            if all(isinstance(n, (int, float)) and 1 < n < 1 << 20 for n in sides):
                return round(sides[0]), round(sides[1])  # type: ignore[arg-type]
        for key in ("image_size", "resolution", "size", "orig_shape"):
            sides = level.get(key)  # type: ignore[assignment]
            if key == "orig_shape" and isinstance(sides, list):  # Ultralytics: height, width
                sides = sides[::-1]
            if (
                isinstance(sides, list)
                and len(sides) == 2
                and all(isinstance(n, (int, float)) and 1 < n < 1 << 20 for n in sides)
            ):
                return round(sides[0]), round(sides[1])  # type: ignore[arg-type]
    return None


def rate(content: Any) -> float:
    """Frames per second in an object or in one of its objects of `ABOUT`; else nan."""
    for level in _about(content):
        for key in RATES:
            value = level.get(key)
            if isinstance(value, (int, float)) and 0 < value < 1e6:
                return float(value)
    return math.nan


def _about(content: Any) -> list[dict[str, Any]]:
    if not isinstance(content, dict):
        return []
    return [content, *(content[k] for k in ABOUT if isinstance(content.get(k), dict))]


def _frames(content: Any) -> list[tuple[Any, Any]]:
    """Frames with their ids."""
    if isinstance(content, dict):
        if _joints(content) is None or _is_easy_vitpose(content):
            for key in FRAMES:
                value = content.get(key)
                if isinstance(value, (list, dict)) and _frame_count(value):
                    return _frames(value)
            numbered = [k for k, value in content.items() if isinstance(value, (list, dict))]
            if numbered and all(_is_id(key) for key in numbered):
                found = [(key, content[key]) for key in numbered if _people(content[key])]
                if found:
                    return [(key, content[key]) for key in numbered]
        return [(0, content)]
    if not isinstance(content, list) or not content:
        return []
    while len(content) == 1 and isinstance(content[0], list) and _is_list_of_frames(content[0]):
        content = content[0]
    return [(_number(value, index), loaded(value)) for index, value in enumerate(content)]


def _is_list_of_frames(value: Any) -> bool:
    return isinstance(value, list) and len(value) > 1 and all(isinstance(v, list) for v in value)


def _frame_count(value: Any) -> int:
    """How many of the first frames have people."""
    entries = list(value.values()) if isinstance(value, dict) else value
    return sum(bool(_people(loaded(entry))) for entry in entries[:1000])


def _is_id(key: Any) -> bool:
    return any(char.isdigit() for char in str(key))


def loaded(value: Any) -> Any:
    """A frame that is JSON in a text, as Ultralytics' `to_json` returns it, as its content."""
    if isinstance(value, str) and value.lstrip()[:1] in ("[", "{"):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return value
    return value


def _number(frame: Any, index: int) -> Any:
    if isinstance(frame, dict):
        for key in NUMBERS:
            if key in frame and type(frame[key]) in (int, float, str):
                return image_id(frame[key], f"frame {index}")
    return index


def _bare(frame: tuple[Any, Any]) -> tuple[Any, bool]:
    """Whether a frame is a person without a number."""
    key, value = frame
    bare = isinstance(value, dict) and _joints(value) is not None
    return key, bare and not any(name in value for name in NUMBERS)


def _people(value: Any, label: str | None = None, depth: int = 0) -> list[tuple[Any, str | None]]:
    """The people of a frame with their track ids."""
    if depth > _DEPTH:
        return []
    found: list[tuple[Any, str | None]] = []
    if isinstance(value, list):
        for entry in value[:1000]:
            if isinstance(entry, (list, dict)):
                found += _people(entry, None, depth + 1)
        return found
    if not isinstance(value, dict):
        return []
    if _joints(value) is not None:
        return [(value, label)]
    for key in PEOPLE:
        if isinstance(value.get(key), (list, dict)):
            found = _people(value[key], None, depth + 1)
            if found:
                return found
    if value and all(str(key).lstrip("-").isdigit() for key in value):  # by track id
        for key, entry in value.items():
            if _is_points(entry):
                found.append(({"keypoints": entry}, str(key)))
            else:
                found += _people(entry, str(key), depth + 1)
    return found


def _joints(value: dict[str, Any]) -> Any:
    """The joints of a person's object; None if it is not a person's."""
    for key in JOINTS:
        if key in value and (_is_points(value[key]) or _is_several(value[key])):
            return value[key]
    own = {key: entry for key, entry in value.items() if _is_point(entry)}
    named = sum(not str(key).lstrip("-").isdigit() for key in own)
    return own if named >= FEWEST else None


def _is_point(value: Any) -> bool:
    if isinstance(value, dict):
        inner = value.get("position", value)
        return (
            isinstance(inner, dict) and "x" in inner and "y" in inner and not _is_list(inner["x"])
        )
    return (
        isinstance(value, list)
        and 2 <= len(value) <= 5
        and all(v is None or type(v) in (int, float) for v in value)
    )


def _is_list(value: Any) -> bool:
    return isinstance(value, list)


def _is_points(value: Any) -> bool:
    """Whether a value is the joints of one person."""
    if isinstance(value, dict):
        if _is_list(value.get("x")) and _is_list(value.get("y")):
            return True
        if _pairs(value) is not None:
            return _is_points(_pairs(value)) or _is_several(_pairs(value))
        return len(value) >= FEWEST and all(_is_point(entry) for entry in value.values())
    if not isinstance(value, list) or len(value) < FEWEST:
        return False
    if all(v is None or type(v) in (int, float) for v in value):
        return len(value) >= 2 * FEWEST
    return all(_is_point(entry) for entry in value)


def _pairs(value: Any) -> list[Any] | None:
    """The pairs of Ultralytics' `Keypoints` as an object: pixels, or else normalised."""
    found = [value.get(key) for key in ("xy", "xyn")] if isinstance(value, dict) else []
    return next((one for one in found if _is_list(one)), None)


def _is_several(value: Any) -> bool:
    """Whether a value is a list of several people's joints."""
    return isinstance(value, list) and bool(value) and all(_is_points(entry) for entry in value)


def _persons(
    entry: dict[str, Any], label: str | None, where: str
) -> list[tuple[Person, tuple[str, ...] | None]]:
    """The people of an object, with their joint names."""
    joints = _joints(entry)
    scores = next((entry[key] for key in SCORES if _is_list(entry.get(key))), None)
    own = next((track_id(entry[key]) for key in IDS if track_id(entry.get(key))), None)
    if own is None and "image_id" not in entry:
        own = track_id(entry.get("id"))
    if isinstance(joints, dict) and _pairs(joints) is not None:
        scores = joints.get("conf")
        joints = _pairs(joints)
    if not _is_several(joints):
        score = number(entry.get("bbox_score", entry.get("score")), where)
        array, names = _array(joints, scores, where)
        return [(Person(array, score, label or own), names)]
    found = []
    for index, points in enumerate(joints):
        sure = scores[index] if scores is not None and index < len(scores) else None
        score = float(sure) if isinstance(sure, (int, float)) else 1.0
        array, names = _array(points, sure if _is_list(sure) else None, where)
        found.append((Person(array, score), names))
    return found


def _array(
    points: Any, scores: Any, where: str
) -> tuple[NDArray[np.float32], tuple[str, ...] | None]:
    """Joints (K, 3) of x, y, confidence, and their names if they have any."""
    names: tuple[str, ...] | None = None
    if isinstance(points, dict) and _pairs(points) is not None:
        scores = points.get("conf")
        points = _pairs(points)
    if isinstance(points, dict) and _is_list(points.get("x")) and _is_list(points.get("y")):
        sure = next((points[k] for k in ("visible", *SCORES) if _is_list(points.get(k))), scores)
        columns = [numbers(points[axis], where).reshape(-1) for axis in "xy"]
        if len(columns[0]) != len(columns[1]):
            raise ItesError(
                f"{where}: expected as many x as y, got {len(columns[0])} and {len(columns[1])}"
            )
        return joints_from(np.column_stack(columns), where, sure), None
    if isinstance(points, dict):
        names, points = tuple(map(str, points)), list(points.values())
        if all(name.isdigit() for name in names):
            points = [points[i] for i in np.argsort([int(name) for name in names])]
            names = None
    if points and isinstance(points[0], dict):
        if names is None:
            listed = [_name(point) for point in points]
            names = tuple(map(str, listed)) if all(listed) else None
        points = [_point(point) for point in points]
    if points and _is_list(points[0]):
        width = len(points[0])
        if any(not _is_list(point) or len(point) != width for point in points):
            raise ItesError(f"{where}: expected {width} numbers per joint, got other lists")
        if width > 3:  # x, y, depth, confidence
            points = [[point[0], point[1], point[3]] for point in points]
        elif width == 3 and scores is not None and len(scores) == len(points):
            flags = {point[2] for point in points if type(point[2]) in (int, float)}
            if not flags <= {0, 1, 2}:
                raise ItesError(
                    f"{where}: expected keypoints of x and y beside scores, got a third number "
                    "that is another confidence or a depth"
                )
            scores = None  # torchvision's scores are no probabilities; its flags state what is seen
    if scores is not None and len(scores) != len(points):
        scores = None  # of something else
    return joints_from(points, where, scores), names


def _name(point: dict[str, Any]) -> Any:
    return next((point[key] for key in ("name", "part", "label", "joint") if key in point), None)


def _point(point: Any) -> list[Any]:
    inner = point.get("position", point)
    keys = ("score", "visibility", "confidence", "likelihood", "presence")
    sure = next((point[key] for key in keys if point.get(key) is not None), 1.0)
    return [inner.get("x"), inner.get("y"), sure]


def _holds(frames: list[tuple[Any, Any]], key: str) -> bool:
    return any(key in entry for _, frame in frames[:20] for entry, _ in _people(frame))


def _is_easy_vitpose(content: Any) -> bool:
    return (
        isinstance(content, dict)
        and isinstance(content.get("skeleton"), dict)
        and isinstance(content.get("keypoints"), list)
        and all(isinstance(frame, dict) for frame in content["keypoints"])
    )


def _skeleton_names(skeleton: dict[str, Any]) -> tuple[str, ...] | None:
    try:
        return tuple(str(skeleton[key]) for key in sorted(skeleton, key=int))
    except ValueError:
        return None
