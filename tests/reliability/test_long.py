"""Counters far beyond 2^32: steps stay exact, and so do the rotations they draw."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from small_training import teacher_settings, write_store

from ites.ops import backends
from ites.runs.folder import RunFolder
from ites.training import loop
from ites.training.engine import train
from ites.training.log import quiet_console

FIRST, MORE = 2, 7  # the second epoch begins in between


def trained(
    folder: Path, passed: int, backend: str, monkeypatch: pytest.MonkeyPatch
) -> tuple[int, dict[str, torch.Tensor]]:
    """The step and the weights of a training that was resumed as if `passed` steps lay behind."""
    store, run = write_store(folder / "store.h5"), folder / "run"
    given: dict[str, Any] = {"precision": "float64", "learning_rate": 0.02, "backend": backend}
    train(teacher_settings(store, run, steps=FIRST, **given), console=quiet_console())
    load = loop.load_state

    def far_on(*arguments: Any) -> tuple[torch.Tensor, dict[str, Any]]:
        recent, counters = load(*arguments)
        return recent, {**counters, "step": counters["step"] + passed}

    monkeypatch.setattr(loop, "load_state", far_on)
    long = {"steps": FIRST + passed + MORE, "epochs": 1 << 50, **given}
    train(teacher_settings(store, run, **long), resume=True, console=quiet_console())
    monkeypatch.undo()
    with safe_open(RunFolder(run).state("teacher"), "pt") as file:
        step = json.loads(file.metadata()["counters"])["step"]
        names = [name for name in file.keys() if name.startswith("model.")]  # noqa: SIM118
        return step, {name: file.get_tensor(name) for name in names}


@pytest.mark.parametrize("passed", (5 << 32, 5 << 48))
def test_a_training_beyond_2_32_steps(
    passed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step or an epoch that lost its upper bits would repeat what was drawn before."""
    if "cpp" in backends.MISSING:
        pytest.skip("two backends are compared")
    found = {}
    for name, behind, backend in (("far", passed, "cpp"), ("again", passed, "reference"),
                                  ("near", 5 << 20, "cpp")):  # fmt: skip
        (tmp_path / name).mkdir()
        found[name] = trained(tmp_path / name, behind, backend, monkeypatch)
        assert found[name][0] == FIRST + behind + MORE
    far, again, near = (weights for _, weights in found.values())
    for name, tensor in far.items():
        torch.testing.assert_close(again[name], tensor, rtol=1e-8, atol=1e-10, msg=name)
    assert any(not torch.allclose(near[name], tensor, rtol=1e-6) for name, tensor in far.items())
