"""The content of a keypoint file: raw detections, and the clips made from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ites.data.clips import Clip
from ites.errors import ItesError, shorten
from ites.pose.camera import Camera
from ites.pose.skeleton import HUMAN36M, Skeleton

LARGEST = 1e9
"""Upper bound of a coordinate in pixels."""


class Person(NamedTuple):
    """A person in a frame.

    Attributes:
        joints: (K, 3) float32, x, y, confidence.
        score: the detector's score.
        id: the track id, if the detector gives one.
        body: (J, 3), the skeleton's joints once known; used to track people by position.
    """

    joints: NDArray[np.float32]
    score: float = 1.0
    id: str | None = None
    body: NDArray[np.float32] = np.zeros((0, 3), np.float32)


class Frame(NamedTuple):
    """A frame of a file: its id, which is a number or an image's name, and its people."""

    id: int | float | str
    people: list[Person]


class Track(NamedTuple):
    """A person over time.

    Attributes:
        joints: (T, K, 3) float32, x, y, confidence.
        video: the video or camera; empty if there is only one.
        label: the person's track id or number; empty if there is only one.
        numbers: (T,) the frame numbers; None: from 0.
        first: the place of the first row among the video's frames.
    """

    joints: NDArray[np.float32]
    video: str = ""
    label: str = ""
    numbers: NDArray[np.int64] | None = None
    image_size: tuple[int, int] | None = None
    fps: float = float("nan")
    focal_length: tuple[float, float] | None = None
    first: int = 0


@dataclass
class Detections:
    """The result of a format's reader.

    Attributes:
        format: the format in words, such as "OpenPose".
        frames: frames with all their people, not yet in order; or
        tracks: people that are already tracked, in order of time.
        joints: the K joint names, if the file gives them.
        layout: the layout's name, if the format gives it.
        image_size: (width, height), pixels, of all frames.
        sizes: the same per frame id, if they differ.
        fps: frames per second, if the file gives them.
        scored: whether there are confidences.
        min_confidence: default threshold; joints below it count as missing.
        signed: whether normalised coordinates may be -1..1 (OpenPose's keypoint_scale 4).
        plain: whether only the number of joints determines their order.
        notes: lines to report about the reading.
    """

    format: str
    frames: list[Frame] = field(default_factory=list)
    tracks: list[Track] = field(default_factory=list)
    joints: tuple[str, ...] | None = None
    layout: str | None = None
    image_size: tuple[int, int] | None = None
    sizes: dict[Any, tuple[int, int]] = field(default_factory=dict)
    fps: float = float("nan")
    min_confidence: float = 0.1
    signed: bool = False
    scored: bool = True
    plain: bool = False
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Source:
    """A clip's original keypoints from the detector.

    Attributes:
        keypoints: (T, K, 2) float32, pixels; 0 where missing.
        confidence: (T, K) float32, 0 for a missing joint.
        joints: the K joint names.
        frames: (T,) the frame numbers of the file.
        split: the split of a pose store's clip; None: the file has no splits.
        camera: of a pose store's clip.
    """

    keypoints: NDArray[np.float32]
    confidence: NDArray[np.float32]
    joints: tuple[str, ...]
    frames: NDArray[np.int64]
    split: str | None = None
    camera: Camera | None = None

    def array(self) -> NDArray[np.float32]:
        """(T, K, 3): pixels and confidence."""
        return np.concatenate([self.keypoints, self.confidence[..., None]], axis=-1)


@dataclass(frozen=True)
class Recording:
    """The clips of a file of keypoints.

    Attributes:
        format: the file's format, in words.
        layout: the order of the detector's joints, one of `ites.pose.layouts.LAYOUTS` or the
            skeleton's name; "named" if the file names its joints.
        clips: one per person and video, `skeleton`'s joints, pixels.
        source: the detector's own joints of each clip.
        notes: lines on assumptions, derived joints, omissions and missing data.
        image_size: (width, height), pixels, if all clips have the same.
        fps: frames per second; nan if unknown.
        skeleton: the clips' skeleton.
        beside: what a pose store holds beside keypoints, in words.
        acknowledgement: the credit that a pose store's data require.
    """

    format: str
    layout: str
    clips: list[Clip]
    source: list[Source]
    notes: list[str] = field(default_factory=list)
    image_size: tuple[int, int] | None = None
    fps: float = float("nan")
    skeleton: Skeleton = HUMAN36M
    beside: tuple[str, ...] = ()
    acknowledgement: str = ""


def common_size_and_rate(clips: Sequence[Clip]) -> tuple[tuple[int, int] | None, float]:
    """The image size and frames per second of all clips; None and nan where they differ."""
    sizes, rates = {clip.image_size for clip in clips}, {clip.fps for clip in clips}
    size = sizes.pop() if len(sizes) == 1 else None
    return size, rates.pop() if len(rates) == 1 else float("nan")


def joints_from(values: Any, where: str, scores: Any = None) -> NDArray[np.float32]:
    """A person's joints (K, 3) from a flat list of x, y, confidence or from pairs and scores.

    null is a missing value, and so are x and y that are both NaN or "nan". One NaN alone indicates
    an earlier error. A number may be text.

    Args:
        values: 3 K numbers; or K pairs, or K triples.
        where: the file and the entry, for the message.
        scores: K confidences for pairs; None: 1.

    Raises:
        ItesError: the values are not keypoints.
    """
    array = numbers(values, where)
    if array.ndim == 3 and len(array) == 1:
        array = array[0]
    if array.ndim == 1:
        triples = array.size % 3 == 0 and not (array.size % 2 == 0 and array.size // 2 in (17, 33))
        if not array.size or array.size % (3 if triples else 2):
            raise ItesError(
                f"{where}: expected x, y, confidence per joint, got {array.size} numbers"
            )
        array = array.reshape(-1, 3 if triples else 2)
    if array.ndim != 2 or array.shape[1] not in (2, 3) or not len(array):
        raise ItesError(f"{where}: expected K keypoints of x and y, got shape {array.shape}")
    if scores is not None:
        sure = numbers(scores, where).reshape(-1)
        if array.shape[1] != 2:
            raise ItesError(
                f"{where}: expected 2D keypoints, got (K, {array.shape[1]}) with scores"
            )
        if len(sure) != len(array):
            raise ItesError(
                f"{where}: expected {len(array)} keypoint scores, one per keypoint, got {len(sure)}"
            )
    else:
        sure = array[:, 2] if array.shape[1] == 3 else np.ones(len(array))
    unknown = np.isnan(array[:, :2])
    odd = (unknown.any(1) & ~unknown.all(1)) | (np.isnan(sure) & ~unknown.all(1))
    given = [np.asarray(one) for one in (values, scores) if one is not None]
    if odd.any() and not any(one.dtype == object for one in given):
        raise ItesError(
            f"{where}: expected finite numbers, or x and y null or NaN for a missing joint, got "
            f"{array[odd][0].tolist()}"
        )
    return np.column_stack([array[:, :2], sure]).astype(np.float32)


def joints_of_many(values: list[Any]) -> NDArray[np.float32] | None:
    """The joints (N, K, 3) of N people, where all are lists alike of finite numbers; else None.

    It is `joints_from` for many people at once, which is faster than one by one.
    """
    sizes = {len(one) if type(one) is list else -1 for one in values}
    if len(sizes) != 1 or sizes & {-1, 0} or type(values[0][0]) not in (int, float):
        return None
    try:
        array = np.array(values)
    except (ValueError, OverflowError):  # lists of unequal length
        return None
    if array.ndim != 2 or array.dtype.kind not in "iuf" or not (np.abs(array) < LARGEST).all():
        return None
    try:
        shape = joints_from(values[0], "").shape
    except ItesError:
        return None
    joints = array.astype(np.float32).reshape(len(values), shape[0], -1)
    if joints.shape[2] == 2:
        return np.concatenate([joints, np.ones_like(joints[..., :1])], axis=-1)
    return joints


def numbers(values: Any, where: str) -> NDArray[np.float64]:
    """An array of numbers below `LARGEST`, also as text; null and "nan" are nan.

    Raises:
        ItesError: another kind of value is present.
    """
    try:
        array = np.asarray(values)
        if array.dtype.kind in "Sb":
            raise ValueError
        array = array.astype(np.float64, copy=False)
    except (ValueError, TypeError, OverflowError):
        raise ItesError(f"{where}: expected numbers, got {shorten(values, 60)!r}") from None
    large = np.abs(array) >= LARGEST
    if large.any():
        raise ItesError(f"{where}: expected pixels, got {array[large].flat[0]:g}")
    return array


def number(value: Any, where: str, default: float = 1.0) -> float:
    """A score: a number, or a list that begins with it; `default` if absent.

    Raises:
        ItesError: the value is of another kind.
    """
    if value is None:
        return default
    if type(value) is float and abs(value) < LARGEST:
        return value
    array = numbers(value, where).reshape(-1)
    return float(array[0]) if array.size and np.isfinite(array[0]) else default


def track_id(value: Any) -> str | None:
    """A track id as text; None if absent or -1."""
    while isinstance(value, list):
        if len(value) != 1:
            return None
        value = value[0]
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return None if value in (-1, "") else str(value)
