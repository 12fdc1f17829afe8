"""BVH: a hierarchy with a rest pose, and rotations frame by frame. See `ites.export.rotations`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ites.export.motion import Motion
from ites.export.rotations import Rotations, euler_zxy, find_rotations

END = 0.2
"""Length of the tip beyond a last joint, as a share of the bone before it; readers need one."""


def write_bvh(path: Path, motion: Motion, *, exact: bool = True) -> None:
    """Write a clip as BVH; angles in degrees, in the channel order z, x, y.

    Args:
        path: the file to write.
        motion: in a right-handed frame.
        exact: give every joint position channels, so the file holds the poses to the millimetre.
            False: only the root has position channels and bones keep their median length.
    """
    found = find_rotations(motion.complete(), motion.skeleton, motion.frame)
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.write("HIERARCHY\n")
        file.writelines(f"{line}\n" for line in _joint(motion, found, motion.skeleton.root, exact))
        file.write(f"MOTION\nFrames: {len(motion)}\nFrame Time: {1 / motion.fps:.9g}\n")
        np.savetxt(file, _channels(motion, found, exact), fmt="%.6f")


def _joint(motion: Motion, found: Rotations, joint: int, exact: bool) -> Iterator[str]:
    skeleton = motion.skeleton
    root = joint == skeleton.root
    children = [j for p, j in skeleton.bones if p == joint]
    yield f"{'ROOT' if root else 'JOINT'} {skeleton.joints[joint]}"
    yield "{"
    yield f"  OFFSET {_numbers(found.rest[joint])}"
    rotations = "Zrotation Xrotation Yrotation"
    if root or exact:
        yield f"  CHANNELS 6 Xposition Yposition Zposition {rotations}"
    else:
        yield f"  CHANNELS 3 {rotations}"
    for child in children:
        yield from (f"  {line}" for line in _joint(motion, found, child, exact))
    if not children:
        yield "  End Site"
        yield "  {"
        yield f"    OFFSET {_numbers(END * found.rest[joint])}"
        yield "  }"
    yield "}"


def _channels(motion: Motion, found: Rotations, exact: bool) -> np.ndarray:
    """(T, channels), joints in the order of the hierarchy."""
    angles, columns = euler_zxy(found.local), []

    def visit(joint: int) -> None:
        if exact or joint == motion.skeleton.root:
            columns.append(found.offsets[:, joint])
        columns.append(angles[:, joint])
        for parent, child in motion.skeleton.bones:
            if parent == joint:
                visit(child)

    visit(motion.skeleton.root)
    return np.concatenate(columns, axis=1)


def _numbers(vector: np.ndarray) -> str:
    return " ".join(f"{value:.6f}" for value in vector)
