"""HDF5 files: attributes that are neither text nor numbers, and h5py's lock."""

from __future__ import annotations

import re
import struct
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import h5py
import numpy as np
import pytest
from h5py._objects import phil

from ites.data.datasets.cmu import takes_of
from ites.data.lifted import read_clips
from ites.data.store import PoseStore
from ites.data.synthetic.synthetic import prepare_synthetic
from ites.errors import ItesError
from ites.system.hdf5 import HEAP, attribute, dataset, opened

TEXT = h5py.string_dtype()
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
    for name, form in (("lifted.h5", "ites-lifted"), ("store.h5", "ites-pose-store")):
        with h5py.File(tmp_path / name, "w") as file:
            file.attrs["format"] = form
    readers = {
        "motion.h5": lambda path: list(takes_of(path)),
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
    readers = {"motion.h5": lambda path: list(takes_of(path)), "store.h5": PoseStore}
    for name, read in readers.items():
        with pytest.raises(ItesError, match=name) as kept:
            read(tmp_path / name)
        with ThreadPoolExecutor(1) as other:
            assert other.submit(phil.acquire, False).result(), name
            other.submit(phil.release).result()
        assert kept.value.__traceback__ is not None


@pytest.mark.parametrize("block", (0, 512))
@pytest.mark.parametrize("attributes", (1, 20))
def test_a_text_longer_than_its_heap_is_refused(
    block: int, attributes: int, tmp_path: Path
) -> None:
    """HDF5 2.0 takes the declared bytes, up to 4 GiB, or reads what lies behind the text."""
    path, damaged = tmp_path / "sound.h5", tmp_path / "damaged.h5"
    with h5py.File(path, "w", userblock_size=block) as file:
        group = file.create_group("group")
        group.attrs.update({f"text{number}": "word" * 3 for number in range(attributes)})
        group.attrs["list"] = ["word" * 3] * 2
        file["plain"] = ["word" * 3]
        file.create_dataset("chunks", data=["word" * 3] * 3, chunks=(2,), dtype=TEXT)

    def texts(path: Path) -> set[str]:
        with opened(path, "texts") as file:
            group = file["group"]
            found = {attribute(group, f"text{number}", "it") for number in range(attributes)}
            found |= set(attribute(group, "list", "it"))
            columns = (dataset(file, name, "it", "O").asstr()[:] for name in ("plain", "chunks"))
            return found.union(*columns)

    assert texts(path) == {"word" * 3}
    data = path.read_bytes()
    heaps = [heap.start() - block for heap in re.finditer(re.escape(HEAP), data)]
    mark = struct.pack("<I", 12)
    places = [at for heap in heaps for at in found_in(data, mark + struct.pack("<Q", heap))]
    assert len(places) == attributes + 2 + 1 + 3
    for place in places:
        for length in (13, 2**27):
            change = data[:place] + struct.pack("<I", length) + data[place + 4 :]
            damaged.write_bytes(change)
            with pytest.raises(ItesError, match=rf"damaged.*at most 12 bytes.*got {length:,} decl"):
                texts(damaged)


def found_in(data: bytes, part: bytes) -> list[int]:
    return [match.start() for match in re.finditer(re.escape(part), data)]


def test_types_that_h5py_takes_for_larger_ones_are_refused(tmp_path: Path) -> None:
    """One byte, a float's bias, once made HDF5 write past an array and end the process."""
    bias = h5py.h5t.IEEE_F64LE.copy()
    bias.set_ebias(895)
    short = h5py.h5t.STD_I32LE.copy()
    short.set_precision(17)
    table = h5py.h5t.create(h5py.h5t.COMPOUND, 16)
    table.insert(b"x", 0, h5py.h5t.IEEE_F64LE)
    table.insert(b"y", 8, bias)
    with h5py.File(tmp_path / "types.h5", "w") as file:
        for name, kind in (("bias", bias), ("short", short), ("table", table)):
            space = h5py.h5s.create_simple((3,))
            h5py.h5d.create(file.id, name.encode(), kind, space)
            h5py.h5a.create(file.id, name.encode(), kind, space)
        good = np.zeros(3, [("x", "<f8"), ("y", ">f4", 2), ("z", "?")])
        file["good"] = good
    with h5py.File(tmp_path / "types.h5") as file:
        for name in ("bias", "short", "table"):
            with pytest.raises(ItesError, match=f"^w: {name}: .*another type"):
                dataset(file, name, "w", "fiuV")
            with pytest.raises(ItesError, match=f"^w: attribute {name}: .*another type"):
                attribute(file, name, "w")
        assert dataset(file, "good", "w", "V")[()].tobytes() == good.tobytes()
