"""The log of a training on a disk that is full."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from ites.runs.folder import RunFolder
from ites.runs.settings import make_settings
from ites.training.log import Log, quiet_console

ROW = {"step": 2, "epoch": 0.5, "total": 1.0, "learning_rate": 0.1, "poses_per_second": 9.0}


def full(*_: Any) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def log_of(folder: Path) -> Log:
    settings = make_settings("teacher", options={"data": "store.h5", "out": str(folder)})
    run = RunFolder(folder)
    return Log(run, settings, ["total"], steps=4, step=0, console=quiet_console())


@pytest.mark.parametrize("method", ("write", "flush"))
def test_tensorboards_thread_fails_in_one_line(
    method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Its traceback would be printed beside the command's line."""
    record = pytest.importorskip("tensorboard.summary.writer.record_writer")
    with pytest.raises(OSError, match=r"No space left.*tensorboard"), log_of(tmp_path) as log:
        monkeypatch.setattr(record.RecordWriter, method, full)
        log.row({**ROW, "seconds": 1.0}, ["total"])
    assert capfd.readouterr().err == ""


def test_no_room_for_tensorboards_first_event(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    record = pytest.importorskip("tensorboard.summary.writer.record_writer")
    monkeypatch.setattr(record.RecordWriter, "write", full)
    with pytest.raises(OSError, match=r"No space left.*tensorboard"):
        log_of(tmp_path)
    assert capfd.readouterr().err == ""


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
def test_a_row_that_cannot_be_written_names_its_file(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"teacher\.log\.csv"), log_of(tmp_path) as log:
        os.dup2(os.open("/dev/full", os.O_WRONLY), log._table._file.fileno())
        log.row({**ROW, "seconds": 1.0}, ["total"])


def test_the_first_error_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record = pytest.importorskip("tensorboard.summary.writer.record_writer")
    with pytest.raises(KeyError, match="first"), log_of(tmp_path):
        monkeypatch.setattr(record.RecordWriter, "flush", full)
        raise KeyError("first")
