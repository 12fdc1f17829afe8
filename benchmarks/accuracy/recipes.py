"""Measure the recipes on CMU motion capture: the figures of docs/accuracy.md, row by row.

    python -m benchmarks.accuracy.recipes ROW ... --data cmu.h5 --seeds 0 1 2

A row is a name and what it sets otherwise than its recipe. Each seed's runs stay in
`runs/accuracy/ROW/SEED`. Its figures go to `benchmarks/results/cmu/ROW.csv`, one line per stage:
the CMU protocol, every test pose, the test split by its own scale.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from benchmarks import machine
from benchmarks.accuracy.rounding import ROUNDINGS, RoundedProducts
from benchmarks.accuracy.variants import VARIANTS, write_variant
from ites.evaluation.evaluate import evaluate
from ites.runs.folder import RunFolder
from ites.runs.settings import Settings, make_settings, stages_of
from ites.training.engine import Result, train
from ites.training.evaluation import FIGURES

RESULTS = machine.RESULTS / "cmu"
COLUMNS = ("seed", "stage", "steps", "batch", "seconds", "threads", "commit", *FIGURES)

Options = dict[str, Any]


@dataclass(frozen=True)
class Row:
    """What is trained.

    Attributes:
        recipe: whose settings the others are relative to.
        data: "cmu" or one of `benchmarks.accuracy.variants`.
        prior, teacher, student: settings by name. A row's name instead takes its model of the same
            seed. None: no such stage.
        products: "tf32" or "bf16" where the training's matrix products are those, by
            `benchmarks.accuracy.rounding`.
    """

    recipe: str = "upright"
    data: str = "cmu"
    prior: Options | str | None = field(default_factory=dict)
    teacher: Options | str | None = field(default_factory=dict)
    student: Options | str | None = field(default_factory=dict)
    products: str = ""


TEACHER: Options = {"steps": 4000}
STUDENT: Options = {"steps": 2000}
SHORT: Options = {"steps": 1500, "epochs": 1000, "start_elevation_steps": 400}
FREE: Options = {
    "start_elevation_weight": 0.01,
    "pilot_steps": 0,
}  # the camera is not held at first
TEACHERS: dict[str, Options] = {
    "short": {},
    "no-elevation": {
        "start_elevation_weight": 1e4,
        "start_elevation_steps": 3750,
        "pilot_steps": 0,
    },  # stays level
    "no-density": {"prior_weight": 0.0},
    "no-turn": {"turn_weight": 0.0},
    "no-bones": {"bone_weight": 0.0},
}
STUDENTS: dict[str, Options] = {
    "camera-vertical": {"vertical": "camera"},
    "no-turn": {"distillation_weight": 1e3},  # beside it the turns count for nothing
    "density": {"prior_weight": 0.05},
    "temporal": {"temporal": "on"},
}

ROWS: dict[str, Row] = {
    "paper": Row(
        "paper",
        teacher={"steps": 4000, "halve_every": 0, "centre_steps": 1200},
        student={"steps": 2000, "halve_every": 0},
    ),
    "upright": Row(teacher=TEACHER, student=STUDENT),
    "upright-equal": Row(teacher={"steps": 10_000}, student={"steps": 12_000}),
    "teacher-free": Row(prior="upright", teacher={**TEACHER, **FREE}, student=None),
    **{
        f"teacher-{name}": Row(prior="upright", teacher={**SHORT, **options}, student=None)
        for name, options in TEACHERS.items()
    },
    **{
        f"teacher-{products}": Row(prior="upright", teacher=SHORT, student=None, products=products)
        for products in ROUNDINGS
    },
    **{
        f"student-{name}": Row(prior="upright", teacher="upright", student={**STUDENT, **options})
        for name, options in STUDENTS.items()
    },
    **{name: Row(data=name, teacher=SHORT, student=None) for name in VARIANTS},
    "down30-level": Row(
        data="down30", prior="down30", teacher={**SHORT, "pilot_steps": 0}, student=None
    ),
}


def run_row(name: str, seed: int, data: Path, runs: Path) -> list[Options]:
    """Train a row's stages by a seed, as far as they are not there, and measure them.

    Returns:
        a line of the result for each trained network.
    """
    row, out = ROWS[name], runs / name / str(seed)
    store = _store(row.data, data, runs)
    lines = []
    for stage in stages_of(row.recipe):
        options = getattr(row, stage)
        if not isinstance(options, dict):
            continue
        settings = _settings(row, stage, options, seed, store, out, runs)
        done = RunFolder(out).weights(stage).exists()
        with RoundedProducts(row.products) if row.products else nullcontext():
            result = train(settings, resume=done)
        if stage != "prior":
            lines.append(_line(result, settings, seed, out, store))
    return lines


def _store(name: str, data: Path, runs: Path) -> Path:
    """The store of a variant, made where it is not there yet."""
    if name == "cmu":
        return data
    path = runs / f"{name}.h5"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_variant(name, data, path)
    return path


def _settings(
    row: Row, stage: str, options: Options, seed: int, store: Path, out: Path, runs: Path
) -> Settings:
    given = {"data": str(store), "out": str(out), "seed": seed, "recipe": row.recipe}
    missing = row.data.startswith("missing")
    given |= {"missing": "interpolate"} if missing else {}
    for needed in {"teacher": ["prior"], "student": ["prior", "teacher"]}.get(stage, []):
        if isinstance(other := getattr(row, needed), str):
            given[needed] = str(runs / other / str(seed))
    return make_settings(stage, options={**given, **options})


def _line(result: Result, settings: Settings, seed: int, out: Path, store: Path) -> Options:
    evaluation = evaluate(
        out,
        store,
        stage=result.stage,
        scale="split",
        missing=settings.missing,
        device=settings.device,
        save=False,
    )
    figures = evaluation.over_poses.figures
    return {
        "seed": seed,
        "stage": result.stage,
        "steps": result.step,
        "batch": settings.batch,
        "seconds": round(result.seconds),
        "threads": torch.get_num_threads(),
        "commit": machine.commit(),
        **{figure: round(figures[figure], 2) for figure in FIGURES},
    }


def save(name: str, lines: Iterable[Options]) -> Path:
    """Put lines into a row's CSV, in the place of those of the same seed and stage."""
    path = RESULTS / f"{name}.csv"
    table: dict[tuple[str, str], Options] = {}
    if path.exists():
        with path.open(newline="", encoding="utf-8") as file:
            table = {(line["seed"], line["stage"]): line for line in csv.DictReader(file)}
    table |= {(str(line["seed"]), line["stage"]): line for line in lines}
    machine.write_table(path, COLUMNS, [line for _, line in sorted(table.items(), reverse=True)])
    return path


def show(name: str) -> None:
    """Print a row's mean over its seeds as a line of a Markdown table, one per stage."""
    with (RESULTS / f"{name}.csv").open(newline="", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    for stage in dict.fromkeys(line["stage"] for line in lines):
        mine = [line for line in lines if line["stage"] == stage]
        means = [sum(float(line[figure]) for line in mine) / len(mine) for figure in FIGURES]
        cells = " | ".join(f"{mean:.1f}" for mean in means)
        print(f"| {name}, {stage}, {len(mine)} seeds | {cells}% |")


def main(arguments: list[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.accuracy.recipes", description=__doc__
    )
    parser.add_argument("rows", nargs="+", choices=ROWS, metavar="ROW", help=", ".join(ROWS))
    parser.add_argument("--data", type=Path, default=Path("cmu.h5"), help="from ites prepare cmu")
    parser.add_argument("--runs", type=Path, default=Path("runs/accuracy"), help="run folders")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument(
        "--show", action="store_true", help="print what was measured; train nothing"
    )
    options = parser.parse_args(arguments)
    for name in options.rows:
        for seed in () if options.show else options.seeds:
            save(name, run_row(name, seed, options.data, options.runs))
        show(name)
    return 0


if __name__ == "__main__":
    sys.exit(main())
