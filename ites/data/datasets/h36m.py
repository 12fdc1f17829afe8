"""Human3.6M from any of the three common sources.

- the original CDF files: `<subject>/MyPoseFeatures/D3_Positions_mono/<action>.<camera>.cdf`
  (millimetres, camera frame) and, where they are there, `D2_Positions/<action>.<camera>.cdf`
  (pixels); or `D3_Positions/<action>.cdf` (millimetres, world); variable `Pose`, (1, T, 96 or 64);
- the older HDF5 archive, unpacked or h36m.zip itself:
  `<subject>/MyPoses/3D_positions/<action>.h5`, dataset `3D_positions`, (96, T), millimetres, world;
- VideoPose3D's data_3d_h36m.npz, `positions_3d[subject][action]` (T, 32, 3), metres, world; with it
  or alone its 2D files, `positions_2d[subject][action]`, four arrays (T, 17, 2), pixels, in the
  order of the cameras; `metadata` names the order of the joints, which may be COCO's.

Missing 2D is projected by each camera with its distortion. Action names omit the take's number
("Walking 1" is "Walking"), because metrics are averaged by action.
"""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path, PurePath, PurePosixPath
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from ites.data.checks.orders import order_error
from ites.data.datasets.cdf import read_variable
from ites.data.datasets.npz import load_npz
from ites.data.datasets.plausible import Say, sound_frames
from ites.data.readers.videopose3d import layout_of
from ites.data.store import PoseStore, PoseStoreWriter, plain_text
from ites.errors import ItesError, shorten
from ites.pose.camera import Camera, human36m_cameras
from ites.pose.layouts import joints_of, to_human36m
from ites.pose.skeleton import HUMAN36M, root_relative
from ites.system.files import members_of, reading
from ites.system.hdf5 import dataset
from ites.system.isolated import isolated

JOINTS = (0, 1, 2, 3, 6, 7, 8, 12, 13, 14, 15, 17, 18, 19, 25, 26, 27)
"""The 17 joints in use among the 32 of the files."""
TRAIN_SUBJECTS = ("S1", "S5", "S6", "S7", "S8")
TEST_SUBJECTS = ("S9", "S11")
FPS = 50.0
FILES = 32
"""Files of the older archive that a child process reads."""
SPOILT = {("S11", "Directions")}
"""A take with a damaged video; all protocols exclude it."""
FARTHEST = 0.08
"""Largest median distance of 2D from the projected 3D, both relative to the pelvis, over the
person's size. Detections have 0.05 or less; those of another camera, or with exchanged sides,
have 0.11 and more."""
CHECKED = 64
"""Frames of a take that are compared."""
RENAMED = {"TakingPhoto": "Photo", "WalkingDog": "WalkDog"}
ACKNOWLEDGEMENT = (
    "Human3.6M: Ionescu, Papava, Olaru, Sminchisescu, PAMI 2014; Ionescu, Li, Sminchisescu, ICCV "
    "2011. Free for academic use, by its licence: vision.imar.ro/human3.6m."
)

Array = NDArray[np.floating]


@dataclass(frozen=True)
class H36mTake:
    """One take as one camera sees it.

    `camera` is 0 to 3; keypoints (T, 17, 2), pixels; positions (T, 17, 3), metres, in its frame, or
    None if the source has none; `where` is the file and the location in it.
    """

    subject: str
    action: str
    camera: int
    keypoints: Array
    positions: Array | None
    where: str = ""


def prepare_h36m(
    source: Path,
    out: Path,
    *,
    keypoints: Path | None = None,
    every: int = 1,
    train_subjects: Sequence[str] = TRAIN_SUBJECTS,
    test_subjects: Sequence[str] = TEST_SUBJECTS,
    say: Say = print,
) -> dict[str, Any]:
    """Write a pose store of Human3.6M, splits "train" and "test".

    Frames in which no person can be are dropped, and `say` reports them. The measured 3D has no
    number that is not finite, so one says that the file is damaged. A take is one sequence for each
    camera, and several where frames are missing between.

    Args:
        source: a folder of CDF or HDF5 files, h36m.zip, or one of VideoPose3D's .npz files.
        out: the store to write.
        keypoints: VideoPose3D's .npz of 2D ground truth or detections, used instead of
            projections of `source`'s 3D; surplus frames at the end are dropped.
        every: take every n-th frame of 50 per second.
        train_subjects: subjects of the training split.
        test_subjects: subjects of the test split; all other subjects are omitted.
        say: prints a line.

    Returns:
        `PoseStore.summary` of the written store.

    Raises:
        ItesError: `source` is none of these, or the arrays are inconsistent or not finite.
    """
    source, subjects = Path(source), (*train_subjects, *test_subjects)
    if every < 1:
        raise ItesError(f"prepare_h36m: every must be at least 1, got {every}")
    printed: set[str] = set()
    apart: list[float] = []

    def say_once(line: str) -> None:
        """Four cameras see the same frames."""
        if line not in printed:
            printed.add(line)
            say(line)

    flat = None
    if keypoints is not None:
        flat = _Flat.read(Path(keypoints), _load(Path(keypoints)), say_once)
    with PoseStoreWriter(out, HUMAN36M, "Human3.6M", ACKNOWLEDGEMENT) as writer:
        rigs = {subject: human36m_cameras(subject) for subject in subjects}
        for subject, rig in rigs.items():
            for camera in rig:
                writer.add_camera(f"{subject}.{camera.id}", camera)
        for take in takes_of(source, subjects, say_once):
            camera = rigs[take.subject][take.camera]
            points = take.keypoints if flat is None else flat.of(take)
            _expect_finite(take.where, take.positions)
            _expect_order(flat.path if flat else source, take, points)
            sound = sound_frames(take.where, take.positions, points, say=say_once)[::every]
            if not sound.any():
                say_once(f"{take.where}: left out: no frame of every {every} is sound")
                continue
            rows = np.flatnonzero(sound)
            if take.positions is not None:
                kept = rows * every
                apart.append(_distance(camera, take.positions[kept], points[kept]))
            for own in np.split(rows, np.flatnonzero(np.diff(rows) > 1) + 1):
                kept = own * every
                writer.add(
                    points[kept],
                    camera=f"{take.subject}.{camera.id}",
                    subject=take.subject,
                    action=take.action.split(" ")[0],
                    split="test" if take.subject in test_subjects else "train",
                    fps=FPS / every,
                    positions=None if take.positions is None else take.positions[kept],
                    first=int(own[0]),
                )
        if apart and not np.median(apart) <= FARTHEST:
            raise ItesError(
                f"{flat.path if flat else source}: expected 2D on which the 3D projects, got a "
                f"median distance of {np.median(apart):.2f} of the person's size: other cameras, "
                "frames or sides"
            )
    with PoseStore(out) as store:
        return store.summary()


def _expect_finite(where: str, positions: Array | None) -> None:
    """Refuse 3D with a number that is not finite.

    Raises:
        ItesError: there is one, with its frame.
    """
    if positions is None:
        return
    bad = np.asarray(~np.isfinite(positions).all((1, 2)))
    if bad.any():
        raise ItesError(
            f"{where}: expected finite numbers, got others in {int(bad.sum())} of {len(bad)} "
            f"frames, first in frame {int(bad.argmax())} (the first is 0)"
        )


def _expect_order(path: Path, take: H36mTake, points: Array) -> None:
    """Refuse 2D whose joints make a body in another order."""
    if error := order_error(points, HUMAN36M.name):
        raise ItesError(f"{path}: {take.subject}, {take.action}: {error}")


def _distance(camera: Camera, positions: Array, points: Array) -> float:
    """The median distance of 2D from the projected 3D; see `FARTHEST`."""
    step = max(1, len(points) // CHECKED)
    seen, points = camera.project(positions[::step]), points[::step]
    off = np.linalg.norm(root_relative(seen, 0) - root_relative(points, 0), axis=-1)
    return float(np.median(off) / np.median(np.ptp(seen, axis=1).max(-1)))


def takes_of(
    source: Path,
    subjects: Sequence[str] = (*TRAIN_SUBJECTS, *TEST_SUBJECTS),
    say: Say = print,
) -> Iterator[H36mTake]:
    """The takes of any of the three sources; actions have their usual names.

    `say` prints a line where joints of another order are converted.

    Raises:
        ItesError: it is none of these, one cannot be read, or a take is there twice.
    """
    if not source.exists():
        raise ItesError(f"{source}: no such file or folder")
    if source.suffix.lower() == ".npz":
        takes = _read_npz(source, subjects, say)
    elif source.is_dir() and next(source.rglob("*.cdf"), None):
        takes = _read_cdf(source, subjects)
    else:
        takes = _read_archive(source, subjects)
    known: set[tuple[str, str, int]] = set()
    for take in takes:
        where, key = take.where or str(source), (take.subject, take.action, take.camera)
        if key in known:
            raise ItesError(
                f"{where}: a second file of {take.subject}, {take.action}; expected one"
            )
        known.add(key)
        name, space, number = take.action.partition(" ")
        action = f"{RENAMED.get(name, name)}{space}{number}"
        if (take.subject, action) not in SPOILT:
            where = f"{where}: {take.subject}, {take.action}"
            yield replace(take, action=plain_text(where, action), where=where)


# The original CDF files


def _read_cdf(source: Path, subjects: Sequence[str]) -> Iterator[H36mTake]:
    for subject in subjects:
        files = sorted(path for path in source.rglob("*.cdf") if _subject_of(path) == subject)
        mono = [path for path in files if path.parent.name == "D3_Positions_mono"]
        cameras = human36m_cameras(subject)
        ids = [camera.id for camera in cameras]
        for path in mono:
            action, _, name = path.stem.rpartition(".")
            if name not in ids:
                raise ItesError(f"{path}: expected <action>.<camera>.cdf, a camera of {ids}")
            positions = _pose(path, 3) / 1000
            flat = path.parent.with_name("D2_Positions") / path.name
            camera = cameras[ids.index(name)]
            with np.errstate(all="ignore"):
                points = _pose(flat, 2) if flat.exists() else camera.project(positions)
            if len(points) != len(positions):
                raise ItesError(f"{flat}: expected {len(positions)} frames, got {len(points)}")
            yield H36mTake(subject, action, ids.index(name), points, positions, str(path))
        for path in () if mono else files:
            if path.parent.name == "D3_Positions":
                yield from _seen(subject, path.stem, _pose(path, 3) / 1000, str(path))


def _subject_of(path: PurePath) -> str:
    """The nearest folder with a subject's name; one further up may have such a name, too."""
    named = [part for part in path.parts[:-1] if re.fullmatch(r"S\d+", part)]
    return named[-1] if named else ""


def _pose(path: Path, last: int) -> Array:
    """The variable Pose of a CDF file, (T, 17, last)."""
    values = read_variable(path, "Pose")
    if values.ndim < 2 or values.shape[-1] != 32 * last or not values.size:
        raise ItesError(f"{path}: Pose: expected (1, T, {32 * last}), got {values.shape}")
    return values.reshape(-1, 32, last)[:, JOINTS]


# The older HDF5 archive


def _read_archive(source: Path, subjects: Sequence[str]) -> Iterator[H36mTake]:
    wanted = {}
    for name in _members(source):
        path = PurePosixPath(name)
        subject = _subject_of(path)
        if subject in subjects and path.parent.name == "3D_positions":
            wanted[name] = subject
    names = list(wanted)
    for start in range(0, len(names), FILES):
        some = names[start : start + FILES]
        for name, values in zip(some, isolated(_read_members, source, some), strict=True):
            positions = values.T.reshape(-1, 32, 3)[:, JOINTS] / 1000
            take = PurePosixPath(name).stem
            yield from _seen(wanted[name], take, positions, f"{source}: {name}")
    if not wanted:
        raise ItesError(
            f"{source}: expected CDF files, an HDF5 archive of S1/MyPoses/3D_positions/*.h5, or "
            "VideoPose3D's .npz; got none of them"
        )


def _members(source: Path) -> list[str]:
    """The names of the .h5 files of a folder or a .zip file."""
    if source.is_dir():
        return [path.as_posix() for path in sorted(source.rglob("*.h5"))]
    if not zipfile.is_zipfile(source):
        return []
    with reading(source, "an archive of HDF5 files"), zipfile.ZipFile(source) as archive:
        return sorted(info.filename for info in members_of(source, archive, ".h5"))


def _read_members(source: Path, names: Sequence[str]) -> list[Array]:
    """The positions (96, T) of some of the files."""
    found: list[Array] = []
    with ExitStack() as stack:
        archive = None if source.is_dir() else stack.enter_context(zipfile.ZipFile(source))
        for name in names:
            with reading(source, f"3D_positions in {name}"):
                content = Path(name) if archive is None else io.BytesIO(archive.read(name))
                with h5py.File(content, "r") as file:
                    positions = dataset(file, "3D_positions", f"{source}: {name}")
                    values = np.asarray(positions, np.float64)
                if values.ndim != 2 or len(values) != 96 or not values.size:
                    raise ItesError(f"{source}: {name}: expected (96, T), got {values.shape}")
                found.append(values)
    return found


# VideoPose3D's files


def _read_npz(source: Path, subjects: Sequence[str], say: Say) -> Iterator[H36mTake]:
    entries = load_npz(source)
    if "positions_2d" in entries:
        flat = _Flat.read(source, entries, say)
        for subject, action, cameras in _entries(source, flat.table, subjects):
            for index in range(4):
                yield H36mTake(subject, action, index, flat.camera(cameras, index), None)
        return
    if "positions_3d" not in entries:
        raise ItesError(
            f"{source}: expected positions_3d or positions_2d, got {', '.join(entries)}"
        )
    for subject, action, world in _entries(source, entries["positions_3d"], subjects):
        with reading(source, f"numbers of {subject}, {action}"):
            positions = np.asarray(world, np.float64)
        where = f"{source}: {subject}, {action}"
        yield from _seen(subject, action, _seventeen(where, positions, 3))


def _entries(source: Path, table: Any, subjects: Sequence[str]) -> Iterator[tuple[str, str, Any]]:
    """(subject, action, arrays) of a dict of dicts."""
    if not isinstance(table, dict) or not all(isinstance(v, dict) for v in table.values()):
        raise ItesError(f"{source}: expected a dict of subjects of dicts of actions")
    if not set(subjects) & set(table):
        raise ItesError(
            f"{source}: expected some of {', '.join(subjects)}, got {', '.join(map(str, table))}"
        )
    for subject in subjects:
        for action, value in table.get(subject, {}).items():
            yield subject, plain_text(str(source), action), value


def _load(path: Path) -> dict[str, Any]:
    entries = load_npz(path)
    if "positions_2d" not in entries:
        raise ItesError(f"{path}: expected positions_2d, got {', '.join(entries)}")
    return entries


@dataclass(frozen=True)
class _Flat:
    """VideoPose3D's 2D: `table[subject][action]` has four arrays, joints in the order `layout`."""

    path: Path
    table: Any
    layout: str

    @classmethod
    def read(cls, path: Path, entries: dict[str, Any], say: Say) -> _Flat:
        """The entries of a file with `positions_2d`.

        Raises:
            ItesError: its metadata name an unknown order of joints.
        """
        metadata = entries.get("metadata")
        metadata = metadata if isinstance(metadata, dict) else {}
        layout = layout_of(metadata) if "layout_name" in metadata else HUMAN36M.name
        if layout is None:
            raise ItesError(
                f"{path}: metadata: expected a layout_name such as h36m or coco, got "
                f"{shorten(metadata['layout_name'], 40)}"
            )
        if layout != HUMAN36M.name:
            say(f"{path}: joints of {layout}, converted to {HUMAN36M.name}")
        return cls(path, entries["positions_2d"], layout)

    def camera(self, cameras: Any, index: int) -> Array:
        """(T, 17, 2) of one of an action's four cameras, in Human3.6M's order."""
        with reading(self.path, "an action as seen by 4 cameras"):
            if len(cameras) != 4:
                raise ItesError(
                    f"{self.path}: expected an action as seen by 4 cameras, got {len(cameras)}"
                )
            points = np.asarray(cameras[index], np.float64)[..., :2]
        if self.layout == HUMAN36M.name:
            return _seventeen(str(self.path), points, 2)
        count = len(joints_of(self.layout))
        if points.shape[1:] != (count, 2) or not len(points):
            raise ItesError(f"{self.path}: expected (T, {count}, 2), got {points.shape}")
        converted, unknown = to_human36m(points, self.layout)
        if unknown is not None:
            raise ItesError(
                f"{self.path}: expected all joints of {HUMAN36M.name}, got "
                f"{self.layout}, which lacks some"
            )
        return converted

    def of(self, take: H36mTake) -> Array:
        """A take's 2D, cut to the length of its 3D."""
        try:
            cameras = self.table[take.subject][take.action]
        except (KeyError, TypeError):
            raise ItesError(
                f"{self.path}: expected {take.subject}, {take.action}; it is missing"
            ) from None
        points = self.camera(cameras, take.camera)
        count = len(points if take.positions is None else take.positions)
        if len(points) < count:
            raise ItesError(
                f"{self.path}: {take.subject}, {take.action}: expected at least {count} frames, "
                f"as the 3D has, got {len(points)}"
            )
        return points[:count]


def _seventeen(where: str, joints: Array, last: int) -> Array:
    shape = joints.shape
    if len(shape) != 3 or shape[1] not in (17, 32) or shape[2] != last or not shape[0]:
        raise ItesError(f"{where}: expected (T, 17 or 32, {last}), got {shape}")
    return joints[:, JOINTS] if shape[1] == 32 else joints


def _seen(subject: str, action: str, world: Array, where: str = "") -> Iterator[H36mTake]:
    """World positions (T, 17, 3), metres, as the four cameras see them."""
    for index, camera in enumerate(human36m_cameras(subject)):
        with np.errstate(all="ignore"):  # later checks find non-finite frames
            positions = camera.world_to_camera(world)
            points = camera.project(positions)
        yield H36mTake(subject, action, index, points, positions, where)
