"""Count the instructions of each CUDA kernel of the built `ites._C_cuda`, per architecture.

    python -m benchmarks.ops.sass           writes results/sass.csv
    python -m benchmarks.ops.sass --check   compares with it; exits with 1

Either way it fails where a kernel moves float data byte by byte or uses local memory. The counts
are static: an instruction in a loop counts once. They are read by cuobjdump from the binary that
runs, with or without a GPU, and depend on nvcc's version, which the table names.
"""

from __future__ import annotations

import argparse
import csv
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from benchmarks import machine
from benchmarks.ops.kernel_resources import cuobjdump, extension, nvcc_version, short_name

TABLE = Path(__file__).parents[1] / "results/sass.csv"
MEMORY = ("LDG", "STG", "LDS", "STS", "LDGSTS")
WIDTHS = ("8", "16", "32", "64", "128")
OTHERS = ("LDL", "STL", "FFMA", "HMMA", "MUFU", "BAR", "SHFL", "CALL")
COUNTS = (*(f"{kind}.{width}" for kind in MEMORY for width in WIDTHS), *OTHERS, "all")
COLUMNS = ("kernel", "sm", *COUNTS, "nvcc")


def width(modifiers: list[str]) -> str:
    """Bits of a memory instruction's access."""
    for modifier in modifiers:
        if modifier in ("64", "128"):
            return modifier
        if modifier in ("U8", "S8"):
            return "8"
        if modifier in ("U16", "S16"):
            return "16"
    return "32"


def count(text: str) -> Counter[str]:
    """The instructions of one kernel's disassembly."""
    counts: Counter[str] = Counter()
    for name in re.findall(r"/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9_.]*)", text):
        kind, *modifiers = name.split(".")
        counts["all"] += kind != "NOP"
        if kind in MEMORY:
            counts[f"{kind}.{width(modifiers)}"] += 1
        elif kind in OTHERS:
            counts[kind] += 1
    return counts


def instructions(library: Path) -> list[dict[str, Any]]:
    """One row per kernel and architecture, sorted."""
    nvcc, rows = nvcc_version(library), []
    text = subprocess.run(
        [cuobjdump(), "-sass", str(library)], capture_output=True, text=True, check=True
    ).stdout
    for part in re.split(r"\n\s*code for sm_", text)[1:]:
        architecture = int(re.match(r"\d+", part)[0])  # type: ignore[index]
        names, bodies = [], []
        for function in re.split(r"\n\s+Function : ", part)[1:]:
            name, _, body = function.partition("\n")
            names.append(name.strip())
            bodies.append(body)
        reply = subprocess.run(["c++filt", *names], capture_output=True, text=True, check=True)
        for signature, body in zip(reply.stdout.splitlines(), bodies, strict=True):
            counts = count(body)
            row = {"kernel": short_name(signature), "sm": architecture, "nvcc": nvcc}
            rows.append(row | {name: counts[name] for name in COUNTS})
    return sorted(rows, key=lambda row: (row["kernel"], row["sm"]))


def faults(rows: list[dict[str, Any]]) -> list[str]:
    """Accesses that no kernel may have: of single bytes, of local memory."""
    found = []
    for row in rows:
        wrong = [name for name in COUNTS if name.endswith(".8") or name in ("LDL", "STL")]
        used = [f"{row[name]} {name}" for name in wrong if row[name]]
        if used:
            found.append(f"{row['kernel']} (sm_{row['sm']}): {', '.join(used)}")
    return found


def differences(rows: list[dict[str, Any]], table: Path) -> list[str]:
    """How rows differ from a table made by the same nvcc; empty for another's.

    Only the architectures that the rows have are compared.
    """
    with table.open(newline="") as file:
        committed = {(row["kernel"], row["sm"]): row for row in csv.DictReader(file)}
    built = {str(row["sm"]) for row in rows}
    made = {
        (row["kernel"], str(row["sm"])): {name: str(row[name]) for name in COLUMNS} for row in rows
    }
    kept = {key: row for key, row in committed.items() if key[1] in built}
    if {row["nvcc"] for row in kept.values()} != {row["nvcc"] for row in made.values()}:
        return []
    lines = []
    for key in sorted(kept.keys() | made.keys()):
        before, after = kept.get(key), made.get(key)
        if before == after:
            continue
        if before is None or after is None:
            change = "new" if before is None else "gone"
        else:
            change = ", ".join(
                f"{name} {before[name]} -> {after[name]}"
                for name in COUNTS
                if before[name] != after[name]
            )
        lines.append(f"{key[0]} sm_{key[1]}: {change}")
    return lines


def main(argv: list[str] | None = None) -> int:
    """Read the binary, then write the table or compare with it."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--check", action="store_true", help="compare with the committed table")
    parser.add_argument(
        "--library", type=Path, nargs="+", help="another built _C_cuda, or cubins of its files"
    )
    options = parser.parse_args(argv)
    try:
        libraries = options.library or [extension()]
        rows = [row for library in libraries for row in instructions(library)]
    except FileNotFoundError as error:
        print(f"sass: {error}", file=sys.stderr)
        return 2
    rows.sort(key=lambda row: (row["kernel"], row["sm"]))
    problems = faults(rows)
    if options.check:
        problems += differences(rows, TABLE)
    else:
        machine.write_table(TABLE, COLUMNS, rows)
    for problem in problems:
        print(problem, file=sys.stderr)
    print(f"{len(rows)} kernels, {len(problems)} problems")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
