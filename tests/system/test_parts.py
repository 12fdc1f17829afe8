"""Parts of an output that never began."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ites.system.parts import Parts


def test_a_beginning_that_fails_leaves_no_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    parts = Parts(tmp_path / "out.h5", {"keypoints": "clip.npz"}, 3)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space"):
            parts.begin(resume=False)
    assert not list(tmp_path.iterdir())
    parts.begin(resume=False)
    assert parts.missing() == [0, 1, 2]
