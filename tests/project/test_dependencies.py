"""docs/dependencies.md names what pyproject.toml asks for, and CI pins all of it."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    path = ROOT / "pyproject.toml"
    return dict(tomllib.loads(path.read_text(encoding="utf-8"))["project"])


def name_of(requirement: str) -> str:
    found = re.match(r"[\w-]+", requirement)
    assert found
    return found[0]


def test_each_dependency_has_its_bounds_and_reason(project: dict[str, Any]) -> None:
    page = (ROOT / "docs/dependencies.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| ([\w-]+) \| (>=[^|]*) \|", page, re.M))
    asked = {}
    for requirement in project["dependencies"]:
        name = name_of(requirement)
        asked[name] = requirement.split(";")[0].strip().removeprefix(name).replace(",", ", ")
    assert {name: bounds.replace(", Python 3.10 only", "") for name, bounds in rows.items()} == {
        name: ", ".join(sorted(bounds.split(", "), reverse=True)) for name, bounds in asked.items()
    }


def test_each_extra_is_listed(project: dict[str, Any]) -> None:
    page = (ROOT / "docs/dependencies.md").read_text(encoding="utf-8")
    for extra, requirements in project["optional-dependencies"].items():
        if extra in ("dev", "all"):
            continue
        row = re.search(rf"^\| {extra} \| ([^|]*) \|", page, re.M)
        assert row, f"docs/dependencies.md has no row for the extra {extra}"
        assert row[1].strip().split(", ") == [name_of(text) for text in requirements]


def test_ci_pins_what_is_installed(project: dict[str, Any]) -> None:
    lines = (ROOT / ".ci/constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = {name_of(line).lower() for line in lines if "==" in line and not line.startswith("#")}
    extras = project["optional-dependencies"]
    asked = [*project["dependencies"], *(one for group in extras.values() for one in group)]
    names = {name_of(one).lower() for one in asked} - {"torch", "ites", "tomli"}
    assert not names - pins, f"not pinned: {sorted(names - pins)}"
