"""Draw the results of `benchmarks.ops.run`: time against batch, and the roofline.

    python -m benchmarks.ops.plot [benchmarks/results/<device>/ops.json]

Writes `times.svg` and `roofline.svg` beside the results.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("svg")
from matplotlib import pyplot as plt  # noqa: E402

from benchmarks import machine  # noqa: E402
from benchmarks.ops import cases  # noqa: E402
from ites.system.files import atomic_write  # noqa: E402

LOOKS = {
    "reference": ("plain PyTorch", "0.55", "o"),
    "eager": ("as others write it", "0.3", "v"),
    "compile": ("torch.compile", "tab:orange", "s"),
    "cpp": ("ites C++", "tab:blue", "D"),
    "cuda": ("ites CUDA", "tab:green", "D"),
    "triton": ("ites Triton", "tab:purple", "^"),
}
COLUMNS = 3

Rows = list[dict[str, Any]]


def whole(rows: Rows) -> Rows:
    """Rows of forward and backward together; forward alone of what has no gradient."""
    differentiable = {row["case"] for row in rows if row["mode"] == "both"}
    wanted = {True: "both", False: "forward"}
    return [row for row in rows if row["mode"] == wanted[row["case"] in differentiable]]


def title(about: dict[str, Any]) -> str:
    """Where the results come from."""
    return f"{about['device']}, torch {about['torch']}, commit {about['commit']}"


def times(result: dict[str, Any], path: Path) -> None:
    """Time against batch, one panel per case and type."""
    rows = whole(result["rows"])
    panels = list(dict.fromkeys((row["case"], row["dtype"], row["mode"]) for row in rows))
    count = math.ceil(len(panels) / COLUMNS)
    figure, axes = plt.subplots(
        count, COLUMNS, figsize=(4 * COLUMNS, 3 * count), squeeze=False, layout="constrained"
    )
    for axis in axes.flat[len(panels) :]:
        axis.set_visible(False)
    for axis, (case, dtype, mode) in zip(axes.flat, panels, strict=False):
        mine = [row for row in rows if (row["case"], row["dtype"]) == (case, dtype)]
        for provider, (label, colour, marker) in LOOKS.items():
            line = sorted((r["batch"], r["seconds"]) for r in mine if r["provider"] == provider)
            if line:
                batch, seconds = zip(*line, strict=True)
                axis.loglog(batch, seconds, marker, color=colour, ls="-", ms=4, label=label)
        limit = {row["batch"]: row["share"] * row["seconds"] for row in mine}
        axis.loglog(sorted(limit), [limit[b] for b in sorted(limit)], "k:", lw=1, label="bound")
        kind = "forward and backward" if mode == "both" else "forward"
        axis.set_title(f"{case}, {dtype}\n{kind}", fontsize=9)
        axis.set_xlabel("poses")
        axis.set_ylabel("seconds")
        axis.grid(alpha=0.3)
    axes.flat[0].legend(fontsize=7)
    figure.suptitle(title(result["machine"]), fontsize=9)
    save(figure, path)


def roofline(result: dict[str, Any], path: Path) -> None:
    """Operations per second against operations per byte, each case at its largest batch."""
    rates = result["rates"]
    matrix = max(rate for name, rate in rates.items() if name != "copy")
    figure, axis = plt.subplots(figsize=(7, 5), layout="constrained")
    intensity = [2.0**power for power in range(-3, 10)]
    roof = [min(matrix, x * rates["copy"]) / 1e9 for x in intensity]
    axis.loglog(intensity, roof, "k-", lw=1)
    rows = whole(result["rows"])
    for provider, (label, colour, marker) in LOOKS.items():
        for name, dtype in dict.fromkeys((row["case"], row["dtype"]) for row in rows):
            mine = [
                row
                for row in rows
                if (row["case"], row["dtype"], row["provider"]) == (name, dtype, provider)
            ]
            if not mine:
                continue
            row = max(mine, key=lambda r: r["batch"])
            x = row["flop"] / row["bytes"]
            (point,) = axis.loglog(x, row["gigaflops"], marker, color=colour, ms=5)
            if label not in axis.get_legend_handles_labels()[1]:
                point.set_label(label)
            if provider in cases.KERNELS:
                axis.annotate(name, (x, row["gigaflops"]), fontsize=6, xytext=(4, 3),
                              textcoords="offset points")  # fmt: skip
    axis.set_xlabel("FLOP per byte")
    axis.set_ylabel("GFLOP/s")
    axis.grid(alpha=0.3)
    axis.legend(fontsize=7)
    axis.set_title(f"roofline, largest batch\n{title(result['machine'])}", fontsize=9)
    save(figure, path)


def save(figure: Any, path: Path) -> None:
    matplotlib.rcParams["svg.hashsalt"] = "ites"  # so that the same numbers give the same file
    with atomic_write(path) as temporary:
        figure.savefig(temporary, format="svg", metadata={"Date": None})
    plt.close(figure)
    print(path)


def main(argv: list[str] | None = None) -> int:
    """Draw both pictures of each result."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("results", nargs="*", type=Path, help="default: those of this machine")
    options = parser.parse_args(argv)
    here = machine.results_folder(machine.pick_device()) / "ops.json"
    for path in options.results or [here]:
        result = json.loads(path.read_text())
        times(result, path.with_name("times.svg"))
        roofline(result, path.with_name("roofline.svg"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
