"""The lock of exclusive work: its holder, its removal, and a full disk."""

import errno
import os

import pytest

from ites.errors import ItesError
from ites.system.lock import lock


def test_a_second_holder_is_refused_and_the_file_goes(tmp_path):
    pytest.importorskip("fcntl", reason="this system has no locks")
    path = tmp_path / "new" / "x.lock"
    with lock(path, "x: a training"):
        assert path.read_text() == f"{os.getpid()}\n"
        with pytest.raises(ItesError, match=f"x: a training is going on in process {os.getpid()}"):
            lock(path, "x: a training").__enter__()
    assert not path.parent.exists()


def test_a_full_disk_is_reported_with_the_locks_name(tmp_path, monkeypatch):
    def full(handle, data):
        raise OSError(errno.ENOSPC, "No space left on device")

    path = tmp_path / "x.lock"
    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OSError) as caught, lock(path, "x: a training"):
        pass
    monkeypatch.undo()
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(path))
    assert not path.exists()
