"""What a document or a comment points to exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = ("ites", "kernels", "csrc", "benchmarks", "tests", "docs", ".github")
SUFFIXES = {".py", ".md", ".h", ".cuh", ".cu", ".cpp", ".toml", ".yml", ".js"}
FILES = sorted(
    path
    for folder in FOLDERS
    for path in (ROOT / folder).rglob("*")
    if path.suffix in SUFFIXES and "_C" not in path.name and path != Path(__file__)
) + sorted(ROOT.glob("*.md"))


def headings(path: Path) -> set[str]:
    """The anchors of a Markdown file's headings, as GitHub makes them."""
    found = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), re.M)
    words = (re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", text) for text in found)
    return {re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-") for text in words}


def test_pages_that_code_names_exist() -> None:
    missing = {
        f"{path.relative_to(ROOT)}: {name}"
        for path in FILES
        for name in re.findall(r"`(docs/[\w/-]+\.md)`", path.read_text(encoding="utf-8"))
        if not (ROOT / name).is_file()
    }
    assert not missing


def test_sections_of_the_method_that_code_cites_exist() -> None:
    page = (ROOT / "docs/method.md").read_text(encoding="utf-8")
    sections = set(re.findall(r"^##+ ([\d.]+) ", page, re.M))
    number = r"\d+(?:\.\d+)?"
    cited = {
        (str(path.relative_to(ROOT)), section)
        for path in FILES
        if path.suffix != ".md"
        for found in re.findall(
            rf"docs/method\.md,\s+({number}(?:(?:, | and ){number})*)", path.read_text("utf-8")
        )
        for section in re.findall(number, found)
    }
    assert len(cited) > 20
    assert not {(path, section) for path, section in cited if section not in sections}


@pytest.mark.parametrize(
    "page", [p for p in FILES if p.suffix == ".md"], ids=lambda p: str(p.relative_to(ROOT))
)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if target.startswith(("http:", "https:", "mailto:")):
            continue
        name, _, anchor = target.partition("#")
        path = page.parent / name if name else page
        assert path.exists(), f"{page.name}: {target}"
        if anchor and path.suffix == ".md":
            assert anchor in headings(path), f"{page.name}: {target}"


@pytest.mark.parametrize(
    "page", [p for p in FILES if p.suffix == ".md"], ids=lambda p: str(p.relative_to(ROOT))
)
def test_lines_of_prose_are_short(page: Path) -> None:
    """At most 140 characters, but for tables and blocks of code."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    long = [line for line in text.splitlines() if len(line) > 140 and not line.startswith("|")]
    assert not long


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 120
