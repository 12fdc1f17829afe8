"""Settings: defaults, files, options, messages."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from ites.errors import ItesError
from ites.runs.checkpoint import load_model
from ites.runs.packaged import FOLDER, has_packaged_run
from ites.runs.settings import (
    FORMER_NAMES,
    STAGES,
    StudentSettings,
    TeacherSettings,
    current_names,
    make_settings,
    read_toml,
    stages_of,
    write_toml,
)


def write(folder: Path, text: str) -> Path:
    path = folder / "run.toml"
    path.write_text(text)
    return path


def test_defaults_are_the_papers() -> None:
    teacher, student = TeacherSettings(), StudentSettings()
    assert (teacher.epochs, student.epochs) == (50, 40)
    assert (teacher.width, teacher.blocks, teacher.atoms) == (1024, 6, 12)
    assert (student.width, student.blocks) == (128, 4)
    assert (teacher.axes, teacher.max_angle) == ("xyz", math.pi)
    assert (student.axes, student.max_angle) == ("y", 2 * math.pi)
    assert (teacher.reprojection_weight, student.distillation_weight) == (5.0, 5.0)
    for settings in (teacher, student):
        assert (settings.batch, settings.samples, settings.learning_rate) == (128, 4, 1e-3)
        assert (settings.momentum, settings.weight_decay, settings.halve_every) == (0.9, 5e-4, 15)


def test_options_win_over_table_over_top(tmp_path: Path) -> None:
    path = write(
        tmp_path, "seed = 1\nbatch = 32\nsamples = 2\natoms = 5\n[teacher]\nbatch = 64\nsteps = 9\n"
    )
    teacher = make_settings("teacher", path, {"steps": 7, "width": None})
    assert (teacher.seed, teacher.batch, teacher.samples, teacher.steps) == (1, 64, 2, 7)
    assert isinstance(teacher, TeacherSettings) and teacher.atoms == 5
    student = make_settings("student", path)
    assert (student.seed, student.batch, student.steps) == (1, 32, 0)


def test_written_settings_are_read_back(tmp_path: Path) -> None:
    teacher = TeacherSettings(data='a "b"\\ü.h5', learning_rate=1e-5, steps=3)
    student = StudentSettings(teacher="runs/a", seed=4)
    write_toml(tmp_path / "settings.toml", [teacher, student])
    assert make_settings("teacher", tmp_path / "settings.toml") == teacher
    assert make_settings("student", tmp_path / "settings.toml") == student
    assert list(tmp_path.iterdir()) == [tmp_path / "settings.toml"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lerning_rate = 1", "unknown setting 'lerning_rate'; the nearest known one is 'learning_"),
        (
            "[teacher]\nbacth = 1",
            "[teacher]: unknown setting 'bacth'; the nearest known one is 'ba",
        ),
        ("[teacher]\nteacher = 'x'", "[teacher]: unknown setting 'teacher'"),
        ("[techer]\nbatch = 1", "unknown setting 'techer'; the nearest known one is 'teacher'"),
        ("teacher = 'x'", "expected a table [teacher], got teacher = 'x'"),
        ("batch = 12.5", "batch: expected a whole number, got 12.5"),
        ("batch = true", "batch: expected a whole number, got True"),
        ("batch = '8'", "batch: expected a whole number, got '8'"),
        ("batch = 1", "batch: expected a whole number of at least 2, got 1"),
        ("seed = 9223372036854775808", "seed: expected a whole number below 2^63"),
        ("learning_rate = nan", "learning_rate: expected a number of at least 0, got nan"),
        ("learning_rate = 'fast'", "learning_rate: expected a number, got 'fast'"),
        (
            "precision = 'half'",
            "precision: expected one of float32, float64, tf32, bf16, got 'half'",
        ),
        ("data = 3", "data: expected a text, got 3"),
        ("batch = ", "not a TOML file"),
    ],
)
def test_a_wrong_file_says_so_in_one_line(tmp_path: Path, text: str, message: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(ItesError) as caught:
        make_settings("teacher", path)
    assert str(caught.value).startswith(f"{path}: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_absent_file_and_unknown_option(tmp_path: Path) -> None:
    with pytest.raises(ItesError, match=r"no\.toml: cannot read the settings"):
        read_toml(tmp_path / "no.toml")
    with pytest.raises(
        ItesError, match="unknown setting 'widht'; the nearest known one is 'width'"
    ):
        make_settings("student", None, {"widht": 3})
    assert make_settings("student", None, {"learning_rate": 1}).learning_rate == 1.0


def test_former_names_still_work(tmp_path: Path) -> None:
    path = write(tmp_path, "level_steps = 9\n[teacher]\nlevel_weight = 3")
    teacher = make_settings("teacher", path)
    assert (teacher.start_elevation_weight, teacher.start_elevation_steps) == (3.0, 9)
    assert make_settings("teacher", None, {"level_steps": 7}).start_elevation_steps == 7
    assert current_names({"teacher": {"level_steps": 7}, "batch": 8}) == {
        "teacher": {"start_elevation_steps": 7},
        "batch": 8,
    }
    path = write(tmp_path, "[teacher]\nlevel_weight = 3\nstart_elevation_weight = 4")
    with pytest.raises(ItesError, match="level_weight is the former name of start_elevation_w"):
        make_settings("teacher", path)
    assert not FORMER_NAMES.keys() & {n for kind in STAGES.values() for n in kind.names()}


@pytest.mark.parametrize(
    "text",
    [
        "learning_rate = " + "[" * 5000,
        "learning_rate = " + "[" * 500 + "]" * 500,
        "batch = " + "9" * 5000,
        "batch = 64\nbatch = 65",
        "\x00",
        "[teacher]\nbatch = " + repr("x" * 5000),
    ],
)
def test_hostile_settings_are_one_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "x.toml"
    path.write_text(text)
    with pytest.raises(ItesError) as caught:
        make_settings("teacher", path)
    line = str(caught.value)
    assert path.name in line and len(line) <= 300 and line.isprintable()


def test_the_general_recipe_is_the_one_that_made_the_packaged_model() -> None:
    """Without a file it has the settings of `recipes/general.toml`, and of the model's own run."""
    file = Path(__file__).parents[2] / "recipes" / "general.toml"
    for stage in stages_of("general"):
        places = {"data": "field.h5", "out": "general", "recipe": "general"}
        own = make_settings(stage, None, places).to_dict()
        assert own == make_settings(stage, file).to_dict()
    if has_packaged_run():
        trained = load_model(FOLDER, "teacher")[1].settings
        for name in ("steps", "batch", "pair_start", "width", "blocks", "atoms", "learning_rate"):
            assert trained[name] == make_settings("teacher", file).to_dict()[name], name
    short = make_settings("teacher", None, {"recipe": "general", "steps": 1000})
    assert short.to_dict()["pair_start"] == 450


@pytest.mark.parametrize("name", ["momentum", "replay_share"])
def test_a_share_of_one_is_refused(name):
    with pytest.raises(ItesError, match=f"{name}: expected a number below 1, got 1.0"):
        make_settings("teacher", None, {name: 1.0})


def test_a_prior_without_couplings_is_refused():
    with pytest.raises(ItesError, match="blocks: expected a whole number of at least 1, got 0"):
        make_settings("prior", None, {"recipe": "general", "blocks": 0})
