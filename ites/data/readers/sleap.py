"""SLEAP: its project and prediction files (.slp) and its analysis files (.h5), joints by name.

Source: the documentation of sleap-io, formats/slp.md and formats/analysis_h5.md.

- `.slp`: HDF5 with `frames`, `instances`, `points` and `pred_points`, tables that refer to rows of
  the next, and JSON in `metadata`, `videos_json`, `tracks_json`. Before format 1.1 pixels had their
  centres at halves. Where a user corrected a prediction, the correction is taken.
- Analysis: `tracks`, (tracks, 2, nodes, frames) or another order, which `dims` states;
  `point_scores`, `node_names`, `track_names`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from ites.data.readers.recording import LARGEST, Detections, Frame, Person, Track
from ites.errors import ItesError, shorten
from ites.pose.layouts import joint_name
from ites.system.hdf5 import attribute, dataset

FORMAT = "SLEAP"
MIN_CONFIDENCE = 0.1
"""SLEAP's own threshold of peaks is 0.2; a joint that is merely unsure helps."""
AXES = ("track", "xy", "node", "frame")
NODES = 1000
"""Maximum number of nodes and of tracks."""


def is_project(file: h5py.File) -> bool:
    """Whether an open HDF5 file is a .slp file."""
    return all(name in file for name in ("frames", "instances", "metadata", "pred_points"))


def is_analysis(file: h5py.File) -> bool:
    """Whether an open HDF5 file is an analysis file."""
    return "tracks" in file and "node_names" in file


def parse_analysis(file: h5py.File, where: str) -> Detections:
    """Detections of an analysis file, one track per animal or person.

    Raises:
        ItesError: the arrays are inconsistent.
    """
    nodes = _texts(file, "node_names", where)
    points = _numbers(dataset(file, "tracks", where)[()], where)
    if points.ndim != 4:
        raise ItesError(f"{where}: expected tracks of 4 dimensions, got shape {points.shape}")
    order = _order(file["tracks"], points.shape, len(nodes), where)
    points = points.transpose([order.index(axis) for axis in ("track", "frame", "node", "xy")])
    if points.shape[2:] != (len(nodes), 2) or not points.size:
        raise ItesError(
            f"{where}: expected tracks of x and y of {len(nodes)} nodes, got shape {points.shape}"
        )
    sure = np.ones(points.shape[:3])
    found = Detections(FORMAT, min_confidence=MIN_CONFIDENCE, scored="point_scores" in file)
    if found.scored:
        scores = _numbers(dataset(file, "point_scores", where)[()], where)
        left = [axis for axis in order if axis != "xy"]
        if scores.ndim == 3:
            scores = scores.transpose([left.index(axis) for axis in ("track", "frame", "node")])
        if scores.shape != sure.shape:
            raise ItesError(
                f"{where}: expected point_scores of shape {sure.shape}, got {scores.shape}"
            )
        sure = np.where(np.isfinite(scores), scores, 1.0)  # a user's own label has no score
    names = _texts(file, "track_names", where) if "track_names" in file else []
    found.joints = _joints(nodes)
    labels = _labels(names, len(points))
    for label, own, scores in zip(labels, points, sure, strict=True):
        if np.isfinite(own).any():
            joints = np.concatenate([own, scores[..., None]], axis=-1).astype(np.float32)
            found.tracks.append(Track(joints, label=label if len(points) > 1 else ""))
    if not found.tracks:
        raise ItesError(f"{where}: expected keypoints of people, but nobody is in it")
    return found


def _order(tracks: h5py.Dataset, shape: tuple[int, ...], nodes: int, where: str) -> list[str]:
    """The axes of `tracks`."""
    dims = attribute(tracks, "dims", where)
    if dims is not None:
        try:
            order = json.loads(dims)
        except (ValueError, TypeError, RecursionError):
            order = None
        if not isinstance(order, list) or sorted(map(str, order)) != sorted(AXES):
            raise ItesError(f"{where}: tracks: expected dims of {AXES}, got {shorten(dims, 60)}")
        return order
    if shape[1:3] == (2, nodes):
        return list(AXES)
    if shape[2:] == (nodes, 2):
        return ["frame", "track", "node", "xy"]
    raise ItesError(f"{where}: expected tracks of shape (tracks, 2, {nodes}, frames), got {shape}")


def parse_project(file: h5py.File, where: str) -> Detections:
    """Detections of a .slp file: frames with their instances.

    Raises:
        ItesError: the tables are inconsistent.
    """
    metadata = _json(_attribute(file, where), where)
    nodes = _nodes(metadata, where)
    shift = 0.5 if _format(file, where) < 1.1 else 0.0
    frames = _table(file, "frames", where, ("video", "frame_idx", *_FROM_TO[0]))
    instances = _table(file, "instances", where, ("instance_type", "track", *_FROM_TO[1]))
    points = [
        _points(file, "points", where, len(nodes), shift),
        _points(file, "pred_points", where, len(nodes), shift),
    ]
    tracks = [
        str(_second(_json(text, where), where)) for text in _texts(file, "tracks_json", where)
    ]
    labels = _labels(tracks, len(tracks))
    videos = [_json(text, where) for text in _texts(file, "videos_json", where)]
    names = _video_names(videos)
    found = Detections(FORMAT, min_confidence=MIN_CONFIDENCE)
    found.joints = _joints(nodes)
    found.scored = bool(len(instances) and (instances["instance_type"] == 1).any())
    several = len(np.unique(frames["video"])) > 1
    for frame in frames:
        video, number = int(frame["video"]), int(frame["frame_idx"])
        name = names[video] if video < len(names) else f"video{video}"
        key: int | str = f"{name}/{number}" if several else number
        rows = _rows(frame, _FROM_TO[0], len(instances), where)
        people = [
            _person(instances[row], points, labels, len(nodes), where)
            for row in _kept(instances, rows)
        ]
        found.frames.append(Frame(key, people))
        size = _size(videos[video]) if video < len(videos) else None
        if size is not None:
            found.sizes[key] = size
    rates = {_rate(video) for video in videos}
    if len(rates) == 1:
        found.fps = rates.pop()
    return found


_FROM_TO = (("instance_id_start", "instance_id_end"), ("point_id_start", "point_id_end"))


def _kept(instances: Any, rows: range) -> list[int]:
    """The instances of a frame without the predictions that a user corrected."""
    own = [row for row in rows if instances[row]["instance_type"] == 0]
    if not own:
        return list(rows)
    tracks = {int(instances[row]["track"]) for row in own} - {-1}
    source = "from_predicted" in instances.dtype.names
    replaced = {int(instances[row]["from_predicted"]) for row in own} if source else set()
    return own + [
        row for row in rows
        if row not in own and row not in replaced and int(instances[row]["track"]) not in tracks
    ]  # fmt: skip


def _person(
    instance: Any, points: list[NDArray[np.float32]], labels: list[str], nodes: int, where: str
) -> Person:
    own = points[1 if instance["instance_type"] == 1 else 0]
    rows = _rows(instance, _FROM_TO[1], len(own), where)
    if len(rows) != nodes:
        raise ItesError(f"{where}: expected {nodes} points per instance, got {len(rows)}")
    joints = own[rows.start : rows.stop]
    track = int(instance["track"])
    if track >= len(labels):
        raise ItesError(f"{where}: expected tracks up to {len(labels) - 1}, got {track}")
    names = instance.dtype.names
    score = float(instance["score"]) if "score" in names else 1.0
    label = labels[track] if track >= 0 else None
    return Person(joints, score if np.isfinite(score) and score > 0 else 1.0, label)


def _rows(record: Any, names: tuple[str, str], length: int, where: str) -> range:
    start, stop = (int(record[name]) for name in names)
    if not 0 <= start <= stop <= length:
        raise ItesError(f"{where}: expected rows up to {length}, got {start} to {stop}")
    return range(start, stop)


def _points(
    file: h5py.File, name: str, where: str, nodes: int, shift: float
) -> NDArray[np.float32]:
    """(N, 3): x, y, confidence of a table of points."""
    if name not in file:
        return np.zeros((0, 3), np.float32)
    table = _table(file, name, where, ("x", "y"))
    sure = table["score"] if "score" in (table.dtype.names or ()) else np.ones(len(table))
    columns = np.column_stack([table["x"] - shift, table["y"] - shift, sure])
    return _numbers(columns, where).astype(np.float32)


def _table(file: h5py.File, name: str, where: str, columns: tuple[str, ...]) -> Any:
    found = dataset(file, name, where, "V")
    lacking = [column for column in columns if column not in (found.dtype.names or ())]
    if found.ndim != 1 or lacking:
        raise ItesError(
            f"{where}: {name}: expected a table with {', '.join(columns)}, got {found.dtype}"[:280]
        )
    if any(found.dtype[column].kind not in "fiub" for column in found.dtype.names):
        raise ItesError(f"{where}: {name}: expected columns of numbers, got others")
    return found[()]


def _numbers(values: Any, where: str) -> NDArray[np.float64]:
    array = np.asarray(values, np.float64)
    finite = array[np.isfinite(array)]
    if finite.size and np.abs(finite).max() >= LARGEST:
        raise ItesError(f"{where}: expected pixels, got {np.abs(finite).max():g}")
    return array


def _joints(nodes: list[str]) -> tuple[str, ...]:
    names = [joint_name(node) for node in nodes]
    twice = {name for name in names if names.count(name) > 1}
    return tuple(node if name in twice else name for node, name in zip(nodes, names, strict=True))


def _labels(names: list[str], count: int) -> list[str]:
    """Names of tracks, numbered where they are absent or not unique."""
    if len(names) == count and len(set(names)) == count:
        return names
    return [str(number + 1) for number in range(count)]


def _texts(file: h5py.File, name: str, where: str) -> list[str]:
    found = file.get(name)
    if not isinstance(found, h5py.Dataset) or found.shape is None or not found.size:
        return []
    kind = "O" if found.dtype.kind == "O" else "S"
    values = np.atleast_1d(dataset(file, name, where, kind)[()])
    if values.ndim != 1 or len(values) > NODES:
        raise ItesError(f"{where}: {name}: expected up to {NODES} texts, got {values.shape}")
    return [v.decode("utf-8", "replace") if isinstance(v, bytes) else str(v) for v in values]


def _attribute(file: h5py.File, where: str) -> str:
    group = file["metadata"]
    text = attribute(group, "json", where) if hasattr(group, "attrs") else None
    if isinstance(text, bytes):
        return text.decode("utf-8", "replace")
    if not isinstance(text, str):
        raise ItesError(f"{where}: expected JSON in metadata, got {type(text).__name__}")
    return text


def _format(file: h5py.File, where: str) -> float:
    value = attribute(file["metadata"], "format_id", where, 1.2)
    return float(value) if isinstance(value, (int, float, np.integer, np.floating)) else 1.2


def _json(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise ItesError(f"{where}: expected JSON, got {shorten(text, 60)!r}") from None


def _nodes(metadata: Any, where: str) -> list[str]:
    """The names of the first skeleton's nodes, in the order of the points."""
    try:
        names = [str(node["name"]) for node in metadata["nodes"]]
        order = [node["id"] for node in metadata["skeletons"][0]["nodes"]]
        found = [names[index] for index in order]
    except (KeyError, IndexError, TypeError):
        raise ItesError(f"{where}: expected a skeleton with nodes in metadata") from None
    if not 0 < len(found) <= NODES:
        raise ItesError(f"{where}: expected up to {NODES} nodes, got {len(found)}")
    return found


def _second(value: Any, where: str) -> Any:
    if not isinstance(value, list) or len(value) < 2:
        raise ItesError(f"{where}: expected a track's number and name, got {shorten(value, 60)}")
    return value[1]


def _video_names(videos: list[Any]) -> list[str]:
    found = []
    for index, video in enumerate(videos):
        name = video.get("filename") if isinstance(video, dict) else None
        name = name if isinstance(name, str) and name not in ("", ".") else f"video{index}"
        found.append(Path(name.replace("\\", "/")).stem)
    if len(set(found)) < len(found):
        return [f"video{index}" for index in range(len(videos))]
    return found


def _backend(video: Any) -> dict[str, Any]:
    backend = video.get("backend") if isinstance(video, dict) else None
    return backend if isinstance(backend, dict) else {}


def _size(video: Any) -> tuple[int, int] | None:
    """(width, height) of a video's shape (frames, height, width, channels)."""
    shape = _backend(video).get("shape")
    if isinstance(shape, list) and len(shape) == 4:
        height, width = shape[1:3]
        if all(type(n) is int and 0 < n < 1 << 20 for n in (width, height)):
            return width, height
    return None


def _rate(video: Any) -> float:
    value = _backend(video).get("fps")
    return float(value) if isinstance(value, (int, float)) and 0 < value < 1e6 else float("nan")
