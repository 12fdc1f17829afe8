"""The file that `ites lift` writes: clips with 3D, its layout in `docs/lifting.md`."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from ites.data.clips import Clip, Clips, KeypointReader, fill_missing, load_arrays
from ites.data.store import CHUNK
from ites.data.store import FORMAT as STORE_FORMAT
from ites.errors import ItesError
from ites.pose.skeleton import Skeleton
from ites.system.files import existing, replacing

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


class ClipsWriter:
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
        self.path = Path(path)
        if self.path.suffix not in (".npz", ".h5"):
            raise ItesError(f"{path}: the output's name must end in .npz or .h5")
        self.settings: dict[str, Any] = {}
        self._clips: Clips | None = None
        self._frames = 0
        self._stack = ExitStack()

    def __enter__(self) -> ClipsWriter:
        self._temporary = self._stack.enter_context(replacing(self.path))
        if self.path.suffix == ".h5":
            self._file = self._stack.enter_context(h5py.File(self._temporary, "w"))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is not None:
            self._stack.__exit__(kind, error, traceback)
            return
        with self._stack:
            self._finish()

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
        ItesError: the file is neither.
    """
    path = existing(path)
    if h5py.is_hdf5(path):
        with h5py.File(path, "r") as file:
            if file.attrs.get("format") == STORE_FORMAT:
                return _measured(path)
            arrays = {k: _plain(v) for k, v in file.items() if isinstance(v, h5py.Dataset)}
            texts = {key: str(value) for key, value in file.attrs.items()}
    else:
        arrays = load_arrays(path)
        texts = {key: str(value) for key, value in arrays.items() if value.ndim == 0}
    if texts.get("format") != FORMAT:
        raise ItesError(f"{path}: expected a file that `ites lift` wrote, or a pose store")
    if texts.get("version") != str(VERSION):
        raise ItesError(f"{path}: expected version {VERSION}, got {texts.get('version')}")
    try:
        return _from_arrays(path, arrays, texts)
    except KeyError as error:
        raise ItesError(f"{path}: a lifted file needs {error}, which is not there") from None


def read_settings(path: str | os.PathLike[str]) -> dict[str, Any]:
    """How a lifted file was lifted; nothing where it is no such file."""
    path = Path(path)
    text = "{}"
    if h5py.is_hdf5(path):
        with h5py.File(path, "r") as file:
            text = str(file.attrs.get("settings", text))
    elif zipfile.is_zipfile(path):
        with np.load(path, allow_pickle=False) as arrays:
            text = str(arrays["settings"]) if "settings" in arrays.files else text
    return dict(json.loads(text))


def _plain(dataset: h5py.Dataset) -> NDArray[Any]:
    return dataset.asstr()[:] if h5py.check_string_dtype(dataset.dtype) else dataset[()]


def _measured(path: Path) -> Clips:
    with KeypointReader(path) as reader:
        store = reader.read()
    filled = [fill_missing(clip, store.skeleton)[0] for clip in store.clips]
    return replace(store, clips=[replace(c, positions=c.truth, truth=None) for c in filled])


def _from_arrays(path: Path, arrays: Mapping[str, NDArray[Any]], texts: Mapping[str, str]) -> Clips:
    # A clip that nobody is seen in has positions, all nan, unless no clip has any.
    kept = ("keypoints",) if "positions" not in arrays else ("keypoints", "positions")
    clips = []
    starts, lengths = arrays["sequence_start"], arrays["sequence_length"]
    total = int(np.sum(lengths))
    for key in PER_FRAME:
        if key in arrays and len(arrays[key]) != total:
            raise ItesError(
                f"{path}: {key} must have a row per frame of its clips, {total}, got "
                f"{len(arrays[key])}"
            )
    if not np.array_equal(starts, np.cumsum(lengths) - lengths):
        raise ItesError(f"{path}: sequence_start must be where the clip before ends, got {starts}")
    for i, (start, length) in enumerate(zip(starts, lengths, strict=True)):
        rows = slice(int(start), int(start + length))
        width, height = (int(n) for n in arrays["image_size"][i])
        fx, fy = (float(n) for n in arrays["focal_length"][i])
        frames = {key: arrays[key][rows] for key in PER_FRAME if key in arrays}
        clips.append(
            Clip(
                name=str(arrays["sequence_name"][i]),
                fps=float(arrays["sequence_fps"][i]),
                focal_length=(fx, fy) if fx > 0 else None,
                image_size=(width, height) if width else None,
                **{key: rows for key, rows in frames.items() if key in kept or _holds(rows)},
            )
        )
    return Clips(
        Skeleton.from_json(texts["skeleton"]),
        clips,
        texts.get("title", ""),
        texts.get("acknowledgement", ""),
        json.loads(texts.get("settings", "{}")),
    )


def _holds(rows: NDArray[Any]) -> bool:
    """Whether rows hold anything but nan, which stands for a clip without them."""
    return not np.isnan(rows).all()
