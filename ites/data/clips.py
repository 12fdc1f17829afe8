"""Clips: keypoints of one person over time, with 3D beside them where it is known.

`read_keypoints` reads what can be lifted; `ites.data.lifted` writes and reads what was. Pixels for
2D; metres in the camera's frame (x right, y down, z forward) relative to the root joint for 3D.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
from numpy.typing import NDArray

from ites.data.store import PoseStore, Sequence
from ites.errors import ItesError
from ites.pose.missing import fill, impossible
from ites.pose.skeleton import HUMAN36M, Skeleton
from ites.system.files import load_npy, load_npz, reading, require_file

if TYPE_CHECKING:
    from ites.data.corrections import Corrections

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
    **options: Any,
) -> Clips:
    """Read 2D keypoints from a pose store or from what a detector wrote.

    Args:
        path: a store as `ites prepare` writes it, or a file or folder that
            `ites.data.readers.read` takes.
        skeleton: whose joints a plain array holds; a store brings its own.
        split: of a store, the split to read; None reads "test" where there is one, else all.
        layout: the order of the joints; see `ites.data.readers.read`.
        options: `image_size`, `person` and `min_confidence`; see there.

    Raises:
        ItesError: the file is none of these, or what it holds does not fit together.
    """
    with KeypointReader(path, skeleton, split, layout, **options) as reader:
        return reader.read()


class KeypointReader:
    """Clips of a file of keypoints, read a few at a time; a context manager.

    Args:
        path, skeleton, split, layout, options: see `read_keypoints`.
        corrections: what to do to the clips after reading them; None: nothing.

    Raises:
        ItesError: as `read_keypoints`.

    Attributes: `skeleton`; `lengths`, the frames of each clip; `notes`, what was assumed, derived
        or left out, a line each.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        skeleton: Skeleton = HUMAN36M,
        split: str | None = None,
        layout: str | None = None,
        corrections: Corrections | None = None,
        **options: Any,
    ) -> None:
        path = Path(path)
        self._store: PoseStore | None = None
        self._sources: list[tuple[Floats, str]] = []
        self._corrections = corrections
        self.notes: list[str] = []
        if _is_store(path):
            with reading(path, "a pose store"):
                self._open_store(path, split)
            return
        if split is not None:
            raise ItesError(f"{path}: only a pose store has splits, got split {split!r}")
        from ites.data.readers import read  # the readers' clips are of this module

        recording = read(path, layout=layout, skeleton=skeleton, **options)
        self.notes = [*recording.notes, *(corrections.lines() if corrections else [])]
        self._sources = [(source.array(), recording.layout) for source in recording.source]
        self._clips = Clips(recording.skeleton, recording.clips, title=path.name)
        self.skeleton = recording.skeleton
        self.lengths = [len(clip) for clip in recording.clips]

    def _open_store(self, path: Path, split: str | None) -> None:
        self._store = PoseStore(path)
        self.skeleton = self._store.skeleton
        if split is None and "test" in self._store.splits:
            split = "test"
        self._rows = [s for s in self._store.sequences if split in (None, s.split)]
        self.lengths = [sequence.length for sequence in self._store.sequences_of(split)]

    def __enter__(self) -> KeypointReader:
        return self

    def __exit__(self, *_: object) -> None:
        if self._store is not None:
            self._store.close()

    def read(self, chosen: slice = slice(None)) -> Clips:  # noqa: B008 - immutable
        """The clips of a slice, all by default; of a store no others are read."""
        if self._store is None:
            clips = replace(self._clips, clips=self._clips.clips[chosen])
        else:
            clips = _read_store(self._store, self._rows[chosen])
        if not self._corrections:
            return clips
        corrected = [self._corrections(clip, clips.skeleton) for clip in clips.clips]
        return replace(clips, clips=corrected)

    def sources(self, chosen: slice = slice(None)) -> list[tuple[Floats, str]]:  # noqa: B008
        """Of the clips of a slice the detector's own joints (T, K, 3), pixels and confidence, and
        their layout's name; nothing of a store."""
        return self._sources[chosen]


def _is_store(path: Path) -> bool:
    """Whether a file is HDF5, but no table of pandas' as DeepLabCut writes it."""
    if path.is_dir() or not h5py.is_hdf5(require_file(path)):
        return False
    with reading(path, "a pose store"), h5py.File(path, "r") as file:
        return not any("pandas_type" in group.attrs for group in file.values())


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


def load_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """The arrays of an .npz or .npy file; pickles are refused."""
    with path.open("rb") as file:
        plain = file.read(6) == b"\x93NUMPY"
    return {"keypoints": load_npy(path)} if plain else load_npz(path)
