"""The CMU motion capture database, seen by Human3.6M's cameras.

Protocol: each clip is subsampled to a frame rate and centred on its mean pelvis position. Frames
within a radius of it are kept and projected by the four cameras of S1 (training subjects) or S9
(test subjects). Two kinds of source:

- one HDF5 file of `/<subject>/<clip>/positions` (T, 17, 3), metres, z up, Human3.6M's joints, with
  the clip's attributes `fps` and `action`;
- a folder of `.asf`/`.amc` or `.bvh` files, whose joints are mapped by `JOINT_NAMES`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from ites.data.datasets.mocap import Bvh, BvhJoint, Positions, read_amc, read_asf, read_bvh
from ites.data.datasets.plausible import Say, sound_frames
from ites.data.store import PoseStore, PoseStoreWriter, plain_text
from ites.errors import ItesError
from ites.pose.camera import human36m_cameras
from ites.pose.skeleton import HUMAN36M, JointWeights
from ites.system.hdf5 import attribute, children, dataset, opened
from ites.system.isolated import isolated

TEST_SUBJECTS = ("S01", "S02", "S03", "S94", "Smartial")
RIGS = {"train": "S1", "test": "S9"}
AMC_FPS = 120.0
"""Frame rate of .amc files, which do not state it; nearly all of CMU's have 120 Hz."""
INCH = 0.0254
ACKNOWLEDGEMENT = (
    "The data used in this project was obtained from mocap.cs.cmu.edu. "
    "The database was created with funding from NSF EIA-0196217."
)


@dataclass(frozen=True)
class CmuTake:
    """World positions (T, 17, 3) of one take, metres, z up.

    `where` is the file and the location in it; `first` is the file's number of the first frame.
    """

    subject: str
    action: str
    positions: NDArray[np.floating]
    fps: float
    where: str = ""
    first: int = 0


def prepare_cmu(
    source: Path,
    out: Path,
    *,
    train_rate: float = 12.5,
    test_rate: float = 5.0,
    radius: float = 1.5,
    test_subjects: Sequence[str] = TEST_SUBJECTS,
    fps: float | None = None,
    say: Say = print,
) -> dict[str, Any]:
    """Write a pose store of CMU motion, splits "train" and "test".

    Frames with non-finite or implausible values are dropped, and `say` reports them.

    Args:
        source: the HDF5 file, or a folder that is searched for .amc and .bvh files.
        out: the store to write.
        train_rate: frames per second of the training split: the first sound frame of every s
            frames is taken, `s = max(1, round(fps / rate))`.
        test_rate: the same for the test split.
        radius: metres; a frame is dropped if its pelvis is at least this far, horizontally, from
            the clip's mean pelvis.
        test_subjects: subjects of the test split; all others train.
        fps: frames per second of .amc files; None: 120.
        say: prints a line.

    Returns:
        `PoseStore.summary` of the written store.

    Raises:
        ItesError: there are no clips in `source`, or one of them cannot be read.
    """
    rate = AMC_FPS if fps is None else fps
    rates = {"train": train_rate, "test": test_rate}
    if not all(0 < value < np.inf for value in (train_rate, test_rate, radius, rate)):
        raise ItesError(
            "prepare_cmu: rates, radius and fps must be positive, got "
            f"{train_rate:g}, {test_rate:g}, {radius:g} and {rate:g}"
        )
    source = Path(source)
    if fps is not None and not any(path.suffix.lower() == ".amc" for path in source.rglob("*")):
        raise ItesError(
            f"{source}: fps is of .amc files, which do not state their own; there are none, got "
            f"{fps:g}"
        )
    takes = takes_of(source, rate)
    with PoseStoreWriter(out, HUMAN36M, "CMU motion capture", ACKNOWLEDGEMENT) as writer:
        cameras = {split: human36m_cameras(rig) for split, rig in RIGS.items()}
        for split, rig in RIGS.items():
            for camera in cameras[split]:
                writer.add_camera(f"{rig}.{camera.id}", camera)
        for take in takes:
            split = "test" if take.subject in test_subjects else "train"
            step = max(1, round(take.fps / rates[split]))
            sound = sound_frames(take.where, take.positions, say=say, first=take.first)
            world = centre(take.positions[thinned(sound, step)], radius)
            if not len(world):
                say(f"{take.where}: left out: no frame within {radius:g} m of the middle")
            for camera in cameras[split] if len(world) else ():
                positions = camera.world_to_camera(world)
                writer.add(
                    camera.project(positions),
                    camera=f"{RIGS[split]}.{camera.id}",
                    subject=take.subject,
                    action=take.action,
                    split=split,
                    fps=take.fps / step,
                    positions=positions,
                )
    with PoseStore(out) as store:
        return store.summary()


def thinned(sound: NDArray[np.bool_], step: int) -> NDArray[np.intp]:
    """Subsample: the first sound frame of each `step` frames."""
    frames = np.flatnonzero(sound)
    _, first = np.unique(frames // step, return_index=True)
    return frames[first]


def centre(world: NDArray[np.floating], radius: float) -> NDArray[np.float64]:
    """Subtract the mean pelvis (x, y) of (T, J, 3), and keep the frames with it within `radius`."""
    centred = world.astype(np.float64)
    if not len(centred):
        return centred
    centred[..., :2] -= centred[:, 0, :2].mean(0)
    return centred[np.linalg.norm(centred[:, 0, :2], axis=-1) < radius]


def takes_of(source: Path, fps: float = AMC_FPS) -> Iterator[CmuTake]:
    """The takes of an HDF5 file or of a folder; `fps` is that of .amc files.

    Raises:
        ItesError: there are no clips, one cannot be read, or another axis is up.
    """
    if source.is_dir():
        return _standing(_read_folder(source, fps), source, _FOLDER_AXES)
    return _standing(isolated(_read_file, source), source, _FILE_AXES)


_FILE_AXES = ("+x", "+y", "+z", "-x", "-y", "-z")
_FOLDER_AXES = ("+x", "-z", "+y", "-x", "+z", "-y")
"""How an HDF5 file and the files of a folder call +x, +y, +z, -x, -y, -z of a take."""
ALONG = 0.85
"""Cosine of the angle between a body and an axis below which it does not stand along it."""
STANDING = 0.75, 0.1
"""Another axis is up if at least so many of the frames stand along it, and at most so many along
z. In the CMU database 0.99 stand along z, and 0.001 along any other axis."""


def _standing(takes: Iterable[CmuTake], source: Path, axes: Sequence[str]) -> Iterator[CmuTake]:
    """The takes; at their end, refuse people who stand along another axis than z.

    Raises:
        ItesError: they do.
    """
    along, count = np.zeros(6), 0
    for take in takes:
        with np.errstate(all="ignore"):
            feet = take.positions[:, _ANKLES].mean(1)
            body = (take.positions[:, _THORAX] - feet).astype(np.float64)
            body /= np.linalg.norm(body, axis=-1, keepdims=True)
            body = body[np.isfinite(body).all(-1)]
        along += (np.concatenate([body, -body], 1) > ALONG).sum(0)
        count += len(body)
        yield take
    up, best = axes[2], int(along.argmax())
    if count and along[best] >= STANDING[0] * count and along[2] <= STANDING[1] * count:
        raise ItesError(
            f"{source}: expected {up} up, got people who stand along {axes[best]} in "
            f"{along[best] / count:.0%} of {count:,} frames: turn the axes"
        )


_ANKLES = [HUMAN36M.joints.index(f"{side}_ankle") for side in ("right", "left")]
_THORAX = HUMAN36M.joints.index("thorax")


def _read_file(source: Path) -> list[CmuTake]:
    found = []
    with opened(source, "an HDF5 file of CMU motion, or a folder") as file:
        for subject, clips in children(file):
            for name, group in children(clips) if isinstance(clips, h5py.Group) else ():
                where = f"{source}: /{subject}/{name}"
                if "positions" not in group or "fps" not in group.attrs:
                    raise ItesError(f"{where}: expected a dataset positions and an attribute fps")
                data = dataset(group, "positions", where)
                if data.ndim != 3 or data.shape[1:] != (17, 3) or not len(data):
                    raise ItesError(f"{where}: expected (T, 17, 3), got {data.shape}")
                fps = float(attribute(group, "fps", where))
                if not 0 < fps < 1e4:
                    raise ItesError(f"{where}: expected fps above 0, got {fps}")
                action = plain_text(where, str(attribute(group, "action", where, name)))
                found.append(CmuTake(plain_text(where, subject), action, data[:], fps, where))
    if not found:
        raise ItesError(f"{source}: expected datasets /<subject>/<clip>/positions, got none")
    return found


def _read_folder(folder: Path, fps: float) -> Iterator[CmuTake]:
    paths = sorted(p for p in folder.rglob("*") if p.suffix.lower() in (".amc", ".bvh"))
    if not paths:
        raise ItesError(f"{folder}: expected .amc or .bvh files, got none")
    clips: dict[str, Path] = {}
    for path in paths:
        number = re.search(r"\d+_\d+", path.stem)
        other = clips.setdefault(number[0], path) if number else path
        if other != path:
            raise ItesError(f"{path}: expected each clip once, got {other} too")
    for path in paths:
        yield read_amc_take(path, fps) if path.suffix.lower() == ".amc" else read_bvh_take(path)


def subject_of(path: Path) -> str:
    """The CMU subject of a file: "S07" of `07_01.amc`, `cmu_07_01_walk.bvh` and `7/01.bvh`.

    A folder without a number gives its name, "Sdance" of `dance/03.bvh`.
    """
    match = re.search(r"(\d+)_\d+", path.stem)
    name = match[1] if match else path.resolve().parent.name
    return f"S{int(name):02d}" if name.isdigit() else f"S{name}"


@dataclass(frozen=True)
class JointNames:
    """The joint names of a family of files.

    `joints` gives each of Human3.6M's 17 joints as a weighted sum of the file's. Before the joints
    are placed, `added` inserts further ones (name: parent, offset) into the hierarchy. Children of
    `short` with a zero offset get its own offset, because these files omit the thorax bone. The
    first `skipped` frames lead from a rest pose into the motion.
    """

    joints: tuple[JointWeights, ...]
    unit: float
    short: str = ""
    added: tuple[tuple[str, str, tuple[float, float, float]], ...] = ()
    skipped: int = 0


def _joints(torso: str, right: str, left: str, wrist: float = 1.0) -> tuple[JointWeights, ...]:
    """The 17 recipes from names: torso "spine thorax neck head", a side "hip knee ankle ...".

    The pelvis is the middle of the hips. `wrist` places the wrist on the line from the elbow (0)
    to the joint that the file calls so (1).
    """
    sides = [dict(zip(SIDE, names.split(), strict=True)) for names in (right, left)]
    legs, arms = [], []
    for side in sides:
        legs += [{side[joint]: 1.0} for joint in ("hip", "knee", "ankle")]
        arms.append(
            [
                {side["shoulder"]: 1.0},
                {side["elbow"]: 1.0},
                {side["wrist"]: wrist, side["elbow"]: 1.0 - wrist},
            ]
        )
    pelvis = {side["hip"]: 0.5 for side in sides}
    return (pelvis, *legs, *({name: 1.0} for name in torso.split()), *arms[1], *arms[0])


SIDE = ("hip", "knee", "ankle", "shoulder", "elbow", "wrist")

ACCLAIM = JointNames(  # the far ends of the bones
    _joints(
        "lowerback thorax upperneck head",
        "rhipjoint rfemur rtibia rclavicle rhumerus rwrist",
        "lhipjoint lfemur ltibia lclavicle lhumerus lwrist",
    ),
    unit=INCH,  # over the skeleton's length unit
)
JOINT_NAMES = {
    "Acclaim names": JointNames(
        _joints(
            "upperback lowerneck head head_end",
            "rfemur rtibia rfoot rhumerus rradius rhand",
            "lfemur ltibia lfoot lhumerus lradius lhand",
        ),
        unit=INCH / 0.45,
    ),
    # The conversions published at cgspeed.com. Those for MotionBuilder and 3ds Max lack the thorax
    # bone, as long as the upper back's in CMU's skeletons, and the outer third of the forearm.
    "MotionBuilder": JointNames(
        _joints(
            "Spine Neck Head Head_end",
            "RightUpLeg RightLeg RightFoot RightArm RightForeArm RightHand",
            "LeftUpLeg LeftLeg LeftFoot LeftArm LeftForeArm LeftHand",
            wrist=1.5,
        ),
        unit=INCH / 0.45,
        short="Spine1",
        skipped=1,
    ),
    "3ds Max": JointNames(
        _joints(
            "Chest lowerneck Head Head_end",
            "RightHip RightKnee RightAnkle RightShoulder RightElbow RightWrist",
            "LeftHip LeftKnee LeftAnkle LeftShoulder LeftElbow LeftWrist",
            wrist=1.5,
        ),
        unit=INCH / 0.45,
        short="Chest2",
        skipped=1,
    ),
    "Daz": JointNames(
        _joints(
            "chest neck face crown",
            "rThigh rShin rFoot rShldr rForeArm rHand",
            "lThigh lShin lFoot lShldr lForeArm lHand",
        ),
        unit=0.01,
        added=(("face", "head", (0, 5, 3)), ("crown", "head", (0, 17, 0))),
        skipped=4,
    ),
}
"""Joint names of .bvh conversions, distinguished by the names in the file."""


def read_amc_take(path: Path, fps: float = AMC_FPS) -> CmuTake:
    """Read an .amc file with its skeleton: `<subject>.asf` or the only .asf file beside it."""
    skeletons = sorted(path.parent.glob("*.asf"))
    named = [s for s in skeletons if path.stem == s.stem or path.stem.startswith(f"{s.stem}_")]
    if len(named or skeletons) != 1:
        raise ItesError(f"{path}: expected its skeleton, one .asf file, in the same folder")
    bones, length = read_asf((named or skeletons)[0])
    world = _to_human36m(path, read_amc(path, bones), ACCLAIM, ACCLAIM.unit / length)
    subject, action = (plain_text(str(path), name) for name in (subject_of(path), path.stem))
    return CmuTake(subject, action, world, fps, str(path), 1)


def read_bvh_take(path: Path) -> CmuTake:
    """Read a .bvh file of one of the `JOINT_NAMES`."""
    bvh = read_bvh(path)
    names = _joint_names_of(path, bvh)
    parts = []
    with np.errstate(all="ignore"):  # later checks find non-finite frames
        for start in range(names.skipped, len(bvh.values), FRAMES):
            part = Bvh(bvh.joints, bvh.values[start : start + FRAMES], bvh.fps)
            parts.append(_to_human36m(path, part.positions(), names, names.unit))
    if not parts:
        raise ItesError(
            f"{path}: expected more than the {names.skipped} frames that lead into the motion"
        )
    subject, action = (plain_text(str(path), name) for name in (subject_of(path), path.stem))
    world = np.concatenate(parts)
    return CmuTake(subject, action, world, bvh.fps, str(path), 1 + names.skipped)


FRAMES = 4096
"""Frames of a .bvh file per batch of forward kinematics; limits the memory."""


def _joint_names_of(path: Path, bvh: Bvh) -> JointNames:
    """The joint names of a file; it completes the file's hierarchy."""
    index = {joint.name: i for i, joint in enumerate(bvh.joints)}
    for names in JOINT_NAMES.values():
        needed = {name for recipe in names.joints for name in recipe}
        needed |= {parent for _, parent, _ in names.added}
        if names.short:
            needed.add(names.short)
        if needed - {name for name, _, _ in names.added} <= index.keys():
            break
    else:
        raise ItesError(
            f"{path}: expected the joint names of one of {', '.join(JOINT_NAMES)}, "
            f"got {' '.join(list(index)[:12])} ..."
        )
    for name, parent, offset in names.added:
        bvh.joints.append(BvhJoint(name, index[parent], np.array(offset, np.float64)))
    if not names.short:
        return names
    short = [j for j in bvh.joints if j.parent == index[names.short] and not j.offset.any()]
    if not short:
        raise ItesError(
            f"{path}: expected a conversion of CMU's files by cgspeed.com, whose {names.short} "
            "has children at offset 0, got another program's file; write its joints into an HDF5 "
            "file instead (docs/data.md)"
        )
    for joint in short:
        joint.offset = bvh.joints[joint.parent].offset
    return names


def _to_human36m(
    path: Path, positions: Positions, names: JointNames, unit: float
) -> NDArray[np.float64]:
    """(T, 17, 3), metres, z up, of joints in the file's unit, y up."""
    missing = {name for recipe in names.joints for name in recipe} - positions.keys()
    if missing:
        raise ItesError(f"{path}: its skeleton lacks {', '.join(sorted(missing))}")
    joints = [sum(w * positions[name] for name, w in recipe.items()) for recipe in names.joints]
    x, y, z = np.moveaxis(np.stack(joints, axis=1), -1, 0)
    return np.stack([x, -z, y], axis=-1) * unit
