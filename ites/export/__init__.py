"""Lifted clips and trained models in the formats of other programs.

`write` chooses by the file's ending; `frames` holds axes and units, `rotations` finds the joints'
rotations; each format has a module of its own name.
"""

from ites.export.frames import PRESETS
from ites.export.write import export

__all__ = ["PRESETS", "export"]
