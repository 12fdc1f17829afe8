"""The variants of `benchmarks.accuracy`, and the rows of its recipes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.accuracy import recipes
from benchmarks.accuracy.variants import VARIANTS, write_variant
from ites.data.store import PoseStore
from ites.data.synthetic.synthetic import prepare_synthetic


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("variants") / "source.h5"
    prepare_synthetic(path, poses=4000, seed=1, fps=10.0)
    return path


def variant(source: Path, folder: Path, name: str) -> PoseStore:
    write_variant(name, source, folder / f"{name}.h5")
    return PoseStore(folder / f"{name}.h5")


def elevations(store: PoseStore) -> np.ndarray:
    """Degrees that each clip's camera stands above the mean pelvis."""
    found = []
    for clip in store.sequences:
        camera = store.cameras[clip.camera]
        positions = store.positions()
        assert positions is not None
        pelvis = camera.camera_to_world(positions[clip.rows].astype(np.float64))[:, 0].mean(0)
        offset = np.asarray(camera.translation) - pelvis
        found.append(np.degrees(np.arcsin(offset[2] / np.linalg.norm(offset))))
    return np.array(found)


def test_noise_has_its_size_and_leaves_the_truth(source: Path, tmp_path: Path) -> None:
    with PoseStore(source) as plain, variant(source, tmp_path, "noise10") as noisy:
        difference = noisy.keypoints() - plain.keypoints()
        assert difference.std() == pytest.approx(10, rel=0.02)
        assert np.array_equal(noisy.positions(), plain.positions())


def test_missing_joints_are_a_share_and_can_be_interpolated(source: Path, tmp_path: Path) -> None:
    with variant(source, tmp_path, "missing30") as store:
        confidence = store.confidence()
        assert confidence is not None
        assert (confidence == 0).mean() == pytest.approx(0.3, abs=0.01)
        assert np.isfinite(store.points("train", None, "interpolate")[0]).all()


@pytest.mark.parametrize(("name", "lowest", "highest"), [("level", 0, 0), ("down30", 30, 30)])
def test_cameras_stand_where_they_should(
    source: Path, tmp_path: Path, name: str, lowest: float, highest: float
) -> None:
    with variant(source, tmp_path, name) as store:
        np.testing.assert_allclose(elevations(store), (lowest + highest) / 2, atol=1e-3)
        positions = store.positions()
        assert positions is not None
        for clip in store.sequences:
            camera = store.cameras[clip.camera]
            middle = positions[clip.rows, 0].mean(0)  # it looks at the subject
            np.testing.assert_allclose(middle[:2], 0, atol=1e-4)
            pixels = camera.project(positions[clip.rows])
            np.testing.assert_allclose(pixels, store.keypoints()[clip.rows], atol=0.01)


def test_cameras_vary_by_clip(source: Path, tmp_path: Path) -> None:
    with variant(source, tmp_path, "varied") as store:
        found = elevations(store)
        assert found.min() > -1e-6 and found.max() < 30 + 1e-6 and found.std() > 5


def test_training_poses_are_thinned_and_test_poses_are_not(source: Path, tmp_path: Path) -> None:
    with PoseStore(source) as plain, variant(source, tmp_path, "poses10000") as thin:
        expected = len(plain.keypoints("train")) * 10_000 / 96_864
        assert len(thin.keypoints("train")) == pytest.approx(expected, rel=0.15)
        assert len(thin.keypoints("test")) == len(plain.keypoints("test"))


def test_the_mirrored_world_has_the_mirrored_truth(source: Path, tmp_path: Path) -> None:
    with PoseStore(source) as plain, variant(source, tmp_path, "mirrored") as mirror:
        ours, theirs = mirror.points("test", None)[0], plain.points("test", None)[0]
        np.testing.assert_allclose(ours[..., 0], -theirs[..., 0], atol=2e-3)  # the lens is not even
        positions, truth = mirror.positions(), plain.positions()
        assert positions is not None and truth is not None
        assert np.array_equal(positions * np.float32([-1, 1, 1]), truth)


def test_rows_name_variants_and_rows_that_are_there() -> None:
    for name, row in recipes.ROWS.items():
        assert row.data == "cmu" or row.data in VARIANTS, name
        for stage in ("prior", "teacher", "student"):
            other = getattr(row, stage)
            assert other is None or isinstance(other, dict) or other in recipes.ROWS, name


def test_a_row_is_trained_measured_and_written(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    small = {"steps": 3, "width": 16, "blocks": 1}
    monkeypatch.setattr(recipes, "RESULTS", tmp_path)
    rows = {
        "whole": recipes.Row(prior=small, teacher=small, student=small),
        "again": recipes.Row(prior="whole", teacher=small, student={**small, "steps": 2}),
    }
    monkeypatch.setattr(recipes, "ROWS", rows)
    for name in rows:
        for seed in (0, 1):
            recipes.save(name, recipes.run_row(name, seed, source, tmp_path / "runs"))
    recipes.show("again")
    shown = capsys.readouterr().out
    assert "again, teacher, 2 seeds" in shown and "again, student, 2 seeds" in shown
    lines = (tmp_path / "again.csv").read_text().splitlines()
    assert lines[0].startswith("seed,stage,steps,batch") and len(lines) == 5
    assert not (tmp_path / "runs/again/0/prior.safetensors").exists()
