"""The pose store: one HDF5 file per data set, described in `docs/data.md`.

Keypoints are pixels, positions are metres in the camera's frame (x right, y down, z forward).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
from numpy.typing import ArrayLike, NDArray

from ites.errors import ItesError
from ites.pose.camera import (
    Camera,
    axis_turn,
    normalise,
    scale_for,
    turn_back,
    turn_points,
)
from ites.pose.missing import impossible, interpolate
from ites.pose.skeleton import Skeleton
from ites.system.files import FileWriter, atomic_write, reading, require_file
from ites.system.hdf5 import H5Writer, attribute, check_heaps, children, dataset, holds
from ites.system.isolated import refuse_elsewhere

FORMAT = "ites-pose-store"
VERSION = 1
CHUNK = 4096  # poses per chunk: half a megabyte of 17 keypoints
COLUMNS = ("subject", "action", "camera", "split", "start", "length", "fps")
OPTIONAL = ("first",)  # 0 where absent
CAMERA_SHAPES = {
    "focal_length": (2,),
    "center": (2,),
    "radial": (3,),
    "tangential": (2,),
    "orientation": (4,),
    "translation": (3,),
}
MISSING = ("error", "drop", "interpolate")
FARTHEST = {"keypoints": 1e7, "positions": 1e6, "confidence": np.inf}
"""A keypoint (pixels) or position (metres) farther from 0 is invalid."""
LARGEST_POSE, SMALLEST_PERSON = 4.0, 0.3
"""Maximum median extent in metres, and minimum of skeletons with hips; others are in another
unit."""
LATEST = 10**9
"""Upper bound of a clip's first frame."""
SKELETON_TEXT = 50_000
"""Maximum characters of a skeleton's JSON."""
TEXT = 1000
"""Maximum characters of a name."""

Floats = NDArray[np.float32]


PAIRS = ("first-view", "second-view")
"""Splits whose rows are the same people at the same time, seen by two cameras; nothing is trained
on them."""


def second_view(split: str) -> str:
    """The split that holds the people of `split`, row by row, as another camera saw them."""
    return f"{split}-second-view"


@dataclass(frozen=True)
class Sequence:
    """One clip seen by one camera.

    `start` is the clip's first row in the arrays read with the same `split`:
    `store.sequences` goes with `store.keypoints()`, `store.sequences_of("test")` with
    `store.keypoints("test")`. `length` is in poses, `fps` in poses per second, nan if unknown.
    `first` is the place of the clip's first pose among its video's frames.
    """

    subject: str
    action: str
    camera: str
    split: str
    start: int
    length: int
    fps: float
    first: int = 0

    @property
    def rows(self) -> slice:
        """The clip's rows: `keypoints[sequence.rows]`."""
        return slice(self.start, self.start + self.length)

    def __str__(self) -> str:
        return f"{self.subject}/{self.action}/{self.camera}"


Split = str | list[Sequence] | None


class TurnedViews(NamedTuple):
    """Cameras turned towards the people; see `ites.pose.camera.turn_back`.

    turns: (N, 3, 3) float32, from camera axes to the networks'. size: (N), the input's scale; 1
    where the camera is unknown, so that nothing changes.
    """

    turns: Floats
    size: Floats

    def back(self, poses: Floats, rows: slice = slice(None)) -> Floats:  # noqa: B008 - immutable
        """Lifted poses (n, J, 3) of some rows, network units, in camera axes and perspective."""
        return turn_back(poses, self.turns[rows], self.size[rows])


class PoseStore:
    """Read a pose store; a context manager.

    Args:
        path: the HDF5 file.

    Raises:
        ItesError: the file is missing, is not a pose store of this version, or contradicts itself.

    Attributes: `path`, `title`, `acknowledgement`, `skeleton`, `cameras` (key to Camera),
    `sequences` (all of them, in the order of the rows).

    Arrays are read on request; each read returns a new copy. `split` is a split's name, None for
    all poses, or an ordered list of some of `sequences`.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = require_file(path)
        self._bad: dict[tuple[int, ...], NDArray[np.bool_]] = {}
        with reading(self.path, "a pose store"):
            if not holds(self.path, FORMAT):
                refuse_elsewhere(self.path, PoseStore)
            try:
                check_heaps(self.path)
                self._file = h5py.File(self.path, "r")
            except OSError as error:
                raise ItesError(f"{self.path}: not an HDF5 file ({error})") from None
            try:
                self._read_header()
                self._check_shapes()
            except BaseException:
                self.close()
                raise

    def _read_header(self) -> None:
        where = str(self.path)
        form, version = (attribute(self._file, name, where) for name in ("format", "version"))
        if form != FORMAT:
            raise ItesError(
                f"{where}: expected an HDF5 file with the attribute format = '{FORMAT}', "
                f"got {form!r}"
            )
        if version != VERSION:
            raise ItesError(f"{where}: expected pose store version {VERSION}, got {version!r}")
        self.title = str(attribute(self._file, "title", where, ""))
        self.acknowledgement = str(attribute(self._file, "acknowledgement", where, ""))
        self.skeleton = skeleton_of(
            f"{where}: /skeleton", attribute(self._need("skeleton"), "json", f"{where}: /skeleton")
        )
        self.cameras = {
            key: self._read_camera(key, group) for key, group in children(self._need("cameras"))
        }
        self.sequences = self._read_sequences()

    def _need(self, name: str) -> h5py.Group | h5py.Dataset:
        if name not in self._file:
            raise ItesError(f"{self.path}: a pose store needs /{name}, which is not there")
        return self._file[name]

    def _read_camera(self, key: str, group: h5py.Group) -> Camera:
        fields: dict[str, Any] = {}
        for name in Camera.__dataclass_fields__:
            if name in group.attrs:
                where = f"{self.path}: /cameras/{key}"
                value = np.asarray(attribute(group, name, where)).tolist()
                fields[name] = tuple(value) if isinstance(value, list) else value
                if np.shape(value) != CAMERA_SHAPES.get(name, ()):
                    raise ItesError(
                        f"{self.path}: /cameras/{key}: {name} must have shape "
                        f"{CAMERA_SHAPES.get(name, ())}, got {np.shape(value)}"
                    )
        try:
            camera = Camera(**fields)
        except TypeError as error:
            raise ItesError(f"{self.path}: /cameras/{key}: {error}") from None
        for name in Camera.__dataclass_fields__:
            value = getattr(camera, name)
            if name != "id" and not _is_sound(name, np.asarray(value)):
                raise ItesError(
                    f"{self.path}: /cameras/{key}: expected finite numbers, focal lengths above 0 "
                    f"and an image size of whole pixels, got {name} {value}"
                )
        return camera

    def _read_sequences(self) -> list[Sequence]:
        kinds = dict(zip(COLUMNS, ("O", "O", "O", "O", "iu", "iu", "fiu"), strict=True))
        for name in COLUMNS:
            self._need(f"sequences/{name}")
        kinds |= {name: "iu" for name in OPTIONAL if name in self._file["sequences"]}
        table = {
            name: dataset(self._file["sequences"], name, f"{self.path}: /sequences", kind)
            for name, kind in kinds.items()
        }
        shapes = {name: column.shape for name, column in table.items()}
        if len(set(shapes.values())) != 1 or len(shapes["fps"]) != 1:
            raise ItesError(f"{self.path}: /sequences: columns of unequal length: {shapes}")
        text = [table[name].asstr()[:].tolist() for name in COLUMNS[:4]]
        numbers = [table[name][:].tolist() for name in list(kinds)[4:]]
        return [Sequence(*row) for row in zip(*text, *numbers, strict=True)]

    def _check_shapes(self) -> None:
        self._need("poses/keypoints")
        poses, joints = self._file["poses"], self.skeleton.num_joints
        count = len(dataset(poses, "keypoints", f"{self.path}: /poses"))
        expected = {
            "keypoints": (count, joints, 2),
            "confidence": (count, joints),
            "positions": (count, joints, 3),
            "gravity": (count, 2),
        }
        for name, shape in expected.items():
            if name in poses:
                got = dataset(poses, name, f"{self.path}: /poses").shape
                if got != shape:
                    raise ItesError(f"{self.path}: /poses/{name}: expected {shape}, got {got}")
        row = 0
        for sequence in self.sequences:
            if sequence.start != row or sequence.length < 1:
                raise ItesError(
                    f"{self.path}: sequence {sequence}: expected start {row}, where the one before "
                    f"ends, got start {sequence.start}, length {sequence.length}"
                )
            if sequence.camera not in self.cameras:
                raise ItesError(
                    f"{self.path}: sequence {sequence}: no camera '{sequence.camera}' in /cameras"
                )
            if not (0 < sequence.fps < np.inf or np.isnan(sequence.fps)):  # nan: unknown
                raise ItesError(
                    f"{self.path}: sequence {sequence}: expected fps above 0 or nan, got "
                    f"{sequence.fps}"
                )
            if not 0 <= sequence.first < LATEST:
                raise ItesError(
                    f"{self.path}: sequence {sequence}: expected a first frame from 0 to "
                    f"{LATEST:,}, got {sequence.first}"
                )
            row += sequence.length
        if not row:
            raise ItesError(f"{self.path}: expected a pose store, got one without a pose")
        if row != count:
            raise ItesError(f"{self.path}: the sequences hold {row} poses, the arrays {count}")

    def __enter__(self) -> PoseStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __len__(self) -> int:
        return len(self._file["poses/keypoints"])

    def __repr__(self) -> str:
        return f"PoseStore('{self.path}', {len(self)} poses, splits {', '.join(self.splits)})"

    @property
    def splits(self) -> tuple[str, ...]:
        """The names of the splits, in the order of their first sequence."""
        return tuple(dict.fromkeys(sequence.split for sequence in self.sequences))

    @property
    def has_positions(self) -> bool:
        """Whether the store holds 3D positions."""
        return "poses/positions" in self._file

    @property
    def has_gravity(self) -> bool:
        """Whether the store holds elevation and roll per pose."""
        return "gravity" in self._file["poses"]

    def sequences_of(self, split: Split = None) -> list[Sequence]:
        """The sequences of one split, `start` counted in the rows of that split's arrays."""
        chosen, row = [], 0
        for sequence in self._of(split):
            chosen.append(replace(sequence, start=row))
            row += sequence.length
        return chosen

    def keypoints(self, split: Split = None) -> Floats:
        """Read the 2D joints.

        Args:
            split: a name among `splits`, or None for all poses.

        Returns:
            (N, J, 2) float32, pixels; values with confidence 0 are meaningless.

        Raises:
            ItesError: there is no such split, or a keypoint with confidence is not finite.
        """
        keypoints, confidence = self._read("keypoints", split), self.confidence(split)
        bad = _not_finite(keypoints, FARTHEST["keypoints"])
        self._refuse("keypoints", bad if confidence is None else bad & (confidence > 0), split)
        return keypoints

    def confidence(self, split: Split = None) -> Floats | None:
        """Read the detector's confidence: (N, J) float32, 0 for a missing joint; or None."""
        if "poses/confidence" not in self._file:
            return None
        confidence = self._read("confidence", split)
        self._refuse("confidence", ~np.isfinite(confidence) | (confidence < 0), split)
        return confidence

    def gravity(self, split: Split = None) -> Floats | None:
        """Read elevation and roll of the lines of sight: (N, 2) float32, degrees; or None.

        Raises:
            ItesError: there is no such split, or an angle is not finite.
        """
        if not self.has_gravity:
            return None
        gravity = self._read("gravity", split)
        if not np.isfinite(gravity).all():
            raise ItesError(f"{self.path}: gravity: expected finite angles, got others")
        return gravity

    def positions(self, split: Split = None) -> Floats | None:
        """Read the 3D joints: (N, J, 3) float32, metres, camera frame, absolute; or None.

        Raises:
            ItesError: there is no such split, a number is not finite or huge, or the poses are so
                large that they are not in metres.
        """
        if not self.has_positions:
            return None
        positions = self._read("positions", split)
        self._refuse("positions", _not_finite(positions, FARTHEST["positions"]), split)
        extent = float(np.median(np.ptp(positions, axis=1).max(-1)))
        least = SMALLEST_PERSON if any("hip" in name for name in self.skeleton.joints) else 0
        if not least <= extent <= LARGEST_POSE:
            unit = "divide millimetres by 1000" if extent > 100 else "another unit"
            raise ItesError(
                f"{self.path}: positions: expected metres, got poses of {extent:.4g} m from end to "
                f"end: {unit}"
            )
        return positions

    def complete(self, split: Split = None) -> NDArray[np.bool_]:
        """Which poses have all their joints: (N,) bool; an impossible keypoint is none."""
        return np.all(self._seen(self.keypoints(split), split), axis=1)

    def impossible(self, split: Split = None) -> NDArray[np.bool_]:
        """Which keypoints are impossible, by `ites.pose.missing.impossible`: (N, J) bool.

        They count as missing. Keypoints beside 3D are its projections: they may lie outside the
        image, but not far from the body.
        """
        return self._impossible(self.keypoints(split), split)

    def _impossible(self, keypoints: Floats, split: Split) -> NDArray[np.bool_]:
        rows = tuple(sequence.start for sequence in self._of(split))
        if rows not in self._bad:
            confidence, bad = self.confidence(split), np.zeros(keypoints.shape[:2], bool)
            for sequence in self.sequences_of(split):
                camera, own = self.cameras[sequence.camera], sequence.rows
                size = (camera.width, camera.height)
                known = size if min(size) > 0 and not self.has_positions else None
                seen = None if confidence is None else confidence[own] > 0
                bad[own] = impossible(keypoints[own], seen, known)
            self._bad[rows] = bad
        return self._bad[rows]

    def _seen(self, keypoints: Floats, split: Split) -> NDArray[np.bool_]:
        """Which keypoints (N, J) count: confidence above 0, and possible."""
        confidence, bad = self.confidence(split), self._impossible(keypoints, split)
        return ~bad if confidence is None else (confidence > 0) & ~bad

    def points(
        self, split: Split, scale: float | None = None, missing: str = "error"
    ) -> tuple[Floats, float]:
        """Read the networks' input.

        `points = (keypoints - keypoints[root]) / focal_length * scale`, with the focal length of
        each pose's own camera.

        Args:
            split: a name among `splits`, or None for all poses.
            scale: the factor; None chooses it so that the mean distance from root to head over
                the poses returned is 1/5.
            missing: the handling of a pose that lacks a joint: confidence 0, or impossible (see
                `impossible`). "error" raises.
                "drop" omits those poses and returns the rows where `complete(split)` holds.
                "interpolate" fills each joint linearly in time along its sequence, the ends with
                the nearest value, and returns all rows.

        Returns:
            points (N, J, 2) float32, and the scale used.

        Raises:
            ItesError: there is no such split, joints are missing under "error", no pose is left,
                or a joint to interpolate is never seen in a sequence.
        """
        keypoints, rows = self._complete_keypoints(split, missing)
        focal = self._focal_lengths(split)[rows]
        points = normalise(keypoints, focal[:, None], root=self.skeleton.root)  # [N, J, 2]
        if scale is None:
            scale = scale_for(points, self.skeleton)
        points *= np.float32(scale)
        return points, scale

    def input_points(
        self, split: Split, scale: float | None = None, missing: str = "error", turned: bool = False
    ) -> tuple[Floats, float, TurnedViews | None]:
        """Read the networks' input: `turned_points` if `turned`, or else `points`.

        Args:
            split, scale, missing: see `points`.
            turned: turn each known camera towards each pose's root.

        Returns:
            points (N, J, 2) float32, the scale used, and how to turn lifted poses back; None
            where the cameras are not turned.

        Raises:
            ItesError: as `points`.
        """
        if turned:
            return self.turned_points(split, scale, missing)
        return (*self.points(split, scale, missing), None)

    def turned_points(
        self, split: Split, scale: float | None = None, missing: str = "error"
    ) -> tuple[Floats, float, TurnedViews]:
        """Read the networks' input with each known camera turned towards each pose's root.

        A camera is known if its focal length is not assumed and its image size is there; see
        `ites.pose.camera.axis_turn`. Points of other cameras are those of `points`.

        Args:
            split, scale, missing: see `points`.

        Returns:
            points (N, J, 2) float32, the scale used, and how to turn lifted poses back.

        Raises:
            ItesError: as `points`.
        """
        keypoints, rows = self._complete_keypoints(split, missing)
        sequences = self._of(split)
        cameras = [self.cameras[sequence.camera] for sequence in sequences]
        lengths = [sequence.length for sequence in sequences]
        focal = self._focal_lengths(split)[rows]
        centre = np.repeat([camera.center for camera in cameras], lengths, axis=0)[rows]
        known = [camera.known for camera in cameras]
        turned = np.repeat(np.asarray(known, bool), lengths)[rows]
        points = normalise(keypoints, focal[:, None], root=self.skeleton.root)
        turns = np.tile(np.eye(3, dtype=np.float32), (len(points), 1, 1))
        sight = (keypoints[turned] - centre[turned, None]) / focal[turned, None]
        turns[turned] = axis_turn(sight[:, self.skeleton.root])
        points[turned] = turn_points(sight, turns[turned])
        if scale is None:
            scale = scale_for(points, self.skeleton)
        points *= np.float32(scale)
        return points, scale, TurnedViews(turns, np.where(turned, scale, 1.0))

    def _complete_keypoints(self, split: Split, missing: str) -> tuple[Floats, NDArray[np.bool_]]:
        """Keypoints without missing joints, and which rows of the split they are; see `points`."""
        if missing not in MISSING:
            raise ItesError(f"points: missing must be one of {', '.join(MISSING)}, got {missing!r}")
        keypoints = self.keypoints(split)
        seen = self._seen(keypoints, split)
        complete = np.all(seen, axis=1)
        if complete.all() or missing == "interpolate":
            if not complete.all():
                self._interpolate(keypoints, seen, split)
            return keypoints, np.ones(len(keypoints), bool)
        if missing == "error":
            bad = np.count_nonzero(self._impossible(keypoints, split))
            more = f"; {bad:,} impossible keypoints count as missing" if bad else ""
            raise ItesError(
                f"{self.path}: {np.count_nonzero(~complete)} of {len(complete)} poses lack a "
                f"joint (confidence 0): choose missing = 'drop' or 'interpolate'{more}",
                code="missing",
            )
        if not complete.any():
            raise ItesError(f"{self.path}: no pose of split {split!r} has all its joints")
        return keypoints[complete], complete

    def summary(self) -> dict[str, Any]:
        """A summary of the store for printing: path, title, splits, poses, subjects, and so on."""
        splits = {}
        for split in self.splits:
            sequences = self.sequences_of(split)
            splits[split] = {
                "poses": sum(sequence.length for sequence in sequences),
                "incomplete": int(np.count_nonzero(~self.complete(split))),
                "sequences": len(sequences),
                "subjects": list(dict.fromkeys(sequence.subject for sequence in sequences)),
            }
        return {
            "out": str(self.path),
            "title": self.title,
            "skeleton": self.skeleton.name,
            "splits": splits,
            "cameras": len(self.cameras),
            "positions": self.has_positions,
            "confidence": "poses/confidence" in self._file,
            "acknowledgement": self.acknowledgement,
        }

    def _focal_lengths(self, split: Split) -> Floats:
        sequences = self._of(split)
        focal = [self.cameras[sequence.camera].focal_length for sequence in sequences]
        lengths = [sequence.length for sequence in sequences]
        return np.repeat(np.asarray(focal, np.float32).reshape(-1, 2), lengths, axis=0)

    def _interpolate(self, keypoints: Floats, seen: NDArray[np.bool_], split: Split) -> None:
        """Fill missing joints of (N, J, 2) in place, sequence by sequence."""
        for sequence in self.sequences_of(split):
            clip, there = keypoints[sequence.rows], seen[sequence.rows]
            never = np.flatnonzero(~there.any(0))
            if len(never):
                raise ItesError(
                    f"{self.path}: sequence {sequence}: joint {self.skeleton.joints[never[0]]} is "
                    "never seen, so it cannot be interpolated: choose missing = 'drop'"
                )
            keypoints[sequence.rows] = interpolate(clip, there)

    def _of(self, split: Split) -> list[Sequence]:
        if isinstance(split, list):
            return split
        chosen = [s for s in self.sequences if split is None or s.split == split]
        if not chosen:
            raise ItesError(
                f"{self.path}: no split {split!r}; there is {', '.join(self.splits) or 'none'}"
            )
        return chosen

    def _count(self, split: Split) -> int:
        return sum(sequence.length for sequence in self._of(split))

    def _read(self, name: str, split: Split) -> Floats:
        data = self._file[f"poses/{name}"]
        out = np.empty((self._count(split), *data.shape[1:]), np.float32)
        row = 0
        with reading(self.path, f"a pose store whose /poses/{name} can be read"):
            for start, stop in _runs(self._of(split)):
                data.read_direct(out, np.s_[start:stop], np.s_[row : row + stop - start])
                row += stop - start
        return out

    def _refuse(self, name: str, bad: NDArray[np.bool_], split: Split) -> None:
        """Raise, naming the first pose with a bad joint (N, J), if there is one."""
        if not bad.any():
            return
        row, joint = np.argwhere(bad)[0]
        sequence = next(s for s in self.sequences_of(split) if row < s.start + s.length)
        wrong = "not finite or below 0" if name == "confidence" else "not finite or huge"
        raise ItesError(
            f"{self.path}: {name}: {wrong} in {np.count_nonzero(bad.any(1))} poses, first in "
            f"{sequence}, pose {row - sequence.start}, joint {self.skeleton.joints[joint]}; "
            "a missing joint is a keypoint with confidence 0"
        )


class PoseStoreWriter(FileWriter):
    """Write a pose store; a context manager.

    The file appears under its name only when the block ends without an error.

    Args:
        path: the file to write; replaced if it exists.
        skeleton: the joints' names and order.
        title: a one-line description of the data.
        acknowledgement: the credit that the data's terms require.

    Raises:
        ItesError: at the end of the block, when nothing was added.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        skeleton: Skeleton,
        title: str = "",
        acknowledgement: str = "",
    ) -> None:
        super().__init__()
        self.path = Path(path)
        self.skeleton = skeleton
        self.cameras: dict[str, Camera] = {}
        self.sequences: list[Sequence] = []
        self._keys: dict[Camera, str] = {}
        self._count = 0
        with ExitStack() as stack:  # `atomic_write` names the file of an error in here, too
            temporary = stack.enter_context(atomic_write(self.path))
            self._file = stack.enter_context(H5Writer(temporary))
            self._stack = stack.pop_all()
        self._file.attrs.update(
            format=FORMAT,
            version=VERSION,
            units="metre/pixel",
            title=title,
            acknowledgement=acknowledgement,
        )
        self._file.create_group("skeleton").attrs["json"] = skeleton.to_json()
        self._file.create_group("cameras")
        self._poses = self._file.create_group("poses")
        self._create("keypoints", skeleton.num_joints, 2)

    def _create(self, name: str, *last: int, fill: float = 0.0) -> h5py.Dataset:
        return self._poses.create_dataset(
            name,
            shape=(self._count, *last),
            maxshape=(None, *last),
            chunks=(CHUNK, *last),
            dtype="f4",
            fillvalue=fill,
        )

    def add_camera(self, key: str, camera: Camera) -> None:
        """Add a camera under a key without '/', such as `S1.54138969`.

        Raises:
            ItesError: the key is empty, holds '/', or is taken.
        """
        if not key or "/" in key or key in self.cameras:
            raise ItesError(f"add_camera: the key must be new and without '/', got {key!r}")
        self.cameras[key] = camera
        self._keys.setdefault(replace(camera, id=""), key)
        self._file.create_group(f"cameras/{key}").attrs.update(asdict(camera))

    def acknowledge(self, text: str) -> None:
        """Replace the credit that the data's terms require."""
        self._file.attrs["acknowledgement"] = text

    def key_of(self, camera: Camera) -> str:
        """The key of a camera that is equal in all but `id`; it is added if there is none.

        The key is the camera's `id`, with a number behind it if another camera has that key.
        """
        key, count = camera.id.replace("/", "_"), 2
        if replace(camera, id="") not in self._keys:
            while key in self.cameras:
                key, count = f"{camera.id.replace('/', '_')} ({count})", count + 1
            self.add_camera(key, replace(camera, id=key))
        return self._keys[replace(camera, id="")]

    def add(
        self,
        keypoints: ArrayLike,
        *,
        camera: str,
        subject: str,
        action: str,
        split: str = "train",
        fps: float,
        positions: ArrayLike | None = None,
        confidence: ArrayLike | None = None,
        gravity: ArrayLike | None = None,
        first: int = 0,
    ) -> None:
        """Append one sequence.

        Args:
            keypoints: (T, J, 2) pixels.
            camera: the key of a camera added before.
            subject: the person.
            action: the action's name; metrics are averaged by it.
            split: `"train"`, `"test"` or another name.
            fps: poses per second; nan if unknown.
            positions: (T, J, 3) metres, camera frame, absolute; for all sequences or for none.
            confidence: (T, J), 0 for a missing joint, whose keypoint may then be NaN; 1 if None.
            gravity: (T, 2), elevation and roll of the line of sight to the root, degrees; for all
                sequences or for none. A positive elevation looks down; a positive roll is that of a
                camera turned clockwise.
            first: the place of the first pose among its video's frames, 0 to `LATEST`.

        Raises:
            ItesError: a shape is wrong, a value is not finite, the camera is unknown, or positions
                are given for some sequences only.
        """
        who = f"add {subject}/{action}/{camera}"
        length, joints = len(np.atleast_1d(keypoints)), self.skeleton.num_joints
        arrays = {"keypoints": _shaped(who, "keypoints", keypoints, (length, joints, 2))}
        bad = _not_finite(arrays["keypoints"])
        if confidence is not None:
            arrays["confidence"] = _shaped(who, "confidence", confidence, (length, joints))
            _refuse_values(who, "confidence", ~np.isfinite(arrays["confidence"]))
            bad &= arrays["confidence"] > 0
        _refuse_values(who, "keypoints", bad)
        if positions is not None:
            arrays["positions"] = _shaped(who, "positions", positions, (length, joints, 3))
            _refuse_values(who, "positions", _not_finite(arrays["positions"]))
        if gravity is not None:
            arrays["gravity"] = _shaped(who, "gravity", gravity, (length, 2))
            _refuse_values(who, "gravity", ~np.isfinite(arrays["gravity"]))
        for name in ("positions", "gravity"):
            if self.sequences and (name in arrays) != (name in self._poses):
                raise ItesError(f"{who}: {name} must be given for all sequences or for none")
        if camera not in self.cameras:
            raise ItesError(f"{who}: unknown camera; there is {', '.join(self.cameras) or 'none'}")
        if not length or fps <= 0 or fps == np.inf or not split:  # nan: unknown
            raise ItesError(
                f"{who}: expected at least one pose, fps > 0 (nan: unknown) and a split's name, "
                f"got {length} poses, fps {fps}, split {split!r}"
            )
        if not 0 <= first < LATEST:
            raise ItesError(f"{who}: expected a first frame from 0 to {LATEST:,}, got {first}")
        self._append(arrays, length)
        start = self._count - length
        self.sequences.append(
            Sequence(subject, action, camera, split, start, length, float(fps), int(first))
        )

    def _append(self, arrays: dict[str, Floats], length: int) -> None:
        for name, array in arrays.items():
            if name not in self._poses:
                self._create(name, *array.shape[1:], fill=1.0 if name == "confidence" else 0.0)
        start, self._count = self._count, self._count + length
        for name, data in self._poses.items():
            data.resize(self._count, axis=0)
            if name in arrays:
                data[start:] = arrays[name]
        self._file.check()

    def __enter__(self) -> PoseStoreWriter:
        return self

    def _finish(self) -> None:
        if not self.sequences:
            raise ItesError(f"{self.path}: nothing to write: no sequence was added")
        table = self._file.create_group("sequences")
        late = any(sequence.first for sequence in self.sequences)
        for name in (*COLUMNS, *(OPTIONAL if late else ())):
            column = [getattr(sequence, name) for sequence in self.sequences]
            kinds = {"start": "i8", "length": "i8", "fps": "f8", "first": "i8"}
            table.create_dataset(name, data=column, dtype=kinds.get(name, h5py.string_dtype()))


def _runs(sequences: list[Sequence]) -> Iterator[tuple[int, int]]:
    """Join sequences that lie next to each other: (start, stop) rows."""
    start = stop = sequences[0].start
    for sequence in sequences:
        if sequence.start != stop:
            yield start, stop
            start = sequence.start
        stop = sequence.start + sequence.length
    yield start, stop


def skeleton_of(who: str, text: Any) -> Skeleton:
    """The skeleton of a file's JSON.

    Raises:
        ItesError: the text is too long or not a skeleton.
    """
    if not isinstance(text, str) or len(text) > SKELETON_TEXT:
        size = f"{len(text):,} characters" if isinstance(text, str) else type(text).__name__
        raise ItesError(f"{who}: expected the JSON of a skeleton, got {size}")
    try:
        return Skeleton.from_json(text)
    except ItesError as error:
        raise ItesError(f"{who}: {error}") from None


def plain_text(who: str, text: Any) -> str:
    """A name that a store can hold: text without a NUL, at most `TEXT` characters.

    Raises:
        ItesError: the value is not such a name.
    """
    if not isinstance(text, str):
        raise ItesError(f"{who}: expected a name, got {type(text).__name__}")
    if "\0" in text or len(text) > TEXT or not text.isascii() and _is_broken(text):
        raise ItesError(f"{who}: expected a name of at most {TEXT} characters, got {text[:60]!r}")
    return text


def _is_broken(text: str) -> bool:
    """Whether the text contains invalid UTF-8 bytes, as a file's name may."""
    return any("\ud800" <= char <= "\udfff" for char in text)


def _is_sound(name: str, value: NDArray[Any]) -> bool:
    """Whether a value is valid for a camera's field."""
    if name == "assumed":
        return value.dtype.kind == "b"
    if value.dtype.kind not in "fiu" or not (np.abs(value) < 1e9).all():
        return False
    if name == "focal_length":
        return bool((value > 0).all())
    if name in ("width", "height"):
        return value.dtype.kind in "iu" and bool(value >= 0)
    return True


def _not_finite(array: Floats, farthest: float = np.inf) -> NDArray[np.bool_]:
    """Which joints (N, J) of an array (N, J, D) have a coordinate that is not finite or too far."""
    if not array.size or (-farthest < array.min() and array.max() < farthest):  # a nan is neither
        return np.zeros(array.shape[:2], bool)
    with np.errstate(invalid="ignore"):
        return ~np.all(np.abs(array) < farthest, axis=-1)


def _shaped(who: str, name: str, array: ArrayLike, shape: tuple[int, ...]) -> Floats:
    result = np.asarray(array, np.float32)
    if result.shape != shape:
        raise ItesError(f"{who}: {name} must have shape {shape}, got {result.shape}")
    return result


def _refuse_values(who: str, name: str, bad: NDArray[np.bool_]) -> None:
    if bad.any():
        row, joint = np.argwhere(bad)[0]
        raise ItesError(f"{who}: {name} must be finite, got otherwise at pose {row}, joint {joint}")
