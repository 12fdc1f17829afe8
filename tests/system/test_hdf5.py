"""HDF5 files: attributes that are neither text nor numbers, and h5py's lock."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import h5py
import numpy as np
import pytest
from h5py._objects import phil

from ites.data.datasets.cmu import clips_of
from ites.data.lifted import read_clips
from ites.data.store import PoseStore
from ites.data.synthetic.synthetic import prepare_synthetic
from ites.errors import ItesError

OF_A_TEXT = bytes([0x19, 0x01, 0x01, 0x00])
"""How HDF5 writes the type of a text of variable length: version 1, class 9, a text, UTF-8."""


def _damaged(path: Path) -> Path:
    """Makes every attribute of text a list, by one byte each, as a bad disk might."""
    data = path.read_bytes()
    assert OF_A_TEXT in data
    path.write_bytes(data.replace(OF_A_TEXT, bytes([0x19, 0x00, 0x01, 0x00])))
    return path


def test_a_list_in_place_of_a_text_is_refused(tmp_path: Path) -> None:
    """HDF5 2.0 reads beyond such an attribute's end, which ends the process."""
    with h5py.File(tmp_path / "motion.h5", "w") as file:
        clip = file.create_group("S01/01_01")
        clip["positions"] = np.zeros((3, 17, 3))
        clip.attrs.update(fps=60.0, action="walk")
    for name in ("lifted.h5", "store.h5"):
        with h5py.File(tmp_path / name, "w") as file:
            file.attrs["format"] = "anything"
    readers = {
        "motion.h5": lambda path: list(clips_of(path)),
        "lifted.h5": read_clips,
        "store.h5": PoseStore,
    }
    for name, read in readers.items():
        path = _damaged(tmp_path / name)
        with pytest.raises(ItesError, match=f"{name}.*expected text or numbers, got another type"):
            read(path)


def test_an_error_leaves_h5pys_lock_free(tmp_path: Path) -> None:
    """Another thread would wait forever, as the one that writes lifted clips."""
    with h5py.File(tmp_path / "motion.h5", "w") as file:
        file.create_group("S01/01_01")
    prepare_synthetic(tmp_path / "store.h5", poses=20)
    with h5py.File(tmp_path / "store.h5", "a") as file:
        for name in file["cameras"]:
            file[f"cameras/{name}"].attrs["focal_length"] = 1.0
    readers = {"motion.h5": lambda path: list(clips_of(path)), "store.h5": PoseStore}
    for name, read in readers.items():
        with pytest.raises(ItesError, match=name) as kept:
            read(tmp_path / name)
        with ThreadPoolExecutor(1) as other:
            assert other.submit(phil.acquire, False).result(), name
            other.submit(phil.release).result()
        assert kept.value.__traceback__ is not None
