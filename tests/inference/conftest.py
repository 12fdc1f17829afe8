"""The run folder that every test of this room lifts with."""

import pytest
import torch

from ites.models import Student, Teacher
from ites.pose.skeleton import HUMAN36M
from ites.runs.checkpoint import Metadata, save_model


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run folder with a small teacher and student; their scale is 1.5."""
    folder = tmp_path_factory.mktemp("run")
    torch.manual_seed(0)
    for name, model in (
        ("teacher", Teacher(width=32, blocks=1, atoms=4)),
        ("student", Student(width=16, blocks=1)),
    ):
        metadata = Metadata(kind=name, skeleton=HUMAN36M, scale=1.5)
        save_model(folder / f"{name}.safetensors", model, metadata)
    return folder
