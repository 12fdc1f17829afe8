"""Several seeds in one process: the bits of each, and what one seed does to the others."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from small_training import SMALL, numbers, same

from ites.cli.errors import run as run_command
from ites.cli.main import app
from ites.errors import ItesError
from ites.runs.folder import RunFolder
from ites.runs.settings import Settings, make_settings, stages_of
from ites.system.lock import lock
from ites.training import seeds as seeds_module
from ites.training.engine import train
from ites.training.log import quiet_console
from ites.training.loop import Training
from ites.training.seeds import Study, read_seeds, seed_folder, train_seeds

STEPS = 7


def settings_of(store: Path, out: Path, recipe: str = "paper", **given: Any) -> list[Settings]:
    chosen = {
        **SMALL, "data": str(store), "out": str(out), "recipe": recipe, "steps": STEPS, **given
    }  # fmt: skip
    return [make_settings(stage, None, chosen) for stage in stages_of(recipe)]


def quietly(settings: list[Settings], seeds: list[int], resume: bool = False) -> Study:
    return train_seeds(settings, seeds, resume=resume, console=quiet_console())


def alone(store: Path, out: Path, recipe: str, seed: int) -> None:
    for one in settings_of(store, out, recipe, seed=seed):
        train(one, console=quiet_console())


def ites(*words: str) -> int:
    with pytest.raises(SystemExit) as stopped:
        run_command(app, words)
    return int(stopped.value.code or 0)


@pytest.mark.parametrize("recipe", ("paper", "upright"))
def test_each_seed_has_the_bits_of_a_training_alone(
    store: Path, tmp_path: Path, recipe: str
) -> None:
    study = quietly(settings_of(store, tmp_path / "all", recipe), [3, 0, 5])
    assert not study.failed and not study.interrupted
    for seed in (3, 0, 5):
        alone(store, tmp_path / f"alone-{seed}", recipe, seed)
        for stage in stages_of(recipe):
            together = numbers(seed_folder(tmp_path / "all", seed), stage)
            same(together, numbers(tmp_path / f"alone-{seed}", stage))
    assert read_seeds(tmp_path / "all") == [3, 0, 5]


def test_the_table_has_the_mean_and_the_spread(store: Path, tmp_path: Path) -> None:
    study = quietly(settings_of(store, tmp_path / "all"), [0, 1])
    with (tmp_path / "all" / "seeds.csv").open(newline="") as file:
        rows = {(row["stage"], row["figure"]): row for row in csv.DictReader(file)}
    for stage in ("teacher", "student"):
        results = {
            seed: one for seed in (0, 1) for one in study.results[seed] if one.stage == stage
        }
        first, second = (results[seed].losses["total"] for seed in (0, 1))
        row = rows[stage, "total loss"]
        assert (float(row["seed-0"]), float(row["seed-1"])) == (first, second)
        assert float(row["mean"]) == pytest.approx((first + second) / 2, rel=1e-12)
        assert float(row["deviation"]) == pytest.approx(abs(first - second) / 2**0.5, rel=1e-12)
        assert 0 < float(rows[stage, "p_mpjpe"]["mean"]) < 1000


def test_the_seeds_share_one_copy_of_the_data(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: dict[str, list[tuple[int, ...]]] = {}

    class Watched(Training):
        def __init__(self, stage: Any, *args: Any, **options: Any) -> None:
            if len(stage.data[0]) > 70:  # pilots have fewer
                places = tuple(tensor.data_ptr() for tensor in stage.data)
                found.setdefault(stage.settings.stage, []).append(places)
            super().__init__(stage, *args, **options)

    monkeypatch.setattr("ites.training.engine.Training", Watched)
    quietly(settings_of(store, tmp_path, "upright"), [0, 1, 2])
    for stage in ("prior", "teacher", "student"):
        assert len({places[0] for places in found[stage]}) == 1, stage
    assert len({places[1] for places in found["student"]}) == 3  # each teacher's own depths


def test_an_interrupt_stops_all_and_resume_gives_the_same_bits(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_of(store, tmp_path / "cut")
    advance = Training.advance

    def interrupted(self: Training) -> None:
        advance(self)
        if self.settings.seed == 1 and self.step == 3:
            os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(Training, "advance", interrupted)
        study = quietly(settings, [0, 1])
    assert study.interrupted
    assert [[one.step for one in study.results[seed]] for seed in (0, 1)] == [[4], [3]]
    assert quietly(settings, [0, 1], resume=True).interrupted is False
    quietly(settings_of(store, tmp_path / "whole"), [0, 1])
    for seed in (0, 1):
        for stage in ("teacher", "student"):
            cut, whole = (seed_folder(tmp_path / name, seed) for name in ("cut", "whole"))
            same(numbers(cut, stage), numbers(whole, stage))
    with pytest.raises(ItesError, match="width is 16 in this run and cannot become 8"):
        quietly(settings_of(store, tmp_path / "cut", width=8), [0, 1], resume=True)


def test_a_seed_that_fails_does_not_stop_the_others(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    advance = Training.advance

    def diverging(self: Training) -> None:
        advance(self)
        if self.settings.seed == 1 and self.step == 3:
            self.recent[2, 0] = torch.nan

    monkeypatch.setattr(Training, "advance", diverging)
    study = quietly(settings_of(store, tmp_path), [0, 1, 2])
    assert list(study.failed) == [1] and "the total loss is nan at step 3" in study.failed[1]
    assert [len(study.results[seed]) for seed in (0, 1, 2)] == [2, 0, 2]
    assert all(list(figure.values) == [0, 2] for figure in study.figures)
    mark = RunFolder(seed_folder(tmp_path, 1)).unfinished("teacher")
    assert "the total loss is nan" in json.loads(mark.read_text())["reason"]
    assert not RunFolder(seed_folder(tmp_path, 0)).unfinished("teacher").exists()


def test_nothing_is_trained_where_one_folder_cannot_be_used(store: Path, tmp_path: Path) -> None:
    settings = settings_of(store, tmp_path)
    folder = RunFolder(seed_folder(tmp_path, 1))
    with (
        lock(folder.lock, "a test"),
        pytest.raises(ItesError, match=r"seed-1: another training is going on in process \d+"),
    ):
        quietly(settings, [0, 1])
    train(settings_of(store, folder.root, seed=1)[0], console=quiet_console())
    with pytest.raises(ItesError, match="seed-1: holds a teacher already"):
        quietly(settings, [0, 1])
    assert not seed_folder(tmp_path, 0).exists()


@pytest.mark.parametrize("seeds", ([], [1, 1], [-1]))
def test_seeds_that_are_none(store: Path, tmp_path: Path, seeds: list[int]) -> None:
    with pytest.raises(ItesError, match="seeds: expected different numbers from 0 on, got"):
        quietly(settings_of(store, tmp_path), seeds)


def test_several_processes_are_refused(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ItesError, match="seeds: expected a single process, got 2 by torchrun"):
        quietly(settings_of(store, tmp_path), [0, 1])


def test_each_seed_takes_its_steps_on_its_own_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a substitute: this machine may have no GPU."""
    events: list[Any] = []

    class Stream:
        def __init__(self, name: Any = "default") -> None:
            self.name = name

        def wait_stream(self, other: Stream) -> None:
            events.append((self.name, "waits for", other.name))

    made = iter("ab")
    default = Stream()
    current = [default]

    class Within:
        def __init__(self, stream: Stream) -> None:
            self.stream = stream

        def __enter__(self) -> None:
            current.append(self.stream)

        def __exit__(self, *_: Any) -> None:
            current.pop()

    monkeypatch.setattr(torch.cuda, "Stream", lambda device: Stream(next(made)))
    monkeypatch.setattr(torch.cuda, "stream", Within)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: current[-1])

    def course(seed: int) -> Any:
        for step in range(2):
            events.append((seed, step, current[-1].name))
            yield
        return seed

    ends = seeds_module.take_turns({7: course(7), 8: course(8)}, torch.device("cuda"))
    assert list(ends) == [(7, 7), (8, 8)]
    assert events == [
        ("a", "waits for", "default"),
        ("b", "waits for", "default"),
        (7, 0, "a"), (8, 0, "b"), (7, 1, "a"), (8, 1, "b"),
        ("default", "waits for", "a"),
        ("default", "waits for", "b"),
    ]  # fmt: skip


def test_the_command(store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "run")
    small = [word for name, value in SMALL.items() for word in ("--set", f"{name}={value}")]
    given = ("train", "--data", str(store), "--out", out, "--steps", "3", *small)
    assert ites(*given, "--seeds", "0", "4", "--only", "teacher") == 0
    shown = capsys.readouterr().out
    assert "seed 4: teacher: trained after 3 of 3 steps" in shown
    assert "p_mpjpe" in shown and "deviation" in shown and "seeds.csv" in shown
    assert ites("train", "--resume", out, "--steps", "5") == 0
    assert "seed 0: teacher: trained after 5 of 5 steps" in capsys.readouterr().out
    for words, message in (
        ((*given, "--seeds"), "--seeds"),
        ((*given, "--seeds", "a"), "expected numbers, such as --seeds 0 1 2, got 'a'"),
        ((*given, "--seeds", "0", "--seed", "1"), "--seed has no effect with --seeds"),
        ((*given, "--seeds", "0", "--set", "teacher.seed=1"), "teacher.seed has no effect"),
        (("train", "--resume", out, "--seeds", "9"), "expected seeds out of [0, 4], got [9]"),
        (("train", "--resume", str(tmp_path), "--seeds", "9"), "expected a folder of `ites train"),
        ((*given, "--seeds", "0", "--write-config", "c.toml"), "no effect with --seeds"),
    ):
        assert ites(*words) == 2
        error = capsys.readouterr().err
        assert message in error and len(error) <= 301, error


def test_a_failed_seed_ends_the_command_with_2(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setattr(
        Training, "checkpoint", _failing_checkpoint(Training.checkpoint), raising=True
    )
    small = [word for name, value in SMALL.items() for word in ("--set", f"{name}={value}")]
    given = ("train", "--data", str(store), "--out", str(tmp_path / "run"), "--steps", "3", *small)
    assert ites(*given, "--seeds", "0", "1", "--only", "teacher") == 2
    shown = capsys.readouterr()
    assert "1 of 2 seeds failed; seed 1: no room" in shown.err
    assert "seed 0: teacher: trained after 3 of 3 steps" in shown.out


def _failing_checkpoint(checkpoint: Any) -> Any:
    def failing(self: Training) -> None:
        if self.settings.seed == 1:
            raise ItesError("no room")
        checkpoint(self)

    return failing


def test_lines_on_a_console(store: Path, tmp_path: Path) -> None:
    console = Console(file=io.StringIO(), width=200)
    train_seeds(settings_of(store, tmp_path, log_every=2), [0, 1], console=console)
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert any(line.startswith("seed 1 teacher 2/7  total ") for line in lines)
