"""Export of lifted clips in the format that the output's ending selects."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ites.data.clips import Clip, Clips
from ites.data.lifted import read_clips, write_clips
from ites.data.upright import stand_upright
from ites.errors import ItesError, shorten
from ites.export.bvh import write_bvh
from ites.export.c3d import write_c3d
from ites.export.frames import Y_UP, find_preset
from ites.export.gltf import write_gltf
from ites.export.motion import FPS, Motion, to_motion
from ites.export.rotations import find_rotations, forward_kinematics
from ites.export.tables import write_csv, write_json
from ites.export.trc import write_trc
from ites.system.arguments import checked
from ites.system.files import atomic_write, keep_source

BONES = ("exact", "constant")
COMPLETE = (".npz", ".h5")
TOGETHER: dict[str, Callable[[Path, Sequence[Motion], Sequence[Clip]], None]] = {
    ".csv": write_csv,
    ".json": write_json,
    ".glb": lambda path, motions, _: write_gltf(path, motions),
}
"""Formats that hold several clips in a file; those of a person have a file each."""
LONGEST_NAME = 200
"""Bytes of a file's name with its clip's; file systems take 255, and a temporary name is longer."""
ENDINGS = (*COMPLETE, *TOGETHER, ".bvh", ".trc", ".c3d")


@checked("export")
def export(
    source: str | os.PathLike[str] | Clips,
    out: str | os.PathLike[str],
    *,
    clip: str | None = None,
    split: str | None = None,
    preset: str | None = None,
    bones: str = "exact",
    up: str | None = None,
    travel: bool | None = None,
    floor: bool = False,
) -> dict[str, Any]:
    """Write lifted clips in the format that the ending of `out` selects.

    | ending | content | frame without a preset |
    |---|---|---|
    | `.npz`, `.h5` | the complete output of `ites lift` | camera axes, metres |
    | `.csv`, `.json` | a table of positions | camera axes, metres |
    | `.bvh` | joint rotations, one person per file | y up, metres |
    | `.trc`, `.c3d` | one marker per joint, one person per file | y up, metres |
    | `.glb` | animated skeletons | y up, metres, with any preset |

    Several clips in a format for one person give one file per clip: `out` with the clip's name
    before the ending.

    Args:
        source: a file written by `ites lift`, a pose store with 3D, or clips in memory.
        out: the file to write.
        clip: only clips whose names contain this text.
        split: of a pose store; None: "test" if present, else all, and a note counts the others.
        preset: axes and units of a program: "blender", "unity", "unreal" or "opensim".
        bones: of BVH: "exact" gives every joint position channels; "constant" keeps bone lengths
            constant, as animation tools expect, and moves joints slightly.
        up: "gravity" turns each clip upright by the gravity found; "camera" keeps up as in the
            image; None: as the source is.
        travel: let the poses travel by the root's path, from the camera; False puts the root joint
            of each pose at the origin. None: travel where up is gravity's and the path is known.
        floor: shift each clip so that its lowest joint stands at height 0; the 5th percentile over
            frames counts.

    Returns:
        `files`, the paths written, and `notes`, one per line.

    Raises:
        ItesError: the ending or an option is unknown, no clip has that name, a clip has no 3D, or
            a required package is missing.

    Example:
        >>> ites.export.export("clip3d.npz", "clip.bvh", preset="blender")  # doctest: +SKIP
    """
    path, chosen = Path(out), find_preset(preset)
    ending = path.suffix.lower()
    if ending not in ENDINGS:
        raise ItesError(f"{out}: the output's name must end in {', '.join(ENDINGS)}")
    if bones not in BONES:
        raise ItesError(f"export: bones must be one of {', '.join(BONES)}, got {bones!r}")
    if bones != "exact" and ending != ".bvh":
        raise ItesError(f"{out}: constant bones are a choice of BVH files alone")
    if up not in (None, "camera", "gravity"):
        raise ItesError(f"export: up must be camera or gravity, got {up!r}")
    if ending in COMPLETE and (preset is not None or travel is not None):
        raise ItesError(
            f"{out}: {ending} keeps poses and the root's path apart, in metres; presets and travel "
            "are for the other formats"
        )
    if not isinstance(source, Clips):
        keep_source(source, path)
    if split is not None and isinstance(source, Clips):
        raise ItesError(f"export: split chooses clips of a pose store, got {split!r} and clips")
    clips = _chosen(source, clip, split, up)
    if ending in COMPLETE:
        return _complete(path, clips, floor)
    native = {".csv": chosen.native, ".json": chosen.native, ".glb": Y_UP}
    frame = native.get(ending, chosen.interchange)
    if travel is None:
        travel = clips.frame != "camera" and all(item.root is not None for item in clips.clips)
    motions = [
        to_motion(
            item, clips.skeleton, frame, floor=floor, travel=travel, axes=clips.frame,
            scale=clips.unit,
        )
        for item in clips.clips
    ]  # fmt: skip
    notes = clips.notes + _notes(clips.clips, motions, ending, travel)
    if ending in TOGETHER:
        with atomic_write(path) as temporary:
            TOGETHER[ending](temporary, motions, clips.clips)
        return {"files": [str(path)], "notes": notes}
    targets = _targets(path, motions)
    for motion, target in zip(motions, targets, strict=True):
        with atomic_write(target) as temporary:
            if ending == ".bvh":
                write_bvh(temporary, motion, exact=bones == "exact")
            elif ending == ".trc":
                write_trc(temporary, motion, target.name)
            else:
                write_c3d(temporary, motion)
    if bones == "constant":
        notes.append(_displacement(motions))
    return {"files": [str(target) for target in targets], "notes": notes}


def _chosen(
    source: str | os.PathLike[str] | Clips, name: str | None, split: str | None, up: str | None
) -> Clips:
    """The clips whose names contain a text, upright where up is gravity's."""
    clips = source if isinstance(source, Clips) else read_clips(source, split)
    if name is not None:
        wanted = [item for item in clips.clips if name in item.name]
        if not wanted:
            names = ", ".join(item.name for item in clips.clips[:5])
            raise ItesError(f"{source}: expected a clip whose name holds {name!r}, got {names}")
        clips = replace(clips, clips=wanted)
    if up == "camera" and clips.frame != "camera":
        raise ItesError(f"{source}: expected poses in camera axes, got {clips.frame}; lift again")
    return stand_upright(clips) if up == "gravity" else clips


def _complete(path: Path, clips: Clips, floor: bool) -> dict[str, Any]:
    """Write all that `ites lift` writes."""
    if floor and clips.frame == "camera":
        raise ItesError(f"{path}: a floor in {path.suffix.lower()} needs up 'gravity'")
    clips = stand_upright(clips, floor=True) if floor else clips
    write_clips(path, clips)
    return {
        "files": [str(path)],
        "notes": [*clips.notes, f"frame: {clips.frame} axes; {clips.unit}"],
    }


def _targets(path: Path, motions: Sequence[Motion]) -> list[Path]:
    """One path per clip: `path` itself for one clip, else unique paths with the clips' names."""
    if len(motions) == 1:
        return [path]
    targets: list[Path] = []
    taken: set[str] = set()
    room = max(LONGEST_NAME - len(path.name.encode()), 20)
    for index, motion in enumerate(motions):
        name = re.sub(r"[^\w.-]+", "_", motion.name).strip("._") or str(index)
        name = name.encode()[:room].decode(errors="ignore")
        free, count = name, index
        while free.casefold() in taken:  # some file systems do not tell upper from lower case
            free, count = f"{name}-{count}", count + 1
        taken.add(free.casefold())
        targets.append(path.with_name(f"{path.stem}-{free}{path.suffix}"))
    return targets


def _notes(
    clips: Sequence[Clip], motions: Sequence[Motion], ending: str, travel: bool
) -> list[str]:
    notes = [f"frame: {motions[0].words}"]
    if travel and any(clip.focal_assumed for clip in clips):
        notes.append("root path: its distance is in proportion to the focal length, assumed")
    if any(not clip.fps > 0 for clip in clips):
        notes.append(f"{FPS:g} frames per second, assumed")
    unknown = sum(int((~np.isfinite(m.positions).all(-1)).sum()) for m in motions)
    if ending not in (".bvh", ".glb"):
        return [*notes, f"{unknown:,} unknown joints left unknown"] if unknown else notes
    unknown -= sum(len(motion) * len(motion.never_known()) for motion in motions)
    if unknown:
        notes.append(f"{unknown:,} unknown joints filled in from the frames around")
    return notes + _never_known(motions)


def _never_known(motions: Sequence[Motion]) -> list[str]:
    """What a format that needs every joint has in place of those that are never known."""
    clips: dict[str, list[str]] = {}
    for motion in motions:
        placed = motion.mirrored()
        for joints, words in (
            (placed, "made up, straight as in a T-pose and as long as on the other side"),
            ([j for j in motion.never_known() if j not in placed], "put at the joint before"),
        ):
            if joints:
                names = ", ".join(motion.skeleton.joints[joint] for joint in sorted(joints))
                clips.setdefault(f"never seen: {names}: {words}", []).append(motion.name)
    return [
        shorten(f"{names[0] if len(names) == 1 else f'{len(names):,} clips'}: {line}")
        for line, names in clips.items()
    ]


def _displacement(motions: Sequence[Motion]) -> str:
    """A note on the joint displacement by constant bones."""
    distances = []
    for motion in motions:
        positions = motion.complete()
        found = find_rotations(positions, motion.skeleton, motion.frame)
        offsets = np.broadcast_to(found.rest, positions.shape).copy()
        offsets[:, motion.skeleton.root] = found.offsets[:, motion.skeleton.root]
        rebuilt = forward_kinematics(found.local, offsets, motion.skeleton)
        distances.append(np.linalg.norm(rebuilt - positions, axis=-1) / motion.frame.factor)
    error = 1000 * np.concatenate([d.ravel() for d in distances])
    mean, most = error.mean(), error.max()
    return f"constant bones move joints by {mean:.1f} mm in the mean, {most:.1f} mm at most"
