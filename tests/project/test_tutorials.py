"""Each tutorial's commands, as written, on inputs of seconds."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch.distributed as dist
from mpi_inf_3dhp_files import write_test, write_train
from own_clips import TINY, write_clips
from people import scored, walk

import ites
from ites.cli.main import main
from ites.data.lifted import read_settings
from ites.runs import packaged
from ites.training.log import quiet_console

ROOT = Path(__file__).parents[2]
PAGES = ROOT / "docs/tutorials"
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)
SMALL = {
    "fit": "--steps 2 --device cpu",
    "train": "--steps 2 --device cpu --set width=8 --set blocks=1",
    "lift": "--device cpu",
    "evaluate": "--device cpu",
    "synthetic": "--fps 10 --seconds 2 --subjects 2 --test-subjects 1",
}
"""What a command gets in addition, so that it takes seconds; an option given twice counts last."""


def blocks(page: str) -> Iterator[tuple[str, str]]:
    """The language and text of each fenced block that is to be run."""
    for language, text in BLOCK.findall((PAGES / page).read_text(encoding="utf-8")):
        assert language in ("sh", "python", "text"), f"{page}: a block of {language!r}"
        if language != "text":
            yield language, text


def follow(page: str) -> None:
    """Run all blocks of a page in the present folder."""
    names: dict[str, object] = {}
    for language, text in blocks(page):
        if language == "python":
            exec(compile(text, page, "exec"), names)
            continue
        for line in text.splitlines():
            run(shlex.split(line, comments=True))


def run(words: list[str]) -> None:
    """Run one command of a page."""
    if words[0] == "pip":
        return
    kind = next((word for word in words if word in SMALL), "")
    words = words + SMALL.get(kind, "").split()
    if "--poses" in words:
        words[words.index("--poses") + 1] = "600"
    if "--resume" in words:  # its sizes are those of the run
        words = words[: words.index("--resume") + 2]
    if words[0] == "torchrun":
        command = [sys.executable, "-m", "torch.distributed.run", *words[1:]]
        done = subprocess.run(
            command, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)}
        )
        assert done.returncode == 0, f"{shlex.join(words)}\n{done.stdout}\n{done.stderr}"
        return
    assert words[0] == "ites", f"a tutorial runs {words[0]}"
    try:
        main(words[1:])
        code = 0
    except SystemExit as stop:
        code = stop.code
    assert code in (0, None), shlex.join(words)


@pytest.fixture(scope="module")
def general(tmp_path_factory) -> Path:
    """A run of recipe upright, learned in a few steps."""
    folder = tmp_path_factory.mktemp("general")
    files = write_clips(folder)
    ites.fit(files, folder / "run", start=None, console=quiet_console(), **TINY)
    return folder / "run"


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch) -> Path:
    """An empty folder to work in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_every_tutorial_is_tested_and_linked() -> None:
    pages = {path.name for path in PAGES.glob("*.md")}
    tested = re.findall(r'follow\("([\w-]+\.md)"\)', Path(__file__).read_text(encoding="utf-8"))
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert pages == set(tested) == set(re.findall(r"docs/tutorials/([\w-]+\.md)", readme))
    for page in pages:
        text = (PAGES / page).read_text(encoding="utf-8")
        assert text.startswith("# ") and list(blocks(page)), page
        for target in re.findall(r"\]\(([^)#]+)", text):
            assert (PAGES / target).is_file(), f"{page}: {target}"


def test_keypoints_to_blender(here, general, monkeypatch) -> None:
    pybvh, pygltflib = pytest.importorskip("pybvh"), pytest.importorskip("pygltflib")
    monkeypatch.setattr(packaged, "FOLDER", general)
    people = [
        {"image_id": frame, "category_id": 1, "score": 1.0, "keypoints": row}
        for frame, row in enumerate(scored(walk(frames=30)).reshape(30, -1).tolist())
    ]
    Path("walk.json").write_text(json.dumps(people))
    follow("blender.md")
    bvh = pybvh.read_bvh_file("walk.bvh")
    assert bvh.frame_count == 30 and bvh.frame_time == pytest.approx(1 / 25)
    (animation,) = pygltflib.GLTF2().load("walk.glb").animations
    assert animation.channels
    assert "<script" in Path("walk.html").read_text(encoding="utf-8")


def test_openpose_to_opensim(here, general, monkeypatch, capsys) -> None:
    trc = pytest.importorskip("trc")
    monkeypatch.setattr(packaged, "FOLDER", general)
    Path("openpose").mkdir()
    for frame, points in enumerate(scored(walk("body25", frames=30))):
        person = {"person_id": [-1], "pose_keypoints_2d": points.ravel().tolist()}
        name = f"openpose/walk_{frame:012d}_keypoints.json"
        Path(name).write_text(json.dumps({"version": 1.3, "people": [person]}))
    follow("opensim.md")
    assert "30 frames of ['pelvis'" in capsys.readouterr().out
    data = trc.TRCData()
    data.load("walk.trc")
    assert data["NumFrames"] == 30 and data["DataRate"] == 30 and len(data["Markers"]) == 17
    lowest = [min(place[1] for place in data[frame][1]) for frame in range(1, 31)]
    assert np.percentile(lowest, 5) == pytest.approx(0, abs=1e-4)  # few joints may be wrong


def test_a_fit_of_ones_own(here, capsys) -> None:
    Path("clips").mkdir()
    write_clips(Path("clips"))
    follow("fit.md")
    out = capsys.readouterr().out
    stage, word = "student", "do not use"
    if packaged.has_packaged_run():  # which a fit of few frames cannot make worse
        stage, word = "teacher", "use with care"
    assert f"Verdict: {word}\n" in out and f"32 poses by the {stage}" in out
    assert "measured without 3D" in Path("runs/mine/report.html").read_text(encoding="utf-8")
    assert Path("clip0.bvh").read_text().startswith("HIERARCHY")


def test_human36m_and_mpi_inf_3dhp(here, capsys) -> None:
    rng = np.random.default_rng(0)
    takes = {
        subject: {"Walking": rng.uniform(-0.5, 0.5, (60, 32, 3)) + [0, 0, 1]}
        for subject in ("S1", "S9", "S11")
    }
    np.savez("data_3d_h36m.npz", positions_3d=takes)
    folder = Path("mpi_inf_3dhp")
    write_train(folder)
    write_test(folder)
    follow("datasets.md")
    out = capsys.readouterr().out
    assert out.count("P-MPJPE") >= 3 and "PCK" in out
    assert Path("runs/h36m/student.safetensors").is_file()


def test_the_ops_alone(capsys) -> None:
    follow("ops.md")
    out = capsys.readouterr().out
    assert "torch.Size([128, 17, 2])" in out and "torch.Size([32, 17, 3])" in out
    assert "torch.Size([8, 17, 32])" in out
    assert "joints" in out.splitlines()[-1]


@pytest.mark.skipif(not dist.is_gloo_available(), reason="PyTorch without gloo")
def test_several_processes(here) -> None:
    follow("several-gpus.md")
    assert read_settings("lifted.h5")["poses"] == 200
    assert Path("runs/two/student.safetensors").is_file()
