"""Clips: keypoints of one person over time, with 3D beside them where it is known.

`read_keypoints` reads what can be lifted, `write_clips` and `read_clips` the lifted file, whose
layout `docs/lifting.md` describes. Pixels for 2D; metres in the camera's frame (x right, y down,
z forward) relative to the root joint for 3D.
"""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from ites.data.store import CHUNK, PoseStore, Sequence
from ites.data.store import FORMAT as STORE_FORMAT
from ites.errors import ItesError
from ites.files import replacing
from ites.skeleton import HUMAN36M, LAYOUTS, Skeleton, to_human36m

FORMAT = "ites-lifted"
VERSION = 1
FRAME = "camera axes: x right, y down, z forward; origin at the root joint of each pose"
PER_FRAME = ("keypoints", "confidence", "positions", "metres_per_unit", "truth")
UNIT = "metre, by an assumed body size; divide by metres_per_unit for network units"

Floats = NDArray[np.floating]


@dataclass(frozen=True)
class Clip:
    """One person seen by one camera over time.

    Args:
        name: what to call it.
        keypoints: (T, J, 2) float32, pixels.
        fps: frames a second; nan where unknown.
        confidence: (T, J) float32, 0 for a missing joint; None where there is none.
        positions: (T, J, 3) float32, metres, camera frame, root-relative: the lifted pose.
        truth: the same, measured.
        focal_length: (fx, fy), pixels, or None where unknown.
        image_size: (width, height), pixels, or None where unknown.
        metres_per_unit: (T,) float32, what one network unit was taken to be in each pose.
    """

    name: str
    keypoints: Floats
    fps: float = float("nan")
    confidence: Floats | None = None
    positions: Floats | None = None
    truth: Floats | None = None
    focal_length: tuple[float, float] | None = None
    image_size: tuple[int, int] | None = None
    metres_per_unit: Floats | None = None

    def __len__(self) -> int:
        return len(self.keypoints)


@dataclass(frozen=True)
class Clips:
    """Clips of one skeleton, what they are, whom to acknowledge, and how they were lifted."""

    skeleton: Skeleton
    clips: list[Clip]
    title: str = ""
    acknowledgement: str = ""
    settings: dict[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return sum(map(len, self.clips))


def root_relative(positions: Floats, skeleton: Skeleton) -> Floats:
    """(..., J, 3) positions minus the root joint's, float32."""
    root = skeleton.root
    return (positions - positions[..., root : root + 1, :]).astype(np.float32, copy=False)


def fill_missing(clip: Clip, skeleton: Skeleton) -> tuple[Clip, int]:
    """Fill joints of confidence 0 linearly in time, the ends with the nearest.

    Returns:
        The clip, and how many joints were filled.

    Raises:
        ItesError: a joint is missing in the whole clip.
    """
    if clip.confidence is None or (clip.confidence > 0).all():
        return clip, 0
    seen, keypoints = clip.confidence > 0, clip.keypoints.copy()
    frames = np.arange(len(clip))
    for joint in np.flatnonzero(~seen.all(0)):
        there = seen[:, joint]
        if not there.any():
            raise ItesError(f"{clip.name}: joint {skeleton.joints[joint]} is missing throughout")
        for axis in range(2):
            keypoints[~there, joint, axis] = np.interp(
                frames[~there], frames[there], keypoints[there, joint, axis]
            )
    return replace(clip, keypoints=keypoints), int(np.count_nonzero(~seen))


def read_keypoints(
    path: str | os.PathLike[str],
    skeleton: Skeleton = HUMAN36M,
    split: str | None = None,
    layout: str | None = None,
) -> Clips:
    """Read 2D keypoints from a pose store, an .npz or an .npy file.

    Args:
        path: a store as `ites prepare` writes it; or an array `keypoints` of shape (T, J, 2), or
            (T, J, 3) with the confidence last, in an .npz (beside it, if you like: `confidence`
            (T, J), `fps`, `focal_length` (one number or fx, fy), `image_size` (width, height)) or
            alone in an .npz or .npy. Pixels, y down. A joint that is not finite is missing.
        skeleton: whose joints an array holds; a store brings its own.
        split: of a store, the split to read; None reads "test" where there is one, else all.
        layout: the order of the array's joints, one of `ites.skeleton.LAYOUTS`, to be converted
            to Human3.6M's; None takes them as `skeleton`'s.

    Raises:
        ItesError: the file is none of these, or its arrays do not fit together.
    """
    with KeypointReader(path, skeleton, split, layout) as reader:
        return reader.read()


class KeypointReader:
    """Clips of a file of keypoints, read a few at a time; a context manager.

    Args:
        path, skeleton, split, layout: see `read_keypoints`.

    Raises:
        ItesError: as `read_keypoints`.

    Attributes: `skeleton`; `lengths`, the frames of each clip.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        skeleton: Skeleton = HUMAN36M,
        split: str | None = None,
        layout: str | None = None,
    ) -> None:
        path = Path(path)
        if not path.is_file():
            raise ItesError(f"{path}: no such file")
        self._store: PoseStore | None = None
        if h5py.is_hdf5(path):
            self._store = PoseStore(path)
            self.skeleton = self._store.skeleton
            if split is None and "test" in self._store.splits:
                split = "test"
            self._rows = [s for s in self._store.sequences if split in (None, s.split)]
            self.lengths = [sequence.length for sequence in self._store.sequences_of(split)]
            return
        if split is not None:
            raise ItesError(f"{path}: only a pose store has splits, got split {split!r}")
        self._clips = _read_array(path, skeleton, layout)
        self.skeleton = self._clips.skeleton
        self.lengths = [len(clip) for clip in self._clips.clips]

    def __enter__(self) -> KeypointReader:
        return self

    def __exit__(self, *_: object) -> None:
        if self._store is not None:
            self._store.close()

    def read(self, chosen: slice = slice(None)) -> Clips:  # noqa: B008 - immutable
        """The clips of a slice, all by default; of a store no others are read."""
        if self._store is None:
            return replace(self._clips, clips=self._clips.clips[chosen])
        return _read_store(self._store, self._rows[chosen])


def _read_store(store: PoseStore, rows: list[Sequence]) -> Clips:
    keypoints, confidence = store.keypoints(rows), store.confidence(rows)
    positions = store.positions(rows)
    truth = None if positions is None else root_relative(positions, store.skeleton)
    clips = []
    for sequence in store.sequences_of(rows):
        camera, own = store.cameras[sequence.camera], sequence.rows
        clips.append(
            Clip(
                name=str(sequence),
                keypoints=keypoints[own],
                fps=sequence.fps,
                confidence=None if confidence is None else confidence[own],
                truth=None if truth is None else truth[own],
                focal_length=camera.focal_length,
                image_size=(camera.width, camera.height) if camera.width else None,
            )
        )
    return Clips(store.skeleton, clips, store.title, store.acknowledgement)


def _read_array(path: Path, skeleton: Skeleton, layout: str | None) -> Clips:
    arrays = _load(path)
    if "keypoints" not in arrays and len(arrays) == 1:
        arrays = {"keypoints": next(iter(arrays.values()))}
    if "keypoints" not in arrays:
        raise ItesError(f"{path}: expected an array 'keypoints', got {', '.join(sorted(arrays))}")
    keypoints = arrays["keypoints"]
    if keypoints.ndim != 3 or keypoints.shape[2] not in (2, 3) or keypoints.dtype.kind not in "fiu":
        raise ItesError(
            f"{path}: keypoints must be numbers of shape (T, J, 2) or (T, J, 3), got "
            f"{keypoints.dtype} of shape {keypoints.shape}"
        )
    if not len(keypoints):
        raise ItesError(f"{path}: keypoints hold no frame")
    confidence = arrays.get("confidence")
    if keypoints.shape[2] == 3:
        keypoints, confidence = keypoints[..., :2], keypoints[..., 2]
    if confidence is not None and confidence.shape != keypoints.shape[:2]:
        raise ItesError(
            f"{path}: confidence must have shape {keypoints.shape[:2]}, got {confidence.shape}"
        )
    keypoints = keypoints.astype(np.float32)
    missing = ~np.isfinite(keypoints).all(-1)
    if confidence is not None:
        missing |= ~(confidence > 0)
    if confidence is not None or missing.any():
        given = 1.0 if confidence is None else confidence
        confidence = np.where(missing, 0, given).astype(np.float32)
        keypoints = np.where(missing[..., None], 0, keypoints)
    if layout is not None:
        keypoints, confidence = to_human36m(keypoints, layout, confidence)
    elif keypoints.shape[1] != skeleton.num_joints:
        raise ItesError(
            f"{path}: expected {skeleton.num_joints} joints a frame ({skeleton.name}), got "
            f"{keypoints.shape[1]}; a layout to convert from is one of {', '.join(LAYOUTS)}"
        )
    focal = _numbers(path, arrays, "focal_length", (1, 2))
    size = _numbers(path, arrays, "image_size", (2,))
    fps = _numbers(path, arrays, "fps", (1,))
    clip = Clip(
        name=path.stem,
        keypoints=keypoints,
        fps=fps[0] if fps else float("nan"),
        confidence=confidence,
        focal_length=(focal[0], focal[-1]) if focal else None,
        image_size=(round(size[0]), round(size[1])) if size else None,
    )
    return Clips(skeleton, [clip], title=path.name)


def _load(path: Path) -> dict[str, NDArray[Any]]:
    """The arrays of an .npz or .npy file; pickles are refused."""
    try:
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return {"keypoints": loaded}
        with loaded:
            return {name: loaded[name] for name in loaded.files}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise ItesError(
            f"{path}: expected a pose store, or an .npz or .npy file of plain arrays: {error}"
        ) from None


def _numbers(
    path: Path, arrays: Mapping[str, NDArray[Any]], name: str, counts: tuple[int, ...]
) -> tuple[float, ...]:
    """The optional positive numbers of an .npz entry; empty where it is not there."""
    if name not in arrays:
        return ()
    value = np.atleast_1d(arrays[name])
    if value.ndim != 1 or len(value) not in counts or value.dtype.kind not in "fiu":
        raise ItesError(
            f"{path}: {name} must hold {' or '.join(map(str, counts))} numbers, got "
            f"{value.dtype} of shape {arrays[name].shape}"
        )
    if not (value > 0).all():
        raise ItesError(f"{path}: {name} must be positive, got {value.tolist()}")
    return tuple(float(number) for number in value)


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
    path = Path(path)
    if not path.is_file():
        raise ItesError(f"{path}: no such file")
    if h5py.is_hdf5(path):
        with h5py.File(path, "r") as file:
            if file.attrs.get("format") == STORE_FORMAT:
                return _measured(path)
            arrays = {k: _plain(v) for k, v in file.items() if isinstance(v, h5py.Dataset)}
            texts = {key: str(value) for key, value in file.attrs.items()}
    else:
        arrays = _load(path)
        texts = {key: str(value) for key, value in arrays.items() if value.ndim == 0}
    if texts.get("format") != FORMAT:
        raise ItesError(f"{path}: expected a file that `ites lift` wrote, or a pose store")
    if texts.get("version") != str(VERSION):
        raise ItesError(f"{path}: expected version {VERSION}, got {texts.get('version')}")
    try:
        return _from_arrays(arrays, texts)
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


def _from_arrays(arrays: Mapping[str, NDArray[Any]], texts: Mapping[str, str]) -> Clips:
    clips = []
    starts, lengths = arrays["sequence_start"], arrays["sequence_length"]
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
                **{key: rows for key, rows in frames.items() if not np.isnan(rows).all()},
            )
        )
    return Clips(
        Skeleton.from_json(texts["skeleton"]),
        clips,
        texts.get("title", ""),
        texts.get("acknowledgement", ""),
        json.loads(texts.get("settings", "{}")),
    )
