"""MPI-INF-3DHP from its own files, or from arrays that other programs derive from them.

- training: `S*/Seq*/annot.mat` (MATLAB 5) with cells `annot2` (T, 56), pixels, and `annot3`,
  `univ_annot3` (T, 84), millimetres in the camera's frame, one per camera; `camera.calibration`
  beside it;
- test: `TS*/annot_data.mat` (MATLAB 7.3, which is HDF5) with `annot2` (T, 1, 17, 2), `annot3`,
  `univ_annot3` (T, 1, 17, 3), `valid_frame` and `activity_annotation` (T, 1);
- `data_train_3dhp.npz`: `data["S1 Seq1"][0]["0"]` of `data_2d` (T, 17, 2) and `data_3d` (T, 17, 3);
  `data_test_3dhp.npz`: `data["TS1"]` of these and `valid` (T).

`univ_annot3` is `annot3` scaled to one body height; the benchmark is evaluated on it. The .npz
files and the test set have no calibration: the camera is fitted to their 2D and 3D.
Source: Mehta et al., Monocular 3D human pose estimation in the wild, 3DV 2017, and its read-me.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ites.data.checks.orders import order_error
from ites.data.datasets.matlab import read_variables
from ites.data.datasets.npz import load_npz
from ites.data.datasets.plausible import Say, sound_frames
from ites.data.store import PoseStore, PoseStoreWriter, plain_text
from ites.errors import ItesError
from ites.pose.camera import Camera
from ites.pose.layouts import to_human36m
from ites.pose.skeleton import HUMAN36M
from ites.system.files import reading, require_file
from ites.system.hdf5 import dataset, opened
from ites.system.isolated import isolated

ANNOTATIONS = ("univ_annot3", "annot3")
CAMERAS = (0, 1, 2, 4, 5, 6, 7, 8)
"""The cameras near chest height, the usual training cameras; six more look down."""
ACTIVITIES = (
    "Standing and walking", "Exercise", "Sitting", "Crouch and reach", "On the floor", "Sports",
    "Miscellaneous",
)  # fmt: skip
"""The activities 1 to 7 of `activity_annotation`. Source: the test set's read-me."""
UNKNOWN = "Unknown"
TRAIN_SIZE, OUTDOORS_SIZE = (2048, 2048), (1920, 1080)
OUTDOORS = ("TS5", "TS6")
FAST = {("S1", "Seq2"), ("S3", "Seq1"), ("S3", "Seq2"), ("S5", "Seq1"), ("S5", "Seq2")}
"""Training sequences of 50 frames per second; the others have 25. Source: its sequence table."""
RESIDUAL = 0.02
"""Largest median distance of the projected 3D from the 2D, over the image's width."""
LEAST_FOCAL = 0.1
"""Focal length over the image's width; of the data set's cameras it is 0.7 and more."""
ACKNOWLEDGEMENT = (
    "MPI-INF-3DHP: Mehta, Rhodin, Casas, Fua, Sotnychenko, Xu, Theobalt, 3DV 2017. For research, "
    "by its licence: vcai.mpi-inf.mpg.de/3dhp-dataset."
)

Array = NDArray[np.float64]


@dataclass(frozen=True)
class MpiTake:
    """One sequence as one camera sees it.

    keypoints (T, J, 2), pixels; positions (T, J, 3), metres, camera frame, both in the order of
    `layout`; `valid` (T,) bool; `actions` (T,), their names; `where` names the file.
    """

    subject: str
    split: str
    camera: Camera
    layout: str
    keypoints: Array
    positions: Array
    valid: NDArray[np.bool_]
    actions: Sequence[str]
    fps: float
    where: str


def prepare_3dhp(
    source: Path,
    out: Path,
    *,
    annotation: str | None = None,
    cameras: Sequence[int] | None = None,
    every: int = 1,
    say: Say = print,
) -> dict[str, Any]:
    """Write a pose store of MPI-INF-3DHP in Human3.6M's joints, splits "train" and "test".

    In the test split the subject is the test sequence, TS1 to TS6. The action is the activity, by
    which `ites evaluate` averages. Invalid test frames are dropped. Frames with non-finite or
    implausible values are dropped too, and `say` reports them.

    Args:
        source: a folder of the data set's files or of the .npz files, or one of these .npz files.
        out: the store to write.
        annotation: the 3D of the data set's files, "univ_annot3" or "annot3"; None: the first;
            the .npz files hold one of them.
        cameras: of the training set, 0 to 13; None: those not on the ceiling.
        every: take every n-th frame.
        say: prints a line.

    Returns:
        `PoseStore.summary` of the written store.

    Raises:
        ItesError: `source` holds none of these files, one of them is not as described, or a
            sequence is there twice.
    """
    given = annotation, cameras
    annotation = ANNOTATIONS[0] if annotation is None else annotation
    cameras = CAMERAS if cameras is None else cameras
    if annotation not in ANNOTATIONS:
        raise ItesError(
            f"prepare_3dhp: annotation must be {' or '.join(ANNOTATIONS)}, got {annotation!r}"
        )
    if every < 1 or not cameras or not all(0 <= index < 14 for index in cameras):
        raise ItesError(
            f"prepare_3dhp: every must be at least 1 and cameras in 0..13, got {every}, "
            f"{list(cameras)}"
        )
    for name, value, pattern in (
        ("annotation", given[0], "*/annot*.mat"),
        ("cameras", given[1], "S*/Seq*/annot.mat"),
    ):
        if value is not None and Path(source).exists() and not any(Path(source).rglob(pattern)):
            raise ItesError(f"{source}: {name} has no effect: expected {pattern}, got none")
    with PoseStoreWriter(out, HUMAN36M, "MPI-INF-3DHP", ACKNOWLEDGEMENT) as writer:
        places: dict[str, str] = {}
        for take in takes_of(Path(source), annotation, cameras):
            if take.camera.id in places:
                raise ItesError(
                    f"{take.where}: expected each sequence once, got it in "
                    f"{places[take.camera.id]} too"
                )
            places[take.camera.id] = take.where
            _add(writer, take, every, say)
    with PoseStore(out) as store:
        return store.summary()


def takes_of(
    source: Path, annotation: str = "univ_annot3", cameras: Sequence[int] = CAMERAS
) -> Iterator[MpiTake]:
    """The takes of a source in any of the forms.

    Raises:
        ItesError: the source has none of the forms, or a file is not as described.
    """
    if not source.exists():
        raise ItesError(f"{source}: no such file or folder")
    if source.is_file():
        yield from _read_npz(source)
        return
    train = sorted(source.rglob("S*/Seq*/annot.mat"), key=_number)
    test = sorted(source.rglob("TS*/annot_data.mat"), key=_number)
    arrays = sorted(source.glob("data_*_3dhp.npz")) if not train and not test else []
    if not (train or test or arrays):
        raise ItesError(
            f"{source}: expected S*/Seq*/annot.mat, TS*/annot_data.mat, data_train_3dhp.npz or "
            "data_test_3dhp.npz, got none of them"
        )
    for path in train:
        yield from _read_train(path, annotation, cameras)
    for path in test:
        yield isolated(_read_test, path, annotation)
    for path in arrays:
        yield from _read_npz(path)


def _number(path: Path) -> list[tuple[str, int]]:
    """Sorts S2 before S10."""
    return [(text, int(number or 0)) for text, number in re.findall(r"(\D+)(\d*)", f"/{path}")]


def _add(writer: PoseStoreWriter, take: MpiTake, every: int, say: Say) -> None:
    """Write the valid frames of a take, one sequence per run of one action."""
    if not take.valid.any():
        say(f"{take.where}: left out: no frame is valid")
        return
    _check_order(take)
    points, _ = to_human36m(take.keypoints, take.layout)
    with np.errstate(all="ignore"):  # the check below finds non-finite frames
        positions, _ = to_human36m(take.positions, take.layout)
    valid = np.flatnonzero(take.valid)
    sound = np.zeros(len(points), bool)
    sound[valid] = sound_frames(take.where, positions[valid], points[valid], say=say)
    rows = np.arange(0, len(points), every)
    rows = rows[sound[rows]]
    if not len(rows):
        say(f"{take.where}: left out: no frame of every {every} is sound")
        return
    writer.add_camera(take.camera.id, take.camera)
    cuts = [
        i
        for i in range(1, len(rows))
        if rows[i] - rows[i - 1] > every or take.actions[rows[i]] != take.actions[rows[i - 1]]
    ]
    for start, stop in pairwise([0, *cuts, len(rows)]):
        own = rows[start:stop]
        writer.add(
            points[own],
            camera=take.camera.id,
            subject=take.subject,
            action=take.actions[own[0]],
            split=take.split,
            fps=take.fps / every,
            positions=positions[own],
        )


def _check_order(take: MpiTake) -> None:
    """Refuse joints that make a body in another order: programs write these files in several."""
    if error := order_error(take.keypoints[take.valid], take.layout):
        raise ItesError(f"{take.where}: {error}")


# The training set


def _read_train(path: Path, annotation: str, cameras: Sequence[int]) -> Iterator[MpiTake]:
    subject, name = (plain_text(str(path), part) for part in path.parts[-3:-1])
    cells = read_variables(path, ("annot2", "annot3", annotation))
    rig = _calibration(path.with_name("camera.calibration"))
    for index in cameras:
        where = f"{path}: camera {index}"
        if index not in rig:
            raise ItesError(
                f"{path.with_name('camera.calibration')}: expected camera {index}, got "
                f"{', '.join(map(str, rig))}"
            )
        points = _cell(where, cells, "annot2", index, 2)
        measured = _cell(where, cells, "annot3", index, 3)
        positions = (
            measured if annotation == "annot3" else _cell(where, cells, annotation, index, 3)
        )
        if not len(points) == len(measured) == len(positions):
            raise ItesError(
                f"{where}: expected as many frames in 2D as in 3D, got {len(points)} in annot2, "
                f"{len(measured)} in annot3, {len(positions)} in {annotation}"
            )
        camera = Camera(f"{subject}.{name}.{index}", *rig[index])
        _check_projection(where, camera, points, measured)
        yield MpiTake(
            subject, "train", camera, "mpi3dhp28", points, positions, np.ones(len(points), bool),
            [name] * len(points), 50.0 if (subject, name) in FAST else 25.0, where,
        )  # fmt: skip


def _cell(where: str, cells: dict[str, Any], name: str, index: int, last: int) -> Array:
    """(T, 28, last) of one camera; millimetres become metres."""
    column = np.asarray(cells[name])
    if column.dtype != object or index >= column.size:
        raise ItesError(f"{where}: {name}: expected a cell per camera, got {column.shape}")
    values = np.asarray(column.reshape(-1)[index])
    if values.ndim != 2 or values.shape[1] != 28 * last or values.dtype.kind not in "fiu":
        raise ItesError(
            f"{where}: {name}: expected numbers of shape (T, {28 * last}), got {values.dtype} of "
            f"shape {values.shape}"
        )
    if not len(values):
        raise ItesError(f"{where}: {name}: expected frames, got none")
    return values.reshape(-1, 28, last).astype(np.float64) / (1000 if last == 3 else 1)


Intrinsics = tuple[
    tuple[float, float], tuple[float, float], tuple[float, float, float], tuple[float, float],
    tuple[float, float, float, float], tuple[float, float, float], int, int,
]  # fmt: skip
"""The fields of a `Camera` after its name."""


def _calibration(path: Path) -> dict[int, Intrinsics]:
    """Cameras of a calibration file: focal length, centre and image size."""
    path, cameras, fields = require_file(path), {}, dict[str, list[str]]()
    with reading(path, "a camera calibration file"):
        text = path.read_text(encoding="utf-8", errors="replace")
        for line in [*text.splitlines(), "name"]:
            words = line.split()
            if words[:1] == ["name"] and fields:
                matrix = np.array(fields["intrinsic"], np.float64).reshape(4, 4)
                width, height = (int(word) for word in fields["size"])
                fx, fy, cx, cy = (matrix[at] for at in ((0, 0), (1, 1), (0, 2), (1, 2)))
                if not (0 < fx < 1e6 and 0 < fy < 1e6 and 0 < width < 1e6 and 0 < height < 1e6):
                    raise ValueError(f"focal lengths {fx}, {fy}, size {width} x {height}")
                if not (abs(cx) < 1e6 and abs(cy) < 1e6):
                    raise ValueError(f"centre {cx}, {cy}")
                cameras[int(fields["name"][0])] = _intrinsics((fx, fy), (cx, cy), (width, height))
                fields = {}
            if len(words) > 1:
                fields[words[0]] = words[1:]
            if words[:1] == ["Skeleton"]:
                fields = {}
        if not cameras:
            raise ValueError("no camera")
    return cameras


def _intrinsics(
    focal: tuple[float, float], centre: tuple[float, float], size: tuple[int, int]
) -> Intrinsics:
    fx, fy, cx, cy = map(float, (*focal, *centre))
    return (fx, fy), (cx, cy), (0, 0, 0), (0, 0), (1, 0, 0, 0), (0, 0, 0), *size


def _check_projection(where: str, camera: Camera, points: Array, positions: Array) -> None:
    """Reject 2D and 3D that the camera does not relate: another camera, frame or unit."""
    with np.errstate(all="ignore"):
        off = np.linalg.norm(camera.project(positions) - points, axis=-1)
    known = off[np.isfinite(off)]
    if len(known) and not np.median(known) <= RESIDUAL * camera.width:
        raise ItesError(
            f"{where}: expected 3D in millimetres in the camera's frame that projects onto the 2D, "
            f"got a median distance of {np.median(known):.0f} px"
        )


# The test set


def _read_test(path: Path, annotation: str) -> MpiTake:
    subject = plain_text(str(path), path.parent.name)
    with opened(path, "a MATLAB 7.3 file of annot2 and annot3") as file:
        count = len(dataset(file, "annot2", str(path)))
        points = _frames(path, file, "annot2", (count, 1, 17, 2))
        measured = _frames(path, file, "annot3", (count, 1, 17, 3)) / 1000
        positions = measured
        if annotation != "annot3":
            positions = _frames(path, file, annotation, (count, 1, 17, 3)) / 1000
        valid = _frames(path, file, "valid_frame", (count, 1)) > 0
        actions = [UNKNOWN] * count
        if "activity_annotation" in file:
            numbers = _frames(path, file, "activity_annotation", (count, 1))
            actions = [_activity(number) for number in numbers]
    camera = _fitted(str(path), subject, _size_of(subject), points[valid], measured[valid])
    return MpiTake(
        subject, "test", camera, "mpi3dhp17", points, positions, valid, actions, float("nan"),
        str(path),
    )  # fmt: skip


def _frames(path: Path, file: Any, name: str, shape: tuple[int, ...]) -> Array:
    """A dataset of the test set without the axis of length 1."""
    found = dataset(file, name, str(path))
    if found.shape != shape or not shape[0]:
        raise ItesError(f"{path}: {name}: expected shape {('T', *shape[1:])}, got {found.shape}")
    return np.asarray(found[()], np.float64).squeeze(1)


def _activity(number: float) -> str:
    known = number in range(1, len(ACTIVITIES) + 1)
    return ACTIVITIES[int(number) - 1] if known else UNKNOWN


def _size_of(subject: str) -> tuple[int, int]:
    return OUTDOORS_SIZE if subject in OUTDOORS else TRAIN_SIZE


def _fitted(
    where: str, name: str, size: tuple[int, int], points: Array, positions: Array
) -> Camera:
    """The distortion-free camera that best projects the 3D to the 2D.

    `u z = f x + c z`, least squares for each axis of the image.
    """
    points, positions = points.reshape(-1, 2), positions.reshape(-1, 3)
    with np.errstate(all="ignore"):
        known = np.isfinite(points).all(-1) & np.isfinite(positions).all(-1)
        known &= (np.abs(points) < 1e6).all(-1) & (np.abs(positions) < 1e3).all(-1)
        known &= positions[:, 2] > 0.1
    points, positions = points[known], positions[known]
    if len(points) < 17:
        raise ItesError(
            f"{where}: expected 3D in front of the camera, not relative to a joint, got "
            f"{len(points)} joints of it"
        )
    fields = []
    for axis in range(2):
        system = positions[:, (axis, 2)] / positions[:, 2:]
        (focal, centre), *_ = np.linalg.lstsq(system, points[:, axis], rcond=None)
        fields.append((float(focal), float(centre)))
    (fx, cx), (fy, cy) = fields
    least = LEAST_FOCAL * size[0]  # 2D divided by the image's size has a lower one
    if not (least < fx < 1e6 and least < fy < 1e6):
        divided = float(np.median(np.abs(points))) <= 2
        expected = (
            "2D in pixels, onto which the 3D projects"
            if divided
            else "3D in millimetres in the camera's frame that projects onto the 2D"
        )
        raise ItesError(f"{where}: expected {expected}, got focal length {fx:g}")
    camera = Camera(name, *_intrinsics((fx, fy), (cx, cy), size))
    _check_projection(where, camera, points, positions)
    return camera


# The arrays of other programs


def _read_npz(path: Path) -> Iterator[MpiTake]:
    entries = load_npz(path)
    table = entries.get("data")
    if not isinstance(table, dict) or not table:
        raise ItesError(
            f"{path}: expected data, a dict of sequences, got {', '.join(entries) or 'nothing'}"
        )
    for key, value in table.items():
        name = plain_text(str(path), key)
        with reading(path, f"arrays of {name}"):
            if re.fullmatch(r"TS\d+", name):
                yield _entry(path, name, name, value, "test")
                continue
            subject, _, sequence = name.partition(" ")
            if not sequence or not re.fullmatch(r"S\d+", subject):
                raise ItesError(f"{path}: expected keys such as S1 Seq1 or TS1, got {name!r}")
            for camera, arrays in value[0].items():
                yield _entry(path, f"{subject}.{sequence}.{camera}", subject, arrays, "train")


def _entry(path: Path, name: str, subject: str, arrays: Any, split: str) -> MpiTake:
    where = f"{path}: {name[:60]}"
    found = {}
    for key, last in (("data_2d", 2), ("data_3d", 3)):
        values = np.asarray(arrays[key])
        if values.ndim != 3 or values.shape[1:] != (17, last) or values.dtype.kind not in "fiu":
            raise ItesError(
                f"{where}: {key}: expected numbers of shape (T, 17, {last}), got {values.dtype} of "
                f"shape {values.shape}"
            )
        found[key] = values.astype(np.float64)
    points, positions = found["data_2d"], found["data_3d"] / 1000
    valid = np.ones(len(points), bool)
    if "valid" in arrays:
        valid = np.asarray(arrays["valid"]).reshape(-1) > 0
    if not len(points) == len(positions) == len(valid) or not len(points):
        raise ItesError(
            f"{where}: expected as many frames in 2D as in 3D, got {len(points)} in data_2d, "
            f"{len(positions)} in data_3d, {len(valid)} in valid"
        )
    size = _size_of(subject)
    key = plain_text(where, name.replace("/", "_"))
    camera = _fitted(where, key, size, points[valid], positions[valid])
    sequence = name.split(".")[1] if split == "train" else UNKNOWN
    fps = float("nan")
    if split == "train":
        fps = 50.0 if (subject, sequence) in FAST else 25.0
    return MpiTake(
        subject, split, camera, "mpi3dhp17", points, positions, valid, [sequence] * len(points),
        fps, where,
    )  # fmt: skip
