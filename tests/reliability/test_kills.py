"""A command that is killed leaves whole files, and its next call gives what it would have given.

`python -m benchmarks.reliability.kills` kills at every write; here it is a few of each command.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.reliability.commands import COMMANDS
from benchmarks.reliability.kills import Killing, evenly
from benchmarks.reliability.warm import Warm

KILLS = {"train": 3, "fit": 1}
OTHERS = 2


@pytest.mark.parametrize("name", COMMANDS)
def test_killed_at_its_writes(name: str, warm: Warm, template: Path, tmp_path: Path) -> None:
    killing = Killing(warm, COMMANDS[name], template, tmp_path)
    assert killing.calls >= 5
    for at in evenly(killing.calls, KILLS.get(name, OTHERS)):
        assert killing.kill(at) == [], f"killed at call {at} of {killing.calls}"
    assert killing.kill(killing.calls - 1) == []
