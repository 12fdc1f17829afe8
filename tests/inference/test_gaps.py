"""A clip with gaps, lifted by a model that completes missing joints."""

from __future__ import annotations

from pathlib import Path

import numpy as np

import ites
from ites.data.store import PoseStore


class TestLifting:
    def test_a_clip_with_gaps(self, general_run: Path, field_store: Path, tmp_path: Path) -> None:
        with PoseStore(field_store) as poses:
            keypoints = poses.keypoints("train")[:20].copy()
        confidence = np.ones((20, 17), np.float32)
        confidence[:, 13] = 0
        clip = np.concatenate([keypoints, confidence[..., None]], axis=-1)
        np.savez(tmp_path / "clip.npz", keypoints=clip.astype(np.float32))
        summary = ites.lift(tmp_path / "clip.npz", tmp_path / "out.npz", run=general_run)
        lifted = dict(np.load(tmp_path / "out.npz"))
        assert np.isnan(lifted["positions"][:, 13]).all()  # never seen
        assert np.isfinite(np.delete(lifted["positions"], 13, axis=1)).all()
        assert np.isfinite(lifted["expected_error"]).all()
        assert (lifted["expected_error"] > 0).all()
        assert any("expected error" in note for note in summary["notes"])
        assert not any("filled in" in note for note in summary["notes"])
