"""Motion capture files: Acclaim's .asf/.amc and Biovision's .bvh, as joint positions.

No maintained package reads both, and those for .bvh build one object per joint and frame. Here one
pass over the joints handles all frames at once. Columns are vectors: `x' = R x`.
"""

from __future__ import annotations

import warnings
from array import array
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ites.errors import ItesError
from ites.system.files import reading, require_file

JOINTS = 1000
"""Maximum joints of a skeleton."""

Array = NDArray[np.float64]
Positions = dict[str, Array]


def euler(angles: Array, order: str) -> Array:
    """Rotation matrices of column vectors from Euler angles.

    `R = R(order[0]) R(order[1]) ...`: the last axis turns first.

    Args:
        angles: (..., len(order)), degrees, in the sequence of `order`.
        order: axes, for example "ZYX".

    Returns:
        (..., 3, 3).
    """
    result = np.broadcast_to(np.eye(3), (*angles.shape[:-1], 3, 3))
    for index, axis in enumerate(order):
        p, q = {"X": (1, 2), "Y": (2, 0), "Z": (0, 1)}[axis]
        radians = np.radians(angles[..., index])
        turn = np.broadcast_to(np.eye(3), result.shape).copy()
        turn[..., p, p] = turn[..., q, q] = np.cos(radians)
        turn[..., q, p] = np.sin(radians)
        turn[..., p, q] = -turn[..., q, p]
        result = result @ turn
    return result


@dataclass
class BvhJoint:
    """A joint of a .bvh file: `offset` (3,) in the axes of `parent`, an index, or -1."""

    name: str
    parent: int
    offset: Array = field(default_factory=lambda: np.zeros(3))
    channels: tuple[str, ...] = ()


@dataclass
class Bvh:
    """A .bvh file: joints, parents first; `values` (T, channels of all joints); frame rate."""

    joints: list[BvhJoint]
    values: Array
    fps: float

    def positions(self) -> Positions:
        """Each joint's position (T, 3), file's unit; an end site is its parent's "<name>_end".

        `position = parent's position + R(parent) offset`, `R = R(parent) euler(rotation channels)`.
        """
        places: list[Array] = []
        turns: list[Array] = []
        column = 0
        for joint in self.joints:
            own = self.values[:, column : column + len(joint.channels)]
            column += len(joint.channels)
            place = np.tile(joint.offset, (len(own), 1))
            for index, channel in enumerate(joint.channels):
                if channel[1:] == "position":
                    place[:, "XYZ".index(channel[0])] = own[:, index]
            axes = [i for i, channel in enumerate(joint.channels) if channel[1:] == "rotation"]
            turn = euler(own[:, axes], "".join(joint.channels[i][0] for i in axes))
            if joint.parent >= 0:
                up = turns[joint.parent]
                place = places[joint.parent] + (up @ place[..., None])[..., 0]
                turn = up @ turn
            places.append(place)
            turns.append(turn)
        return {joint.name: place for joint, place in zip(self.joints, places, strict=True)}


def read_bvh(path: Path) -> Bvh:
    """Read a .bvh file.

    Non-finite values are kept; the caller must drop their frames.

    Raises:
        ItesError: the file is not a complete .bvh file.
    """
    path = require_file(path)
    with reading(path, "a complete .bvh file"):
        text = path.read_text(encoding="utf-8", errors="replace")
        header, _, motion = text.partition("MOTION")
        joints = _bvh_joints(header.split())
        words = motion[:1000].replace(":", " ").split(maxsplit=5)
        if words[0] != "Frames" or words[2:4] != ["Frame", "Time"]:
            raise ValueError("no frames")
        count, dt = int(words[1]), float(words[4])
        if count < 1 or not 1e-4 < dt < 1e4:
            raise ValueError(f"no frames: {count} of {dt} s")
        start = motion.index(words[4], motion.index("Time")) + len(words[4])
        values = _numbers(motion[start:])
        channels = sum(len(joint.channels) for joint in joints)
        if values.size != count * channels:
            raise ValueError(f"{count} frames of {channels} channels, but {values.size} numbers")
        return Bvh(joints, values.reshape(count, channels), 1 / dt)


def _numbers(text: str) -> Array:
    """Numbers separated by white space; Windows' spelling of nan is accepted."""
    for mark in ("#IND", "#QNAN", "#INF"):
        if mark in text:
            text = " ".join("nan" if "#" in word else word for word in text.split())
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # numpy only warns about invalid numbers
        try:
            return np.fromstring(text, np.float64, sep=" ")
        except DeprecationWarning:
            raise ValueError("other words than numbers among its frames") from None


CHANNELS = {f"{axis}{kind}" for axis in "XYZ" for kind in ("position", "rotation")}


def _bvh_joints(words: list[str]) -> list[BvhJoint]:
    joints: list[BvhJoint] = []
    open_joints: list[int] = []
    for at, word in enumerate(words):
        if word in ("ROOT", "JOINT"):
            joints.append(BvhJoint(words[at + 1], open_joints[-1] if open_joints else -1))
        elif word == "Site":
            parent = open_joints[-1]
            joints.append(BvhJoint(f"{joints[parent].name}_end", parent))
        elif word == "{":
            open_joints.append(len(joints) - 1)
        elif word == "}":
            open_joints.pop()
        elif word == "OFFSET":
            joints[open_joints[-1]].offset = _vector(words[at + 1 : at + 4])
        elif word == "CHANNELS":
            stop = at + 2 + int(words[at + 1])
            channels = tuple(words[at + 2 : stop])
            if len(channels) != int(words[at + 1]) or not set(channels) <= CHANNELS:
                raise ValueError(f"channels {' '.join(channels)[:60]}")
            if len(set(channels)) != len(channels):
                raise ValueError(f"a channel twice: {' '.join(channels)[:60]}")
            joints[open_joints[-1]].channels = channels
    if not joints or open_joints:
        raise ValueError("its hierarchy is not closed")
    if len(joints) > JOINTS:
        raise ValueError(f"{len(joints)} joints, more than {JOINTS}")
    names = [words[at + 1] for at, word in enumerate(words) if word in ("ROOT", "JOINT")]
    if len(set(names)) != len(names):
        raise ValueError("two joints of one name")
    return joints


def _vector(words: list[str]) -> Array:
    """Three finite numbers."""
    vector = np.array(words, np.float64)
    if vector.shape != (3,) or not np.isfinite(vector).all():
        raise ValueError(f"expected 3 finite numbers, got {' '.join(words)[:60]}")
    return vector


@dataclass
class Bone:
    """A bone of an .asf skeleton.

    `vector` (3,) leads from its near to its far end in the rest pose, and `axis` (3, 3) is its
    frame there, both in world axes. `dof` names the values of an .amc line, such as "rx" or "TX".
    """

    name: str
    parent: str | None
    vector: Array
    axis: Array
    dof: tuple[str, ...]


def read_asf(path: Path) -> tuple[list[Bone], float]:
    """Read an Acclaim skeleton.

    Returns:
        Its bones, parents first, starting with the root; and the `length` of its units section,
        the divisor of the file's lengths.

    Raises:
        ItesError: the file is not an .asf skeleton with angles in degrees.
    """
    path = require_file(path)
    with reading(path, "an .asf skeleton"):
        sections = _asf_sections(path.read_text(encoding="utf-8", errors="replace"))
        units = {line[0]: line[1] for line in sections["units"]}
        length = float(units.get("length", 1))
        if not 1e-6 < length < 1e6:
            raise ValueError(f"a unit of length {length}")
        if units.get("angle", "deg") != "deg":
            raise ValueError(f"angles in {units['angle'][:60]}, expected deg")
        root = {line[0]: line[1:] for line in sections["root"]}
        bones = {"root": _bone("root", {**root, "dof": root["order"]}, root["orientation"])}
        entry: dict[str, list[str]] = {}
        for line in sections["bonedata"]:
            if line[0] == "begin":
                entry = {}
            elif line[0] == "end":
                (name,) = entry["name"]
                if name in bones or len(bones) >= JOINTS:
                    raise ValueError(f"bone {name[:60]} twice, or more than {JOINTS} bones")
                bones[name] = _bone(name, entry, entry["axis"])
            else:
                entry[line[0]] = line[1:]
        ordered = {"root": bones["root"]}
        for line in sections["hierarchy"]:
            for child in line[1:] if line[0] not in ("begin", "end") else ():
                if line[0] not in ordered or child in ordered:
                    raise ValueError(f"bone {child[:60]} before its parent, or twice")
                bones[child].parent = line[0]
                ordered[child] = bones[child]
    return list(ordered.values()), length


def _asf_sections(text: str) -> dict[str, list[list[str]]]:
    sections: dict[str, list[list[str]]] = {"": []}
    name = ""
    for line in text.splitlines():
        words = line.split("#")[0].split()
        if words and words[0].startswith(":"):
            name = words[0][1:]
            sections[name] = []
        elif words:
            sections[name].append(words)
    return sections


DOF = {f"{kind}{axis}" for kind in "rt" for axis in "xyz"}


def _bone(name: str, entry: dict[str, list[str]], angles: list[str]) -> Bone:
    vector = np.zeros(3)
    if "direction" in entry:
        length = float(entry["length"][0])
        if not abs(length) < 1e6:
            raise ValueError(f"bone {name[:60]}: a length of {length}")
        vector = _vector(entry["direction"]) * length
    order = entry["axis"][-1].upper()
    if sorted(order) != ["X", "Y", "Z"]:
        raise ValueError(f"bone {name[:60]}: axis {order[:60]}")
    dof = tuple(entry.get("dof", ()))
    lower = [word.lower() for word in dof]
    if not set(lower) <= DOF or len(set(lower)) != len(lower):
        raise ValueError(f"bone {name[:60]}: dof {' '.join(dof)[:60]}")
    return Bone(name, None, vector, _turn(_vector(angles[:3]), order), dof)


def _turn(angles: Array, order: str) -> Array:
    """Acclaim's rotation: "XYZ" turns about x first, so the matrix is Rz Ry Rx."""
    return euler(angles[..., ::-1], order[::-1])


def read_amc(path: Path, bones: list[Bone]) -> Positions:
    """Read Acclaim motion: each bone's far end, (T, 3), in the skeleton's unit.

    `end = parent's end + R vector`, `R = R(parent) axis M axis^-1`, M from the frame's angles.

    Raises:
        ItesError: the file does not fit the skeleton, or holds no frames in degrees.
    """
    path = require_file(path)
    with reading(path, "an .amc file"), np.errstate(all="ignore"):
        return _amc_positions(path, bones)


def _amc_positions(path: Path, bones: list[Bone]) -> Positions:
    frames = _amc_values(path, bones)
    if not frames["root"]:
        raise ItesError(f"{path}: expected an .amc file with frames, got none")
    width = max(1, len(bones[0].dof))
    count = len(frames["root"]) // width
    ends: Positions = {}
    turns: dict[str | None, Array] = {None: np.eye(3)}
    for bone in bones:
        rows = frames[bone.name]
        if len(rows) != count * len(bone.dof):
            raise ItesError(
                f"{path}: {bone.name}: expected {count} frames of {len(bone.dof)} numbers, "
                f"got {len(rows) // len(bone.dof)}"
            )
        values = np.frombuffer(rows, np.float64).reshape(count, len(bone.dof))
        shift, angles = np.zeros((count, 3)), np.zeros((count, 3))
        for index, dof in enumerate(bone.dof):
            part = shift if dof[0] in "tT" else angles
            part[:, "xyz".index(dof[1].lower())] = values[:, index]
        order = "".join(dof[1].upper() for dof in bone.dof if dof[0] in "rR") or "X"
        own = _turn(angles[:, ["XYZ".index(axis) for axis in order]], order)
        turn = turns[bone.parent] @ bone.axis @ own @ bone.axis.T
        near = ends[bone.parent] if bone.parent else shift
        ends[bone.name], turns[bone.name] = near + turn @ bone.vector, turn
    return ends


def _amc_values(path: Path, bones: list[Bone]) -> dict[str, array[float]]:
    """The numbers per bone, frame by frame."""
    frames = {bone.name: array("d") for bone in bones}
    widths = {bone.name: len(bone.dof) for bone in bones}
    with path.open(encoding="utf-8", errors="replace") as file:
        for line in file:
            if line.startswith(":RADIANS"):
                raise ItesError(f"{path}: expected angles in degrees, got radians")
            words = line.split()
            if len(words) < 2 or line[0] in "#:":
                continue
            name, numbers = words[0], words[1:]
            if name not in frames:
                raise ItesError(f"{path}: expected bones of its skeleton, got {name[:60]!r}")
            if len(numbers) != widths[name]:
                row = len(frames[name]) // max(1, widths[name]) + 1
                raise ItesError(
                    f"{path}: {name}: expected frames of {widths[name]} numbers, "
                    f"got {len(numbers)} in frame {row}"
                )
            try:
                frames[name].extend([float("nan" if "#" in w else w) for w in numbers])
            except ValueError:
                raise ItesError(f"{path}: expected numbers after {name}: {line[:80]!r}") from None
    return frames
