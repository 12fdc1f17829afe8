"""One version everywhere, and a release that builds what it says."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import pytest

import ites

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def pyproject() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def test_the_version_is_that_of_the_changelog(pyproject: dict[str, Any]) -> None:
    """`X.Y.Z (unreleased)` in the changelog is `X.Y.Z.dev0` in the package."""
    assert "version" in pyproject["project"]["dynamic"]
    assert pyproject["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "ites.__version__"}
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    found = re.search(r"^## (\d+\.\d+\.\d+)( \(unreleased\))?$", changes, re.M)
    assert found, "CHANGELOG.md begins with no version"
    assert ites.__version__ == found[1] + (".dev0" if found[2] else "")


def test_wheels_are_built_for_the_pythons_that_are_promised(pyproject: dict[str, Any]) -> None:
    promised = re.findall(r"Python :: 3\.(\d+)", " ".join(pyproject["project"]["classifiers"]))
    wheels = pyproject["tool"]["cibuildwheel"]
    assert wheels["build"] == [f"cp3{minor}-*" for minor in promised]
    assert pyproject["project"]["requires-python"] == f">=3.{promised[0]}"
    libraries = re.findall(r"--exclude (lib\w+)\.so", wheels["linux"]["repair-wheel-command"])
    assert libraries == ["libtorch", "libtorch_cpu", "libc10"]  # PyTorch's, never bundled
