"""Reading, computing and writing at once; parts of a long piece of work."""

import errno
import os
import threading
from pathlib import Path

import pytest

from ites.errors import ItesError
from ites.system.overlap import overlap
from ites.system.parts import Parts


def test_items_keep_their_order_and_three_threads_share_them():
    done, threads = [], {"work": set(), "source": set(), "sink": set()}

    def source():
        for i in range(20):
            threads["source"].add(threading.get_ident())
            yield i

    def work(i):
        threads["work"].add(threading.get_ident())
        return i * i

    def sink(i):
        threads["sink"].add(threading.get_ident())
        done.append(i)

    overlap(source(), work, sink)
    assert done == [i * i for i in range(20)]
    (reader,), (worker,), (writer,) = threads["source"], threads["work"], threads["sink"]
    assert worker == threading.get_ident() and len({reader, worker, writer}) == 3
    overlap([], work, sink)


def test_few_items_are_held_at_a_time():
    held, most, lock = 0, 0, threading.Lock()

    def change(by):
        nonlocal held, most
        with lock:
            held += by
            most = max(most, held)

    def source():
        for i in range(50):
            change(1)
            yield i

    overlap(source(), lambda i: i, lambda i: change(-1), ahead=2)
    assert held == 0 and most <= 7


@pytest.mark.parametrize("where", ["source", "work", "sink"])
def test_an_error_ends_it(where):
    seen = {"source": 0, "work": 0, "sink": 0}

    def step(name, value):
        seen[name] += 1
        if name == where and value == 3:
            raise ItesError(f"{name} failed")
        return value

    with pytest.raises(ItesError, match=f"{where} failed"):
        overlap(
            (step("source", i) for i in range(1000)),
            lambda i: step("work", i),
            lambda i: step("sink", i),
        )
    assert max(seen.values()) < 20


def test_parts_of_another_request_are_refused(tmp_path):
    parts = Parts(tmp_path / "out.h5", {"scale": 1}, 3)
    parts.begin(resume=True)  # there is nothing to resume yet
    parts.path(1).touch()
    assert parts.missing() == [0, 2]
    Parts(tmp_path / "out.h5", {"scale": 1}, 3).begin(resume=True)
    assert parts.missing() == [0, 2]
    other = Parts(tmp_path / "out.h5", {"scale": 2}, 3)
    with pytest.raises(ItesError, match="begun with scale 1, now 2$"):
        other.begin(resume=True)
    other.begin(resume=False)
    assert other.missing() == [0, 1, 2]
    other.remove()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_of_something_else_stays(tmp_path):
    parts = Parts(tmp_path / "out.h5", {}, 3)
    parts.folder.mkdir()
    (parts.folder / "mine.txt").write_text("mine")
    with pytest.raises(ItesError, match="move it away"):
        parts.begin(resume=False)
    assert (parts.folder / "mine.txt").exists()


def test_parts_that_cannot_begin_leave_no_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    parts = Parts(tmp_path / "out.h5", {}, 3)
    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match=r"out\.h5\.parts.*request\.json"):
        parts.begin(resume=False)
    assert not list(tmp_path.iterdir())
