"""The recipe that suits a pose store."""

from __future__ import annotations

import os

from ites.data.store import PoseStore


def default_recipe(data: str | os.PathLike[str]) -> str:
    """The recipe for a pose store if none is asked for: "upright" without 3D, else "paper".

    The published figures choose each depth's sign by the 3D. Without 3D, the sign must come from
    2D.
    """
    with PoseStore(data) as store:
        return "paper" if store.has_positions else "upright"
