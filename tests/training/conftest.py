"""The stores that trainings of this room use."""

from __future__ import annotations

from pathlib import Path

import pytest
from small_training import write_store

from ites.data.synthetic.synthetic import prepare_synthetic


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of random poses, a clip per split."""
    return write_store(tmp_path_factory.mktemp("data") / "store.h5")


@pytest.fixture(scope="module")
def motion(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of 400 poses of synthetic motion."""
    path = tmp_path_factory.mktemp("data") / "synthetic.h5"
    prepare_synthetic(path, poses=400, seed=3, fps=10.0)
    return path
