"""Reader of any detector's 2D keypoints; it recognises a file by content, not by name alone."""

from __future__ import annotations

import os
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from ites.data.clips import stored_clips, stored_sequences
from ites.data.datasets.npz import load_npz as load_pickled
from ites.data.readers import (
    alphapose,
    arrays,
    coco,
    deeplabcut,
    mediapipe,
    mmpose,
    openpose,
    tables,
    ultralytics,
    videopose3d,
)
from ites.data.readers.assemble import assemble
from ites.data.readers.frames import natural
from ites.data.readers.options import check_options
from ites.data.readers.recording import Detections, Frame, Recording, Source, numbers
from ites.data.store import PoseStore
from ites.errors import ItesError, shorten
from ites.pose.skeleton import HUMAN36M, Skeleton
from ites.system.files import load_json, load_npy, load_npz, reading, require_file
from ites.system.hdf5 import opened

SUFFIXES = (".json", ".npz", ".npy", ".csv", ".h5", ".hdf5")
"""The endings of files that are read from a folder."""
LABELS = 1 << 20
"""Maximum bytes of one image's label file."""
EXPECTED = (
    "keypoints: a pose store, .npz, .npy, a CSV table, or JSON of COCO, OpenPose, AlphaPose, "
    "MMPose, MediaPipe or Ultralytics"
)


def read(
    path: str | os.PathLike[str],
    *,
    layout: str | None = None,
    image_size: tuple[int, int] | None = None,
    fps: float | None = None,
    person: str | int | None = None,
    min_confidence: float | None = None,
    skeleton: Skeleton = HUMAN36M,
) -> Recording:
    """Read 2D keypoints of any detector as clips of Human3.6M's joints.

    Args:
        path: a file or a folder. A folder holds one file per frame, which form one recording, or
            clips.
        layout: the order of the joints, one of `ites.pose.layouts.LAYOUTS`; None: derived from the
            format or the number of joints; a plain array of matching size has `skeleton`'s order.
        image_size: (width, height), pixels; overrides the file's; required for normalised
            coordinates.
        fps: frames per second; overrides the file's.
        person: the track id or number of the only person to read; None: all people.
        min_confidence: joints with less confidence count as missing; None: the detector's
            `MIN_CONFIDENCE`.
        skeleton: the skeleton of the clips if the file contains its joints.

    Returns:
        The recording. A missing joint has coordinates 0 and confidence 0.

    Raises:
        ItesError: the file has no keypoints, or they are inconsistent.
    """
    path = Path(path)
    check_options(str(path), image_size, fps, min_confidence)
    options: dict[str, Any] = {
        "layout": layout,
        "image_size": image_size,
        "fps": fps,
        "person": person,
        "min_confidence": min_confidence,
        "skeleton": skeleton,
    }
    if path.is_dir():
        return _folder(path, options)
    path = require_file(path)
    with reading(path, EXPECTED), np.errstate(all="ignore"):
        return _recording(path, options)


def _recording(path: Path, options: dict[str, Any]) -> Recording:
    """The recording of one file."""
    found = _file(path)
    if isinstance(found, Detections):
        return assemble(path, found, **options)
    refuse_for_store(path, found.skeleton, options)
    size, fps = options["image_size"], options["fps"]
    if not size and not fps:
        return found
    clips = [
        replace(clip, image_size=size or clip.image_size, fps=fps or clip.fps)
        for clip in found.clips
    ]
    return replace(found, clips=clips, image_size=size or found.image_size, fps=fps or found.fps)


def refuse_for_store(path: Path, skeleton: Skeleton, options: dict[str, Any]) -> None:
    """Refuse options that have no effect on a pose store.

    Raises:
        ItesError: one chooses among a detector's results, or says what the store says itself.
    """
    for name in ("person", "min_confidence"):
        if options.get(name) is not None:
            raise ItesError(
                f"{path}: {name} chooses among a detector's results; a pose store has none, "
                f"got {options[name]!r}"
            )
    layout = options.get("layout")
    if layout is not None and layout != skeleton.name:
        raise ItesError(
            f"{path}: a pose store keeps its order of joints, {skeleton.name}; got layout {layout}"
        )


def _file(path: Path) -> Detections | Recording:
    """A file's detections, or a pose store's clips."""
    with path.open("rb") as file:
        start = file.read(4096)
    if not start.strip():
        raise ItesError(f"{path}: expected {EXPECTED}; got an empty file")
    if h5py.is_hdf5(path):
        with opened(path, "a pose store or DeepLabCut's HDF5") as file:
            if deeplabcut.is_hdf5(file):
                return deeplabcut.parse_hdf5(path)
        return _store(path)
    if start[:2] == b"PK":
        return _npz(path)
    if start[:6] == b"\x93NUMPY":
        return arrays.parse(path, {"keypoints": load_npy(path)})
    text = start.lstrip(b"\xef\xbb\xbf \t\r\n")
    if text[:1] in (b"[", b"{") or start[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return _json(path)
    rows = tables.read_rows(path) if _is_text(start) else []
    if deeplabcut.recognises(rows):
        return deeplabcut.parse(path, rows)
    if len(rows) and (len(rows[0]) > 2 or path.suffix.lower() == ".csv"):
        return tables.parse(path, rows)
    got = "other text" if _is_text(start) else "other bytes"
    raise ItesError(f"{path}: expected {EXPECTED}; got {got}")


def _is_text(start: bytes) -> bool:
    return all(byte >= 32 or byte in b"\t\n\r\f" for byte in start)


def _npz(path: Path) -> Detections:
    try:
        return arrays.parse(path, load_npz(path))
    except ItesError as error:
        plain = error
    with zipfile.ZipFile(path) as archive:
        names = {name.removesuffix(".npy") for name in archive.namelist()}
    if "Python objects" not in str(plain) or not videopose3d.could_be(names):
        raise plain
    content = load_pickled(path)
    if not videopose3d.recognises(content):
        raise plain
    return videopose3d.parse(path, content)


def _json(path: Path) -> Detections:
    content = load_json(path)
    found = _content(content, path)
    if found is None:
        if not content:
            raise ItesError(f"{path}: expected keypoints, but nobody is in it: the JSON is empty")
        told = ", ".join(map(str, list(content)[:6])) if isinstance(content, dict) else "a list"
        raise ItesError(f"{path}: expected {EXPECTED}; got JSON of {shorten(told, 60)}")
    return found


def _content(content: Any, path: Path) -> Detections | None:
    """Detections of JSON content; None if no format matches."""
    where = str(path)
    frame = _frame(content, path)
    if frame is not None:
        return frame
    if alphapose.recognises(content):
        return alphapose.parse(content, where)
    if coco.recognises(content):
        return coco.parse(content, where)
    if mmpose.recognises(content):
        return mmpose.parse(content, where, path.stem)
    if ultralytics.recognises(content):
        return ultralytics.parse(content, where, path.stem)
    if mediapipe.recognises(content):
        return mediapipe.parse(content, where)
    if mmpose.is_rtmlib(content):
        return mmpose.parse_rtmlib(content, where)
    return _lists(content, path)


def _lists(content: Any, path: Path) -> Detections | None:
    """Detections of JSON number lists, read as arrays of the same names; None for other JSON."""
    named = content if isinstance(content, dict) else {"keypoints": content}
    known = (*arrays.NAMES, *arrays.SCORES, "fps", "focal_length", "image_size")
    if not any(isinstance(named.get(name), list) and named[name] for name in arrays.NAMES):
        return None
    values = {
        name: numbers(value, f"{path}: {name}")
        for name, value in named.items()
        if name in known and value is not None
    }
    return arrays.parse(path, values)


def _frame(content: Any, path: Path) -> Detections | None:
    """Detections of JSON content that is one frame; None for other content."""
    where = str(path)
    if openpose.recognises(content):
        return openpose.parse(content, where, path.stem)
    if alphapose.is_frame(content):
        found = alphapose.people_of(content, where)
        return Detections(alphapose.FORMAT, [Frame(path.stem, found)])
    if ultralytics.is_frame(content):
        return ultralytics.parse(content, where, path.stem)
    if mmpose.is_frame(content):
        return mmpose.parse(content, where, path.stem)
    return None


def _folder(path: Path, options: dict[str, Any]) -> Recording:
    """One recording from a folder: files of single frames are joined, other files are clips."""
    everything = sorted((p for p in path.iterdir() if p.is_file()), key=lambda p: natural(p.name))
    files = [p for p in everything if p.suffix.lower() in SUFFIXES]
    labels = [p for p in everything if p.suffix.lower() == ".txt" and _labels(p) is not None]
    if labels and not files:
        return _label_folder(path, labels, options)
    if not files:
        raise ItesError(f"{path}: expected files of {', '.join(SUFFIXES)}, got none")
    frames: Detections | None = None
    empty: list[Frame] = []
    recordings: list[Recording] = []
    for file in files:
        with reading(file, EXPECTED), np.errstate(all="ignore"):
            if file.suffix.lower() == ".json":
                content = load_json(file)
                if content == [] or content == {}:
                    empty.append(Frame(file.stem, []))
                    continue
                found = _frame(content, file)
                if found is not None:
                    if frames is None:
                        frames = found
                    elif frames.format != found.format:
                        raise ItesError(
                            f"{file}: expected a frame of {frames.format}, got {found.format}"
                        )
                    else:
                        frames.frames += found.frames
                    continue
            recordings.append(_recording(file, options))
    if frames is None and empty:
        raise ItesError(
            f"{path / (empty[0].id + '.json')}: expected keypoints, but nobody is in it: "  # type: ignore[operator]
            "the JSON is empty"
        )
    if frames is not None:
        frames.frames += empty
        with reading(path, EXPECTED):
            recordings.insert(0, assemble(path, frames, **options))
    return _joined(recordings)


def _labels(path: Path) -> str | None:
    """The text of an Ultralytics label file; None for other text."""
    with reading(path, EXPECTED):
        if path.stat().st_size > LABELS:
            return None
        text = path.read_bytes().decode("utf-8", "replace")
        return text if ultralytics.is_labels(text) else None


def _label_folder(path: Path, files: list[Path], options: dict[str, Any]) -> Recording:
    """The recording of a folder of Ultralytics label files."""
    with reading(path, EXPECTED), np.errstate(all="ignore"):
        every = [ultralytics.parse_labels(_labels(p) or "", str(p), p.stem) for p in files]
        frames = [frame for found in every for frame in found.frames]
        return assemble(path, replace(every[0], frames=frames), **options)


def _joined(recordings: list[Recording]) -> Recording:
    """Join the recordings of several files."""
    if len(recordings) == 1:
        return recordings[0]
    first = recordings[0]
    clips = [clip for one in recordings for clip in one.clips]
    sizes, rates = {clip.image_size for clip in clips}, {clip.fps for clip in clips}
    return replace(
        first,
        format=" and ".join(dict.fromkeys(one.format for one in recordings)),
        layout=" and ".join(dict.fromkeys(one.layout for one in recordings)),
        clips=clips,
        source=[source for one in recordings for source in one.source],
        notes=list(dict.fromkeys(note for one in recordings for note in one.notes)),
        image_size=sizes.pop() if len(sizes) == 1 else None,
        fps=rates.pop() if len(rates) == 1 else float("nan"),
    )


def _store(path: Path) -> Recording:
    """All clips of a pose store."""
    with PoseStore(path) as store:
        clips = stored_clips(store, stored_sequences(store, None))
    names = clips.skeleton.joints
    sources = [
        Source(
            clip.keypoints,
            np.ones(clip.keypoints.shape[:2], np.float32)
            if clip.confidence is None
            else clip.confidence,
            names,
            np.arange(len(clip)),
        )
        for clip in clips.clips
    ]
    sizes, rates = {clip.image_size for clip in clips.clips}, {clip.fps for clip in clips.clips}
    return Recording(
        "pose store",
        clips.skeleton.name,
        clips.clips,
        sources,
        [],
        sizes.pop() if len(sizes) == 1 else None,
        rates.pop() if len(rates) == 1 else float("nan"),
        clips.skeleton,
    )
