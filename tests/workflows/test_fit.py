"""`ites.fit`: keypoints of one's own are split, trained on, measured without 3D and judged."""

from __future__ import annotations

import doctest
import json
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from own_clips import CLIPS, FRAMES, TINY, write_clips
from rich.console import Console
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from walking import walk

import ites
import ites.workflows.fit as workflow
from ites.data.clips import Clip
from ites.data.store import PoseStore, PoseStoreWriter
from ites.errors import ItesError
from ites.pose.camera import Camera
from ites.pose.skeleton import HUMAN36M, load_skeleton
from ites.runs import packaged
from ites.runs.folder import RunFolder
from ites.runs.settings import STAGES
from ites.training.log import quiet_console
from ites.workflows.fit_choice import Between
from ites.workflows.fit_data import Source, read_own, split, write_own
from ites.workflows.fit_settings import components, settings_for, settings_from


@pytest.fixture(scope="module", autouse=True)
def few_replayed():
    """Few synthetic poses beside one's own: these trainings take four steps."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(workflow, "REPLAYED", 120)
        yield


@pytest.fixture
def no_page(monkeypatch) -> None:
    """Without the page, which other tests look at, as where plotly is not installed."""
    monkeypatch.setattr(workflow, "find_spec", lambda _: None)


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> list[Path]:
    return write_clips(tmp_path_factory.mktemp("own"))


@pytest.fixture(scope="module")
def fitted(files, tmp_path_factory):
    """A fit from scratch, and its result."""
    run = tmp_path_factory.mktemp("fit") / "run"
    return ites.fit(files, run, start=None, console=quiet_console(), **TINY)


class Lines:
    """A file that keeps what is printed and acts at the first line that contains a word."""

    encoding = "utf-8"

    def __init__(self, word: str = "", act=None) -> None:
        self.text, self.word, self.act = "", word, act

    def write(self, text: str) -> int:
        self.text += text
        if self.act is not None and self.word in text:
            act, self.act = self.act, None
            act()
        return len(text)

    def flush(self) -> None:
        pass


def numbers(run: Path) -> dict[str, torch.Tensor]:
    """All weights of a run, by stage and name."""
    return {
        f"{stage}.{name}": tensor
        for stage in STAGES
        if RunFolder(run).weights(stage).is_file()
        for name, tensor in load_file(RunFolder(run).weights(stage)).items()
    }


def test_a_fit_leaves_a_run_a_report_and_a_verdict(fitted) -> None:
    assert fitted.verdict == "do not use" and not fitted.interrupted
    assert fitted.frames == (CLIPS * FRAMES - FRAMES, FRAMES)
    assert any(reason.startswith("too few frames: 128 to train on") for reason in fitted.reasons)
    assert list(fitted.figures) == ["student", "teacher", "flat"]
    flat = fitted.figures["flat"]
    assert flat["reprojection_px"] == pytest.approx(0, abs=1e-3) and flat["wrong_views"] == 0
    assert flat["reprojection_mm"] == pytest.approx(0, abs=1e-2)
    record = json.loads((fitted.run / "fit.json").read_text())
    assert record["verdict"] == "do not use" and record["frames"] == [128, 32]
    page = fitted.report.read_text()
    assert "Verdict: do not use" in page and "measured without 3D" in page
    summary = ites.lift(fitted.run / "keypoints.h5", fitted.run / "again.npz", run=fitted.run)
    assert summary["poses"] == FRAMES


def test_no_held_out_frame_is_trained_on(fitted) -> None:
    with PoseStore(fitted.run / "keypoints.h5") as store:
        own, held = (
            {sequence.subject for sequence in store.sequences_of(name)}
            for name in ("train", "test")
        )
    assert len(own) == CLIPS - 1 and len(held) == 1 and not own & held


def test_without_a_camera_all_people_have_one_size(fitted) -> None:
    """As lifting sizes each clip by itself where no camera is known."""
    with PoseStore(fitted.run / "keypoints.h5") as store:
        points, _ = store.points("train")
        assert all(camera.assumed for camera in store.cameras.values())
        heads = np.linalg.norm(points[:, HUMAN36M.head], axis=-1)
        for sequence in store.sequences_of("train"):
            assert heads[sequence.rows].mean() == pytest.approx(0.2, rel=0.02)


def test_a_complete_fit_is_not_trained_again(fitted, files) -> None:
    lines = Lines()
    before = RunFolder(fitted.run).state("student").stat().st_mtime_ns
    again = ites.fit(files, fitted.run, start=None, console=Console(file=lines), **TINY)
    assert "this fit is complete" in lines.text
    assert again == fitted and RunFolder(fitted.run).state("student").stat().st_mtime_ns == before


def killed() -> None:
    raise KeyboardInterrupt


@pytest.mark.usefixtures("no_page")
def test_a_killed_fit_continues_to_the_same_bits(fitted, files, tmp_path) -> None:
    run = tmp_path / "run"
    given = {**TINY, "checkpoint_every": 1, "start": None}
    for word in ("teacher 2/4", "5/5"):
        with pytest.raises(KeyboardInterrupt):
            ites.fit(files, run, console=Console(file=Lines(word, killed)), **given)
        assert not list(run.rglob("*.tmp*")) and "verdict" not in (run / "fit.json").read_text()
    result = ites.fit([], run, resume=True, console=quiet_console(), start=None)
    ours, theirs = numbers(run), numbers(fitted.run)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())
    assert result.figures == fitted.figures and result.reasons == fitted.reasons


@pytest.mark.usefixtures("no_page")
def test_an_interrupt_ends_with_whole_files_and_the_same_call_continues(files, tmp_path) -> None:
    lines = Lines("teacher 2/4", lambda: signal.raise_signal(signal.SIGINT))
    given = {**TINY, "start": None}
    first = ites.fit(files, tmp_path / "run", console=Console(file=lines), **given)
    assert first.interrupted and first.verdict == ""
    assert "the same command continues this fit" in lines.text
    second = ites.fit(files, tmp_path / "run", console=quiet_console(), **given)
    assert not second.interrupted and second.verdict == "do not use"


@pytest.mark.usefixtures("no_page")
def test_a_fit_starts_from_a_run(fitted, files, tmp_path) -> None:
    start = fitted.run
    given = {**TINY, "prior": {}, "teacher": {}, "student": {}}
    result = ites.fit(files, tmp_path / "run", start=start, console=quiet_console(), **given)
    assert list(result.figures) == ["student", "teacher", "start", "flat"]
    ours, theirs = Between(str(start), RunFolder(tmp_path / "run"), "teacher"), numbers(start)
    assert {f"teacher.{name}" for name in ours.fitted} <= theirs.keys()
    moved = (ours.fitted["input.weight"] - theirs["teacher.input.weight"]).abs().max()
    assert 0 < moved < 0.01  # a few steps at a low learning rate
    assert result.share in (0, 0.25, 0.5, 0.75, 1)


@pytest.fixture(scope="module")
def general(files, tmp_path_factory) -> Path:
    """A run of recipe general, whose cameras look down by 10 degrees."""
    folder = tmp_path_factory.mktemp("general")
    own = read_own(files, HUMAN36M, {})
    write_own(folder / "own.h5", own, split(own.sources, 0), lambda points: (10.0, 0.0))
    given = {**TINY, "components": 6, "atoms": 6, "recipe": "general"}
    del given["student"]
    ites.train(folder / "own.h5", folder / "run", console=quiet_console(), **given)
    return folder / "run"


@pytest.mark.usefixtures("no_page")
def test_a_fit_starts_from_a_run_of_recipe_general(general, files, tmp_path) -> None:
    """It has no student; its teacher estimates the elevations of the cameras."""
    given = {**TINY, "teacher": {}}
    del given["prior"], given["student"]
    result = ites.fit(files, tmp_path / "run", start=general, console=quiet_console(), **given)
    assert list(result.figures) == ["teacher", "start", "flat"]
    fitted, theirs = Between(str(general), RunFolder(tmp_path / "run"), "teacher"), numbers(general)
    kept = [name for name in fitted.fitted if "running" in name]
    assert len(kept) == 8 and all(
        torch.equal(fitted.fitted[name], theirs[f"teacher.{name}"]) for name in kept
    )
    assert not torch.equal(fitted.fitted["input.weight"], theirs["teacher.input.weight"])
    ours = numbers(tmp_path / "run")
    assert all(torch.equal(ours[name], theirs[name]) for name in ours if name.startswith("prior"))
    assert not RunFolder(tmp_path / "run").weights("student").exists()
    with PoseStore(tmp_path / "run/keypoints.h5") as store:
        gravity = store.gravity("train")
        assert gravity.shape == (128, 2) and np.isfinite(gravity).all()
        (first, *_) = store.sequences_of("train")
        assert (gravity[first.rows] == gravity[0]).all()


@pytest.mark.usefixtures("no_page")
def test_a_fit_that_is_worse_keeps_its_start(general, files, tmp_path) -> None:
    """A learning rate that destroys the weights: the start is kept and reported."""
    lines = Lines()
    ruin = {**TINY, "teacher": {"learning_rate": 0.03}}
    del ruin["prior"], ruin["student"]
    result = ites.fit(files, tmp_path / "run", start=general, console=Console(file=lines), **ruin)
    assert result.share == 0
    assert lines.text.count("The start is kept: no fit was better than it") == 2
    ours, theirs = numbers(tmp_path / "run"), numbers(general)
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())
    assert result.figures["teacher"] == result.figures["start"]
    record = json.loads((tmp_path / "run/fit.json").read_text())
    assert [found["share"] for found in record["chosen"]["candidates"]] == [0.25, 0.5, 0.75, 1]
    assert all(found["refused"] for found in record["chosen"]["candidates"])
    odds = RunFolder(tmp_path / "run").odds("teacher").read_text()
    assert json.loads(odds) == json.loads(RunFolder(general).odds("teacher").read_text())


def test_weights_between_two_runs(general, tmp_path) -> None:
    """A share of the way is a weighted mean; the fitted weights remain in the training's state."""
    run = RunFolder(shutil.copytree(general, tmp_path / "run"))
    state = load_file(run.state("teacher"))
    moved = {name: t + 1 if name.startswith("model.dict") else t for name, t in state.items()}
    with safe_open(run.state("teacher"), "pt") as file:
        text = {k: v for k, v in file.metadata().items() if k != "sha256"}
    save_file(moved, run.state("teacher"), text)
    start = numbers(general)["teacher.dictionary"]
    between = Between(str(general), run, "teacher")
    for share in (0.25, 0.0, 1.0):
        between.write(share)
        found = numbers(run.root)["teacher.dictionary"]
        torch.testing.assert_close(found, start + share, rtol=0, atol=1e-6)
        between = Between(str(general), run, "teacher")


def test_a_training_starts_with_the_weights_of_a_run(fitted, tmp_path) -> None:
    store = fitted.run / "keypoints.h5"
    ites.train(
        store, tmp_path / "run", start=fitted.run, learning_rate=0.0, console=quiet_console(),
        **{**TINY, "steps": 1, "components": 4, "atoms": 8}, recipe="upright",
    )  # fmt: skip
    ours, theirs = numbers(tmp_path / "run"), numbers(fitted.run)
    trained = [name for name in ours if name.endswith((".weight", ".bias", "dictionary"))]
    assert len(trained) > 30
    assert all(torch.equal(ours[name], theirs[name]) for name in trained)


@pytest.mark.parametrize(
    "start, skeleton, message",
    [
        ("nowhere", "human36m", "nowhere: expected a run folder to start from; there is none"),
        ("run", "coco17", "run: expected a teacher of coco17, got human36m"),
    ],
)
def test_a_start_that_cannot_be(fitted, files, tmp_path, start, skeleton, message) -> None:
    start = fitted.run if start == "run" else tmp_path / start
    with pytest.raises(ItesError, match=message):
        ites.fit(files, tmp_path / "out", start=start, skeleton=load_skeleton(skeleton))
    assert not (tmp_path / "out").exists()


def test_sizes_that_differ_from_the_start_are_refused(fitted, tmp_path) -> None:
    store = fitted.run / "keypoints.h5"
    with pytest.raises(ItesError, match="expected a prior of .*'width': 32.* to start from"):
        ites.train(
            store, tmp_path / "run", start=fitted.run, recipe="upright", only="prior", width=32,
            steps=1, console=quiet_console(),
        )  # fmt: skip


def test_another_fit_or_training_in_the_folder_is_refused(fitted, files, tmp_path) -> None:
    with pytest.raises(ItesError, match="holds a fit with other files; choose another folder"):
        ites.fit(files[1:], fitted.run, start=None, **TINY)
    with pytest.raises(ItesError, match="holds a fit with other fps, seed"):
        ites.fit(files, fitted.run, start=None, seed=1, fps=9.0, **TINY)
    (tmp_path / "teacher.safetensors").write_bytes(b"x")
    with pytest.raises(ItesError, match="holds a teacher already"):
        ites.fit(files, tmp_path, start=None)


@pytest.mark.parametrize(
    "given, message",
    [
        ({"files": ["no.json"]}, "no.json: expected a file of keypoints, or a folder"),
        ({"files": []}, "fit: expected files of keypoints, got none"),
        ({"files": [], "resume": True}, "expected the folder of an interrupted fit"),
        ({"teacher": {"atom": 3}}, "unknown setting 'atom'"),
        ({"atom": 3}, "no stage of prior, teacher, student has a setting 'atom'"),
    ],
)
def test_what_cannot_be_fitted_leaves_nothing(files, tmp_path, given, message) -> None:
    with pytest.raises(ItesError, match=message):
        ites.fit(**{"files": files, "out": tmp_path / "run", "start": None, **TINY, **given})
    assert not (tmp_path / "run").exists()


def test_too_few_frames_and_poses_that_never_change(files, tmp_path) -> None:
    with pytest.raises(ItesError, match=r"at least 2,000 frames .* got 64 of 64 frames in 2 files"):
        ites.fit(files[:2], tmp_path / "run")
    still = np.repeat(np.load(files[0])["keypoints"][:1], 200, axis=0)
    np.savez(tmp_path / "still.npz", keypoints=still, fps=12.0)
    with pytest.raises(ItesError, match="still.npz.*expected at least 30 different poses, got 1"):
        ites.fit(tmp_path / "still.npz", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def source(frames: int, sequence: str, start: int = 0, whole: int = 0) -> Source:
    points = np.arange(start, start + frames, dtype=np.float32)[:, None, None]
    clip = Clip(sequence, np.broadcast_to(points, (frames, 17, 2)), fps=25.0)
    camera = Camera("camera", (1000.0, 1000.0), (500.0, 500.0))
    return Source(clip, sequence, camera, start, whole or frames)


def test_people_of_one_video_are_held_out_together() -> None:
    sources = [source(100, f"video{number // 2}") for number in range(20)]
    for seed in range(5):
        own, held = split(sources, seed)
        assert (len(own), len(held)) == (18, 2)
        assert len({one.sequence for one in held}) == 1
        assert not {one.sequence for one in own} & {one.sequence for one in held}


def test_one_long_clip_is_cut_with_a_gap() -> None:
    """Also where it is in parts: the block and the gap are those of the whole clip."""
    for parts in ([source(1000, "a")], [source(500, "a", 0, 1000), source(499, "a", 501, 1000)]):
        own, held = split(parts, 0)
        assert max(one.clip.keypoints.max() for one in own) == 799
        assert min(one.clip.keypoints.min() for one in held) == 850
        assert sum(len(one.clip) for one in held) == 150


def test_frames_that_lack_joints_are_left_out(tmp_path) -> None:
    points = walk(160, fps=12.0).keypoints
    sure = np.ones(points.shape[:2], np.float32)
    sure[50, 3] = 0  # a short gap is filled
    sure[80:100, 3] = 0  # a long one is not
    sure[120, :9] = 0  # nor most of a person
    array = np.concatenate([points, sure[..., None]], axis=-1)
    np.savez(tmp_path / "a.npz", keypoints=array, fps=12.0, image_size=(1280, 960))
    own = read_own([tmp_path / "a.npz"], HUMAN36M, {})
    rows = {one.start + row for one in own.sources for row in range(len(one.clip))}
    assert 50 in rows and 82 in rows and not rows & set(range(83, 97)) and 120 not in rows
    assert any("frames left out: joints are missing or implausible" in n for n in own.notes)


def test_a_file_that_is_given_twice_counts_once(files) -> None:
    """Or its frames would be held out and trained on."""
    own = read_own([*files, files[1], files[0]], HUMAN36M, {})
    assert sum(len(source.clip) for source in own.sources) == CLIPS * FRAMES
    for file in files[:2]:
        words = f"{file}: clip {file.stem} is given twice; counted once"
        assert words in own.notes


def test_parts_of_one_video_are_held_out_together_without_their_common_frames(tmp_path) -> None:
    whole = walk(120, fps=12.0).keypoints
    for name, rows in (("a", slice(0, 80)), ("b", slice(60, 120))):
        np.savez(tmp_path / name, keypoints=whole[rows], fps=12.0, image_size=(1280, 960))
    own = read_own([tmp_path / "a.npz", tmp_path / "b.npz"], HUMAN36M, {})
    points = np.concatenate([source.clip.keypoints for source in own.sources])
    np.testing.assert_array_equal(points, whole)
    assert len({source.sequence for source in own.sources}) == 1
    assert any(
        "20 of 60 frames of clip b have the keypoints of frames of a" in n for n in own.notes
    )


def test_all_splits_of_a_store_are_read_with_their_cameras(tmp_path) -> None:
    centres = {"train": (300.0, 200.0), "test": (700.0, 400.0)}
    with PoseStoreWriter(tmp_path / "s.h5", HUMAN36M) as writer:
        for number, (name, centre) in enumerate(centres.items()):
            camera = Camera(name, (900.0, 900.0), centre, width=1280, height=960)
            points = walk(120, fps=12.0, turn=1.0 + number).keypoints
            writer.add(
                points, camera=writer.key_of(camera), subject=name, action="a", split=name, fps=12.0
            )
    own = read_own([tmp_path / "s.h5"], HUMAN36M, {})
    assert sum(len(source.clip) for source in own.sources) == 240
    assert "clips of all splits are read: train 1, test 1" in own.notes
    write_own(tmp_path / "own.h5", own, split(own.sources, 0))
    with PoseStore(tmp_path / "own.h5") as store:
        seen = {s.subject.split("/")[0]: store.cameras[s.camera].center for s in store.sequences}
    assert seen == centres


def test_settings_follow_from_the_amount_of_data() -> None:
    rng = np.random.default_rng(0)
    basis = rng.normal(size=(5, 34))
    points = (rng.normal(size=(2000, 5)) @ basis).reshape(-1, 17, 2)
    assert components(points, 0.999) == 5 and components(points[:, :, :1], 1.0) <= 17
    few, many = settings_for(points), settings_for(np.tile(points, (40, 1, 1)))
    assert (few["prior"]["batch"], few["prior"]["steps"], few["prior"]["width"]) == (128, 468, 64)
    assert few["prior"]["components"] == components(points, 0.99)
    assert many["prior"]["components"] == 5 and many["prior"]["width"] == 256
    assert (few["teacher"]["steps"], few["teacher"]["atoms"]) == (3125, 8)
    assert (many["prior"]["steps"], many["teacher"]["steps"]) == (1500, 4000)
    assert many["student"]["steps"] == 3000
    started = {"teacher": {"width": 64}, "prior": {}, "student": {}}
    further = settings_from(points, started, "upright")
    assert further["teacher"]["width"] == 64 and further["teacher"]["pilot_steps"] == 0
    assert further["teacher"]["learning_rate"] == 1e-4 and further["teacher"]["steps"] == 625
    general = settings_from(points, {"prior": {"width": 8}, "teacher": {"noise": 0.5}}, "general")
    assert list(general) == ["teacher"] and general["teacher"]["noise"] == 0.5
    assert general["teacher"]["steps"] == 1250 and general["teacher"]["batch_statistics"] == "kept"
    assert settings_from(points[:300], {"teacher": {}}, "general")["teacher"]["steps"] == 800
    assert "pilot_steps" not in general["teacher"]


def test_the_example_runs_as_written(files, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(packaged, "FOLDER", tmp_path / "none")  # from scratch, in small
    (example,) = doctest.DocTestFinder(recurse=False).find(ites.fit, "fit")
    monkeypatch.chdir(tmp_path)
    points = np.concatenate([np.load(file)["keypoints"] for file in files])
    for name, part in (("monday", points[:80]), ("tuesday", points[80:])):
        content = {"keypoints": part.tolist(), "fps": 12, "image_size": [1280, 960]}
        Path(f"{name}.json").write_text(json.dumps(content))
    fit = ites.fit
    monkeypatch.setattr(ites, "fit", lambda *a: fit(*a, **TINY, console=quiet_console()))
    names: dict[str, object] = {}
    for step in example.examples:
        exec(step.source, names)
    assert capsys.readouterr().out.startswith("do not use\n")
    assert names["summary"]["poses"] == 80
