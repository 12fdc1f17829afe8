"""DeepLabCut's tables, CSV and HDF5, of one individual or several; joints by their names.

Source: DeepLabCut, docs/convert... of `analyze_videos`: columns of levels scorer, (individuals,)
bodyparts, coords with coords x, y, likelihood, a row per frame. The HDF5 is pandas': "fixed" with
one group of axes and blocks, or "table" with the column names pickled in an attribute. h5py reads
the file; `ites.data.datasets.npz` reads the pickle without executing it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from ites.data.datasets.npz import loads
from ites.data.readers.recording import LARGEST, Detections, Track
from ites.data.readers.tables import cell_number
from ites.errors import ItesError, shorten
from ites.pose.layouts import joint_name
from ites.system.hdf5 import attribute, check_filters, children, is_plain

FORMAT = "DeepLabCut"
MIN_CONFIDENCE = 0.1
"""DeepLabCut's own cut-off for pictures, `pcutoff`, is 0.6; a joint that is merely unsure helps."""
COORDS = ("x", "y", "likelihood")
COLUMNS = 30_000
"""Maximum columns of a table."""


def recognises(rows: list[list[str]]) -> bool:
    """Whether a CSV file's first rows are in DeepLabCut's format."""
    heads = [row[0].strip().lower() for row in rows[:4] if row]
    return "bodyparts" in heads and "coords" in heads


def parse(path: Path, rows: list[list[str]]) -> Detections:
    """Detections of the rows of a CSV file that `recognises`.

    Raises:
        ItesError: the table is malformed.
    """
    count = next(i for i, row in enumerate(rows) if row[0].strip().lower() == "coords") + 1
    names = {row[0].strip().lower(): row for row in rows[:count]}
    first = 1
    while first < len(rows[0]) and not names["coords"][first].strip():
        first += 1  # labelled data: folder, video, image
    width = len(rows[0])
    if width > COLUMNS:
        raise ItesError(f"{path}: expected up to {COLUMNS} columns, got {width}")
    for line, row in enumerate(rows, 1):
        if len(row) != width:
            raise ItesError(f"{path}: row {line}: expected {width} cells, got {len(row)}")
    columns = [
        (names.get("individuals", [""] * width)[c], names["bodyparts"][c], names["coords"][c])
        for c in range(first, width)
    ]
    try:
        values = np.array([[cell_number(cell) for cell in row[first:]] for row in rows[count:]])
    except ValueError as error:
        raise ItesError(f"{path}: expected numbers, got {shorten(error, 80)}") from None
    return _table(path, columns, values.reshape(len(rows) - count, len(columns)))


def is_hdf5(file: h5py.File) -> bool:
    """Whether an open HDF5 file is a table of pandas'."""
    return any(
        isinstance(group, h5py.Group) and "pandas_type" in group.attrs
        for _, group in children(file)
    )


def parse_hdf5(path: Path) -> Detections:
    """Detections of an HDF5 file.

    Raises:
        ItesError: the table is malformed.
    """
    with h5py.File(path, "r") as file:
        groups = [
            g for _, g in children(file) if isinstance(g, h5py.Group) and "pandas_type" in g.attrs
        ]
        group = groups[0]
        if "table" in group:
            columns, values = _pandas_table(path, group["table"])
        else:
            columns, values = _pandas_fixed(path, group)
    named = [(c[-3] if len(c) == 4 else "", c[-2], c[-1]) for c in columns if len(c) in (3, 4)]
    if len(named) != len(columns):
        raise ItesError(f"{path}: expected columns scorer, bodyparts, coords, got {columns[:1]}")
    return _table(path, named, values)


def _pandas_fixed(path: Path, group: h5py.Group) -> tuple[list[tuple[str, ...]], Any]:
    order = _labels(path, group, "axis0")
    blocks = sorted(key[: -len("_values")] for key in group if key.endswith("_values"))
    found: dict[tuple[str, ...], NDArray[Any]] = {}
    for block in blocks:
        values = _read(path, group[f"{block}_values"])
        names = _labels(path, group, f"{block}_items")
        if values.ndim != 2 or len(names) != values.shape[1]:
            raise ItesError(f"{path}: expected {len(names)} columns, got shape {values.shape}")
        found.update(zip(names, values.T, strict=True))
    if not order or any(name not in found for name in order):
        raise ItesError(f"{path}: expected a table of DeepLabCut's, got columns without values")
    return order, np.stack([found[name] for name in order], axis=1)


def _labels(path: Path, group: h5py.Group, axis: str) -> list[tuple[str, ...]]:
    """The column names of a pandas MultiIndex."""
    levels = int(attribute(group, f"{axis}_nlevels", str(path), 0))
    if not 3 <= levels <= 4:
        raise ItesError(f"{path}: expected columns scorer, bodyparts, coords, got {levels} levels")
    columns = []
    for level in range(levels):
        names = [_text(name) for name in _read(path, group[f"{axis}_level{level}"], text=True)]
        labels = _read(path, group[f"{axis}_label{level}"])
        if labels.ndim != 1 or labels.size > COLUMNS or labels.dtype.kind not in "iu":
            raise ItesError(f"{path}: expected up to {COLUMNS} column labels")
        if labels.size and not (labels.min() >= 0 and labels.max() < len(names)):
            raise ItesError(f"{path}: expected column labels below {len(names)}")
        columns.append([names[label] for label in labels])
    return list(zip(*columns, strict=True))


def _pandas_table(path: Path, table: h5py.Dataset) -> tuple[list[tuple[str, ...]], Any]:
    rows = _read(path, table)
    blocks = [name for name in rows.dtype.names or () if name.startswith("values_block")]
    axes = attribute(table, "non_index_axes", str(path))
    if axes is None:
        axes = attribute(table.parent, "non_index_axes", str(path))
    if not blocks or axes is None:
        raise ItesError(f"{path}: expected a table of DeepLabCut's, got other columns")
    order = [tuple(map(str, name)) for name in loads(_bytes(axes))[0][1]]
    found: dict[tuple[str, ...], NDArray[Any]] = {}
    for block in blocks:
        kind = attribute(table, f"{block}_kind", str(path))
        names = order if kind is None else [tuple(map(str, n)) for n in loads(_bytes(kind))]
        values = rows[block].reshape(len(rows), -1)
        if len(names) != values.shape[1]:
            raise ItesError(f"{path}: expected {len(names)} columns, got {values.shape[1]}")
        found.update(zip(names, values.T, strict=True))
    if not order or len(order) > COLUMNS or any(name not in found for name in order):
        raise ItesError(f"{path}: expected a table of DeepLabCut's, got columns without values")
    return order, np.stack([found[name] for name in order], axis=1)


def _bytes(value: Any) -> bytes:
    if isinstance(value, h5py.Empty):
        return b""
    return value.encode("latin1") if isinstance(value, str) else bytes(value)


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _read(path: Path, data: Any, text: bool = False) -> Any:
    """A dataset, if its size is plausible."""
    if not isinstance(data, h5py.Dataset) or data.shape is None:
        raise ItesError(f"{path}: expected a table of DeepLabCut's, got none")
    held = int(np.prod(data.shape, dtype=object)) * data.dtype.itemsize
    if held > max(200 * path.stat().st_size, 1 << 26):
        raise ItesError(f"{path}: expected a table of its file's size, got {held:,} bytes declared")
    if not is_plain(data.id.get_type()):
        raise ItesError(f"{path}: {data.name}: expected text or standard numbers, got another type")
    check_filters(data, str(path))
    return data[()]


def _table(path: Path, columns: list[tuple[str, str, str]], values: Any) -> Detections:
    """One track per individual, joints by name."""
    values = np.asarray(values)
    if values.dtype.kind not in "fiu" or values.ndim != 2 or not values.size:
        raise ItesError(f"{path}: expected a table of numbers, got {values.dtype} {values.shape}")
    values = values.astype(np.float64)
    finite = values[np.isfinite(values)]
    if finite.size and np.abs(finite).max() >= LARGEST:
        raise ItesError(f"{path}: expected pixels, got {np.abs(finite).max():g}")
    people: dict[str, dict[str, dict[str, int]]] = {}
    for index, (individual, part, coord) in enumerate(columns):
        people.setdefault(individual, {}).setdefault(part, {})[coord.strip().lower()] = index
    parts = list(dict.fromkeys(part for _, part, _ in columns))
    one = next(iter(people.values()))
    shared = [part for part in parts if any(part in own for own in people.values())]
    found = Detections(FORMAT, min_confidence=MIN_CONFIDENCE)
    names = [joint_name(part) for part in shared]
    twice = {name for name in names if names.count(name) > 1}
    found.joints = tuple(
        part if name in twice else name for part, name in zip(shared, names, strict=True)
    )
    if twice:
        found.notes.append(f"several joints map to {', '.join(sorted(twice)[:4])}: left out")
    found.scored = all("likelihood" in own for own in one.values())
    for individual, own in people.items():
        joints = np.full((len(values), len(shared), 3), np.nan, np.float32)
        joints[..., 2] = 1
        for k, part in enumerate(shared):
            for axis, coord in enumerate(COORDS):
                at = own.get(part, {}).get(coord)
                if at is not None:
                    joints[:, k, axis] = values[:, at]
        several = len(people) > 1
        found.tracks.append(Track(joints, label=individual if several else ""))
    return found
