"""Commands in faulty places; `python -m benchmarks.reliability.places` does it at length."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.reliability import places
from benchmarks.reliability.commands import COMMANDS
from benchmarks.reliability.places import FAULTS, NOTHING, RESULT, Found, Place
from benchmarks.reliability.warm import Warm

FAULTS_HERE = [f for f in FAULTS if f not in ("small disk", "no TMPDIR", "closed pipe")]
"""Without those that hide the tests' own folders, or that a busy machine may finish too early."""
CHOSEN = ("prepare keypoints", "train", "lift", "evaluate", "export")


@pytest.fixture(scope="module")
def at(warm: Warm, template: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Place]:
    """The place of each command."""
    home = tmp_path_factory.mktemp("places")
    return {
        name: Place(warm, COMMANDS[name], template, home / name.replace(" ", "-"))
        for name in CHOSEN
    }


def found(fault: str, where: Place) -> list[Found]:
    try:
        runs = list(FAULTS[fault](where))
    except OSError as error:
        pytest.skip(f"no such place can be made here: {error}")
    if not runs:
        pytest.skip("only root can make such a place, or the command has no input")
    return runs


@pytest.mark.parametrize("name", CHOSEN)
@pytest.mark.parametrize("fault", FAULTS_HERE)
def test_each_fault(fault: str, name: str, at, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "where_most", 2)
    wrong = [run for run in found(fault, at[name]) if not run.right]
    assert not wrong


def test_a_small_disk(at) -> None:
    runs = found("small disk", at["export"])
    assert all(run.right for run in runs)
    assert {run.left for run in runs} == {RESULT, NOTHING}


def test_a_missing_mount_is_reported(at) -> None:
    if os.geteuid():
        pytest.skip("only root may mount")
    where = at["export"]
    (ended,) = where.run(replace(where.job, hidden=("/nowhere",)))
    assert not ended.right and "no mount" in ended.line
