"""Several processes, one training: the numbers of a single one, and what happens when one dies."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from rich.console import Console
from safetensors.torch import load_file
from small_training import rows, student_settings, teacher_settings, write_store

from ites.errors import ItesError
from ites.models import Teacher
from ites.runs.checkpoint import load_model
from ites.runs.folder import RunFolder, Unfinished
from ites.runs.settings import Settings, make_settings
from ites.system.ranks import Ranks
from ites.training.engine import train
from ites.training.feed import Feed, epoch_order
from ites.training.log import quiet_console


@contextmanager
def torchrun(settings: list[Settings]) -> Iterator[subprocess.Popen[str]]:
    """Two processes on this machine that train these stages, which share most settings."""
    arguments = ["--recipe", "paper", "--data", settings[0].data, "--out", settings[0].out]
    arguments += ["--only", settings[0].stage] if len(settings) == 1 else []
    for stage in settings:
        usual = make_settings(stage.stage).to_dict()
        for name, value in stage.to_dict().items():
            if value != usual[name] and name not in ("data", "out"):
                arguments += ["--set", f"{stage.stage}.{name}={value}"]
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", "2", "-m", "ites", "train", *arguments]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=environment)
    try:
        yield process
    finally:
        process.terminate()
        process.wait()


needs_gloo = pytest.mark.skipif(not dist.is_gloo_available(), reason="PyTorch without gloo")


@needs_gloo
def test_two_ranks_give_the_numbers_of_one(tmp_path: Path) -> None:
    """Both stages, the short last batch of seven poses included, shared unevenly."""
    store = write_store(tmp_path / "store.h5")
    given: dict[str, Any] = {"steps": 7, "learning_rate": 0.02, "precision": "float64"}
    alone, together = tmp_path / "alone", tmp_path / "together"

    def both(run: Path) -> list[Settings]:
        teacher = teacher_settings(store, run, centre_epochs=1, **given)
        return [teacher, student_settings(store, run, "", **given)]

    for settings in both(alone):
        train(settings, console=quiet_console())
    with torchrun(both(together)) as process:
        output, errors = process.communicate()
    assert process.returncode == 0, errors
    assert output.count("teacher: trained after 7 of 7 steps") == 1  # rank 0's
    for stage in ("teacher", "student"):
        expected, got = (load_file(RunFolder(run).state(stage)) for run in (alone, together))
        assert expected.keys() == got.keys()
        for name, tensor in expected.items():
            torch.testing.assert_close(got[name], tensor, rtol=1e-9, atol=1e-11, msg=name)
        logs = [rows(run / f"{stage}.log.csv") for run in (alone, together)]
        for left, right in zip(*logs, strict=True):
            for name in left:
                assert float(left[name]) == pytest.approx(float(right[name]), rel=1e-10)


@needs_gloo
@pytest.mark.parametrize("other", ["free", "stopped"])
def test_the_death_of_a_rank_stops_the_others(other: str, tmp_path: Path) -> None:
    """Whether or not rank 0 wakes before the launcher kills it, the folder tells what happened."""
    store = write_store(tmp_path / "store.h5")
    given: dict[str, Any] = {"epochs": 100_000, "checkpoint_every": 3}
    settings = teacher_settings(store, tmp_path / "run", **given)
    with torchrun([settings]) as process:
        assert process.stdout is not None
        logged = any("teacher 8/" in line for line in process.stdout)  # a checkpoint is there
        assert logged, process.communicate()
        main = rank_of(process.pid, 0)
        if other == "stopped":
            os.kill(main, signal.SIGSTOP)
        os.kill(rank_of(process.pid, 1), signal.SIGKILL)
        if other == "stopped":  # as the launcher does to a rank that does not go
            os.kill(main, signal.SIGKILL)
        process.communicate()
    assert process.returncode == 1
    _, metadata = load_model(settings.out)
    assert metadata.step >= 3 and metadata.step % 3 == 0
    longer = teacher_settings(store, tmp_path / "run", steps=metadata.step + 2)
    console = Console(file=io.StringIO(), width=400)
    assert train(longer, resume=True, console=console).step == metadata.step + 2
    said = console.file.getvalue()  # type: ignore[attr-defined]
    assert "teacher: the last training was cut off: " in said
    assert f"continuing from step {metadata.step}" in said
    console = Console(file=io.StringIO(), width=400)
    train(longer, resume=True, console=console)
    assert "cut off" not in console.file.getvalue()  # type: ignore[attr-defined]


def test_a_rank_that_lost_another_says_so_and_leaves_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    for rank in (0, 1):
        ranks = Ranks(rank, 2)
        mark = Unfinished(tmp_path / str(rank), "teacher", ranks)
        with pytest.raises(ItesError) as caught, mark.watched(), ranks.joined(torch.device("cpu")):
            mark.begin()
            assert mark.path.is_file() == (rank == 0)
            raise RuntimeError("gloo: Connection closed by peer\nand a long trace")
        message = f"rank {rank} of 2 lost another rank, which died or was stopped"
        assert str(caught.value).startswith(message) and "\n" not in str(caught.value)
        line = Unfinished(tmp_path / str(rank), "teacher", Ranks()).line()
        assert line is not None and line.startswith(f"the last training was cut off: {message}")


def rank_of(launcher: int, rank: int) -> int:
    """The process id of a rank, a child of the launcher."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rsplit(")", 1)[1].split()[1])
            if parent == launcher and f"\0RANK={rank}\0" in (folder / "environ").read_text():
                return int(folder.name)
        except (OSError, UnicodeDecodeError):
            continue
    raise AssertionError(f"no rank {rank} among the children of {launcher}")


def test_a_rank_without_poses_leaves_its_statistics() -> None:
    model = Teacher(width=16, blocks=1)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    assert model(torch.zeros(0, 17, 2)).canonical.shape == (0, 17, 3)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name])


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("limit", [1, 10_000])
def test_the_shares_of_a_batch_are_the_batch(count: int, limit: int) -> None:
    """Every rank's batches, put together, are the order's; the last one has a pose for two."""
    data = torch.arange(41, dtype=torch.float64).view(41, 1, 1) * torch.ones(1, 17, 2)
    feeds = []
    for rank in range(count):
        ranks, place = Ranks(rank, count), torch.zeros(1, dtype=torch.int64)
        given = {"seed": 3, "batch": 8, "batches": 6, "ranks": ranks, "limit": limit}
        feeds.append((ranks, place, Feed((data,), place, stream=rank == 1, **given)))
    for epoch in range(2):
        order = epoch_order(3, epoch, 41, torch.device("cpu")).double()
        for index, expected in enumerate(order.split(8)):
            parts = []
            for ranks, place, feed in feeds:
                feed.seek(epoch, index)
                share = ranks.share(len(expected))
                parts.append(feed.batch(share.stop - share.start)[0][:, 0, 0])
                place += 1
            assert torch.equal(torch.cat(parts), expected)
