"""Clips: keypoints of one person over time, with 3D beside them where it is known.

`read_keypoints` reads what can be lifted; `ites.data.lifted` writes and reads what was. Pixels for
2D; metres in the camera's frame (x right, y down, z forward) relative to the root joint for 3D.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from ites.data.store import PoseStore, Sequence
from ites.errors import ItesError
from ites.pose.missing import fill, impossible
from ites.pose.skeleton import HUMAN36M, LAYOUTS, Skeleton, to_human36m
from ites.system.files import existing

Floats = NDArray[np.floating]
ASSUMED_FPS = 25.0
"""Frames per second of a clip whose rate nothing tells."""


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
        elevation, log_density, sign_confidence: (T,) float32, see `ites.models.trust.Judgement`.
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
    elevation: Floats | None = None
    log_density: Floats | None = None
    sign_confidence: Floats | None = None

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


def cut(lengths: list[int], size: int) -> list[slice]:
    """Cut clips into portions of whole clips, each the shortest of at least `size` frames."""
    portions, start, frames = [], 0, 0
    for clip, length in enumerate(lengths, 1):
        frames += length
        if frames >= size or clip == len(lengths):
            portions.append(slice(start, clip))
            start, frames = clip, 0
    return portions


def seen_joints(clip: Clip) -> NDArray[np.bool_]:
    """Which joints of a clip a detector saw: (T, J) bool, confidence above 0."""
    if clip.confidence is None:
        return np.ones(clip.keypoints.shape[:2], bool)
    return np.asarray(clip.confidence > 0)


def drop_impossible(clip: Clip, skeleton: Skeleton) -> tuple[Clip, list[str]]:
    """Give keypoints that cannot be right confidence 0; see `ites.pose.missing.impossible`.

    Returns:
        The clip, and a line that says how many they are and names the first; none if there is none.
    """
    seen = seen_joints(clip)
    bad = impossible(clip.keypoints, seen, clip.image_size)
    if not bad.any():
        return clip, []
    frame, joint = np.argwhere(bad)[0]
    x, y = clip.keypoints[frame, joint]
    note = (
        f"{clip.name}: {np.count_nonzero(bad):,} impossible keypoints count as missing, the first "
        f"in frame {frame}: {skeleton.joints[joint]} at ({x:.6g}, {y:.6g})"
    )
    given = 1.0 if clip.confidence is None else clip.confidence
    return replace(clip, confidence=np.where(bad | ~seen, 0, given).astype(np.float32)), [note]


def fill_missing(clip: Clip, skeleton: Skeleton) -> tuple[Clip, int]:
    """Fill joints of confidence 0; see `ites.pose.missing.fill`.

    Returns:
        The clip, and how many joints were filled.
    """
    seen = seen_joints(clip)
    if seen.all():
        return clip, 0
    filled = fill(clip.keypoints, seen, skeleton)
    return replace(clip, keypoints=filled), int(np.count_nonzero(~seen))


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
        layout: the order of the array's joints, one of `ites.pose.skeleton.LAYOUTS`, to be
            converted to Human3.6M's; None takes them as `skeleton`'s.

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
        path = existing(path)
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
                focal_length=None if camera.assumed else camera.focal_length,
                image_size=(camera.width, camera.height) if camera.width else None,
            )
        )
    return Clips(store.skeleton, clips, store.title, store.acknowledgement)


def _read_array(path: Path, skeleton: Skeleton, layout: str | None) -> Clips:
    arrays = load_arrays(path)
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


def load_arrays(path: Path) -> dict[str, NDArray[Any]]:
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
