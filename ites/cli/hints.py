"""Which option of the command line corrects a finding of `ites.data.checks`, or an error."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import typer

from ites.errors import one_line

OPTIONS = {
    "confidence": "leave them out, or write 1 minus each",
    "repeated": "leave them out",
    "normalised": "--image-size WIDTH HEIGHT",
    "units": "multiply them to pixels first",
    "zeros": "--min-confidence, or leave them out",
    "order": "--layout NAME",
    "image-size": "--image-size WIDTH HEIGHT",
    "clipped": "leave these joints out, or give them a confidence of 0",
    "stretched": "multiply them to pixels first",
    "box": "add the box's corner to them first",
    "rate": "--fps",
    "focal-length": "--focal-length in pixels, or --field-of-view",
    "upside-down": "--flip-y, or --rotate 180",
    "sideways": "--rotate 90 or 270",
    "roll": "--roll when lifting; a model of recipe general finds the roll",
    "swapped-sides": "--temporal when lifting exchanges swaps of at most a second",
    "mirrored": "--swap-sides",
    "mirrored-limbs": "--layout, or exchange left and right of these joints first",
    "crossed-limbs": "--layout, or exchange left and right of these joints first",
    "jump": "--person ID, or a file per scene",
    "outlier": "--min-confidence where they have a low one",
    "guessed": "--min-confidence",
    "density": "--layout, --flip-y, --rotate or --image-size may be missing",
}
"""What corrects each kind of fault, by its code."""
MISTAKES = {
    "no-model": "--run RUN",
    "no-data": "--data STORE, from `ites prepare`",
    "no-teacher": "--set student.teacher=RUN names another",
    "no-prior": "--set prior=RUN names another",
    "missing": "--missing",
    "layout": "--layout NAME or FILE.toml",
    "mixed": "--layout NAME",
    "weak": "--min-confidence",
    "capture": "--set capture=auto",
    "trained-already": "--resume RUN, or --out FOLDER",
    "other-parts": "leave --resume out to start over",
    "lost-rank": "--resume",
}
"""What corrects each kind of mistake, by the code of its `ItesError`."""


def hint(code: str, data: Mapping[str, Any] | None = None) -> str:
    """The option that corrects a finding, with its value if the figures give it; "" for none."""
    data = data or {}
    if code == "order" and data.get("best"):
        best = str(data["best"])
        return f"--layout {best}" if " " not in best else f"the order is {best}"
    if code == "sideways" and data.get("rotate"):
        turn = f"--rotate {data['rotate']}"
        return turn if data["rotate"] == 270 else f"{turn}; y before x: --flip-y --rotate 90"
    if code == "guessed" and data.get("confidence"):
        return f"--min-confidence {float(data['confidence']) + 0.01:.2f}"
    if code == "confidence" and data.get("kind") == "depth":
        return "leave the third column out"
    if code == "outlier" and data.get("kind") == "long":
        return "correct or leave out these joints first"
    if code == "repeated" and data.get("fps", 0) > 0:
        return f"leave them out, with --fps {float(data['fps']):.3g}"
    if code == "stretched" and data.get("cause"):
        width, height = data["size"]
        swapped = data["cause"] == "exchanged"
        return f"--image-size {height if swapped else width} {width}"
    if code == "image-size" and data.get("exchanged"):
        return "--image-size with width and height exchanged"
    return OPTIONS.get(code, "")


def hint_of(error: Exception) -> str:
    """The option that corrects an error, to follow its message; "" for none."""
    finding = getattr(error, "finding", None)
    code = getattr(error, "code", "")
    option = MISTAKES.get(code, "") if finding is None else hint(finding.code, finding.data)
    return f" ({option})" if option else ""


def print_findings(findings: Iterable[Mapping[str, Any]]) -> None:
    """Print findings, as `Finding.plain` gives them, to standard error, each with its option."""
    for finding in findings:
        typer.echo(one_line(finding_line(finding)), err=True)


def finding_line(finding: Mapping[str, Any]) -> str:
    """A finding, as `Finding.plain` gives it, with the option that corrects it."""
    option = hint(finding["code"], finding["data"])
    end = f" ({option})" if option else ""
    return f"{finding['severity']}: {finding['message']}{end}"
