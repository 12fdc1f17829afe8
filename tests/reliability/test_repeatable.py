"""The same bits from the same seed, and nearly so from other thread counts and processors."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.reliability.commands import COMMANDS, differences, must, place
from benchmarks.reliability.repeat import LIMITS, WAYS, distances
from benchmarks.reliability.warm import Job, Warm


@pytest.mark.parametrize("name", COMMANDS)
def test_a_second_run_gives_the_same_bits(
    name: str, warm: Warm, template: Path, tmp_path: Path
) -> None:
    command, folders = COMMANDS[name], [tmp_path / each for each in ("first", "second")]
    for folder in folders:  # both run at one place, as results name their inputs
        ran = place(command, template, tmp_path / "here")
        must(warm.run(Job(command.words, str(ran), threads=1)))
        ran.rename(folder)
    assert differences(*folders) == []


@pytest.mark.parametrize("way", WAYS)
def test_other_threads_and_instructions_are_near(
    way: str, warm: Warm, template: Path, tmp_path: Path
) -> None:
    for what, distance in distances(warm, template, tmp_path, way).items():
        assert distance <= LIMITS[what], what
