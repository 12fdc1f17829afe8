"""Tables of results on the page `docs/reliability.md`."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from benchmarks.machine import write_table

RESULTS = Path(__file__).parents[1] / "results" / "reliability"
PAGE = Path(__file__).parents[2] / "docs" / "reliability.md"


def publish(name: str, columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
    """Write a result as CSV and put it as a table between its two marks on the page."""
    write_table(RESULTS / f"{name}.csv", columns, rows)
    put(name, columns, rows)


def renew(
    name: str, columns: Sequence[str], keys: Sequence[str], rows: Sequence[Mapping[str, Any]]
) -> None:
    """Publish rows beside those of earlier runs; a row replaces the one with the same keys."""
    path, merged = RESULTS / f"{name}.csv", dict[tuple[str, ...], Mapping[str, Any]]()
    with path.open(encoding="utf-8", newline="") if path.exists() else nullcontext(()) as file:
        for row in [*csv.DictReader(file), *rows]:
            merged[tuple(str(row[key]) for key in keys)] = row
    publish(name, columns, list(merged.values()))


def put(
    name: str, columns: Sequence[str], rows: Sequence[Mapping[str, Any]], page: Path = PAGE
) -> None:
    """Put rows as a Markdown table between a result's two marks on the page."""
    begin, end = f"<!-- table of benchmarks.reliability.{name} -->", "<!-- end of the table -->"
    lines = [f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}"]
    lines += [f"| {' | '.join(str(row[key]) for key in columns)} |" for row in rows]
    text = page.read_text(encoding="utf-8")
    head, rest = text.split(begin)
    tail = rest.split(end, 1)[1]
    page.write_text("\n".join([f"{head}{begin}", *lines, f"{end}{tail}"]), encoding="utf-8")
