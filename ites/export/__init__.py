"""Lifted clips and trained models in the formats of other programs.

`write` chooses the format by the file's ending. `frames` defines axes and units; `rotations`
computes joint rotations. Each format has a module of its own name.
"""

from ites.export.frames import PRESETS
from ites.export.write import export

__all__ = ["PRESETS", "export"]
