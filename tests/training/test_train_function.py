"""`ites.train`: the whole recipe from Python."""

import doctest
from typing import Any

import h5py
import numpy as np
import pytest

import ites
from ites.data.store import PoseStore
from ites.errors import ItesError
from ites.runs.folder import RunFolder
from ites.training.log import quiet_console

TINY = {
    "steps": 3,
    "batch": 16,
    "teacher": {"width": 16, "blocks": 1},
    "student": {"width": 8, "blocks": 1},
    "console": quiet_console(),
}


def test_it_trains_the_stages_of_a_recipe_and_goes_on(motion, tmp_path) -> None:
    results = ites.train(motion, tmp_path / "run", **TINY)
    assert [(r.stage, r.step, r.interrupted) for r in results] == [
        ("teacher", 3, False),
        ("student", 3, False),
    ]
    assert RunFolder(tmp_path / "run").weights("student").is_file()
    with pytest.raises(ItesError, match="holds a teacher already"):
        ites.train(motion, tmp_path / "run", **TINY)
    again = ites.train(motion, tmp_path / "run", resume=True, console=quiet_console())
    assert [r.step for r in again] == [3, 3]


def test_a_resumed_training_takes_no_other_poses_and_no_other_recipe(motion, tmp_path) -> None:
    ites.train(motion, tmp_path / "run", **TINY)
    with PoseStore(motion) as store:
        keypoints = store.keypoints("train")
    other = tmp_path / "other.h5"
    other.write_bytes(motion.read_bytes())
    with h5py.File(other, "a") as file:
        file["poses/keypoints"][: len(keypoints)] *= 0.5
    for given, message in (
        ({"data": other}, "expected what .* was trained on"),
        ({"data": motion, "recipe": "upright"}, "holds none|recipe is 'paper' in this run"),
    ):
        with pytest.raises(ItesError, match=message):
            ites.train(out=tmp_path / "run", resume=True, console=quiet_console(), **given, steps=5)
    moved = tmp_path / "moved.h5"
    moved.write_bytes(motion.read_bytes())
    again = ites.train(moved, tmp_path / "run", resume=True, console=quiet_console())
    assert [r.step for r in again] == [3, 3]


def test_one_stage_of_recipe_upright(motion, tmp_path) -> None:
    (result,) = ites.train(
        motion,
        tmp_path / "run",
        recipe="upright",
        only="prior",
        steps=2,
        console=quiet_console(),
    )
    assert (result.stage, result.step) == ("prior", 2)


@pytest.mark.parametrize(
    "given, message",
    [
        ({"only": "pupil"}, "only must be one of prior, teacher, student, got 'pupil'"),
        ({"atom": 3}, "no stage of teacher, student has a setting 'atom'"),
        ({"teacher": 3}, "teacher: expected a text, got 3"),
        ({"teacher": {"atom": 3}}, "unknown setting 'atom'"),
        ({"recipe": "paper", "only": "teacher", "student": {}}, "no stage of teacher has"),
        (
            {"recipe": "paper", "start_elevation_weight": 77.0},
            "start_elevation_weight has no effect: the teacher of recipe paper does not use it",
        ),
        ({"recipe": "upright", "teacher": {"axes": "y"}}, "teacher.axes has no effect"),
    ],
)
def test_what_cannot_be_is_refused(motion, tmp_path, given, message) -> None:
    with pytest.raises(ItesError, match=message):
        ites.train(motion, tmp_path / "run", **given)
    assert not (tmp_path / "run").exists()


def test_a_file_names_the_recipe_and_changes_nothing_without_effect(motion, tmp_path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text('recipe = "upright"\nsteps = 2\n[prior]\nbatch = 16\n')
    (result,) = ites.train(
        motion, tmp_path / "run", config=file, only="prior", console=quiet_console()
    )
    assert result.stage == "prior"
    assert RunFolder(tmp_path / "run").settings.read_text().count('recipe = "upright"') == 1
    with pytest.raises(ItesError, match="no stage of prior, teacher, student has a setting 'atom'"):
        ites.train(motion, tmp_path / "other", config=file, atom=3)
    file.write_text('recipe = "upright"\n[teacher]\naxes = "y"\n')
    with pytest.raises(ItesError, match="mine.toml: teacher.axes has no effect"):
        ites.train(motion, tmp_path / "other", config=file, console=quiet_console())
    assert not (tmp_path / "other").exists()


def test_the_example_runs(motion, tmp_path, monkeypatch) -> None:
    """All lines of the docstring's example as written, but for the size of the training."""
    (example,) = doctest.DocTestFinder(recurse=False).find(ites.train, "train")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.h5").write_bytes(motion.read_bytes())
    with PoseStore(motion) as poses:
        np.savez("clip.npz", keypoints=poses.keypoints("test")[:12])
    lines = "".join(line.source for line in example.examples)
    small = lines.replace("4000", "2, 'width': 16, 'blocks': 1")
    small = small.replace("seed=0", "seed=0, steps=2, batch=16")
    assert small.count("16") == 2, lines
    names: dict[str, Any] = {}
    exec(small, names)
    assert [r.stage for r in names["results"]] == ["teacher", "student"]
    assert names["summary"]["poses"] == 12
