"""A report on a run: its settings, loss curves, evaluations and lifted poses."""

from __future__ import annotations

import csv
import html
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ites.data.lifted import read_clips
from ites.errors import ItesError
from ites.runs.folder import RunFolder
from ites.runs.settings import STAGES, read_toml
from ites.show.page import line_graph, page, plotly_script
from ites.show.scene import choose
from ites.show.viewer import viewer
from ites.system.console import duration
from ites.system.files import atomic_write, load_json, reading

MOST_POINTS = 1500
LINES = ("#3e4c59", "#d55e00", "#0072b2", "#009e73", "#cc79a7")
HEADLINE = ("mpjpe", "n_mpjpe", "p_mpjpe", "scaled_mpjpe", "scaled_mpjpe_oracle", "p_mpjpe_oracle")

CURVES = {"p_mpjpe": "P-MPJPE", "p_mpjpe_oracle": "P-MPJPE with the oracle's sign"}

Columns = dict[str, list[float]]


class Section(NamedTuple):
    """A titled table of a report, and lines of text below it; see `_table` for the header."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[Any]]
    lines: Sequence[str] = ()


def write_report(
    run: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    lifted: str | os.PathLike[str] | None = None,
    times: Mapping[str, float] | None = None,
    title: str | None = None,
    summary: Sequence[str] = (),
    sections: Sequence[Section] = (),
) -> None:
    """Write a self-contained HTML page about a training run.

    Args:
        run: the run folder with settings, versions, logs and evaluations.
        out: the HTML file.
        lifted: a file written by `ites lift`, shown in the page; None: the run folder's
            `lifted.npz`, if it has one.
        times: seconds by name of the work, in addition to the training times.
        title: None: a title with the run folder's name.
        summary: lines of text under the title.
        sections: tables that follow the summary.

    Raises:
        ItesError: the folder is not a run.
    """
    run = Path(run)
    stages = [stage for stage in STAGES if RunFolder(run).weights(stage).is_file()]
    if not {"teacher", "student"} & set(stages):
        raise ItesError(f"{run}: expected a run folder with a teacher or a student; it holds none")
    if lifted is None and (run / "lifted.npz").is_file():
        lifted = run / "lifted.npz"
    with reading(run, "a run folder"):
        logs = {stage: read_csv(run / f"{stage}.log.csv") for stage in stages}
        parts = [
            *_paragraphs(summary),
            *(_section(one.title, _tabled(one)) for one in sections),
            _section("What was done", _done(run, stages, logs, times or {})),
            _looks(lifted),
            *(_evaluation(path) for path in sorted(run.glob("evaluation-*.json"))),
            _section("Losses", _losses(run, logs)),
            _section("Settings", _settings(run, stages)),
            _section("Versions", _versions(run)),
        ]
    text = page(
        title or f"Training report: {run.resolve().name}", "\n".join(parts), plotly_script()
    )
    with atomic_write(out) as temporary:
        temporary.write_text(text, encoding="utf-8")


def read_csv(path: Path) -> Columns:
    """The columns of a CSV file of numbers; empty if the file is absent."""
    if not path.is_file():
        return {}
    with reading(path, "a table of numbers"), path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
        return {name: [float(row[name]) for row in rows] for name in (rows[0] if rows else ())}


def _section(title: str, content: str) -> str:
    return f'<h2>{html.escape(title)}</h2>\n<div class="card scroll">{content}</div>'


def _paragraphs(lines: Iterable[str], kind: str = "") -> list[str]:
    attribute = f' class="{kind}"' if kind else ""
    return [f"<p{attribute}>{html.escape(line)}</p>" for line in lines]


def _tabled(section: Section) -> str:
    table = _table(section.header, section.rows, "figures")
    return "".join([table, *_paragraphs(section.lines, "soft")])


def _table(header: Sequence[str], rows: Iterable[Sequence[Any]], kind: str = "plain") -> str:
    """An HTML table; text after | in a heading is small, a row that starts with "mean" bold."""
    headings = [html.escape(cell).partition("|") for cell in header]
    head = "".join(f"<th>{large}<small>{small}</small></th>" for large, _, small in headings)
    lines = [f'<table class="{kind}"><thead><tr>{head}</tr></thead><tbody>']
    for row in rows:
        total = ' class="total"' if str(row[0]).startswith("mean") else ""
        cells = "".join(f"<td>{html.escape(str(cell))}</td>" for cell in row)
        lines.append(f"<tr{total}>{cells}</tr>")
    return "".join([*lines, "</tbody></table>"])


def _done(
    run: Path, stages: Sequence[str], logs: Mapping[str, Columns], times: Mapping[str, float]
) -> str:
    versions = _json(run / "versions.json")
    rows = []
    for stage in stages:
        log, about = logs[stage], versions.get(stage, {})
        if not log:
            continue
        rate = sorted(log["poses_per_second"])[len(log["step"]) // 2]
        rows.append(
            [
                f"train the {stage}",
                duration(log["seconds"][-1]),
                f"{log['step'][-1]:,.0f} steps, {log['epoch'][-1]:.3g} epochs, "
                f"{rate:,.0f} poses/s, total loss {log['total'][-1]:.4g}",
                about.get("device", ""),
            ]
        )
    rows += [[name, duration(seconds), "", ""] for name, seconds in times.items()]
    return _table(("what", "time", "", "device"), rows)


def _evaluation(path: Path) -> str:
    """The section of one evaluation: means first, actions and joint shares collapsed."""
    with reading(path, "an evaluation"):
        return _figures(_json(path))


def _figures(found: Mapping[str, Any]) -> str:
    of, columns = found["settings"], found["columns"]
    lengths = [c for c in columns if c["name"] in (*HEADLINE, "wrong_sign")]
    shares = [c for c in columns if c not in lengths]

    def table(chosen: Sequence[Mapping[str, str]], rows: Sequence[Mapping[str, Any]]) -> str:
        header = ["", "poses", *(f"{c['title']}|{c['aligned']}, {c['unit']}" for c in chosen)]
        cells = (
            [row["name"], row["poses"], *(f"{row['figures'][c['name']]:.1f}" for c in chosen)]
            for row in rows
        )
        return _table(header, cells, "figures")

    title = f"How good it is: the {of['model']} on {Path(of['data']).name}, split {of['split']}"
    note = (
        f"{of['poses']:,} poses after {of['step']:,} steps. “Oracle” figures choose the better of "
        "two depth signs by the truth, pose by pose, which no user of the method can: read them "
        "beside the same figures without it. “Depth 0” puts every joint at the root's depth."
    )
    parts = [
        table(lengths, found["means"]),
        f'<p class="soft">{html.escape(note)}</p>',
        _folded("action by action", table(lengths, found["actions"])),
        _folded("PCK and AUC", table(shares, found["means"])),
    ]
    return _section(title, "".join(parts))


def _folded(summary: str, content: str) -> str:
    return f"<details><summary>{summary}</summary>{content}</details>"


def _looks(lifted: str | os.PathLike[str] | None) -> str:
    if lifted is None:
        return ""
    clips, notes = choose(read_clips(lifted), None, max_clips=4, max_frames=500)
    return f"<h2>How it looks</h2>\n{viewer(clips, notes)}"


def _losses(run: Path, logs: Mapping[str, Columns]) -> str:
    """Graphs of each stage's losses, and of its evaluations during training."""
    graphs = []
    for stage, log in logs.items():
        if not log:
            continue
        step = max(1, -(-len(log["step"]) // MOST_POINTS))
        skip = ("step", "epoch", "learning_rate", "poses_per_second", "seconds")
        curves = {name: values[::step] for name, values in log.items() if name not in skip}
        positive = all(min(values) > 0 for values in curves.values())  # log densities vary in sign
        graphs.append(
            line_graph(stage, log["step"][::step], curves, "loss", LINES, logarithmic=positive)
        )
        scores = read_csv(run / f"{stage}.evaluation.csv")
        shown = {CURVES[name]: values for name, values in scores.items() if name in CURVES}
        if shown:
            title = f"{stage}, evaluated meanwhile"
            graphs.append(line_graph(title, scores["step"], shown, "mm", LINES[1:]))
    return f'<div class="graphs">{"".join(graphs)}</div>'


def _settings(run: Path, stages: Sequence[str]) -> str:
    tables = read_toml(RunFolder(run).settings)
    names = dict.fromkeys(name for stage in stages for name in tables[stage])
    rows = ([name, *(_short(tables[stage].get(name, "")) for stage in stages)] for name in names)
    return _folded("every setting", _table(("", *stages), rows))


def _short(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _versions(run: Path) -> str:
    versions = _json(run / "versions.json")
    names = dict.fromkeys(name for about in versions.values() for name in about)
    rows = ([name, *(about.get(name) or "" for about in versions.values())] for name in names)
    return _table(("", *versions), rows)


def _json(path: Path) -> dict[str, Any]:
    content = load_json(path) if path.is_file() else {}
    if not isinstance(content, dict):
        raise ItesError(f"{path}: expected a JSON object, got {type(content).__name__}")
    return content
