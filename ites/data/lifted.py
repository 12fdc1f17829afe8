"""The file that `ites lift` writes: clips with 3D, its layout in `docs/lifting.md`."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from ites import __version__
from ites.data.clips import METRE, Clip, Clips, fill_missing, seen_joints
from ites.data.keypoint_reader import KeypointReader, is_store
from ites.data.store import CHUNK, FARTHEST, skeleton_of
from ites.data.store import FORMAT as STORE_FORMAT
from ites.errors import ItesError
from ites.pose.missing import unknown
from ites.pose.skeleton import Skeleton
from ites.system.files import FileWriter, atomic_write, load_npz, reading, require_file
from ites.system.hdf5 import H5Writer, attribute, dataset, holds, opened

FORMAT = "ites-lifted"
VERSIONS = ("1", "2")
"""Versions that can be read; the last is written. The first has neither root path nor gravity."""
_POSES = "origin of positions and truth at the root joint of each pose"
FRAME = {
    "camera": f"camera axes: x right, y down, z forward; {_POSES}, of root at the camera",
    "gravity": f"gravity axes: x right, y down along gravity, z forward and level; {_POSES}, of "
    "root at the camera",
    "gravity, floor at 0": "gravity axes: x right, y down along gravity, z forward and level; "
    f"{_POSES}, of root on the floor below the camera",
}
"""By the frame of the clips, the text that states it."""
_FRAME_1 = "camera axes: x right, y down, z forward; origin at the root joint of each pose"
PER_FRAME = (
    "keypoints",
    "confidence",
    "positions",
    "metres_per_unit",
    "root",
    "truth",
    "elevation",
    "log_density",
    "sign_confidence",
    "expected_error",
)
"""The fields of a clip with one row per frame."""
SURE_SIGN = 0.8
"""Sign confidence below which a pose counts as doubtful and is shown pale."""
UNIT = "; divide by metres_per_unit for network units"
"""Follows the unit of the clips, where there is metres_per_unit."""


def write_clips(path: str | os.PathLike[str], clips: Clips) -> None:
    """Write lifted clips as .npz or .h5, by the name's ending; the write is atomic.

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

    The file appears under its name only when the block ends without an error. An .h5 file is
    written incrementally, an .npz file at the end.

    Args:
        path: the .npz or .h5 file to write, replaced if it exists.

    Raises:
        ItesError: the ending is neither.

    Attributes: `settings`, the lifting's settings to store in the file.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        super().__init__()
        self.path = Path(path)
        self._hdf5 = self.path.suffix.lower() == ".h5"
        if self.path.suffix.lower() not in (".npz", ".h5"):
            raise ItesError(f"{path}: the output's name must end in .npz or .h5")
        self.settings: dict[str, Any] = {}
        self._clips: Clips | None = None
        self._frames = 0
        self._divided = False  # whether a clip has metres_per_unit

    def __enter__(self) -> ClipsWriter:
        with ExitStack() as stack:  # `atomic_write` names the file of an error in here, too
            self._temporary = stack.enter_context(atomic_write(self.path))
            if self._hdf5:
                self._file = stack.enter_context(H5Writer(self._temporary))
            self._stack = stack.pop_all()
        return self

    def add(self, clips: Clips) -> None:
        """Append clips, at least one, each with `positions`; all of one skeleton."""
        self._divided |= any(clip.metres_per_unit is not None for clip in clips.clips)
        if self._hdf5:
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
        for key in PER_FRAME:  # arrays that only other clips have are nan here
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
        texts = _to_texts(replace(self._clips, settings=self.settings), self._divided)
        if self._hdf5:
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
        "sequence_first": np.array([clip.first_frame for clip in items]),
        "focal_length": np.array([clip.focal_length or (np.nan, np.nan) for clip in items]),
        "focal_assumed": np.array([int(clip.focal_assumed) for clip in items]),
        "image_size": np.array([clip.image_size or (0, 0) for clip in items]),
        "principal_point": np.array([clip.principal_point or (np.nan,) * 2 for clip in items]),
        "gravity": np.array([clip.gravity or (np.nan,) * 3 for clip in items]),
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


def _to_texts(clips: Clips, divided: bool) -> dict[str, str]:
    return {
        "format": FORMAT,
        "version": VERSIONS[-1],
        "written_by": f"ites {__version__}",
        "frame": FRAME[clips.frame],
        "unit": clips.unit + UNIT * divided,
        "skeleton": clips.skeleton.to_json(),
        "title": clips.title,
        "acknowledgement": clips.acknowledgement,
        "settings": json.dumps(clips.settings),
    }


def read_clips(path: str | os.PathLike[str], split: str | None = None) -> Clips:
    """Read the output of `ites lift`, or a pose store's keypoints and own 3D as `positions`.

    Args:
        path: the file.
        split: of a store; None: "test" if present, else all. `Clips.notes` says what is left out.

    Raises:
        ItesError: the file is neither, its arrays are inconsistent, a value is impossible for
            a pose, or there is no such split.
    """
    path = require_file(path)
    if split is not None and not is_store(path):
        raise ItesError(f"{path}: only a pose store has splits, got split {split!r}")
    with reading(path, "a file that `ites lift` wrote, or a pose store"):
        arrays, texts = _contents(path)
        if texts.get("format") == STORE_FORMAT:
            return _measured(path, split)
        if texts.get("format") != FORMAT:
            raise ItesError(f"{path}: expected a file that `ites lift` wrote, or a pose store")
        if texts.get("version") not in VERSIONS:
            wanted, got = " or ".join(VERSIONS), f"{texts.get('version')}"[:20]
            raise ItesError(f"{path}: expected version {wanted}, got {got}")
        try:
            return _from_arrays(path, arrays, texts)
        except KeyError as error:
            raise ItesError(f"{path}: a lifted file needs {error}, which is not there") from None


def read_settings(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The settings of a lifted file; empty if the file is of another kind or damaged."""
    try:
        with reading(path, "a lifted file"):
            _, texts = _contents(Path(path))
            return _settings(Path(path), texts)
    except ItesError:
        return {}


def _contents(path: Path) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    """The arrays and the texts of a file; only the format for a pose store."""
    if h5py.is_hdf5(path):
        if not holds(path, FORMAT) and not holds(path, STORE_FORMAT):
            return {}, {}
        with opened(path, "a lifted file") as file:
            attributes = {key: attribute(file, key, str(path)) for key in file.attrs}
            texts = {key: value for key, value in attributes.items() if isinstance(value, str)}
            if texts.get("format") != FORMAT:
                return {}, texts
            return {key: _plain(path, file, key) for key in file if key in KNOWN}, texts
    arrays = {} if path.suffix.lower() == ".npy" else load_npz(path)
    return arrays, {
        key: str(value)
        for key, value in arrays.items()
        if value.ndim == 0 and value.dtype.kind == "U"
    }


def _plain(path: Path, file: h5py.File, key: str) -> NDArray[Any]:
    if key == "sequence_name":
        return np.asarray(dataset(file, key, str(path), "O").asstr()[:])
    return np.asarray(dataset(file, key, str(path))[()])


def _measured(path: Path, split: str | None) -> Clips:
    with KeypointReader(path, split=split) as reader:
        store = reader.read()
    clips = []
    for clip in store.clips:
        nothing = unknown(seen_joints(clip), clip.fps)[..., None]
        filled, _ = fill_missing(clip, store.skeleton)
        shown = np.where(nothing, np.float32(np.nan), filled.keypoints)
        clips.append(replace(clip, keypoints=shown, positions=clip.truth, truth=None))
    return replace(store, clips=clips, unit=f"{METRE}, measured", notes=reader.notes)


SHAPES = {
    "keypoints": ("J", 2),
    "confidence": ("J",),
    "positions": ("J", 3),
    "truth": ("J", 3),
    "root": (3,),
}
"""Row shapes of the arrays with one row per frame; others have one number per row."""
PER_CLIP = {
    "sequence_name": ("UO", ()),
    "sequence_start": ("iu", ()),
    "sequence_length": ("iu", ()),
    "sequence_fps": ("fiu", ()),
    "sequence_first": ("iu", ()),
    "focal_length": ("fiu", (2,)),
    "image_size": ("iu", (2,)),
    "focal_assumed": ("iu", ()),
    "principal_point": ("fiu", (2,)),
    "gravity": ("fiu", (3,)),
}
"""Dtype kinds and row shapes of the arrays with one row per clip."""
NEW = ("focal_assumed", "principal_point", "gravity")
"""Those that version 1 lacks."""
OPTIONAL = ("sequence_first",)
"""Those that a file may lack; they are 0 then."""
KNOWN = frozenset((*PER_FRAME, *PER_CLIP))
BOUNDS = {
    "keypoints": (-FARTHEST["keypoints"], FARTHEST["keypoints"]),
    "positions": (-FARTHEST["positions"], FARTHEST["positions"]),
    "truth": (-FARTHEST["positions"], FARTHEST["positions"]),
    "root": (-FARTHEST["positions"], FARTHEST["positions"]),
    "confidence": (0, 1e6),
    "metres_per_unit": (1e-6, 1e6),
    "elevation": (-np.pi, np.pi),
    "sign_confidence": (0, 1),
    "expected_error": (0, 1e9),
}
"""The smallest and largest value of an array; other arrays allow any finite value."""


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
        # A clip without visible people has positions too; they are all nan.
        known = {k: v for k, v in own.items() if k == "positions" or not np.isnan(v).all()}
        name = str(arrays["sequence_name"][i])
        _check_values(f"{path}: clip {name[:60]}", known, skeleton)
        known = {"keypoints": own["keypoints"], **known}
        more: dict[str, Any] = known | (_own_camera(arrays, i) if "gravity" in arrays else {})
        clips.append(
            Clip(
                name=name,
                fps=float(arrays["sequence_fps"][i]),
                focal_length=(fx, fy) if fx > 0 else None,
                image_size=(width, height) if width else None,
                first_frame=int(arrays["sequence_first"][i]) if "sequence_first" in arrays else 0,
                **more,
            )
        )
    return Clips(
        skeleton,
        clips,
        texts.get("title", ""),
        texts.get("acknowledgement", ""),
        _settings(path, texts),
        _frame(path, texts),
        _unit(path, texts),
    )


def _own_camera(arrays: Mapping[str, NDArray[Any]], clip: int) -> dict[str, Any]:
    centre, gravity = arrays["principal_point"][clip], arrays["gravity"][clip]
    return {
        "focal_assumed": bool(arrays["focal_assumed"][clip]),
        "principal_point": None if np.isnan(centre).any() else tuple(map(float, centre)),
        "gravity": None if np.isnan(gravity).any() else tuple(map(float, gravity)),
    }


def _frame(path: Path, texts: Mapping[str, str]) -> str:
    """The frame that a file states.

    Raises:
        ItesError: it states none, or an unknown one.
    """
    stated = texts.get("frame", "")
    known = {text: name for name, text in FRAME.items()} | {_FRAME_1: "camera"}
    if stated not in known:
        raise ItesError(f"{path}: expected a frame in camera or gravity axes, got {stated[:80]!r}")
    return known[stated]


def _unit(path: Path, texts: Mapping[str, str]) -> str:
    """The unit that a file states, without what follows it.

    Raises:
        ItesError: it is not the metre.
    """
    stated = texts.get("unit", "")
    if not stated.startswith(METRE):
        raise ItesError(f"{path}: expected positions in metres, got unit {stated[:80]!r}")
    return stated.removesuffix(UNIT)


def _settings(path: Path, texts: Mapping[str, str]) -> dict[str, Any]:
    settings = json.loads(texts.get("settings", "{}"))
    if not isinstance(settings, dict):
        raise ItesError(f"{path}: expected settings by name, got {type(settings).__name__}")
    return settings


def _check_clips(path: Path, arrays: Mapping[str, NDArray[Any]]) -> int:
    """Check the arrays with one row per clip; return the number of frames they imply."""
    clips = len(np.atleast_1d(arrays["sequence_length"]))
    some_new = any(key in arrays for key in NEW)
    for key, (kinds, inner) in PER_CLIP.items():
        if (key in NEW and not some_new) or (key in OPTIONAL and key not in arrays):
            continue
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
    first = arrays.get("sequence_first", np.zeros(1, int))
    if (first < 0).any() or (first > 1e9).any():
        raise ItesError(f"{path}: sequence_first: expected frames from 0, got {first}"[:300])
    if some_new:
        _check_camera(path, arrays)
    return row


def _check_camera(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Check the arrays of the clips' cameras that version 1 lacks."""
    centre, gravity = arrays["principal_point"], arrays["gravity"]
    if not (np.isnan(centre) | (np.abs(centre) < 1e9)).all():
        raise ItesError(f"{path}: principal_point: expected pixels, or nan, got {centre}"[:300])
    length = np.linalg.norm(gravity, axis=-1)
    if not (np.isnan(gravity).all(-1) | (np.abs(length - 1) < 1e-3)).all():
        raise ItesError(f"{path}: gravity: expected unit vectors, or nan, got {gravity}"[:300])
    if not np.isin(arrays["focal_assumed"], (0, 1)).all():
        got = arrays["focal_assumed"]
        raise ItesError(f"{path}: focal_assumed: expected 0 or 1, got {got}"[:300])


def _check_frames(
    path: Path, key: str, values: NDArray[Any], count: int, joints: int
) -> NDArray[np.float32]:
    """Check the shape and type of an array with one row per frame."""
    shape = (count, *(joints if n == "J" else n for n in SHAPES.get(key, ())))
    if values.shape != shape or values.dtype.kind not in "fiu":
        raise ItesError(
            f"{path}: {key}: expected numbers of shape {shape}, a row per frame, "
            f"got {values.dtype} of shape {values.shape}"
        )
    with np.errstate(over="ignore"):  # values beyond float32 become infinite and are found
        return values.astype(np.float32, copy=False)


def _check_values(who: str, values: Mapping[str, NDArray[np.float32]], skeleton: Skeleton) -> None:
    """Check the values of one clip.

    An unknown joint is nan in all its coordinates.
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
            joint = f", {skeleton.joints[at[1]]}" if len(at) > 1 and key != "root" else ""
            raise ItesError(
                f"{who}: {key}: expected finite numbers of a pose, got {array[tuple(at)]:g} in "
                f"frame {at[0]}{joint}"
            )
