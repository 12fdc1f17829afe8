"""Motion capture files: Acclaim's .asf/.amc and Biovision's .bvh, as joint positions.

No maintained package reads both, and those for .bvh build an object for each joint and frame; here
one pass over the joints handles all frames at once. Columns are vectors: `x' = R x`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ites.errors import ItesError

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
    """A .bvh file: joints, parents first; `values` (T, channels of all joints); frames a second."""

    joints: list[BvhJoint]
    values: Array
    fps: float

    def positions(self) -> Positions:
        """Each joint's place, (T, 3), in the file's unit; an end site is its parent's "<name>_end".

        `place = parent's place + R(parent) offset`, `R = R(parent) euler(rotation channels)`.
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

    Raises:
        ItesError: the file is not a complete .bvh file.
    """
    header, _, motion = path.read_text(encoding="utf-8", errors="replace").partition("MOTION")
    try:
        joints = _bvh_joints(header.split())
        words = motion.replace(":", " ").split()
        count, dt = int(words[1]), float(words[4])
        if words[0] != "Frames" or count < 1 or dt <= 0:
            raise ValueError("no frames")
        values = np.array(words[5:], np.float64)
        values = values.reshape(count, sum(len(joint.channels) for joint in joints))
    except (IndexError, ValueError) as error:
        raise ItesError(f"{path}: expected a complete .bvh file ({error})") from None
    return Bvh(joints, values, 1 / dt)


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
            joints[open_joints[-1]].offset = np.array(words[at + 1 : at + 4], np.float64)
        elif word == "CHANNELS":
            stop = at + 2 + int(words[at + 1])
            joints[open_joints[-1]].channels = tuple(words[at + 2 : stop])
    if not joints or open_joints:
        raise ValueError("its hierarchy is not closed")
    return joints


@dataclass
class Bone:
    """A bone of an .asf skeleton.

    `vector` (3,) leads from its near to its far end in the rest pose, `axis` (3, 3) is its frame
    there, both in the world's axes; `dof` names what an .amc line holds, as "rx" or "TX".
    """

    name: str
    parent: str | None
    vector: Array
    axis: Array
    dof: tuple[str, ...]


def read_asf(path: Path) -> tuple[list[Bone], float]:
    """Read an Acclaim skeleton.

    Returns:
        Its bones, parents first, the root in front; and the `length` of its units section, by
        which the file's lengths are to be divided.

    Raises:
        ItesError: the file is not an .asf skeleton with angles in degrees.
    """
    text = path.read_text(encoding="utf-8", errors="replace")
    try:
        sections = _asf_sections(text)
        units = {line[0]: line[1] for line in sections["units"]}
        length = float(units.get("length", 1))
        if units.get("angle", "deg") != "deg":
            raise ValueError(f"angles in {units['angle']}, expected deg")
        root = {line[0]: line[1:] for line in sections["root"]}
        bones = {"root": _bone("root", {**root, "dof": root["order"]}, root["orientation"])}
        entry: dict[str, list[str]] = {}
        for line in sections["bonedata"]:
            if line[0] == "end":
                bones[entry["name"][0]] = _bone(entry["name"][0], entry, entry["axis"])
            entry = {} if line[0] == "begin" else {**entry, line[0]: line[1:]}
        ordered = [bones["root"]]
        for line in sections["hierarchy"]:
            for child in line[1:] if line[0] not in ("begin", "end") else ():
                bones[child].parent = line[0]
                ordered.append(bones[child])
    except (KeyError, IndexError, ValueError) as error:
        raise ItesError(f"{path}: expected an .asf skeleton ({error!r})") from None
    return ordered, length


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


def _bone(name: str, entry: dict[str, list[str]], angles: list[str]) -> Bone:
    vector = np.zeros(3)
    if "direction" in entry:
        vector = np.array(entry["direction"], np.float64) * float(entry["length"][0])
    order = entry["axis"][-1].upper()
    given = np.array(angles[:3], np.float64)
    return Bone(name, None, vector, _turn(given, order), tuple(entry.get("dof", ())))


def _turn(angles: Array, order: str) -> Array:
    """Acclaim's rotation: "XYZ" turns about x first, so the matrix is Rz Ry Rx."""
    return euler(angles[..., ::-1], order[::-1])


def read_amc(path: Path, bones: list[Bone]) -> Positions:
    """Read Acclaim motion: each bone's far end, (T, 3), in the skeleton's unit.

    `end = parent's end + R vector`, `R = R(parent) axis M axis^-1`, M from the frame's angles.

    Raises:
        ItesError: the file does not fit the skeleton, or holds no frames in degrees.
    """
    frames = _amc_values(path)
    count = len(frames.get("root", ()))
    if not count:
        raise ItesError(f"{path}: expected an .amc file with frames, got none")
    ends: Positions = {}
    turns: dict[str | None, Array] = {None: np.eye(3)}
    for bone in bones:
        rows = frames.get(bone.name, [[0.0] * len(bone.dof)] * count)
        if len(rows) != count or any(len(row) != len(bone.dof) for row in rows):
            raise ItesError(
                f"{path}: {bone.name}: expected {count} frames of {len(bone.dof)} numbers, "
                f"got {len(rows)} of {min(map(len, rows))} to {max(map(len, rows))}"
            )
        values = np.array(rows)
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


def _amc_values(path: Path) -> dict[str, list[list[float]]]:
    """The numbers of each bone, frame after frame."""
    frames: dict[str, list[list[float]]] = {}
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        if line.startswith(":RADIANS"):
            raise ItesError(f"{path}: expected angles in degrees, got radians")
        words = line.split()
        if len(words) > 1 and line[0] not in "#:":
            try:
                frames.setdefault(words[0], []).append([float(word) for word in words[1:]])
            except ValueError:
                raise ItesError(f"{path}: expected numbers after {words[0]}: {line!r}") from None
    return frames
