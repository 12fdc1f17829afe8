"""The general model that comes with the package: a run folder; see `docs/model.md`."""

from __future__ import annotations

import os
from pathlib import Path

from ites.errors import ItesError

FOLDER = Path(__file__).with_name("general")
"""The run folder of the general model. A release may lack it."""


def has_packaged_run() -> bool:
    """Whether this installation contains the general model."""
    return any((FOLDER / f"{stage}.safetensors").is_file() for stage in ("student", "teacher"))


def run_or_packaged(run: str | os.PathLike[str] | None) -> Path:
    """The given run folder or checkpoint; None: the general model's folder.

    Raises:
        ItesError: no run is given, and this installation contains no general model.
    """
    if run is not None:
        return Path(run)
    if not has_packaged_run():
        raise ItesError(
            "this installation of ites contains no model; name the folder of a training",
            code="no-model",
        )
    return FOLDER
