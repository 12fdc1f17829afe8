"""Arrays: .npz and .npy of plain numbers, with or without a detector's name for them.

- `keypoints` (T, K, 2), or (T, K, 3) with the confidence last; or the only array of the file.
- Ultralytics' `xy`, `data`, `xyn`; `conf` beside them.
- 33 joints are MediaPipe's: the third column is depth, the fourth visibility.
- Four dimensions: freemocap's (cameras, T, K, C), one clip per camera; if the first axis is longer
  than the second, (T, people, K, C).
- Optional: `confidence` or `scores`, `fps`, `focal_length` (one number or fx, fy), `image_size`
  (width, height), `layout`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ites.data.findings import Finding, ImplausibleError
from ites.data.readers.recording import LARGEST, Detections, Frame, Person, Track
from ites.errors import ItesError
from ites.pose.layouts import BY_COUNT

NAMES = (
    "keypoints", "data", "xy", "xyn", "keypoints_2d", "poses_2d", "pose_landmarks", "landmarks",
    "positions_2d", "reconstruction",
)  # fmt: skip
SCORES = ("confidence", "scores", "keypoint_scores", "conf", "visibility", "likelihood")
ULTRALYTICS = ("data", "xy", "xyn")
MIN_CONFIDENCE = 0.1
"""Of an unknown detector; Ultralytics' is 0.5, see `ites.data.readers.ultralytics`."""
OVER = 1.05
"""Confidences up to here are 1; more, or less than -0.05, are no confidences."""


def parse(path: Path, arrays: Mapping[str, NDArray[Any]]) -> Detections:
    """Detections of an .npz file's arrays, or of an .npy file's as `keypoints`.

    Raises:
        ItesError: the arrays are not keypoints, or are inconsistent.
    """
    if "positions" in arrays and "sequence_start" in arrays:
        raise ItesError(f"{path}: expected keypoints to lift, got poses that are lifted already")
    name = next((n for n in NAMES if n in arrays and arrays[n].ndim > 1), None)
    if name is None and len(arrays) == 1:
        name = next(iter(arrays))
    if name is None:
        listed = ", ".join(sorted(arrays))
        raise ItesError(f"{path}: expected an array 'keypoints', got {listed}")
    array = arrays[name]
    people = BY_COUNT.keys() | {25}
    if array.ndim == 2 and array.shape[0] in people and array.shape[1] in (2, 3):
        array = array[None]
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
    found = Detections("arrays", plain=True, min_confidence=MIN_CONFIDENCE)
    if name in ULTRALYTICS:
        found.format, found.plain = "Ultralytics", array.shape[-2] != 17
        found.min_confidence = 0.5
        found.layout = "coco17" if array.shape[-2] == 17 else None
    if array.shape[-2] == 33:
        found.format, found.layout = "MediaPipe", "mediapipe33"
    given = next((arrays[key] for key in SCORES if key in arrays), None)
    joints, found.scored = _with_confidence(path, name, array, given)
    if "layout" in arrays and arrays["layout"].dtype.kind == "U" and arrays["layout"].size == 1:
        found.layout = str(arrays["layout"].reshape(-1)[0])
    focal = _numbers(path, arrays, "focal_length", (1, 2))
    size = _numbers(path, arrays, "image_size", (2,))
    shape = _numbers(path, arrays, "orig_shape", (2,))
    fps = _numbers(path, arrays, "fps", (1,))
    found.fps = fps[0] if fps else float("nan")
    if size or shape:
        width, height = size or shape[::-1]
        found.image_size = (max(1, round(width)), max(1, round(height)))
    lens = (focal[0], focal[-1]) if focal else None
    if joints.ndim == 3:
        found.tracks = [Track(joints, focal_length=lens)]
    elif joints.shape[0] > joints.shape[1] and array.shape[-2] != 33:
        found.notes.append(f"shape {array.shape} is taken as (frames, people, joints, numbers)")
        found.frames = [
            Frame(t, [Person(person) for person in people]) for t, people in enumerate(joints)
        ]
    else:
        found.notes.append(
            f"shape {array.shape} is taken as (cameras, frames, joints, numbers): a clip each"
        )
        several = len(joints) > 1
        found.tracks = [
            Track(clip, video=f"camera{index}" if several else "", focal_length=lens)
            for index, clip in enumerate(joints)
        ]
    return found


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
    if third is None:
        return np.concatenate([places, np.ones_like(places[..., :1])], axis=-1), False
    told = third[np.isfinite(third) & np.isfinite(places).all(-1)]
    if told.size and not (
        (told.min() >= -0.05 and told.max() <= OVER) or set(np.unique(told)) <= {0.0, 1.0, 2.0}
    ):
        raise ImplausibleError(
            path,
            Finding(
                "depth",
                "error",
                f"confidence must lie in 0..1, got {told.min():.3g} to {told.max():.3g}; a third "
                "column that is a depth must be left out",
            ),
        )
    return np.concatenate([places, third[..., None]], axis=-1), True


def _numbers(
    path: Path, arrays: Mapping[str, NDArray[Any]], name: str, counts: tuple[int, ...]
) -> tuple[float, ...]:
    """The optional positive numbers of an .npz entry; empty if it is absent."""
    if name not in arrays:
        return ()
    value = np.atleast_1d(arrays[name])
    if value.ndim != 1 or len(value) not in counts or value.dtype.kind not in "fiu":
        raise ItesError(
            f"{path}: {name} must hold {' or '.join(map(str, counts))} numbers, got "
            f"{value.dtype} of shape {arrays[name].shape}"
        )
    if not ((value > 0) & (value < LARGEST)).all():
        raise ItesError(f"{path}: {name} must be positive and finite, got {value.tolist()}")
    return tuple(float(number) for number in value)
