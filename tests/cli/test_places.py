"""Where a machine lacks something: a sound extension, a home, a place for temporary files."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import numpy as np
import pytest
import torch
from walking import walk

import ites
from ites.models import Teacher
from ites.pose.skeleton import HUMAN36M
from ites.runs.checkpoint import Metadata, save_model
from ites.runs.folder import RunFolder

PACKAGE = Path(ites.__file__).parent
SUFFIX = sysconfig.get_config_var("EXT_SUFFIX")

USE = """
import json, torch, ites.ops as ops
from ites.ops import backends
rotation = ops.so3_exp(torch.tensor([[0.0, 0.0, torch.pi / 2]]))
print(json.dumps([rotation.round(decimals=2).tolist(), backends.MISSING.get("cpp")]))
"""


def foreign() -> bytes:
    """An extension of another package."""
    found = (
        sorted(Path(math.__file__).parent.glob(f"*{SUFFIX}")) if hasattr(math, "__file__") else []
    )
    if not found:
        pytest.skip("this Python has no extension in a file")
    return found[0].read_bytes()


@pytest.mark.parametrize("kind", ["empty", "text", "cut off", "foreign", "raises"])
def test_a_broken_extension_is_reported_and_the_reference_works(tmp_path: Path, kind: str) -> None:
    package = tmp_path / "ites"
    package.mkdir()
    for path in PACKAGE.iterdir():
        if not path.name.startswith("_C"):
            (package / path.name).symlink_to(path)
    broken = package / f"_C{SUFFIX}"
    if kind == "raises":  # as one built for another PyTorch may
        (package / "_C.py").write_text("raise OSError('undefined symbol')")
    else:
        content = {"empty": b"", "text": b"not a library", "cut off": b"\x7fELF\x02\x01\x01"}
        broken.write_bytes(content[kind] if kind in content else foreign())
    result = subprocess.run(
        [sys.executable, "-c", USE],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])},
    )
    assert result.returncode == 0, result.stderr
    rotation, missing = json.loads(result.stdout)
    assert rotation == [[[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]]
    assert "the extension ites._C is not built" in missing and "reinstall" in missing


def test_a_lifting_needs_no_home_and_no_place_for_temporary_files(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Teacher(HUMAN36M, width=16, blocks=1, atoms=3)
    save_model(RunFolder(tmp_path).weights("teacher"), model, Metadata("teacher", HUMAN36M, 1.0))
    np.save(tmp_path / "k.npy", walk(10).keypoints)
    nowhere = "/proc/nowhere"  # nobody can make it, not even root
    environment = {name: nowhere for name in ("HOME", "TMPDIR", "TMP", "TEMP", "XDG_CACHE_HOME")}
    environment["PYTHONPATH"] = os.pathsep.join([str(PACKAGE.parent), *sys.path])
    result = subprocess.run(
        [sys.executable, "-m", "ites", "lift", tmp_path, tmp_path / "k.npy"]
        + ["-o", tmp_path / "o.npz"],
        capture_output=True,
        text=True,
        env=environment,
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert (tmp_path / "o.npz").is_file()
