"""Fixtures of every test, and one thread for each: small tensors gain nothing from more."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

os.environ["OMP_NUM_THREADS"] = "1"  # of the processes that tests start
torch.set_num_threads(1)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of golden numbers and motion capture, beside the project; skips without it."""
    folder = Path(os.environ.get("ITES_SHARED", Path(__file__).parents[2] / "shared"))
    if not folder.is_dir():
        pytest.skip(f"no golden numbers and motion capture at {folder}; set ITES_SHARED")
    return folder


@pytest.fixture(scope="session")
def field_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small store of `ites prepare field`."""
    from general_model import make_field

    return make_field(tmp_path_factory.mktemp("field") / "field.h5")


@pytest.fixture(scope="session")
def general_run(field_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder of recipe "general", trained on that store."""
    from general_model import train_general

    return train_general(field_store, tmp_path_factory.mktemp("run") / "general")
