"""`ites fit`: what it prints, and how it refuses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from own_clips import write_clips
from walking import walk

import ites
from ites.cli.main import main
from ites.training.log import quiet_console


def command(*words: object) -> int:
    """The exit code of a command run in this process."""
    try:
        main([str(word) for word in words])
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


def test_the_verdict_is_printed_and_the_same_command_is_done(tmp_path, capsys) -> None:
    files = write_clips(tmp_path)
    run = tmp_path / "run"
    given = [*files, "-o", run, "--start", "none", "--steps", "2", "--device", "cpu"]
    assert command("fit", *given) == 0
    out = capsys.readouterr().out
    for part in (
        "1/5  Reading 5 files of keypoints",
        "2/5  128 frames to train on, 32 held out",
        "People are seen from: front 25%",
        "3/5  Training from scratch",
        "teacher: 2 steps of 64 poses, atoms 8",
        "Verdict: do not use\n",
        "too few frames: 128 to train on, at least 2,000 are needed; add clips",
        f"report: {run / 'report.html'}",
        f"next: ites lift KEYPOINTS -o poses.bvh --run {run}",
    ):
        assert part in out
    assert command("fit", "--resume", "-o", run) == 0
    assert "this fit is complete" in capsys.readouterr().out


def test_warnings_are_those_of_lifting(tmp_path, capsys) -> None:
    """A video that stands on its head: the warning names the option, before any training."""
    points = walk(120).keypoints
    points[..., 1] = 960 - points[..., 1]
    np.savez(tmp_path / "a.npz", keypoints=points, fps=25.0, image_size=(1280, 960))
    fit = command(
        "fit", tmp_path / "a.npz", "-o", tmp_path / "run", "--steps", 1, "--start", "none"
    )
    assert fit == 0
    warning = capsys.readouterr().err
    assert "upside" in warning or "head" in warning
    assert "--flip-y" in warning


@pytest.mark.parametrize(
    "words, message",
    [
        ((), "fit: expected files of keypoints, got none"),
        (("no.json",), "no.json: expected a file of keypoints, or a folder; there is none"),
        (("clip0.npz",), "fit: expected at least 2,000 frames that show a whole person, got 32"),
        (("text.json",), "text.json: "),
        (("clip0.npz", "--start", "x"), "x: expected a run folder to start from; there is none"),
        (("clip0.npz", "--steps", "0"), "fit: Invalid value for '--steps'"),
        (("clip0.npz", "--rotate", "45"), "rotate must be one of 0, 90, 180, 270 degrees, got 45"),
        (("clip0.npz", "--skeleton", "cow"), "cow"),
        (("clip0.npz", "--image-size", "0", "0"), "image_size must be width and height"),
        (("--resume",), "run: expected the folder of an interrupted fit; it holds none"),
    ],
)
def test_mistakes_are_one_line(tmp_path, monkeypatch, capsys, words, message) -> None:
    monkeypatch.chdir(tmp_path)
    write_clips(Path())
    Path("text.json").write_text("{ no JSON")
    assert command("fit", *words) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1 and len(error) <= 301
    assert not Path("run").exists()


def test_two_fits_in_one_folder_are_refused(tmp_path, capsys) -> None:
    from ites.system.lock import lock

    files = write_clips(tmp_path)
    with lock(tmp_path / "run" / ".fit.lock", "a fit"):
        assert command("fit", *files, "-o", tmp_path / "run") == 2
    assert "run: another fit is going on in process" in capsys.readouterr().err
    with pytest.raises(ites.ItesError, match="expected the folder of an interrupted fit"):
        ites.fit([], tmp_path / "run", resume=True, console=quiet_console())
