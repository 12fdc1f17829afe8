"""The command line: help, mistakes, and the path of a user from synthetic data to a page."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

from ites.cli.main import main
from ites.data.store import PoseStore

COMMANDS = (
    "demo",
    "prepare cmu",
    "prepare h36m",
    "prepare keypoints",
    "prepare synthetic",
    "train prior",
    "train teacher",
    "train student",
    "train both",
    "evaluate",
    "lift",
    "view",
    "report",
    "convert",
    "conformance",
    "doctor",
)


def run(*arguments: object) -> int:
    """The exit code of a command run in this process."""
    try:
        main([str(a) for a in arguments])
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_an_example(command, capsys):
    assert run(*command.split(), "--help") == 0
    assert f"Example: ites {command}" in " ".join(capsys.readouterr().out.split())


def test_help_of_both_stages_gives_the_papers_defaults(capsys):
    assert run("train", "both", "--help") == 0
    text = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "Poses a step (default 128)." in text
    assert "(default paper)." in text


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
    assert follow == "next: ites train both --data m.h5 --out runs/m --missing interpolate"
    small = [f"--{stage}-{name}" for stage in ("prior", "teacher", "student")
             for name in ("steps", "width", "blocks")]  # fmt: skip
    sizes = [value for name in small for value in (name, 16 if "width" in name else 2)]
    assert run(*follow.split()[2:], *sizes) == 0
    follow = capsys.readouterr().out.splitlines()[-1]
    assert follow == "next: ites lift runs/m m.h5 -o runs/m/lifted.npz"
    assert run(*follow.split()[2:]) == 0
    out = capsys.readouterr().out
    assert "320 poses in 25 clips lifted by the student" in out
    assert out.splitlines()[-1] == "next: ites view runs/m/lifted.npz"
    alone = ("prior", "--data", "m.h5", "--out", "runs/p", "--missing", "drop", "--steps", 2)
    assert run("train", *alone) == 0
    follow = "next: ites train teacher --recipe upright --data m.h5 --out runs/p --missing drop"
    assert capsys.readouterr().out.splitlines()[-1] == follow


def test_from_synthetic_motion_to_a_page(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run("prepare", "synthetic", "--poses", 800, "--fps", 10, "-o", "s.h5") == 0
    out = capsys.readouterr().out
    assert "train: poses 640, sequences 72, subjects 18 (P01 P02" in out and "with 3D" in out
    small = (
        "--teacher-width",
        16,
        "--teacher-blocks",
        1,
        "--student-width",
        8,
        "--student-blocks",
        1,
    )
    steps = ("--teacher-steps", 3, "--student-steps", 3)
    assert run("train", "both", "--data", "s.h5", "--out", "run", *small, *steps) == 0
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
    assert (tmp_path / "lifted.html").stat().st_size > 10**6
    assert (tmp_path / "run" / "report.html").is_file()


def test_own_keypoints_have_no_truth_and_that_is_said(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    clip = np.random.default_rng(0).uniform(100, 400, (40, 17, 3)).astype(np.float32)
    clip[..., 2] = 0.9
    np.savez("clip.npz", keypoints=clip)
    assert run("prepare", "keypoints", "clip.npz", "--layout", "coco17", "-o", "own.h5") == 0
    assert "train: poses 40, sequences 1" in (out := capsys.readouterr().out)
    assert "2D alone" in out
    small = [
        f"--{stage}-{name}={value}"
        for stage in ("prior", "teacher", "student")
        for name, value in (("width", 8), ("blocks", 1), ("steps", 2))
    ]
    assert run("train", "both", "--data", "own.h5", "--out", "run", *small) == 0
    out = capsys.readouterr().out
    assert "recipe upright: own.h5 holds no 3D, so 2D must tell the depth's sign" in out
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
    options = ("--width", 8, "--blocks", 1, "--steps", 2, "--data", "own.h5")
    assert run("train", "teacher", "--out", "a", *options) == 2
    assert "expected a trained prior" in capsys.readouterr().err
    (tmp_path / "paper.toml").write_text('recipe = "paper"\n')
    for out, more in (("b", ("--recipe", "paper")), ("c", ("--config", "paper.toml"))):
        assert run("train", "teacher", "--out", out, *options, *more) == 0
        assert "recipe paper, as asked for" in capsys.readouterr().out
