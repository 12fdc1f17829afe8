"""Every reader on broken files: read, or refused by one line that names the file."""

import random
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks.reliability.fuzz import (
    COLUMNS,
    LINE,
    MARKS,
    READERS,
    SCRATCH,
    Reader,
    broken,
    mutate,
    outcome,
    place_of,
    show,
)
from ites.errors import ItesError
from ites.system import isolated

NEEDS = {"h36m cdf": "cdflib", "keypoints hdf5": "hdf5plugin"}
SEEDS = {}


@pytest.fixture(autouse=True, scope="module")
def in_this_process():
    """HDF5 sees broken files in this process: the checks are tested, not the child around them."""
    isolated._inside = True
    yield
    isolated._inside = False


@pytest.fixture(scope="module")
def folder():
    with tempfile.TemporaryDirectory(dir=SCRATCH) as home:
        yield Path(home)


def seeds_of(name):
    if name in NEEDS:
        pytest.importorskip(NEEDS[name], reason=f"{NEEDS[name]} is not installed")
    if name not in SEEDS:
        SEEDS[name] = READERS[name].seeds()
    return SEEDS[name]


@pytest.mark.parametrize("name", READERS)
def test_the_seeds_are_read(name, folder):
    for files in seeds_of(name):
        assert outcome(READERS[name], place_of(folder, files)) == ("read", "")


@pytest.mark.parametrize("name", READERS)
@settings(
    max_examples=200,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)
@given(index=st.integers(0, 2**32 - 1))
def test_a_broken_file_is_read_or_refused_in_a_line(name, folder, index):
    files = broken(name, index, seeds_of(name))
    what, text = outcome(READERS[name], place_of(folder, files))
    assert what in ("read", "refused"), f"input {index}: {what}: {text}"


def test_outcomes(tmp_path):
    path = tmp_path / "file.npz"

    def verdict(error):
        def read(path):
            raise error

        return outcome(Reader(list, read), path)[0]

    assert verdict(ItesError(f"{path}: expected an array, got none")) == "refused"
    assert verdict(ItesError("expected an array, got none")) == "no file name"
    assert verdict(KeyError("positions")) == "raw traceback"
    assert verdict(MemoryError()) == "raw traceback"
    huge = ItesError()
    huge.args = (f"{path} " + "x" * LINE,)
    assert verdict(huge) == "huge message"


def test_an_input_is_the_same_in_every_run():
    seeds = [{"a.bvh": b"HIERARCHY ROOT hips { OFFSET 0 0 0 }\n" * 20}]
    assert broken("bvh", 7, seeds) == broken("bvh", 7, seeds)
    assert broken("bvh", 7, seeds) != broken("bvh", 8, seeds)
    assert mutate(random.Random(1), seeds[0]) != seeds[0]


def test_the_table_has_a_row_per_reader_and_the_sums(tmp_path):
    rows = [{key: 1 for key in COLUMNS} | {"reader": name, "inputs": 1200} for name in "ab"]
    page = tmp_path / "page.md"
    page.write_text(f"before\n{MARKS[0]}\nold\n{MARKS[1]}\nafter\n")
    show(rows, page)
    lines = page.read_text().splitlines()
    assert lines[0] == "before" and lines[-1] == "after" and "old" not in lines
    assert lines[4].startswith("| a | 1,200 | 1 |")
    assert lines[6].startswith("| all | 2,400 | 2 |")
