"""Arrays: .npz and .npy of plain numbers, with or without a detector's name for them.

- `keypoints` (T, K, 2), or (T, K, 3) with the confidence last; or the only array of the file.
- Ultralytics' `xy`, `data`, `xyn`; `conf` beside them.
- 33 joints are MediaPipe's: the third column is depth, the fourth visibility. 543 and 553 are those
  of its Holistic model in freemocap's order: the body's 33, hands, face.
- Two dimensions: (T, K * C), each row of a frame's numbers.
- Four dimensions: freemocap's (cameras, T, K, C), one clip per camera; if the first axis is longer
  than the second, (T, people, K, C).
- An array of objects: per frame (people, K, C), as of RTMLib, whose number of people varies.
- Five dimensions: MoveNet's (T, 1, 1, 17, 3) of y, x, confidence, normalised.
- Optional: `confidence` or `scores`, `fps`, `focal_length` (one number or fx, fy), `image_size`
  (width, height) or `width` and `height`, `layout`, `joint_names` (K).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ites.data.findings import Finding, ImplausibleError
from ites.data.readers.recording import LARGEST, Detections, Frame, Person, Track, numbers
from ites.errors import ItesError
from ites.pose.layouts import BY_COUNT, joint_name

NAMES = (
    "keypoints", "data", "xy", "xyn", "keypoints_2d", "poses_2d", "pose_landmarks", "landmarks",
    "positions_2d", "reconstruction", "pred_keypoints", "keypoints2d", "kpts", "kpts_2d", "kps",
    "pose_2d", "pose2d", "poses2d", "joints_2d", "joints2d", "joints", "pose", "poses", "points",
)  # fmt: skip
SCORES = (
    "confidence", "scores", "keypoint_scores", "conf", "visibility", "likelihood", "confidences",
    "kpts_score", "score",
)  # fmt: skip
JOINT_NAMES = ("joint_names", "keypoint_names", "joints_names", "node_names", "bodyparts", "names")
HOLISTIC = (543, 553)
"""Numbers of landmarks of MediaPipe's Holistic model; the body's 33 come first in freemocap."""
CAMERAS = 16
"""Most cameras of MediaPipe's landmarks in an array of four dimensions; more are frames."""
ULTRALYTICS = ("data", "xy", "xyn")
MIN_CONFIDENCE = 0.1
"""Of an unknown detector; Ultralytics' is 0.5, see `ites.data.readers.ultralytics`."""
OVER = 1.05
"""Confidences up to here are 1; more, or less than -0.05, are no confidences."""
UNBOUNDED = 10.0
"""Largest score of an array of its own: RTMPose's are not limited to 1."""


def parse(path: Path, arrays: Mapping[str, NDArray[Any]]) -> Detections:
    """Detections of an .npz file's arrays, or of an .npy file's as `keypoints`.

    Raises:
        ItesError: the arrays are not keypoints, or are inconsistent.
    """
    if "positions" in arrays and "sequence_start" in arrays:
        raise ItesError(f"{path}: expected keypoints to lift, got poses that are lifted already")
    name = _name_of_keypoints(path, arrays)
    array = arrays[name]
    if array.dtype == object and array.ndim > 1:  # of numbers and None
        array = numbers(array, f"{path}: {name}")
    given = next((arrays[key] for key in SCORES if key in arrays), None)
    if array.dtype == object:
        return _ragged(path, name, array, given)
    array, cut = _shaped(array)
    moved = array.ndim == 5 and array.shape[1:] == (1, 1, 17, 3)  # MoveNet's output, stacked
    if moved:
        array = array[:, 0, 0][..., [1, 0, 2]]
    people = BY_COUNT.keys() | {25}
    if array.ndim == 2 and array.shape[0] in people and array.shape[1] in (2, 3):
        array = array[None]
    _check(path, name, array)
    found = _of_detector(name, array.shape[-2], moved)
    if cut:
        found.notes.append(f"the first 33 of {cut} landmarks are taken as MediaPipe's body")
    found.joints = _joint_names(arrays, array.shape[-2])
    joints, found.scored = _with_confidence(path, name, array, given)
    if given is not None and np.nanmax(given, initial=0) > OVER:
        found.notes.append(f"confidences above 1, up to {np.nanmax(given):.3g}, count as 1")
    if "layout" in arrays and arrays["layout"].dtype.kind == "U" and arrays["layout"].size == 1:
        found.layout = str(arrays["layout"].reshape(-1)[0])
    _add_people(found, joints, array.shape, _add_camera(found, path, arrays))
    return found


def _name_of_keypoints(path: Path, arrays: Mapping[str, NDArray[Any]]) -> str:
    """The array of keypoints: by its name, or the only one."""
    for name in NAMES:
        if name in arrays and (arrays[name].ndim > 1 or arrays[name].dtype == object):
            return name
    if len(arrays) == 1:
        return next(iter(arrays))
    listed = ", ".join(sorted(arrays))
    raise ItesError(f"{path}: expected an array 'keypoints', got {listed}")


def _check(path: Path, name: str, array: NDArray[Any]) -> None:
    """Raise ItesError if an array cannot be keypoints."""
    if array.ndim not in (3, 4) or not 2 <= array.shape[-1] <= 5 or array.dtype.kind not in "fiu":
        raise ItesError(
            f"{path}: {name} must be numbers of shape (T, J, 2) or (T, J, 3), got "
            f"{array.dtype} of shape {array.shape}"
        )
    if not array.size:
        raise ItesError(f"{path}: {name} hold no frame")
    if np.nanmax(np.abs(array), initial=0) >= LARGEST and np.isfinite(array).any():
        largest = np.nanmax(np.abs(array[np.isfinite(array)]), initial=0)
        if largest >= LARGEST:
            raise ItesError(f"{path}: {name} must be pixels, got {largest:g}")


def _of_detector(name: str, joints: int, moved: bool) -> Detections:
    """Detections without people, of the detector that an array's name and joints tell."""
    found = Detections("arrays", plain=True, min_confidence=MIN_CONFIDENCE)
    if name in ULTRALYTICS:
        found.format, found.plain = "Ultralytics", joints != 17
        found.min_confidence = 0.5
        found.layout = "coco17" if joints == 17 else None
    if moved:
        found.format, found.layout = "MoveNet", "coco17"
        found.notes.append("MoveNet writes y before x: exchanged")
    if name == "pred_keypoints" and joints == 17:
        found.format, found.layout = "Detectron2", "coco17"
    if joints == 33:
        found.format, found.layout = "MediaPipe", "mediapipe33"
    return found


def _add_camera(
    found: Detections, path: Path, arrays: Mapping[str, NDArray[Any]]
) -> tuple[float, float] | None:
    """Add image size and rate where the file gives them; return the focal length, or None."""
    focal = _numbers(path, arrays, "focal_length", (1, 2), found.notes)
    size = _numbers(path, arrays, "image_size", (2,), found.notes)
    if not size and {"width", "height"} <= arrays.keys():
        sides = [_numbers(path, arrays, side, (1,), found.notes) for side in ("width", "height")]
        size = sides[0] + sides[1] if all(sides) else ()
    shape = _numbers(path, arrays, "orig_shape", (2,), found.notes)
    fps = _numbers(path, arrays, "fps", (1,), found.notes)
    found.fps = fps[0] if fps else float("nan")
    if size or shape:
        width, height = size or shape[::-1]
        found.image_size = (max(1, round(width)), max(1, round(height)))
    return (focal[0], focal[-1]) if focal else None


def _add_people(
    found: Detections,
    joints: NDArray[np.float32],
    shape: tuple[int, ...],
    focal_length: tuple[float, float] | None,
) -> None:
    """Add joints (T, K, 3), or (cameras, T, K, 3), or (T, people, K, 3), of an array's shape."""
    if joints.ndim == 3:
        found.tracks = [Track(joints, focal_length=focal_length)]
    elif joints.shape[0] > (joints.shape[1] if shape[-2] != 33 else CAMERAS):
        found.notes.append(f"shape {shape} is taken as (frames, people, joints, numbers)")
        found.frames = [
            Frame(t, [Person(person) for person in people]) for t, people in enumerate(joints)
        ]
    else:
        found.notes.append(
            f"shape {shape} is taken as (cameras, frames, joints, numbers): a clip each"
        )
        several = len(joints) > 1
        found.tracks = [
            Track(clip, video=f"camera{index}" if several else "", focal_length=focal_length)
            for index, clip in enumerate(joints)
        ]


def _shaped(array: NDArray[Any]) -> tuple[NDArray[Any], int]:
    """Rows of numbers as (T, K, C), and a body without hands and face; and what it is cut from."""
    if array.ndim == 2 and array.shape[1] not in (2, 3):
        counts = [
            (n, k) for n in (3, 2, 4) for k in (17, 33, 25, 18, 26, 133, 136)
            if n * k == array.shape[1]
        ]  # fmt: skip
        if counts:
            array = array.reshape(len(array), counts[0][1], counts[0][0])
    if array.ndim in (3, 4) and array.shape[-2] in HOLISTIC:
        return array[..., :33, :], array.shape[-2]
    return array, 0


def _ragged(path: Path, name: str, array: NDArray[Any], scores: NDArray[Any] | None) -> Detections:
    """Frames of (people, K, C) arrays, whose number of people varies."""
    found = Detections("arrays", plain=True, min_confidence=MIN_CONFIDENCE, scored=False)
    if array.ndim != 1 or (scores is not None and len(scores) != len(array)):
        got = "none" if scores is None else f"scores of shape {scores.shape}"
        raise ItesError(f"{path}: {name}: expected an entry per frame, got {array.shape} and {got}")
    for t, entry in enumerate(array):
        frame_at = f"{path}: {name} of frame {t}"
        people = numbers([] if entry is None else entry, frame_at)
        people = people[None] if people.ndim == 2 and len(people) else people
        persons = []
        if people.size:
            if people.ndim != 3 or people.shape[-1] not in (2, 3):
                raise ItesError(f"{frame_at}: expected (people, K, 2) or 3, got {people.shape}")
            sure = None if scores is None else numbers(scores[t], f"{path}: scores of frame {t}")
            sure = sure[None] if sure is not None and sure.ndim == 1 and len(people) == 1 else sure
            joints, scored = _with_confidence(path, name, people, sure)
            found.scored |= scored
            persons = [Person(person) for person in joints]
        found.frames.append(Frame(t, persons))
    return found


def _joint_names(arrays: Mapping[str, NDArray[Any]], count: int) -> tuple[str, ...] | None:
    """The names of the joints in the file, if it has them."""
    for key in JOINT_NAMES:
        listed = arrays.get(key)
        if listed is not None and listed.dtype.kind == "U" and listed.shape == (count,):
            names = tuple(joint_name(str(name)) for name in listed)
            return names if len(set(names)) == count else tuple(map(str, listed))
    return None


def _with_confidence(
    path: Path, name: str, array: NDArray[Any], given: NDArray[Any] | None
) -> tuple[NDArray[np.float32], bool]:
    """Joints (..., K, 3) of x, y, confidence; and whether there is a confidence."""
    array = array.astype(np.float32)
    places, third = array[..., :2], None
    if array.shape[-2] == 33:
        if array.shape[-1] > 3:
            third = array[..., 3]
        elif array.shape[-1] == 3:
            finite = array[..., 2][np.isfinite(array[..., 2])]
            if finite.size and finite.min() >= 0 and finite.max() <= OVER:
                third = array[..., 2]
            elif _is_solid(places):
                message = "expected places in the image, got 3D: half of the x and y are negative"
                raise ImplausibleError(path, Finding("depth", "error", message))
    elif array.shape[-1] == 3:
        third = array[..., 2]
    elif array.shape[-1] > 3:
        raise ItesError(
            f"{path}: {name} must have 2 or 3 numbers per joint, x, y, confidence, got shape "
            f"{array.shape}"
        )
    if given is not None:
        if array.shape[-1] == 3 and array.shape[-2] != 33:
            raise ItesError(
                f"{path}: {name} must have shape (T, J, 2) beside a confidence, got {array.shape}: "
                "a third column would be a second confidence, or a depth"
            )
        if given.shape == (*places.shape[:-1], 1):
            given = given[..., 0]
        if given.shape != places.shape[:-1] or given.dtype.kind not in "fiub":
            raise ItesError(
                f"{path}: confidence must have shape {places.shape[:-1]}, got {given.dtype} of "
                f"shape {given.shape}"
            )
        third = given.astype(np.float32)
        finite = third[np.isfinite(third)]
        if finite.size and finite.min() >= 0 and OVER < finite.max() <= UNBOUNDED:
            third = np.minimum(third, 1)
    if third is None:
        return np.concatenate([places, np.ones_like(places[..., :1])], axis=-1), False
    given = third[np.isfinite(third) & np.isfinite(places).all(-1)]
    given = given[given != -1]  # of a joint that was not found
    if given.size and not (
        (given.min() >= -0.05 and given.max() <= OVER) or set(np.unique(given)) <= {0.0, 1.0, 2.0}
    ):
        raise ImplausibleError(
            path,
            Finding(
                "depth",
                "error",
                f"confidence must lie in 0..1, got {given.min():.3g} to {given.max():.3g}; a third "
                "column that is a depth must be left out",
            ),
        )
    return np.concatenate([places, third[..., None]], axis=-1), True


def _is_solid(places: NDArray[np.float32]) -> bool:
    """Whether places are those of triangulated joints: about a world's origin, in millimetres."""
    finite = places[np.isfinite(places).all(-1)]
    return bool(len(finite) and np.abs(finite).max() > 2 and (finite < 0).any(-1).mean() > 0.2)


def _numbers(
    path: Path,
    arrays: Mapping[str, NDArray[Any]],
    name: str,
    counts: tuple[int, ...],
    notes: list[str],
) -> tuple[float, ...]:
    """The optional positive numbers of an .npz entry; empty if it is absent.

    0 and nan are unknown too, with a note: OpenCV gives them for videos that it cannot tell.
    """
    if name not in arrays:
        return ()
    value = np.atleast_1d(arrays[name])
    if value.ndim != 1 or len(value) not in counts or value.dtype.kind not in "fiu":
        raise ItesError(
            f"{path}: {name} must hold {' or '.join(map(str, counts))} numbers, got "
            f"{value.dtype} of shape {arrays[name].shape}"
        )
    if (np.isnan(value) | (value == 0)).any():
        notes.append(f"{name} of {', '.join(f'{n:g}' for n in value)} counts as unknown")
        return ()
    if not ((value >= 1 / LARGEST) & (value < LARGEST)).all():
        raise ItesError(f"{path}: {name} must be positive and finite, got {value.tolist()}")
    return tuple(float(number) for number in value)
