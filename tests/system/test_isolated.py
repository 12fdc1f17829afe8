"""Calls in a child process: return values, and the message when a child dies."""

import endings
import numpy as np
import pytest

from ites.errors import ItesError
from ites.system import isolated as module
from ites.system.isolated import isolated


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "file.slp"
    path.write_bytes(bytes([1, 2, 3]))
    return path


def test_arrays_come_back(path):
    np.testing.assert_array_equal(isolated(endings.read, path, 2), [2, 4, 6])
    assert isolated(endings.say, path) == 1


def test_a_child_imports_nothing_from_the_current_folder(path, tmp_path, monkeypatch):
    (tmp_path / "random.py").write_text("raise SystemExit('a script of the user')")
    monkeypatch.chdir(tmp_path)
    np.testing.assert_array_equal(isolated(endings.read, path, 2), [2, 4, 6])


def test_a_refusal_comes_back_with_its_code(path):
    with pytest.raises(ItesError, match="expected more") as caught:
        isolated(endings.refuse, path)
    assert caught.value.code == "more"


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (endings.abort, "ends its reader: signal 6"),
        (endings.leave, "ends its reader: exit code 3"),
        (endings.fail, "ends its reader: KeyError: 'a fault of the reader'"),
    ],
)
def test_a_dead_child_is_a_line(path, function, words):
    with pytest.raises(ItesError) as caught:
        isolated(function, path)
    assert str(caught.value) == f"{path}: expected a sound file, got one that {words}"


def test_time_and_memory_are_bounded(path, monkeypatch):
    if module.resource is None:
        pytest.skip("this system has no limits of time and memory")
    monkeypatch.setattr(module, "SECONDS", 1.0)
    with pytest.raises(ItesError, match="takes too long"):
        isolated(endings.spin, path)
    monkeypatch.setattr(module, "SECONDS", 30.0)
    with pytest.raises(ItesError, match="MemoryError"):
        isolated(endings.hog, path)
