"""TRC: OpenSim's table of markers, one row per frame."""

from __future__ import annotations

from pathlib import Path

from ites import __version__
from ites.export.motion import Motion


def write_trc(path: Path, motion: Motion, name: str) -> None:
    """Write a clip as TRC, one marker per joint; an unknown joint's cells are `nan`.

    The first line states the version, axes, up, origin and scale after the file's name. OpenSim
    and others read only its first word.

    Args:
        path: the file to write.
        motion: in any frame; the file states the unit.
        name: the file's final name, which its first line repeats.
    """
    joints, rate = motion.skeleton.joints, f"{motion.fps:g}"
    names = ["DataRate", "CameraRate", "NumFrames", "NumMarkers", "Units"]
    names += ["OrigDataRate", "OrigDataStartFrame", "OrigNumFrames"]
    values = [rate, rate, str(len(motion)), str(len(joints)), motion.frame.unit]
    values += [rate, "1", str(len(motion))]
    axes = [f"{axis}{i}" for i in range(1, len(joints) + 1) for axis in "XYZ"]
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.write(f"PathFileType\t4\t(X/Y/Z)\t{name}\tites {__version__}: {motion.words}\n")
        file.write("\t".join(names) + "\n" + "\t".join(values) + "\n")
        file.write("Frame#\tTime\t" + "\t\t\t".join(joints) + "\t\t\n")
        file.write("\t\t" + "\t".join(axes) + "\n\n")
        rows = motion.positions.reshape(len(motion), -1)
        for index, (second, row) in enumerate(zip(motion.seconds, rows, strict=True), 1):
            cells = [f"{value:.6f}" for value in row]
            file.write("\t".join([str(index), f"{second:.6f}", *cells]) + "\n")
