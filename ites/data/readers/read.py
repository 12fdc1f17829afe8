"""Reader of any detector's 2D keypoints; it recognises a file by content, not by name alone."""

from __future__ import annotations

import gzip
import os
import zipfile
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import h5py
import numpy as np

from ites.data.clips import stored_clips
from ites.data.datasets.npz import load_npz as load_pickled
from ites.data.readers import (
    alphapose,
    arrays,
    coco,
    deeplabcut,
    mediapipe,
    mmpose,
    nested,
    openpose,
    sleap,
    tables,
    ultralytics,
    videopose3d,
)
from ites.data.readers.assemble import assemble
from ites.data.readers.frames import natural
from ites.data.readers.options import ReadOptions, check_options
from ites.data.readers.recording import (
    Detections,
    Frame,
    Person,
    Recording,
    Source,
    common_size_and_rate,
    numbers,
)
from ites.data.store import FORMAT as STORE_FORMAT
from ites.data.store import PoseStore
from ites.errors import ItesError, shorten
from ites.system.files import (
    is_json_lines,
    kind_of,
    load_json,
    load_json_lines,
    load_npy,
    load_npz,
    reading,
    require_file,
)
from ites.system.hdf5 import dataset, holds, opened
from ites.system.isolated import isolated

SUFFIXES = (".json", ".jsonl", ".ndjson", ".npz", ".npy", ".csv", ".tsv", ".h5", ".hdf5", ".slp")
"""The endings of files that are read from a folder."""
DEPTH = 4
"""The most folders in one another that are searched for files."""
ONE_POSE = 1 << 16
"""The most bytes of an array file that may hold one pose."""
UNPACKED = 1 << 28
"""Maximum bytes of a file that gzip has packed."""
LABELS = 1 << 20
"""Maximum bytes of one image's label file."""
EXPECTED = "keypoints: a pose store, .npz, .npy, CSV, HDF5 or a detector's file"
"""Short, so that a long path leaves room for what was found."""


def read(
    path: str | os.PathLike[str], options: ReadOptions | None = None, **changes: Any
) -> Recording:
    """Read 2D keypoints of any detector as clips of Human3.6M's joints.

    Args:
        path: a file or a folder. A folder holds one file per frame, which form one recording, or
            clips.
        options: what the caller states about the file; None: nothing.
        changes: fields of `ReadOptions` that replace those of `options`, as in
            `read(path, layout="coco17")`.

    Returns:
        The recording. A missing joint has coordinates 0 and confidence 0.

    Raises:
        ItesError: the file has no keypoints, or they are inconsistent.
    """
    path = Path(path)
    options = replace(options or ReadOptions(), **changes)
    check_options(str(path), options.image_size, options.fps, options.min_confidence)
    if path.is_dir():
        return _folder(path, options)
    path = require_file(path)
    with reading(path, EXPECTED), np.errstate(all="ignore"):
        return _recording(path, options)


def _is_packed(path: Path) -> bool:
    """Whether a file is packed by gzip."""
    with path.open("rb") as file:
        return file.read(2) == b"\x1f\x8b"


def _recording(path: Path, options: ReadOptions) -> Recording:
    """The recording of one file."""
    if _is_packed(path):
        with TemporaryDirectory() as folder:
            inner = Path(folder) / (path.stem if path.suffix.lower() == ".gz" else path.name)
            _unpack(path, inner)
            try:
                return _recording(inner, options)
            except ItesError as error:
                error.args = (shorten(str(error).replace(str(inner), str(path))),)
                raise
    found = _file(path)
    if isinstance(found, Detections):
        return assemble(path, found, options)
    options.refuse_for_store(path, found.skeleton)
    size, fps = options.image_size, options.fps
    if not size and not fps:
        return found
    clips = [
        replace(
            clip,
            image_size=size or clip.image_size,
            # A principal point is measured in an image of the store's size.
            principal_point=clip.principal_point if size in (None, clip.image_size) else None,
            fps=fps or clip.fps,
        )
        for clip in found.clips
    ]
    return replace(found, clips=clips, image_size=size or found.image_size, fps=fps or found.fps)


def _unpack(path: Path, to: Path) -> None:
    """Unpack a file of gzip's.

    Raises:
        ItesError: it holds more than `UNPACKED` bytes, or another file of gzip's.
    """
    with gzip.open(path) as source, to.open("wb") as target:
        while block := source.read(1 << 20):
            if target.tell() + len(block) > UNPACKED:
                raise ItesError(f"{path}: expected up to {UNPACKED:,} bytes in it, got more")
            if not target.tell() and block[:2] == b"\x1f\x8b":
                raise ItesError(f"{path}: expected {EXPECTED}; got gzip in gzip")
            target.write(block)


def _file(path: Path) -> Detections | Recording:
    """A file's detections, or a pose store's clips."""
    with path.open("rb") as file:
        start = file.read(4096)
    if not start.strip():
        raise ItesError(f"{path}: expected {EXPECTED}; got an empty file")
    if h5py.is_hdf5(path):
        found = None if holds(path, STORE_FORMAT) else isolated(_detections, path)
        return _store(path) if found is None else found
    if start[:2] == b"PK":
        return _npz(path)
    if start[:6] == b"\x93NUMPY":
        return arrays.parse(path, {"keypoints": load_npy(path)})
    text = start.lstrip(b"\xef\xbb\xbf \t\r\n")
    wide = start[:2] in tables.UTF_16
    if wide:
        text = start[2:].replace(b"\0", b"").lstrip(b" \t\r\n")
    if text[:1] in (b"[", b"{"):
        return _json(path)
    if _is_text(start) and _labels(path) is not None:
        return ultralytics.parse_labels(_labels(path) or "", str(path), path.stem)
    rows = tables.read_rows(path) if _is_text(start) or wide else []
    if deeplabcut.recognises(rows):
        return deeplabcut.parse(path, rows)
    if len(rows) and (len(rows[0]) > 2 or path.suffix.lower() == ".csv"):
        return tables.parse(path, rows)
    got = "other text" if _is_text(start) else kind_of(path)
    if start[:1] == b"\x80":
        got = "a pickle, which could run programs: save its arrays by numpy.savez"
    raise ItesError(f"{path}: expected {EXPECTED}; got {got}")


def is_detectors(file: h5py.File) -> bool:
    """Whether an open HDF5 file is a detector's or a user's own, not a pose store."""
    return (
        sleap.is_project(file)
        or sleap.is_analysis(file)
        or deeplabcut.is_hdf5(file)
        or ("format" not in file.attrs and bool(_plain(file)))
    )


def _plain(file: h5py.File) -> list[str]:
    return [name for name in arrays.NAMES if isinstance(file.get(name), h5py.Dataset)]


def _detections(path: Path) -> Detections:
    """Detections of an HDF5 file; an error where it has none.

    Raises:
        ItesError: it is a damaged or another file.
    """
    with opened(path, "a pose store, or HDF5 of DeepLabCut or SLEAP") as file:
        if is_detectors(file):
            return _hdf5(file, path)
    PoseStore(path).close()
    raise ItesError(f"{path}: expected a pose store, or HDF5 of DeepLabCut or SLEAP")


def _hdf5(file: h5py.File, path: Path) -> Detections:
    """Detections of an open HDF5 file that `is_detectors`."""
    if sleap.is_project(file):
        return sleap.parse_project(file, str(path))
    if sleap.is_analysis(file):
        return sleap.parse_analysis(file, str(path))
    if deeplabcut.is_hdf5(file):
        return deeplabcut.parse_hdf5(path)
    known = {*arrays.NAMES, *arrays.SCORES, "fps", "focal_length", "image_size"}
    values = {n: dataset(file, n, str(path))[()] for n in file if n in known}
    return arrays.parse(path, values)


def _is_text(start: bytes) -> bool:
    return all(byte >= 32 or byte in b"\t\n\r\f" for byte in start)


def _npz(path: Path) -> Detections:
    try:
        return arrays.parse(path, load_npz(path))
    except ItesError as error:
        plain = error
    with zipfile.ZipFile(path) as archive:
        names = {name.removesuffix(".npy") for name in archive.namelist()}
    if "Python objects" not in str(plain) or not (
        videopose3d.could_be(names) or names & {*arrays.NAMES}
    ):
        raise plain
    content = load_pickled(path)
    if videopose3d.recognises(content):
        return videopose3d.parse(path, content)
    values = {key: value for key, value in content.items() if isinstance(value, np.ndarray)}
    if any(values[name].dtype == object for name in arrays.NAMES if name in values):
        return arrays.parse(path, values)
    raise plain


def _json(path: Path) -> Detections:
    content = load_json_lines(path) if is_json_lines(path) else load_json(path)
    if isinstance(content, list) and content and all(isinstance(v, str) for v in content):
        content = [nested.loaded(value) for value in content]  # Ultralytics' to_json, per frame
    found = _content(content, path)
    if found is None:
        if not content:
            raise ItesError(f"{path}: expected keypoints, but nobody is in it: the JSON is empty")
        first = content[0] if isinstance(content, list) else content
        keys = ", ".join(map(str, list(first)[:6])) if isinstance(first, dict) else "numbers"
        listed = "a list of " if isinstance(content, list) else ""
        raise ItesError(f"{path}: expected {EXPECTED}; got JSON of {listed}{shorten(keys, 60)}")
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
    if nested.recognises(content):
        return nested.parse(content, where)
    return _lists(content, path)


def _lists(content: Any, path: Path) -> Detections | None:
    """Detections of JSON number lists, read as arrays of the same names; None for other JSON."""
    if isinstance(content, list) and any(isinstance(entry, (dict, str)) for entry in content[:10]):
        return None
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
    if mmpose.is_frame(content) or mmpose.is_image(content):
        return mmpose.parse(content, where, path.stem)
    return None


def _array_of_one_frame(path: Path) -> Detections | None:
    """Detections of an .npy or .npz file of one pose, as a frame of its name; None for others."""
    if path.suffix.lower() not in (".npy", ".npz") or path.stat().st_size > ONE_POSE:
        return None
    if _is_packed(path):
        return None
    found = _file(path)
    if not isinstance(found, Detections) or len(found.tracks) != 1 or found.frames:
        return None
    joints = found.tracks[0].joints
    if len(joints) != 1 or found.tracks[0].focal_length is not None:
        return None
    return replace(found, tracks=[], frames=[Frame(path.stem, [Person(joints[0])])])


def _results_of_one_image(content: Any, path: Path) -> Detections | None:
    """Detections of a list as of COCO's results whose only image is named; None for others.

    AlphaPose writes a file per image so, with --sep-json.
    """
    if not isinstance(content, list) or not coco.recognises(content):
        return None
    ids = [entry.get("image_id") if isinstance(entry, dict) else None for entry in content[:1000]]
    if not isinstance(ids[0], str) or any(one != ids[0] for one in ids):
        return None
    return coco.parse(content, str(path))


def _holds_keypoints(path: Path, depth: int) -> bool:
    """Whether a folder, or one in it, holds a file that may be of keypoints."""
    return depth > 0 and any(
        _holds_keypoints(p, depth - 1)
        if p.is_dir()
        else p.suffix.lower() in (*SUFFIXES, ".txt") and not p.name.startswith(".")
        for p in path.iterdir()
    )


def _within(recording: Recording, folder: Path, several: bool) -> Recording:
    """The recording with its clips named after their folder, if there are several folders."""
    if not several:
        return recording
    clips = [
        clip
        if clip.name.startswith(folder.name)
        else replace(clip, name=f"{folder.name}/{clip.name}")
        for clip in recording.clips
    ]
    return replace(recording, clips=clips)


def _folder(path: Path, options: ReadOptions, depth: int = DEPTH) -> Recording:
    """One recording from a folder: files of single frames are joined, other files are clips.

    Folders in a folder without such files are read too, such as one per camera. Beside such files
    they are left out, with a note.
    """
    everything = sorted(
        (p for p in path.iterdir() if p.is_file() and not p.name.startswith(".")),
        key=lambda p: natural(p.name),
    )
    files = [p for p in everything if p.suffix.lower() in SUFFIXES]
    labels = [p for p in everything if p.suffix.lower() == ".txt" and _labels(p) is not None]
    if labels and not files:
        return _label_folder(path, labels, options)
    inner = [p for p in path.iterdir() if p.is_dir() and _holds_keypoints(p, depth)]
    inner.sort(key=lambda p: natural(p.name))
    if not files:
        if not inner:
            raise ItesError(f"{path}: expected files of {', '.join(SUFFIXES)}, got none")
        return _joined([_within(_folder(p, options, depth - 1), p, len(inner) > 1) for p in inner])
    joined = _joined(_of_files(path, files, options))
    if inner:
        names = ", ".join(p.name for p in inner[:3]) + (", ..." if len(inner) > 3 else "")
        note = f"{path}: left out: the folders beside its files ({names}); name them to read them"
        joined.notes.append(shorten(note))
    return joined


def _of_files(path: Path, files: list[Path], options: ReadOptions) -> list[Recording]:
    """The recordings of a folder's files; those of a single frame each are joined."""
    recordings: list[Recording] = []
    frames: Detections | None = None
    stills: Detections | None = None
    empty: list[Path] = []
    for file in files:
        with reading(file, EXPECTED), np.errstate(all="ignore"):
            if file.suffix.lower() == ".json":
                content = load_json(file)
                if content == [] or content == {}:
                    empty.append(file)
                    continue
                found = _frame(content, file) or _results_of_one_image(content, file)
                if found is None:
                    recordings.append(_recording(file, options))
                elif frames is None:
                    frames = found
                elif frames.format != found.format:
                    raise ItesError(
                        f"{file}: expected a frame of {frames.format}, got {found.format}"
                    )
                else:
                    frames.frames += found.frames
            elif (one := _array_of_one_frame(file)) is None:
                recordings.append(_recording(file, options))
            elif stills is None:
                stills = one
                stills.notes.append("arrays of one pose each are taken as frames")
            else:
                stills.frames += one.frames
    if frames is not None:
        frames.frames += [Frame(file.stem, []) for file in empty]
        with reading(path, EXPECTED):
            recordings.insert(0, assemble(path, frames, options))
    elif empty:
        raise ItesError(f"{empty[0]}: expected keypoints, but nobody is in it: the JSON is empty")
    if stills is not None:
        with reading(path, EXPECTED):
            recordings.append(assemble(path, stills, options))
    return recordings


def _labels(path: Path) -> str | None:
    """The text of an Ultralytics label file; None for other text."""
    with reading(path, EXPECTED):
        if path.stat().st_size > LABELS:
            return None
        text = path.read_bytes().decode("utf-8", "replace")
        return text if ultralytics.is_labels(text) else None


def _label_folder(path: Path, files: list[Path], options: ReadOptions) -> Recording:
    """The recording of a folder of Ultralytics label files."""
    with reading(path, EXPECTED), np.errstate(all="ignore"):
        every = [ultralytics.parse_labels(_labels(p) or "", str(p), p.stem) for p in files]
        frames = [frame for found in every for frame in found.frames]
        return assemble(path, replace(every[0], frames=frames), options)


def _joined(recordings: list[Recording]) -> Recording:
    """Join the recordings of several files."""
    if len(recordings) == 1:
        return recordings[0]
    first = recordings[0]
    clips = [clip for one in recordings for clip in one.clips]
    image_size, fps = common_size_and_rate(clips)
    return replace(
        first,
        format=" and ".join(dict.fromkeys(one.format for one in recordings)),
        layout=" and ".join(dict.fromkeys(one.layout for one in recordings)),
        clips=clips,
        source=[source for one in recordings for source in one.source],
        notes=list(dict.fromkeys(note for one in recordings for note in one.notes)),
        image_size=image_size,
        fps=fps,
        beside=tuple(dict.fromkeys(what for one in recordings for what in one.beside)),
        acknowledgement=" ".join(
            dict.fromkeys(filter(None, (r.acknowledgement for r in recordings)))
        ),
    )


def _store(path: Path) -> Recording:
    """All clips of a pose store, whatever their split."""
    with PoseStore(path) as store:
        clips = stored_clips(store, store.sequences)
        cameras = [store.cameras[sequence.camera] for sequence in store.sequences]
        splits = [sequence.split for sequence in store.sequences]
        beside = ("3D positions",) * store.has_positions
        beside += ("gravity per pose",) * store.has_gravity
    names = clips.skeleton.joints
    sources = [
        Source(
            clip.keypoints,
            np.ones(clip.keypoints.shape[:2], np.float32)
            if clip.confidence is None
            else clip.confidence,
            names,
            clip.first_frame + np.arange(len(clip)),
            split,
            camera,
        )
        for clip, split, camera in zip(clips.clips, splits, cameras, strict=True)
    ]
    image_size, fps = common_size_and_rate(clips.clips)
    return Recording(
        "pose store",
        clips.skeleton.name,
        clips.clips,
        sources,
        _splits_noted(splits),
        image_size,
        fps,
        clips.skeleton,
        beside,
        clips.acknowledgement,
    )


def _splits_noted(splits: list[str]) -> list[str]:
    """A line with the clips of each split, if there are several splits."""
    names = list(dict.fromkeys(splits))
    if len(names) < 2:
        return []
    counts = ", ".join(f"{name} {splits.count(name):,}" for name in names)
    return [shorten(f"clips of all splits are read: {counts}")]
