"""The command line: help, mistakes, and the path of a user from synthetic data to a page."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file
from typer.main import get_command

from ites.cli import doctor
from ites.cli.main import app, main
from ites.data.store import PoseStore
from ites.runs.settings import make_settings, stages_of


def commands() -> list[str]:
    """All commands, as they are typed, and the older spellings of `ites train`."""

    def below(command: Any, words: str) -> list[str]:
        kinds = getattr(command, "commands", None)
        if not kinds:
            return [words]
        return [w for name, one in kinds.items() for w in below(one, f"{words} {name}".strip())]

    return below(get_command(app), "")


def run(*arguments: object) -> int:
    """The exit code of a command run in this process."""
    try:
        main([str(a) for a in arguments])
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


@pytest.mark.parametrize("command", ["train", *commands()])
def test_help_has_an_example(command, capsys):
    assert run(*command.split(), "--help") == 0
    assert f"Example: ites {command}" in " ".join(capsys.readouterr().out.split())


def test_version_and_no_arguments(capsys):
    assert run("--version") == 0
    assert capsys.readouterr().out.startswith("ites 0.")
    assert run() in (0, 2)  # typer's help on an empty command line, by version
    out = capsys.readouterr().out
    assert "Commands" in out
    assert out.index("prepare ") < out.index("train ") < out.index("evaluate ")


@pytest.mark.parametrize(
    "arguments, message",
    (
        (("evaluate", "absent", "--data", "absent.h5"), "absent"),
        (("lift", "absent", "clip.npz", "-o", "out.npz"), "absent"),
        (("view", "absent.npz"), "absent.npz: no such file"),
        (("view", "."), ".: a folder, not a file"),
        (("train", "teacher", "--data", "absent.h5", "--out", "run"), "absent.h5: no such file"),
        (("conformance", "absent.npz"), "absent.npz: expected a golden npz file, got no file"),
        (("convert", "absent.pth", "--scale", "1"), "absent.pth"),
        (("prepare", "cmu", "absent.h5"), "absent.h5"),
        (("prepare", "h36m", "absent.npz"), "absent.npz"),
        (("prepare", "keypoints", "absent.npz"), "absent.npz"),
        (("prepare", "synthetic", "--fps", "-1"), "fps must be in [1, 1000], got -1.0"),
        (("report", "absent"), "absent"),
    ),
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_a_mistake_is_one_line(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run(*arguments) == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith("ites: ") and message in error and "\n" not in error
    assert not list(tmp_path.iterdir()), "a mistake left something behind"


def test_doctor_as_json(capsys):
    assert run("doctor", "--json") == 0
    findings = json.loads(capsys.readouterr().out)
    assert findings["versions"]["torch"] and findings["backends"]["cpu"]["rotate_project"]["chosen"]
    assert run("doctor") == 0
    assert "each op is run by" in capsys.readouterr().out


def test_doctor_names_the_ops_that_a_gpu_cannot_run():
    findings = doctor.examine()
    entry = {"chosen": "cuda", "refused": {"cpp": "no"}}
    newer = {"chosen": "reference", "refused": {"cpp": "no", "cuda": "it needs clusters"}}
    findings["backends"] = {"cpu": {"linear": entry, "linear_norm_relu": newer}}
    lines = doctor.describe(findings).splitlines()
    assert "  cuda cannot run linear_norm_relu here: it needs clusters" in lines
    assert "  cpp cannot run here: no" in lines


def test_import_is_quick():
    """`import ites` brings neither Triton nor anything else that is slow beyond torch."""
    slow = "torch", "triton", "h5py", "rich"
    code = f"import sys, ites; print([m for m in {slow} if m in sys.modules])"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"


def test_from_ones_own_keypoints_each_command_names_the_next(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run("prepare", "synthetic", "--poses", 400, "--fps", 10, "-o", "s.h5") == 0
    with PoseStore("s.h5") as store:
        keypoints = store.keypoints("train")
    (tmp_path / "clips").mkdir()
    for number, clip in enumerate(np.array_split(keypoints, 25)):
        seen = np.ones((*clip.shape[:2], 1))
        seen[1, 4] = number > 0  # in one frame of the first clip a joint is missing
        np.savez(f"clips/{number:02}.npz", keypoints=np.concatenate([clip, seen], axis=-1))
    capsys.readouterr()
    size = ("--image-size", 1000, 1000)
    assert run("prepare", "keypoints", "clips", "--layout", "human36m", *size, "-o", "m.h5") == 0
    title, split, _, *_, follow = capsys.readouterr().out.splitlines()
    assert "poses 320 (1 lack a joint), sequences 25, subjects 25 (00 01 02 " in split
    assert split.endswith(" 18 19 ...)")
    assert follow == "next: ites train --data m.h5 --out runs/m --missing interpolate"
    sizes = ["--steps", 2, "--set", "width=16", "--set", "blocks=2"]
    assert run(*follow.split()[2:], *sizes) == 0
    follow = capsys.readouterr().out.splitlines()[-1]
    assert follow == "next: ites lift runs/m m.h5 -o runs/m/lifted.npz"
    assert run(*follow.split()[2:]) == 0
    out = capsys.readouterr().out
    assert "320 poses in 25 clips lifted by the student" in out
    assert out.splitlines()[-1] == "next: ites view runs/m/lifted.npz"
    alone = "--only prior --data m.h5 --out runs/p --missing drop --steps 2"
    assert run("train", *alone.split()) == 0
    follow = (
        "next: ites train --only teacher --recipe upright --data m.h5 --out runs/p --missing drop"
    )
    assert capsys.readouterr().out.splitlines()[-1] == follow


def test_from_synthetic_motion_to_a_page(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run("prepare", "synthetic", "--poses", 800, "--fps", 10, "-o", "s.h5") == 0
    out = capsys.readouterr().out
    assert "train: poses 640, sequences 72, subjects 18 (P01 P02" in out and "with 3D" in out
    small = ("--set", "width=8", "--set", "teacher.width=16", "--set", "blocks=1", "--steps", 3)
    assert run("train", "--data", "s.h5", "--out", "run", *small) == 0
    out = capsys.readouterr().out
    assert "recipe paper: the published method, the default for data with 3D" in out
    assert "next: ites evaluate run --data s.h5" in out
    assert run("evaluate", "run", "--data", "s.h5") == 0
    out = capsys.readouterr().out
    assert "P-MPJPE" in out and "oracle" in out and "depth 0" in out
    assert run("lift", "run", "s.h5", "-o", "lifted.npz") == 0
    assert "next: ites view lifted.npz" in capsys.readouterr().out
    with np.load("lifted.npz", allow_pickle=False) as lifted:
        assert lifted["positions"].shape[1:] == (17, 3)
        assert np.isfinite(lifted["positions"]).all()
    pytest.importorskip("plotly")
    assert run("view", "lifted.npz") == 0
    assert run("report", "run") == 0
    assert "startViewer(root, dat" in (tmp_path / "lifted.html").read_text(encoding="utf-8")
    assert (tmp_path / "run" / "report.html").is_file()


def test_own_keypoints_have_no_truth_and_that_is_said(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    clip = np.random.default_rng(0).uniform(100, 400, (40, 17, 3)).astype(np.float32)
    clip[..., 2] = 0.9
    np.savez("clip.npz", keypoints=clip)
    assert run("prepare", "keypoints", "clip.npz", "--layout", "coco17", "-o", "own.h5") == 0
    assert "train: poses 40, sequences 1" in (out := capsys.readouterr().out)
    assert "2D alone" in out
    small = ("--set", "width=8", "--set", "blocks=1", "--steps=2")
    assert run("train", "--data", "own.h5", "--out", "run", *small) == 0
    out = capsys.readouterr().out
    assert "recipe upright: own.h5 holds no 3D, so 2D must determine the depth's sign" in out
    assert run("evaluate", "run", "--data", "own.h5", "--split", "train") == 0
    assert "evaluation is left out" in capsys.readouterr().out
    assert run("lift", "run", "clip.npz", "--layout", "coco17", "-o", "3d.npz", "--temporal") == 0
    assert "how far to trust each pose" in capsys.readouterr().out
    with np.load("3d.npz", allow_pickle=False) as lifted:
        assert lifted["sign_confidence"].shape == lifted["elevation"].shape == (40,)


def test_a_recipe_that_is_asked_for_is_taken(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    clip = np.random.default_rng(0).uniform(100, 400, (40, 17, 2)).astype(np.float32)
    np.savez("clip.npz", keypoints=clip)
    assert run("prepare", "keypoints", "clip.npz", "-o", "own.h5") == 0
    options = ("--set", "width=8", "--set", "blocks=1", "--steps", 2, "--data", "own.h5")
    assert run("train", "--only", "teacher", "--out", "a", *options) == 2
    assert "expected a trained prior" in capsys.readouterr().err
    (tmp_path / "paper.toml").write_text('recipe = "paper"\n')
    for out, more in (("b", ("--recipe", "paper")), ("c", ("--config", "paper.toml"))):
        assert run("train", "--only", "teacher", "--out", out, *options, *more) == 0
        assert "recipe paper, as asked for" in capsys.readouterr().out


def test_help_shows_the_defaults_of_the_recipe_that_would_run(capsys, tmp_path):
    def value(setting, *arguments):
        assert run("train", *arguments, "--help") == 0
        lines = [line.split() for line in capsys.readouterr().out.splitlines()]
        return [line[1] for line in lines if line[:1] == [setting]]

    assert value("atoms") == ["12"] and value("width") == ["1024", "128"]
    assert value("turn_weight") == []
    upright = ("--recipe", "upright")
    assert value("atoms", *upright) == ["30"] and value("width", *upright) == ["256", "512", "64"]
    assert value("turn_weight", *upright) == ["5"] and value("centre_epochs", *upright) == []
    (tmp_path / "c.toml").write_text("recipe = 'upright'\n[teacher]\natoms = 7\n")
    assert value("atoms", f"--config={tmp_path / 'c.toml'}") == ["7"]


def test_a_written_config_gives_the_same_settings(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for recipe in ("paper", "upright"):
        more = ("--recipe", recipe, "--seed", 5, "--set", "teacher.atoms=9", "--set", "batch=64")
        assert run("train", "--write-config", f"{recipe}.toml", *more) == 0
        assert f"next: ites train --config {recipe}.toml" in capsys.readouterr().out
        for stage in stages_of(recipe):
            given = {"recipe": recipe, "seed": 5, "batch": 64}
            given |= {"atoms": 9} if stage == "teacher" else {}
            assert make_settings(stage, f"{recipe}.toml") == make_settings(stage, None, given)
        values = [line for line in Path(f"{recipe}.toml").read_text().splitlines() if " = " in line]
        assert len(values) > 50 and all(re.search(r"  # \S.*\.$", line) for line in values)
        assert run("train", "--write-config", f"{recipe}.toml") == 2
        assert "exists already" in capsys.readouterr().err
    assert "turn_weight" not in Path("paper.toml").read_text()


@pytest.mark.parametrize(
    "arguments, message",
    (
        (("--set", "teacher.turn_weight=3"), "the teacher of recipe paper does not use it"),
        (("--set", "turn_weight=3"), "the teacher of recipe paper does not use it"),
        (("--set", "prior.steps=3"), "it belongs to the prior, and recipe paper trains"),
        (("--recipe", "upright", "--set", "centre_epochs=3"), "recipe upright does not use it"),
        (("--recipe", "upright", "--set", "teacher.halve_every=3"), "it needs decay = halve"),
        (("--only", "student", "--set", "teacher.atoms=3"), "it belongs to the teacher"),
        (("--set", "evaluate_split=test"), "it needs evaluate_every above 0"),
        (("--set", "teacher.atom=3"), "unknown setting 'atom'; the nearest known one is 'atoms'"),
        (("--set", "techer.atoms=3"), "expected one of prior, teacher, student, got 'techer'"),
        (("--set", "atoms"), "expected NAME=VALUE, such as teacher.atoms=30, got atoms"),
        (("--set", "atoms=many"), "--set atoms: atoms: expected a whole number, got 'many'"),
        (("--steps", -1), "--steps: steps: expected a whole number of at least 0, got -1"),
        (("both", "--prior-steps", 3), "it belongs to the prior"),
        (("both", "--techer-steps", 3), "unknown setting 'techer_steps'"),
        (("teacher", "--atoms"), "--atoms: expected a value, got none"),
        (("--seed", 1, "teacher"), "'teacher' must come before the options"),
        (("--resume", "r", "--write-config", "w"), "--write-config has no effect with --resume"),
        (("--resume", "r", "--out", "other"), "--out has no effect with --resume r"),
    ),
)
def test_what_has_no_effect_is_refused(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run("train", *arguments) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("ites: train: ") and message in error and len(error) <= 300
    assert not list(tmp_path.iterdir())


def test_a_file_with_a_setting_without_effect_is_refused(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("c.toml").write_text("[teacher]\nturn_weight = 3.0\n")
    assert run("train", "--config", "c.toml") == 2
    error = capsys.readouterr().err
    assert error == (
        "ites: c.toml: teacher.turn_weight has no effect: "
        "the teacher of recipe paper does not use it\n"
    )


def test_an_older_spelling_works_and_says_what_to_type(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run("prepare", "synthetic", "--poses", 400, "--fps", 10, "-o", "s.h5") == 0
    older = ["--teacher-width", 8, "--student-width=8", "--teacher-blocks", 1, "--batch", 64]
    older += ["--student-blocks", 1, "--teacher-steps", 2, "--student-steps", 2]
    capsys.readouterr()
    assert run("train", "both", "--data", "s.h5", "--out", "old", *older) == 0
    said = capsys.readouterr().out.splitlines()[0]
    assert said == (
        "ites train both is now: ites train --data s.h5 --out old --set teacher.width=8 "
        "--set student.width=8 --set teacher.blocks=1 --set batch=64 --set student.blocks=1 "
        "--set teacher.steps=2 --set student.steps=2"
    )
    today = said.replace("--out old", "--out new").split("is now: ites ")[1]
    assert run(*today.split()) == 0
    for stage in ("teacher", "student"):
        old, new = (Path(run, f"{stage}.safetensors") for run in ("old", "new"))
        assert tensors(old) == tensors(new)
    capsys.readouterr()
    alone = ["--data", "s.h5", "--out", "old", "--width", 8, "--teacher", "new"]
    assert run("train", "student", *alone) == 2
    said, error = capsys.readouterr()
    assert "--data s.h5 --out old --set student.width=8 --set student.teacher=new\n" in said
    assert error.startswith("ites: old: holds a student already")


def test_a_former_name_of_a_setting_is_translated(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    given = ("--set", "teacher.level_steps=9", "--recipe", "upright")
    assert run("train", *given, "--write-config", "new.toml") == 0
    said = capsys.readouterr().out.splitlines()[0]
    assert said == "the setting level_steps is now called start_elevation_steps"
    assert "start_elevation_steps = 9 " in Path("new.toml").read_text()


def tensors(path):
    return {name: tensor.tolist() for name, tensor in load_file(path).items()}


def test_help_needs_no_torch():
    code = (
        "import sys; sys.argv = ['ites', 'train', '--help']\n"
        "from ites.cli.main import main\n"
        "try: main()\n"
        "except SystemExit: print([m for m in ('torch', 'numpy', 'h5py') if m in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.splitlines()[-1] == "[]"
