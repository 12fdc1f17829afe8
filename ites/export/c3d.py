"""C3D: the binary format of biomechanics, one point per joint."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ites import __version__
from ites.errors import ItesError
from ites.export.motion import Motion

LONGEST = 65_535
"""Frames that a C3D header can count."""


def write_c3d(path: Path, motion: Motion) -> None:
    """Write a clip as C3D; an unknown joint has the residual -1, the format's mark.

    Args:
        path: the file to write.
        motion: in any frame; the file states the unit.

    Raises:
        ItesError: the clip has more frames than the format can count, or the package is missing.
    """
    try:
        import ezc3d
    except ImportError:
        raise ItesError("C3D needs the package ezc3d: pip install 'ites[export]'") from None
    if len(motion) > LONGEST:
        raise ItesError(
            f"{motion.name}: C3D holds at most {LONGEST:,} frames, the clip has {len(motion):,}"
        )
    joints = motion.skeleton.joints
    points = np.ones((4, len(joints), len(motion)))
    points[:3] = motion.positions.transpose(2, 1, 0)
    unknown = ~np.isfinite(points[:3]).all(axis=0)
    file = ezc3d.c3d()
    file["data"]["points"] = points
    file["data"]["meta_points"]["residuals"] = np.where(unknown, -1.0, 0.0)[None]
    file["parameters"]["POINT"]["RATE"]["value"] = [motion.fps]
    file["parameters"]["POINT"]["UNITS"]["value"] = [motion.frame.unit]
    file["parameters"]["POINT"]["LABELS"]["value"] = list(joints)
    for name, text in (
        ("COMPANY", "ites"),
        ("SOFTWARE", f"ites {__version__}"),
        ("FRAME", motion.words),
    ):
        file.add_parameter("MANUFACTURER", name, [text])
    written = path.with_name(f"{path.name}.c3d")  # the library requires this ending
    try:
        file.write(str(written))
        written.replace(path)
    finally:
        written.unlink(missing_ok=True)
