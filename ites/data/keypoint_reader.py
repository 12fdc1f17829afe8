"""Keypoints to lift, from a pose store or a detector's output, read in portions of clips."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from ites.data.clips import Clips, other_splits, stored_clips, stored_sequences
from ites.data.corrections import Corrections
from ites.data.readers import ReadOptions, read
from ites.data.store import FORMAT as STORE_FORMAT
from ites.data.store import PoseStore
from ites.errors import ItesError
from ites.pose.skeleton import HUMAN36M, Skeleton
from ites.system.files import reading, require_file
from ites.system.hdf5 import holds

Floats = NDArray[np.floating]


def read_keypoints(
    path: str | os.PathLike[str],
    skeleton: Skeleton = HUMAN36M,
    split: str | None = None,
    layout: str | None = None,
    **options: Any,
) -> Clips:
    """Read 2D keypoints from a pose store or a detector's output.

    Args:
        path: a store as `ites prepare` writes it, or a file or folder that
            `ites.data.readers.read` accepts.
        skeleton: of a plain array; a store has its own.
        split: the split of a store to read; None reads "test" if present, else all.
        layout: the order of the joints; see `ites.data.readers.read`.
        options: `image_size`, `person` and `min_confidence`; see there.

    Raises:
        ItesError: the file is none of these, or its content is inconsistent.
    """
    with KeypointReader(path, skeleton, split, layout, **options) as reader:
        return reader.read()


class KeypointReader:
    """Clips of a keypoint file, read in portions; a context manager.

    Args:
        path, skeleton, split, layout, options: see `read_keypoints`.
        corrections: of the clips after reading; None: no corrections.

    Raises:
        ItesError: as `read_keypoints`.

    Attributes: `skeleton`; `lengths`, the frames per clip; `timed`, whether each clip's frame rate
    is known; `notes`, lines on assumptions, derived joints and omissions.
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
        self.skeleton: Skeleton
        wanted = ReadOptions(layout, skeleton=skeleton, **options)
        if is_store(path):
            with reading(path, "a pose store"):
                self._open_store(path, split)
            try:
                wanted.refuse_for_store(path, self.skeleton)
            except ItesError:
                self.__exit__()
                raise
            self.notes += corrections.lines() if corrections else []
            return
        if split is not None:
            raise ItesError(f"{path}: only a pose store has splits, got split {split!r}")
        recording = read(path, wanted)
        self.notes = [*recording.notes, *(corrections.lines() if corrections else [])]
        self._sources = [(source.array(), recording.layout) for source in recording.source]
        self._clips = Clips(recording.skeleton, recording.clips, title=path.name)
        self.skeleton = recording.skeleton
        self.lengths = [len(clip) for clip in recording.clips]
        self.timed = [clip.fps > 0 for clip in recording.clips]

    def _open_store(self, path: Path, split: str | None) -> None:
        self._store = PoseStore(path)
        self.skeleton = self._store.skeleton
        self._rows = stored_sequences(self._store, split)
        self.notes += other_splits(self._store, split)
        self.lengths = [sequence.length for sequence in self._rows]
        self.timed = [sequence.fps > 0 for sequence in self._rows]
        if not self._rows:
            there = ", ".join(self._store.splits) or "some poses"
            self._store.close()
            raise ItesError(f"{path}: expected a split of {there}, got {split!r}")

    def __enter__(self) -> KeypointReader:
        return self

    def __exit__(self, *_: object) -> None:
        if self._store is not None:
            self._store.close()

    def read(self, chosen: slice = slice(None)) -> Clips:  # noqa: B008 - immutable
        """The clips of a slice, all by default; other clips of a store are not read."""
        if self._store is None:
            clips = replace(self._clips, clips=self._clips.clips[chosen])
        else:
            clips = stored_clips(self._store, self._rows[chosen])
        if not self._corrections:
            return clips
        corrected = [self._corrections(clip, clips.skeleton) for clip in clips.clips]
        return replace(clips, clips=corrected)

    def sources(self, chosen: slice = slice(None)) -> list[tuple[Floats, str]]:  # noqa: B008
        """The detector's own joints (T, K, 3), pixels and confidence, of a slice's clips, and their
        layout's name; empty for a store."""
        return self._sources[chosen]


def is_store(path: Path) -> bool:
    """Whether a file is HDF5 and names a pose store's format."""
    return not path.is_dir() and h5py.is_hdf5(require_file(path)) and holds(path, STORE_FORMAT)
