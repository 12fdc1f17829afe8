"""Time every op by every backend that can run here, against eager PyTorch and `torch.compile`.

    python -m benchmarks.ops.run [--quick] [-k bench_graph --merge]

Writes `ops.json` and `ops.csv` under `benchmarks/results/<device>/`. Each row says how large a
share it reaches of what bounds it: the copy bandwidth or the matrix-product rate, measured in the
same run. Rows in which a kernel is slower than eager PyTorch are listed at the end. With `--merge`
existing rows that were not timed again stay, so a suite can be run in parts.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest

from benchmarks import machine
from benchmarks.ops import cases
from ites.system.files import atomic_write

BATCHES = {
    "cpu": (1, 16, 256, 4096, 65536, 1048576),
    "cuda": (1, 128, 4096, 65536, 1048576),
}
COMPILED = {"cpu": (4096,), "cuda": (128, 65536, 1048576)}
QUICK = (1, 4096)
COLUMNS = (
    "case", "op", "dtype", "mode", "batch", "provider", "seconds", "rounds", "bytes", "flop",
    "gigabytes_per_second", "gigaflops", "bound", "share", "times_eager", "slower_than_eager",
    "device", "torch", "commit", "others_share",
)  # fmt: skip


def time_rows(arguments: list[str]) -> tuple[list[dict[str, Any]], int]:
    """Run pytest-benchmark; its measurements, and its exit status."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        command = [str(Path(__file__).parent), "-q", "--no-header", "-p", "no:cacheprovider"]
        command += ["-o", "python_files=bench_*.py", "-o", "python_functions=bench"]
        command += [f"--rootdir={Path(__file__).parents[2]}", "--benchmark-json", str(report)]
        command += ["--benchmark-disable-gc", "--benchmark-columns=median", "--benchmark-quiet"]
        command += ["--benchmark-timer=benchmarks.machine.clock"]
        status = int(pytest.main([*command, *arguments]))
        if not report.is_file():
            return [], status or 1
        measured = json.loads(report.read_text())["benchmarks"]
    return [
        m["extra_info"] | {"seconds": m["stats"]["median"], "rounds": m["stats"]["rounds"]}
        for m in measured
    ], status


def complete(
    rows: list[dict[str, Any]], rates: dict[str, float], about: dict[str, Any]
) -> list[dict[str, Any]]:
    """The rows with rates, shares of the bounds and ratios to eager PyTorch's fastest."""
    matrix = {
        "float32": rates.get("tf32", rates["float32"]),
        "bfloat16": rates.get("bf16", rates["float32"]),
    }
    for row in rows:
        seconds = row["seconds"]
        bounds = {
            "copy bandwidth": row["bytes"] / rates["copy"],
            "matrix rate": row["flop"] / matrix[row["dtype"]],
        }
        row["bound"] = max(bounds, key=lambda name: bounds[name])
        row["share"] = bounds[row["bound"]] / seconds
        row["gigabytes_per_second"] = row["bytes"] / seconds / 1e9
        row["gigaflops"] = row["flop"] / seconds / 1e9
        row |= {name: about[name] for name in ("device", "torch", "commit", "others_share")}
    return compared(rows)


def compared(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows with ratios to eager PyTorch's fastest of the same work."""
    eager: dict[tuple[Any, ...], float] = {}
    for row in rows:
        if row["provider"] in cases.EAGER:
            eager[_work(row)] = min(row["seconds"], eager.get(_work(row), math.inf))
    for row in rows:
        row["times_eager"] = eager.get(_work(row), math.nan) / row["seconds"]
        row["slower_than_eager"] = row["provider"] in cases.KERNELS and row["times_eager"] < 1
    return rows


def merged(result: dict[str, Any], earlier: dict[str, Any]) -> dict[str, Any]:
    """A result, and the rows of an earlier one that it has not timed again, in the earlier order.

    The rates are the highest of both, as a roof is.

    Raises:
        ValueError: the earlier result is of another device or PyTorch.
    """
    for name in ("device", "torch"):
        if earlier["machine"][name] != result["machine"][name]:
            raise ValueError(
                f"--merge: the earlier rows are of {earlier['machine'][name]}, "
                f"this run is of {result['machine'][name]}"
            )
    rows = {(*_work(row), row["provider"]): row for row in earlier["rows"] + result["rows"]}
    cases = list(dict.fromkeys(row["case"] for row in rows.values()))
    order = sorted(rows.values(), key=lambda row: (cases.index(row["case"]), row["dtype"]))
    rates = {name: max(rate, earlier["rates"][name]) for name, rate in result["rates"].items()}
    return {**result, "rates": rates, "rows": compared(order)}


def _work(row: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(row[name] for name in ("case", "dtype", "mode", "batch"))


def write(folder: Path, name: str, result: dict[str, Any]) -> None:
    """`name`.json with everything, `name`.csv with the rows."""
    with atomic_write(folder / f"{name}.json") as temporary:
        temporary.write_text(json.dumps(result, indent=1) + "\n")
    with (
        atomic_write(folder / f"{name}.csv") as temporary,
        temporary.open("w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for row in result["rows"]:
            values = (row[column] for column in COLUMNS)
            writer.writerow([f"{v:.5g}" if isinstance(v, float) else v for v in values])


def summary(rows: list[dict[str, Any]]) -> str:
    """Forward and backward at the largest batch, then the rows that are slower than eager."""
    lines = []
    for case, dtype in dict.fromkeys((row["case"], row["dtype"]) for row in rows):
        mine = [row for row in rows if (row["case"], row["dtype"]) == (case, dtype)]
        mode = "both" if any(row["mode"] == "both" for row in mine) else "forward"
        largest = max(row["batch"] for row in mine)
        for row in mine:
            if (row["mode"], row["batch"]) == (mode, largest):
                lines.append(
                    f"{case:26} {dtype:9} {mode:8} {largest:8} {row['provider']:10} "
                    f"{1e3 * row['seconds']:10.3f} ms {row['times_eager']:8.2f} x eager "
                    f"{100 * row['share']:5.1f}% of {row['bound']}"
                )
    slower = [row for row in rows if row["slower_than_eager"]]
    lines.append(f"{len(rows)} rows, {len(slower)} of a kernel slower than eager PyTorch")
    lines += [
        f"  slower: {row['case']} {row['dtype']} {row['mode']} batch {row['batch']} "
        f"{row['provider']}: {row['times_eager']:.2f} x eager, {1e6 * row['seconds']:.1f} us"
        for row in slower
    ]
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    """Time, write, and print the summary."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="two batches, no torch.compile")
    parser.add_argument("--device", default="auto", help="cpu, cuda; auto: a GPU if there is one")
    parser.add_argument("--batches", help="numbers of poses, such as 1,4096")
    parser.add_argument("--compiled-batches", help="those at which torch.compile races")
    parser.add_argument("--seconds", type=float, help="spent on a row")
    parser.add_argument("-k", help="select rows by name, as pytest does")
    parser.add_argument("--merge", action="store_true", help="keep rows not timed again")
    parser.add_argument("--out", type=Path, help="default: benchmarks/results/<device>")
    options = parser.parse_args(argv)
    device = machine.pick_device(options.device)
    batches = QUICK if options.quick else BATCHES[device.type]
    compiled = () if options.quick else COMPILED[device.type]
    seconds = options.seconds or (0.05 if options.quick else 0.2)
    arguments = [f"--device={device}", f"--seconds={seconds}"]
    arguments.append(f"--batches={options.batches or _join(batches)}")
    given = options.compiled_batches
    arguments.append(f"--compiled-batches={_join(compiled) if given is None else given}")
    if options.k:
        arguments += ["-k", options.k]

    about, rates = machine.describe(device), machine.rates(device)
    start, before = time.monotonic(), machine.others_seconds()
    rows, status = time_rows(arguments)
    elapsed = (time.monotonic() - start) * (os.cpu_count() or 1)
    about["others_share"] = (machine.others_seconds() - before) / elapsed
    if not rows:
        return status
    result = {"machine": about, "rates": rates, "rows": complete(rows, rates, about)}
    folder = options.out or machine.results_folder(device)
    if options.merge and (folder / "ops.json").is_file():
        result = merged(result, json.loads((folder / "ops.json").read_text()))
    write(folder, "ops", result)
    print(summary(result["rows"]))
    print(f"other processes had {about['others_share']:.0%} of the processor meanwhile")
    print(folder / "ops.json")
    return status


def _join(numbers: tuple[int, ...]) -> str:
    return ",".join(map(str, numbers))


if __name__ == "__main__":
    sys.exit(main())
