"""Axes and units of exported poses, and presets for the programs that read them.

Lifted poses use the camera's axes: x right, y down, z forward, metres. A frame is a signed
permutation of these axes and a factor from metres.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ites.errors import ItesError


@dataclass(frozen=True)
class Frame:
    """Axes and a unit.

    Args:
        axes: the direction of each axis, in words.
        matrix: (3, 3); a point X of camera axes becomes `matrix @ X`.
        unit: "m", "cm" or "mm".
    """

    axes: str
    matrix: tuple[tuple[int, int, int], ...]
    unit: str = "m"

    @property
    def factor(self) -> float:
        """The frame's units per metre."""
        return {"m": 1.0, "cm": 100.0, "mm": 1000.0}[self.unit]

    @property
    def up(self) -> NDArray[np.float64]:
        """The unit vector (3,) that points up in the image, or against gravity in its axes."""
        return np.array(self.matrix, np.float64) @ np.array([0.0, -1.0, 0.0])

    @property
    def words(self) -> str:
        """A one-line description of the frame, for files."""
        return f"{self.axes}; unit {self.unit}"

    def convert(self, positions: NDArray[np.floating]) -> NDArray[np.float64]:
        """Convert points (..., 3) from camera axes, metres, to this frame."""
        return positions.astype(np.float64) @ (self.factor * np.array(self.matrix, np.float64)).T


CAMERA = Frame(
    "camera axes: x right, y down, z forward, right-handed", ((1, 0, 0), (0, 1, 0), (0, 0, 1))
)
Y_UP = Frame("x right, y up, z to the camera, right-handed", ((1, 0, 0), (0, -1, 0), (0, 0, -1)))
Y_UP_CM = Frame(Y_UP.axes, Y_UP.matrix, "cm")
Z_UP = Frame("x right, y forward, z up, right-handed", ((1, 0, 0), (0, 0, 1), (0, -1, 0)))
UNITY = Frame("x right, y up, z forward, left-handed", ((1, 0, 0), (0, -1, 0), (0, 0, 1)))
UNREAL = Frame(
    "x forward, y right, z up, left-handed", ((0, 0, 1), (1, 0, 0), (0, -1, 0)), unit="cm"
)
OPENSIM = Frame(
    "x to the camera, y up, z left in the image, right-handed",
    ((0, 0, -1), (0, -1, 0), (-1, 0, 0)),
)


@dataclass(frozen=True)
class Preset:
    """The frames that a program expects.

    Args:
        interchange: of BVH, TRC and C3D files, which its importer converts to its own axes.
        native: its own axes, for tables, whose points are used unchanged.
    """

    interchange: Frame
    native: Frame


PRESETS = {
    "blender": Preset(Y_UP, Z_UP),
    "unity": Preset(Y_UP, UNITY),
    "unreal": Preset(Y_UP_CM, UNREAL),
    "opensim": Preset(OPENSIM, OPENSIM),
}
"""Programs whose axes and units are known. glTF fixes its own frame: y up, metres."""


def find_preset(name: str | None) -> Preset:
    """The preset of this name; None: y up for interchange formats, camera axes for tables.

    Raises:
        ItesError: the preset is unknown.
    """
    if name is None:
        return Preset(Y_UP, CAMERA)
    if name not in PRESETS:
        raise ItesError(f"export: preset must be one of {', '.join(PRESETS)}, got {name!r}")
    return PRESETS[name]
