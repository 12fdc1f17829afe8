"""The headline figures of README and of the general model's page are those of the result files."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks/results"


def rows(name: str, **wanted: str) -> list[dict[str, str]]:
    with (RESULTS / name).open(encoding="utf-8", newline="") as file:
        return [row for row in csv.DictReader(file) if wanted.items() <= row.items()]


def figure(name: str, column: str = "p_mpjpe", **wanted: str) -> str:
    (row,) = rows(name, **wanted)
    return row[column]


def fits(of: str, kind: str, column: str = "p_mpjpe") -> str:
    wanted = {"left_out": "mean", "lifted": "left out", "as": kind, "model": of}
    return figure("fits.csv", column, **wanted)


def line(page: str, start: str) -> str:
    """The one line of a page that begins so, without the marks of bold type."""
    lines = (ROOT / page).read_text(encoding="utf-8").replace("**", "").splitlines()
    (found,) = (one for one in lines if one.startswith(start))
    return found


def numbers(text: str) -> list[str]:
    return re.findall(r"\d+\.\d", text)


REAL = figure("real.csv", clip="mean", input="coco", camera="unknown")


def test_the_result_files_agree() -> None:
    assert fits("start", "sequences") == REAL
    flat = figure("real.csv", "flat", clip="mean", input="coco", camera="unknown")
    assert fits("start", "sequences", "flat") == flat


@pytest.mark.parametrize(
    ("start", "expected"),
    [
        ("| depth 0 for every joint |", [fits("start", "frames", "flat")]),
        ("| the general model,", [fits("start", "frames"), REAL]),
        ("| the same after `ites fit`", [fits("fit", "frames"), fits("fit", "sequences")]),
    ],
    ids=["flat", "general", "fit"],
)
def test_readme(start: str, expected: list[str]) -> None:
    assert numbers(line("README.md", start))[: len(expected)] == expected


def test_readme_has_cmus_figures_of_the_models_page() -> None:
    single, sequences = numbers(line("docs/model.md", "| CMU's test split, 172 clips,"))[:2]
    assert numbers(line("README.md", "| the general model,"))[2:] == [single, sequences]


@pytest.mark.parametrize(
    ("start", "expected"),
    [
        ("| four real clips, 17 joints |", fits("start", "frames")),
        ("| their twelve limb joints |", fits("start", "frames", "limbs")),
        ("| CMU's test split (every eighth pose) |", figure("general.csv", world="as it is")),
        ("| CMU, a level camera |", figure("general.csv", world="level")),
        ("| CMU, 30% of the joints missing,", figure("general.csv", world="missing30")),
    ],
)
def test_table_of_the_models_page(start: str, expected: str) -> None:
    packaged = line("docs/model.md", start).split("|")[4]
    assert numbers(packaged)[0] == expected


def test_cameras_and_noise_on_the_models_page() -> None:
    for start, worlds in (
        ("| CMU, 30 up; 30 down; 45 down |", ("up30", "down30", "down45")),
        ("| CMU, keypoint noise of 5 and 10 px |", ("noise5", "noise10")),
    ):
        packaged = line("docs/model.md", start).split("|")[4]
        assert numbers(packaged) == [figure("general.csv", world=world) for world in worlds]


def test_sequences_of_the_models_page() -> None:
    clips = rows("real.csv", input="coco", camera="unknown")
    assert [row["clip"] for row in clips][-1] == "mean"
    cells = line("docs/model.md", "| four real clips, 60 frames per second |").split("|")
    assert numbers(cells[3]) == [row["p_mpjpe"] for row in clips]
    assert numbers(cells[2])[-1] == fits("start", "frames")


@pytest.mark.parametrize("page", ["docs/model.md", "docs/fit.md"])
def test_what_a_fit_gains(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8").replace("**", "")
    before, after = fits("start", "sequences"), fits("fit", "sequences")
    if page == "docs/model.md":
        assert f"has {after} mm as a sequence instead of {before}" in text
        return
    for start, kind in (
        ("| the camera that was left out, frame by frame |", "frames"),
        ("| the same as a sequence, the default |", "sequences"),
    ):
        found = numbers(line(page, start))
        assert found[:2] == [fits("start", kind), fits("fit", kind)]
