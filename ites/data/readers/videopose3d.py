"""VideoPose3D's .npz files of 2D keypoints, and those of its relatives.

Source: facebookresearch/VideoPose3D, DATASETS.md and data/prepare_data_2d_custom.py: `positions_2d`
{subject or video: {action: [(T, K, 2) or (T, K, 3) per camera]}} and `metadata` with `layout_name`,
`num_joints` and `video_metadata` {video: {"w", "h", "fps"}}. Also inference/infer_video_d2.py:
`boxes` and `keypoints`, per frame and class, of (people, 4, 17) rows x, y, logit, probability.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ites.data.readers.recording import Detections, Frame, Person, Track, number, numbers
from ites.errors import ItesError, shorten
from ites.pose.layouts import LAYOUTS

FORMAT = "VideoPose3D"
MIN_CONFIDENCE = 0.1
"""Of an unknown detector."""
_NAMES = {"coco": "coco17", "h36m": "human36m", "human36m": "human36m", "mpii": "mpii16"}


def could_be(names: set[str]) -> bool:
    """Whether an .npz file with these members may be VideoPose3D's; called before unpickling."""
    return "positions_2d" in names or {"keypoints", "boxes"} <= names


def recognises(content: dict[str, Any]) -> bool:
    """Whether an .npz file's entries are VideoPose3D's."""
    if isinstance(content.get("positions_2d"), dict):
        return True
    keypoints = content.get("keypoints")
    return isinstance(keypoints, np.ndarray) and keypoints.dtype == object and "boxes" in content


def parse(path: Path, content: dict[str, Any]) -> Detections:
    """Detections of an .npz file's entries that `recognises` accepts.

    Raises:
        ItesError: an entry is malformed.
    """
    metadata = content.get("metadata")
    metadata = metadata if isinstance(metadata, dict) else {}
    if not isinstance(content.get("positions_2d"), dict):
        return _detectron(path, content, metadata)
    found = Detections(FORMAT, min_confidence=MIN_CONFIDENCE, scored=False, plain=True)
    found.layout = layout_of(metadata)
    videos = metadata.get("video_metadata")
    videos = videos if isinstance(videos, dict) else {}
    for video, actions in content["positions_2d"].items():
        if not isinstance(actions, dict):
            raise ItesError(f"{path}: positions_2d: expected actions of {shorten(video, 40)}")
        size, fps = _video(videos.get(video), str(path))
        for action, cameras in actions.items():
            at = f"{path}: positions_2d, {shorten(video, 40)}, {shorten(action, 40)}"
            if isinstance(cameras, np.ndarray) and cameras.ndim == 3:
                cameras = [cameras]
            if not isinstance(cameras, (list, tuple, np.ndarray)):
                raise ItesError(f"{at}: expected a list of one array per camera")
            for index, camera in enumerate(cameras):
                joints = _camera(camera, at)
                found.scored |= np.shape(camera)[-1] == 3
                parts = [str(video), *([] if action == "custom" else [str(action)])]
                parts += [f"camera{index}"] if len(cameras) > 1 else []
                found.tracks.append(Track(joints, "/".join(parts), "", None, size, fps))
    counts = sorted({one.joints.shape[1] for one in found.tracks})
    if len(counts) != 1:
        raise ItesError(f"{path}: expected clips of one number of joints, got {counts[:5]}")
    if len(found.tracks) == 1:
        found.tracks = [found.tracks[0]._replace(video="")]
    return found


def layout_of(metadata: dict[str, Any]) -> str | None:
    """The layout that a file's metadata name, by our name; None if it is unknown."""
    name = str(metadata.get("layout_name", "")).lower()
    return _NAMES.get(name, name if name in LAYOUTS else None)


def _camera(camera: Any, where: str) -> NDArray[np.float32]:
    array = numbers(camera, where)
    if array.ndim != 3 or array.shape[2] not in (2, 3) or not array.size:
        raise ItesError(f"{where}: expected an array (T, J, 2), got shape {array.shape}")
    if array.shape[2] == 2:
        array = np.concatenate([array, np.ones_like(array[..., :1])], axis=-1)
    return array.astype(np.float32)


def _video(about: Any, where: str) -> tuple[tuple[int, int] | None, float]:
    """Image size and frames per second of a video's metadata."""
    if not isinstance(about, dict):
        return None, float("nan")
    width, height = (number(about.get(key), where, 0) for key in "wh")
    size = (round(width), round(height)) if min(width, height) >= 1 else None
    fps = number(about.get("fps"), where, float("nan"))
    return size, fps if fps > 0 else float("nan")


def _detectron(path: Path, content: dict[str, Any], metadata: dict[str, Any]) -> Detections:
    """Detectron2's people per frame; the scores are those of the boxes."""
    size, fps = _video(metadata, str(path))
    found = Detections(
        "Detectron2 for VideoPose3D", layout="coco17", image_size=size, fps=fps,
        min_confidence=MIN_CONFIDENCE, scored=False,
    )  # fmt: skip
    keypoints, boxes = content["keypoints"], content["boxes"]
    for t in range(len(keypoints)):
        at = f"{path}: keypoints of frame {t}"
        people = _last(keypoints[t], at)
        scores = _last(boxes[t], at) if t < len(boxes) else np.zeros((0, 5))
        if people.size and (people.ndim != 3 or people.shape[1:] != (4, 17)):
            raise ItesError(f"{at}: expected shape (people, 4, 17), got {people.shape}")
        persons = []
        for index, person in enumerate(people if people.size else ()):
            joints = np.column_stack([person[0], person[1], np.ones(17)]).astype(np.float32)
            score = scores[index, 4] if scores.ndim == 2 and scores.shape[1:] == (5,) else 1.0
            persons.append(Person(joints, float(score)))
        found.frames.append(Frame(t, persons))
    return found


def _last(classes: Any, where: str) -> NDArray[np.float64]:
    """The last class's entry: people follow an empty class."""
    if isinstance(classes, (list, tuple, np.ndarray)) and len(classes):
        return numbers(classes[-1], where)
    return np.zeros(0)
