"""The file that `ites lift` writes: clips with 3D, its layout in `docs/lifting.md`."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from ites.data.clips import Clip, Clips, fill_missing, seen_joints
from ites.data.keypoint_reader import KeypointReader
from ites.data.store import CHUNK, FARTHEST, skeleton_of
from ites.data.store import FORMAT as STORE_FORMAT
from ites.errors import ItesError
from ites.pose.missing import unknown
from ites.pose.skeleton import Skeleton
from ites.system.files import FileWriter, atomic_write, load_npz, reading, require_file
from ites.system.hdf5 import H5Writer, dataset, opened

FORMAT = "ites-lifted"
VERSION = 1
FRAME = "camera axes: x right, y down, z forward; origin at the root joint of each pose"
PER_FRAME = (
    "keypoints",
    "confidence",
    "positions",
    "metres_per_unit",
    "truth",
    "elevation",
    "log_density",
    "sign_confidence",
)
"""The fields of a clip that hold a row per frame."""
DOUBT = 0.8
"""A pose whose depth's sign is less sure than this is counted, and shown pale."""
UNIT = "metre, by an assumed body size; divide by metres_per_unit for network units"


def write_clips(path: str | os.PathLike[str], clips: Clips) -> None:
    """Write lifted clips as .npz or .h5, by the name's ending; never half a file.

    Args:
        path: the file to write, replaced if it exists. `docs/lifting.md` lists its keys.
        clips: at least one, each with `positions`.

    Raises:
        ItesError: the ending is neither.
    """
    with ClipsWriter(path) as writer:
        writer.add(clips)
        writer.settings = clips.settings


class ClipsWriter(FileWriter):
    """Write lifted clips a few at a time; a context manager.

    The file appears under its name when the block ends without an error, never half written. An
    .h5 file is written as the clips come, an .npz at the end.

    Args:
        path: the .npz or .h5 file to write, replaced if it exists.

    Raises:
        ItesError: the ending is neither.

    Attributes: `settings`, what the file shall say of how the clips were lifted.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        super().__init__()
        self.path = Path(path)
        if self.path.suffix not in (".npz", ".h5"):
            raise ItesError(f"{path}: the output's name must end in .npz or .h5")
        self.settings: dict[str, Any] = {}
        self._clips: Clips | None = None
        self._frames = 0

    def __enter__(self) -> ClipsWriter:
        self._temporary = self._stack.enter_context(atomic_write(self.path))
        if self.path.suffix == ".h5":
            self._file = self._stack.enter_context(H5Writer(self._temporary))
        return self

    def add(self, clips: Clips) -> None:
        """Append clips, at least one, each with `positions`; all of one skeleton."""
        if self.path.suffix == ".h5":
            arrays = _to_arrays(clips)
            arrays["sequence_start"] += self._frames
            self._append(arrays, sum(len(clip) for clip in clips.clips))
            clips = replace(clips, clips=[])
        if self._clips is not None:
            clips = replace(clips, clips=self._clips.clips + clips.clips)
        self._clips = clips

    def _append(self, arrays: dict[str, NDArray[Any]], frames: int) -> None:
        before = {True: self._frames, False: len(self._file.get("sequence_name", ()))}
        self._frames += frames
        for key in PER_FRAME:  # what these clips lack and others have is nan
            if key in self._file:
                self._file[key].resize(self._frames, axis=0)
        for key, value in arrays.items():
            start = before[key in PER_FRAME]
            if key not in self._file:
                self._file.create_dataset(
                    key,
                    shape=(start, *value.shape[1:]),
                    maxshape=(None, *value.shape[1:]),
                    chunks=(CHUNK, *value.shape[1:]),
                    dtype=h5py.string_dtype() if value.dtype.kind == "U" else value.dtype,
                    fillvalue=np.nan if key in PER_FRAME else None,
                )
            data = self._file[key]
            data.resize(start + len(value), axis=0)
            data[start:] = value.tolist() if value.dtype.kind == "U" else value
        self._file.check()

    def _finish(self) -> None:
        if self._clips is None:
            raise ItesError(f"{self.path}: nothing to write: no clip was added")
        texts = _to_texts(replace(self._clips, settings=self.settings))
        if self.path.suffix == ".h5":
            self._file.attrs.update(texts)
            return
        members: dict[str, Any] = {**_to_arrays(self._clips), **texts}
        with self._temporary.open("wb") as stream:
            np.savez(stream, **members)


def _to_arrays(clips: Clips) -> dict[str, NDArray[Any]]:
    items = clips.clips
    lengths = np.array([len(clip) for clip in items])
    arrays: dict[str, NDArray[Any]] = {
        "sequence_name": np.array([clip.name for clip in items]),
        "sequence_start": np.cumsum(lengths) - lengths,
        "sequence_length": lengths,
        "sequence_fps": np.array([clip.fps for clip in items]),
        "focal_length": np.array([clip.focal_length or (np.nan, np.nan) for clip in items]),
        "image_size": np.array([clip.image_size or (0, 0) for clip in items]),
    }
    for key in PER_FRAME:
        values = [getattr(clip, key) for clip in items]
        for clip, value in zip(items, values, strict=True):
            if value is not None and len(value) != len(clip):
                raise ItesError(
                    f"{clip.name}: {key} must have a row per frame, {len(clip)}, got {len(value)}"
                )
        known = next((value for value in values if value is not None), None)
        if known is not None:
            rows = [
                np.full((len(clip), *known.shape[1:]), np.nan) if value is None else value
                for clip, value in zip(items, values, strict=True)
            ]
            arrays[key] = np.concatenate(rows).astype(np.float32, copy=False)
    return arrays


def _to_texts(clips: Clips) -> dict[str, str]:
    return {
        "format": FORMAT,
        "version": str(VERSION),
        "frame": FRAME,
        "unit": UNIT,
        "skeleton": clips.skeleton.to_json(),
        "title": clips.title,
        "acknowledgement": clips.acknowledgement,
        "settings": json.dumps(clips.settings),
    }


def read_clips(path: str | os.PathLike[str]) -> Clips:
    """Read what `ites lift` wrote; of a pose store, its keypoints and its own 3D as `positions`.

    Raises:
        ItesError: the file is neither, its arrays do not fit together, or a value cannot be one of
            a pose.
    """
    path = require_file(path)
    with reading(path, "a file that `ites lift` wrote, or a pose store"):
        arrays, texts = _contents(path)
        if texts.get("format") == STORE_FORMAT:
            return _measured(path)
        if texts.get("format") != FORMAT:
            raise ItesError(f"{path}: expected a file that `ites lift` wrote, or a pose store")
        if texts.get("version") != str(VERSION):
            raise ItesError(f"{path}: expected version {VERSION}, got {texts.get('version')}")
        try:
            return _from_arrays(path, arrays, texts)
        except KeyError as error:
            raise ItesError(f"{path}: a lifted file needs {error}, which is not there") from None


def read_settings(path: str | os.PathLike[str]) -> dict[str, Any]:
    """How a lifted file was lifted; nothing where it is no such file, or a damaged one."""
    try:
        with reading(path, "a lifted file"):
            _, texts = _contents(Path(path))
            return _settings(Path(path), texts)
    except ItesError:
        return {}


def _contents(path: Path) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    """The arrays and the texts of a file; of a pose store, its format alone."""
    if h5py.is_hdf5(path):
        with opened(path, "a lifted file") as file:
            texts = {key: value for key, value in file.attrs.items() if isinstance(value, str)}
            if texts.get("format") != FORMAT:
                return {}, texts
            return {key: _plain(path, file, key) for key in file if key in KNOWN}, texts
    arrays = {} if path.suffix == ".npy" else load_npz(path)
    return arrays, {
        key: str(value)
        for key, value in arrays.items()
        if value.ndim == 0 and value.dtype.kind == "U"
    }


def _plain(path: Path, file: h5py.File, key: str) -> NDArray[Any]:
    if key == "sequence_name":
        return np.asarray(dataset(file, key, str(path), "O").asstr()[:])
    return np.asarray(dataset(file, key, str(path))[()])


def _measured(path: Path) -> Clips:
    with KeypointReader(path) as reader:
        store = reader.read()
    clips = []
    for clip in store.clips:
        nothing = unknown(seen_joints(clip), clip.fps)[..., None]
        filled, _ = fill_missing(clip, store.skeleton)
        shown = np.where(nothing, np.float32(np.nan), filled.keypoints)
        clips.append(replace(clip, keypoints=shown, positions=clip.truth, truth=None))
    return replace(store, clips=clips)


SHAPES = {"keypoints": ("J", 2), "confidence": ("J",), "positions": ("J", 3), "truth": ("J", 3)}
"""Of the arrays that hold a row per frame, what a row is; a number in those that are not named."""
PER_CLIP = {
    "sequence_name": ("UO", ()),
    "sequence_start": ("iu", ()),
    "sequence_length": ("iu", ()),
    "sequence_fps": ("fiu", ()),
    "focal_length": ("fiu", (2,)),
    "image_size": ("iu", (2,)),
}
"""Of the arrays that hold a row per clip, the kinds of type and what a row is."""
KNOWN = frozenset((*PER_FRAME, *PER_CLIP))
BOUNDS = {
    "keypoints": (-FARTHEST["keypoints"], FARTHEST["keypoints"]),
    "positions": (-FARTHEST["positions"], FARTHEST["positions"]),
    "truth": (-FARTHEST["positions"], FARTHEST["positions"]),
    "confidence": (0, 1e6),
    "metres_per_unit": (1e-6, 1e6),
    "elevation": (-np.pi, np.pi),
    "sign_confidence": (0, 1),
}
"""The least and the largest value of an array; any finite one where it is not named."""


def _from_arrays(path: Path, arrays: Mapping[str, NDArray[Any]], texts: Mapping[str, str]) -> Clips:
    skeleton = skeleton_of(str(path), texts["skeleton"])
    count = _check_clips(path, arrays)
    frames = {
        key: _check_frames(path, key, arrays[key], count, skeleton.num_joints)
        for key in PER_FRAME
        if key in arrays
    }
    if "keypoints" not in frames:
        raise KeyError("keypoints")
    clips = []
    starts, lengths = arrays["sequence_start"], arrays["sequence_length"]
    for i, (start, length) in enumerate(zip(starts, lengths, strict=True)):
        rows = slice(int(start), int(start + length))
        width, height = (int(n) for n in arrays["image_size"][i])
        fx, fy = (float(n) for n in arrays["focal_length"][i])
        own = {key: values[rows] for key, values in frames.items()}
        # Of a clip that nobody is seen in the positions are all nan: it has them all the same.
        known = {k: v for k, v in own.items() if k == "positions" or not np.isnan(v).all()}
        name = str(arrays["sequence_name"][i])
        _check_values(f"{path}: clip {name[:60]}", known, skeleton)
        clips.append(
            Clip(
                name=name,
                fps=float(arrays["sequence_fps"][i]),
                focal_length=(fx, fy) if fx > 0 else None,
                image_size=(width, height) if width else None,
                **{"keypoints": own["keypoints"], **known},
            )
        )
    return Clips(
        skeleton,
        clips,
        texts.get("title", ""),
        texts.get("acknowledgement", ""),
        _settings(path, texts),
    )


def _settings(path: Path, texts: Mapping[str, str]) -> dict[str, Any]:
    settings = json.loads(texts.get("settings", "{}"))
    if not isinstance(settings, dict):
        raise ItesError(f"{path}: expected settings by name, got {type(settings).__name__}")
    return settings


def _check_clips(path: Path, arrays: Mapping[str, NDArray[Any]]) -> int:
    """Check the arrays that hold a row per clip; the number of frames that they tell."""
    clips = len(np.atleast_1d(arrays["sequence_length"]))
    for key, (kinds, inner) in PER_CLIP.items():
        value = arrays[key]
        if value.dtype.kind not in kinds or value.shape != (clips, *inner):
            wanted = "text" if "U" in kinds else "whole numbers" if kinds == "iu" else "numbers"
            raise ItesError(
                f"{path}: {key}: expected {wanted} of shape {(clips, *inner)}, "
                f"got {value.dtype} of shape {value.shape}"
            )
    lengths = [int(n) for n in arrays["sequence_length"]]
    starts = [int(n) for n in arrays["sequence_start"]]
    row = 0
    for clip, (start, length) in enumerate(zip(starts, lengths, strict=True)):
        if start != row or length < 1:
            raise ItesError(
                f"{path}: clip {clip}: expected start {row}, where the one before ends, and at "
                f"least 1 frame, got start {start}, length {length}"
            )
        row += length
    focal, fps, size = (arrays[k] for k in ("focal_length", "sequence_fps", "image_size"))
    for key, value in (("focal_length", focal), ("sequence_fps", fps)):
        if not (np.isnan(value) | ((value > 0) & (value < 1e9))).all():
            raise ItesError(f"{path}: {key}: expected numbers above 0, or nan, got {value}")
    if (np.isnan(focal).any(1) != np.isnan(focal).all(1)).any():
        raise ItesError(f"{path}: focal_length: expected both or none, got {focal}")
    if (size < 0).any() or (size > 1e9).any():
        raise ItesError(f"{path}: image_size: expected whole pixels, got {size}")
    return row


def _check_frames(
    path: Path, key: str, values: NDArray[Any], count: int, joints: int
) -> NDArray[np.float32]:
    """Check the shape and type of an array that holds a row per frame."""
    shape = (count, *(joints if n == "J" else n for n in SHAPES.get(key, ())))
    if values.shape != shape or values.dtype.kind not in "fiu":
        raise ItesError(
            f"{path}: {key}: expected numbers of shape {shape}, a row per frame, "
            f"got {values.dtype} of shape {values.shape}"
        )
    with np.errstate(over="ignore"):  # what float32 cannot hold is found to be infinite
        return values.astype(np.float32, copy=False)


def _check_values(who: str, values: Mapping[str, NDArray[np.float32]], skeleton: Skeleton) -> None:
    """Check the values of one clip.

    A joint that is not known is nan in all its coordinates.
    """
    for key, array in values.items():
        low, high = BOUNDS.get(key, (-np.finfo(np.float32).max, np.finfo(np.float32).max))
        unknown = np.isnan(array)
        bad = ~((array >= low) & (array <= high)) & ~unknown
        if key in SHAPES and key != "confidence":
            bad |= unknown & ~unknown.all(-1, keepdims=True)
        elif key == "confidence":
            bad |= unknown
        if bad.any():
            at = np.argwhere(bad)[0]
            joint = f", {skeleton.joints[at[1]]}" if len(at) > 1 else ""
            raise ItesError(
                f"{who}: {key}: expected finite numbers of a pose, got {array[tuple(at)]:g} in "
                f"frame {at[0]}{joint}"
            )
