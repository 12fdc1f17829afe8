"""What a fit prints and its page shows."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ites.evaluation.choice import Candidate
from ites.evaluation.without_truth import FIGURES, MEANING
from ites.show.report import Section, write_report

KEPT = (
    "The start is kept: no fit was better than it by more than chance on the held-out frames. "
    "This run lifts as its start does."
)


def write_page(run: Path, out: Path, lifted: Path, record: Mapping[str, Any]) -> None:
    """Write the page of a complete fit.

    Args:
        run: the run folder.
        out: the HTML file.
        lifted: the held-out clips, lifted.
        record: of the fit.
    """
    own, held = record["frames"]
    lines = [
        *verdict_lines(record["verdict"], record["reasons"]),
        *choice_lines(record.get("chosen", {})),
        f"Trained on {own:,} frames; measured on {held:,} others.",
        *coverage_lines(record["coverage"]),
    ]
    table = Section(
        "How good it is, measured without 3D",
        ["", *(f"{figure.title}|{figure.unit}" for figure in FIGURES)],
        [
            [name, *(_number(figures[figure.name]) for figure in FIGURES)]
            for name, figures in record["figures"].items()
        ],
        MEANING,
    )
    notes = [*record["notes"], *(found["message"] for found in record["findings"])]
    read = Section("What was read", ["note"], [[note] for note in notes])
    write_report(
        run,
        out,
        lifted=lifted,
        title=f"Fit: {run.resolve().name}",
        summary=lines,
        sections=[table, read] if notes else [table],
    )


def coverage_lines(covered: Mapping[str, Any]) -> list[str]:
    """What the frames to train on cover."""
    lines = [f"About {covered['different']:,} different poses."]
    if covered["sides"] is not None:
        shares = ", ".join(f"{name} {share:.0%}" for name, share in covered["sides"].items())
        lines.append(f"People are seen from: {shares}.")
    return lines


def choice_lines(chosen: Mapping[str, Any]) -> list[str]:
    """The weights that were compared with the start's, and those that were taken."""
    if not chosen:
        return []
    lines = [Candidate(**found).words() for found in chosen["candidates"]]
    share = chosen["share"]
    taken = f"Taken: {share:.0%} of the way from the start's weights to the fitted ones."
    return [
        "Weights between the start's and the fitted ones, on the held-out frames and turned views "
        "of them (less is better):",
        *(f"  {line}" for line in lines),
        taken if share else KEPT,
    ]


def verdict_lines(word: str, reasons: Iterable[str]) -> list[str]:
    """The verdict and its reasons."""
    return [f"Verdict: {word}", *(f"  {reason}" for reason in reasons)]


def figures_line(figures: Mapping[str, float]) -> str:
    """The three figures of a model that a user should see first."""
    return ", ".join(
        f"{figure.title} {_number(figures[figure.name])} {figure.unit}"
        for figure in FIGURES
        if figure.name in ("bone_variation", "equivariance", "sign_confidence")
    )


def _number(value: float | None) -> str:
    return "-" if value is None or math.isnan(value) else f"{value:.1f}"
