"""`ites inspect`, and what lifting and preparing say of implausible keypoints."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.main import get_command
from walking import JOINT, turned, walk

import ites
from ites.cli.hints import MISTAKES, OPTIONS, hint, hint_of
from ites.cli.main import app, main
from ites.data.checks import check
from ites.data.findings import CODES
from ites.data.keypoint_reader import read_keypoints
from ites.data.lifted import read_clips
from ites.data.store import PoseStoreWriter
from ites.errors import ItesError
from ites.inference.likely import density_of
from ites.models import Student
from ites.pose.camera import Camera
from ites.pose.skeleton import HUMAN36M, Skeleton
from ites.runs.checkpoint import Metadata, save_model
from ites.runs.settings import STAGES

LIBRARY = Path(ites.__file__).parent


def ites(*words: object) -> int:
    """The exit code of a command run in this process."""
    try:
        main([str(word) for word in words])
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A student that has learned nothing."""
    torch.manual_seed(0)
    metadata = Metadata(kind="student", skeleton=HUMAN36M, scale=1.5)
    save_model(tmp_path / "run/student.safetensors", Student(width=16, blocks=1), metadata)
    return tmp_path / "run"


def saved(path: Path, points: np.ndarray, **more: object) -> Path:
    np.savez(path, keypoints=points, **more)  # type: ignore[arg-type]
    return path


def test_what_is_right(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clip = walk()
    file = saved(tmp_path / "a.npz", clip.keypoints, fps=25.0, image_size=(1280, 960))
    assert ites("inspect", file) == 0
    output = " ".join(capsys.readouterr().out.split())
    for part in (
        "arrays, joints in the order human36m",
        "1 clip of one person each, 60 frames, 25 frames per second, image 1280 x 960 px",
        "0-59",
        "nothing looks wrong",
    ):
        assert part in output


def test_gaps_and_what_joints_are_made_of(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(0)
    points = rng.uniform(300, 400, (20, 17, 3))
    points[..., 2] = 0.8
    points[5:8] = 0
    points[:, [1, 2], 2] = 0  # the eyes are never seen
    assert ites("inspect", saved(tmp_path / "a.npz", points), "--layout", "coco17") == 0
    rows = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert any("0-19 │ 3 │ 3 │ 75%" in row for row in rows)
    assert any("right_knee │ right_knee │ 85% │ 0.80" in row for row in rows)
    (head,) = (row for row in rows if "│ head │" in row)
    assert "left_ear" in head and "eye" not in head


def test_findings_are_no_failure_and_name_an_option(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clip = turned(walk(), 1)
    file = saved(tmp_path / "a.npz", clip.keypoints, image_size=clip.image_size)
    assert ites("inspect", file) == 0
    assert "warning: a: the person lies on the side, head to the right" in (
        output := capsys.readouterr().out
    )
    assert "(--rotate 270)" in output
    assert ites("inspect", file, "--rotate", 270) == 0
    assert "nothing looks wrong" in capsys.readouterr().out


def test_what_cannot_be_right_is_reported_and_what_cannot_be_read_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = saved(tmp_path / "small.npz", walk().keypoints / [1280, 960])
    depth = np.random.default_rng(0).normal(0, 0.1, (60, 17, 1))
    deep = saved(tmp_path / "deep.npz", np.concatenate([walk().keypoints, depth], -1))
    assert ites("inspect", small, deep) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{small}: keypoints"
    assert "normalised" in lines[1] and lines[1].endswith("(--image-size WIDTH HEIGHT)")
    assert lines[3] == f"{deep}: keypoints"
    assert lines[4].startswith("error: confidence must lie in 0..1")
    assert ites("inspect", small, "--image-size", 1280, 960) == 0
    assert "nothing looks wrong" in capsys.readouterr().out
    (tmp_path / "b.json").write_text("[{")
    assert ites("inspect", tmp_path / "b.json") == 2
    assert "b.json" in capsys.readouterr().err


def test_lifting_warns_and_its_options_correct(
    tmp_path: Path, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clip = walk()
    up = saved(tmp_path / "up.npz", clip.keypoints * [1, -1] + [0, 960], image_size=(1280, 960))
    assert ites("lift", run, up, "-o", tmp_path / "a.npz", "--device", "cpu") == 0
    output = capsys.readouterr().err
    assert "warning: up: the person is upside down in 60 of 60 frames" in output
    assert output.rstrip().endswith("(--flip-y, or --rotate 180)")
    right = ("-o", tmp_path / "b.npz", "--device", "cpu", "--flip-y")
    assert ites("lift", run, up, *right) == 0
    assert capsys.readouterr().err == ""
    lifted = read_clips(tmp_path / "b.npz").clips[0]
    np.testing.assert_allclose(lifted.keypoints, clip.keypoints, atol=1e-3)


def test_lifting_a_sideways_video_knows_its_image_size(tmp_path: Path, run: Path) -> None:
    clip = turned(walk(), 1)
    file = saved(tmp_path / "side.npz", clip.keypoints)
    turn = ("--rotate", 270, "--image-size", 960, 1280, "--device", "cpu")
    assert ites("lift", run, file, "-o", tmp_path / "a.npz", *turn) == 0
    lifted = read_clips(tmp_path / "a.npz").clips[0]
    assert lifted.image_size == (1280, 960)
    np.testing.assert_allclose(lifted.keypoints, walk().keypoints, atol=1e-3)


def test_lifting_refuses_what_cannot_be_right(
    tmp_path: Path, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    metres = saved(tmp_path / "metres.npz", 3 + walk().keypoints / 250)
    assert ites("lift", run, metres, "-o", tmp_path / "a.npz", "--device", "cpu") == 2
    line = capsys.readouterr().err.strip()
    assert line.startswith(f"ites: {metres}: coordinates are no pixels") and len(line) <= 300
    assert sorted(path.name for path in tmp_path.iterdir()) == ["metres.npz", "run"]


def test_lifting_checks_the_rate_and_the_camera_that_are_stated(
    tmp_path: Path, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = saved(tmp_path / "a.npz", walk().keypoints, fps=0.04)
    assert ites("lift", run, file, "-o", tmp_path / "b.npz", "--device", "cpu") == 0
    told = capsys.readouterr().err
    assert "warning: a: 0.04 frames per second: a time per frame, or another unit (--fps)" in told
    stated = ("--fps", 25, "--focal-length", 35, "--device", "cpu")
    assert ites("lift", run, file, "-o", tmp_path / "c.npz", *stated) == 0
    told = capsys.readouterr().err
    assert "frames per second" not in told
    assert "a focal length of 35 sees" in told and "(--focal-length in pixels, or" in told


def test_preparing_and_training_warn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wrist, points = JOINT["left_wrist"], walk().keypoints.copy()
    points[20:26, wrist] += [400, 0]
    sure = np.full((60, 17, 1), 0.9)
    sure[20:26, wrist] = 0.3
    file = saved(tmp_path / "a.npz", np.concatenate([points, sure], -1), fps=25.0)
    store = tmp_path / "a.h5"
    assert ites("prepare", "keypoints", file, "--layout", "human36m", "-o", store) == 0
    warning = "warning: a: joints far from the body in 6 of 60 frames (left_wrist; 20-25)"
    assert warning in (output := capsys.readouterr().err)
    assert "(--min-confidence 0.31)" in output
    more = ("--min-confidence", "0.31", "-o", tmp_path / "b.h5")
    assert ites("prepare", "keypoints", file, "--layout", "human36m", *more) == 0
    assert capsys.readouterr().err == ""
    small = ("--only", "teacher", "--steps", 1, "--recipe", "paper", "--device", "cpu")
    assert ites("train", "--data", store, "--out", tmp_path / "r", *small) == 0
    assert "joints far from the body in 6 of 60 frames" in capsys.readouterr().err
    assert len(read_keypoints(store).clips) == 1


def test_every_fault_has_an_option() -> None:
    assert set(OPTIONS) | {"depth", "degenerate"} == set(CODES)
    assert hint("order", {"best": "coco17"}) == "--layout coco17"
    assert hint("guessed", {"confidence": 0.04}) == "--min-confidence 0.05"
    assert hint("degenerate") == ""


def test_every_kind_of_mistake_has_an_option() -> None:
    sources = [path.read_text() for path in LIBRARY.rglob("*.py")]
    codes = {code for text in sources for code in re.findall(r'code="([a-z-]+)"', text)}
    assert codes == set(MISTAKES)
    assert (
        hint_of(ItesError("a", code="no-teacher")) == " (--set student.teacher=RUN names another)"
    )
    assert hint_of(ItesError("a")) == ""


def test_hints_name_options_and_settings_that_exist() -> None:
    def options(command: object) -> set[str]:
        own = {name for one in command.params for name in one.opts}  # type: ignore[attr-defined]
        return own.union(*map(options, getattr(command, "commands", {}).values()))

    hints = " ".join([*OPTIONS.values(), *MISTAKES.values()])
    assert set(re.findall(r"--[a-z-]+", hints)) <= options(get_command(app))
    named = re.findall(r"--set (?:(\w+)\.)?(\w+)=", hints)
    assert len(named) == hints.count("--set ")
    for stage, name in named:
        kinds = [STAGES[stage]] if stage else STAGES.values()
        assert any(name in kind.__dataclass_fields__ for kind in kinds)


def test_the_general_models_prior_judges_by_default(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = saved(tmp_path / "a.npz", walk().keypoints, fps=25.0, image_size=(1280, 960))
    asked: list[object] = []

    def unlikely(run: Path | None, _: object) -> object:
        asked.append(run)
        return lambda points: np.full(len(points), -999.0)

    monkeypatch.setattr("ites.inference.likely.density_of", unlikely)
    assert ites("inspect", file) == 0
    assert "resemble none that the model was trained on" in capsys.readouterr().out
    assert asked == [None]
    assert ites("prepare", "keypoints", file, "--out", tmp_path / "own.h5") == 0
    assert "resemble none that the model was trained on" in capsys.readouterr().err
    assert asked == [None, None]


def test_the_general_models_prior_knows_legs_from_arms() -> None:
    """By its own limit; geometry alone sees nothing wrong in some of these clips."""
    density = density_of()
    if density is None:
        pytest.skip("this installation contains no model")
    clip = walk()
    assert not {"density"} & {f.code for f in check([clip], prior=density)}
    order = list(range(17))
    for arm, leg in ((12, 5), (13, 6), (15, 2), (16, 3)):
        order[arm], order[leg] = leg, arm
    wrong = replace(clip, keypoints=clip.keypoints[:, order])
    points = wrong.keypoints - wrong.keypoints[:, :1]
    assert np.median(density(points)) < density.floor < np.median(density(points[:, order]))


def test_a_prior_of_another_skeleton_does_not_judge() -> None:
    hand = Skeleton("hand", ("wrist", "a", "b"), (-1, 0, 1), head=2)
    assert density_of(None, hand) is None


def test_all_splits_of_a_store_are_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    camera = Camera("c", (900.0, 900.0), (640.0, 480.0), width=1280, height=960)
    with PoseStoreWriter(tmp_path / "s.h5", HUMAN36M) as writer:
        for number, split in enumerate(("train", "train", "test", "val")):
            points = walk(turn=0.5 + number).keypoints
            writer.add(
                points, camera=writer.key_of(camera), subject=f"s{number}", action="a", split=split,
                fps=25.0,
            )  # fmt: skip
    assert ites("inspect", tmp_path / "s.h5") == 0
    output = " ".join(capsys.readouterr().out.split())
    assert "4 clips of one person each" in output
    assert "clips of all splits are read: train 2, test 1, val 1" in output
    for options, following in (((), "ites train"), (("--split", "mine"), "ites lift")):
        assert (
            ites("prepare", "keypoints", tmp_path / "s.h5", "-o", tmp_path / "o.h5", *options) == 0
        )
        assert f"next: {following} " in capsys.readouterr().out


def test_an_output_may_end_in_capitals(tmp_path: Path, run: Path) -> None:
    """It was accepted before the lift and refused after it."""
    clip = walk()
    file = saved(tmp_path / "a.npz", clip.keypoints, fps=25.0, image_size=(1280, 960))
    for name in ("b.NPZ", "b.H5", "b.BVH"):
        assert ites("lift", file, "--run", run, "-o", tmp_path / name, "--device", "cpu") == 0
        assert (tmp_path / name).stat().st_size > 1000
    assert ites("view", tmp_path / "b.NPZ", "--png", tmp_path / "c.PNG") == 0
    assert len(read_clips(tmp_path / "b.H5").clips[0]) == len(clip)
