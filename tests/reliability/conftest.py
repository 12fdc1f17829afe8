"""A process that forks commands under faults, and the inputs of those commands."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.reliability.commands import make_template
from benchmarks.reliability.warm import Warm


@pytest.fixture(scope="session")
def warm() -> Iterator[Warm]:
    """Forks commands; skips where `faults.c` cannot be compiled or preloaded."""
    try:
        process = Warm()
    except (FileNotFoundError, OSError) as error:
        pytest.skip(f"no faults: {error}")
    with process:
        yield process


@pytest.fixture(scope="session")
def template(warm: Warm, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store, a run of three stages, keypoints, and their lifted poses."""
    folder = tmp_path_factory.mktemp("template") / "inputs"
    make_template(warm, folder)
    return folder
