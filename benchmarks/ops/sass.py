"""Count the instructions of each CUDA kernel of the built `ites._C_cuda`, per architecture.

    python -m benchmarks.ops.sass           writes results/sass.csv and results/loops.csv
    python -m benchmarks.ops.sass --check   compares with them; exits with 1

Either way it fails where a kernel moves float data byte by byte, uses local memory, or accesses
global memory before its wait for the launch before it; asynchronous copies may start. The counts
are static: an instruction in a loop counts once. loops.csv has them loop by loop, for sm_90, from
which `benchmarks.ops.bounds` makes the counts of a call. They are read by cuobjdump from the
binary that runs, with or without a GPU, and depend on nvcc's version, which the table names.
"""

from __future__ import annotations

import csv
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from benchmarks import machine
from benchmarks.ops.kernel_resources import (
    cuobjdump,
    extension,
    nvcc_version,
    read_options,
    short_name,
)

TABLE = Path(__file__).parents[1] / "results/sass.csv"
MEMORY = ("LDG", "STG", "LDS", "STS", "LDGSTS")
WIDTHS = ("8", "16", "32", "64", "128")
OTHERS = ("LDL", "STL", "FFMA", "HMMA", "MUFU", "BAR", "SHFL", "CALL")
COUNTS = (*(f"{kind}.{width}" for kind in MEMORY for width in WIDTHS), *OTHERS, "all")
EARLY = "accesses before the wait"  # of a row; the table has no column for it
COLUMNS = ("kernel", "sm", *COUNTS, "nvcc")
LOOPS = TABLE.with_name("loops.csv")
LOOPS_SM = 90
LOOP_COLUMNS = ("kernel", "loop", "depth", *COUNTS, "nvcc")
_INSTRUCTION = re.compile(r"/\*([0-9a-f]{4,})\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9_.]*)([^;\n]*);")


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
    return count_names(name for _, name, _ in _INSTRUCTION.findall(text))


def count_names(names: Iterable[str]) -> Counter[str]:
    """The counts of instructions by their names."""
    counts: Counter[str] = Counter()
    for name in names:
        kind, *modifiers = name.split(".")
        counts["all"] += kind != "NOP"
        if kind in MEMORY:
            counts[f"{kind}.{width(modifiers)}"] += 1
        elif kind in OTHERS:
            counts[kind] += 1
    return counts


WAIT, ACCESSES = "ACQBULK", ("LDG", "LD", "STG", "ST")


def early(text: str) -> int:
    """Accesses of global memory that stand before a kernel's wait for the launch before it."""
    names = [name.split(".")[0] for _, name, _ in _INSTRUCTION.findall(text)]
    before = names[: names.index(WAIT)] if WAIT in names else []
    return sum(name in ACCESSES for name in before)


def loops(text: str) -> list[tuple[int, Counter[str]]]:
    """The straight code of a disassembly, then its loops by place: depth, and own counts.

    A loop lies between the target of a backward branch and the last one there. What belongs to an
    inner loop is no longer the outer one's own.
    """
    code = [(int(at, 16), name, rest) for at, name, rest in _INSTRUCTION.findall(text)]
    ends: dict[int, int] = {}
    for at, name, rest in code:
        target = re.search(r"0x([0-9a-f]+)", rest)
        if name.split(".")[0] == "BRA" and target and int(target[1], 16) < at:
            ends[int(target[1], 16)] = at
    spans = sorted(ends.items())
    own: list[list[str]] = [[] for _ in range(len(spans) + 1)]
    for at, name, _ in code:
        within = [i for i, (begin, end) in enumerate(spans, 1) if begin <= at <= end]
        own[within[-1] if within else 0].append(name)
    depths = [0] + [sum(b <= begin and end <= e for b, e in spans) for begin, end in spans]
    return [(depth, count_names(names)) for depth, names in zip(depths, own, strict=True)]


def disassembled(library: Path) -> Iterator[tuple[int, str, str]]:
    """Architecture, short name and disassembly of each kernel."""
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
            yield architecture, short_name(signature), body


def instructions(library: Path) -> list[dict[str, Any]]:
    """One row per kernel and architecture, sorted."""
    nvcc, rows = nvcc_version(library), []
    for architecture, kernel, body in disassembled(library):
        counts = count(body)
        row = {"kernel": kernel, "sm": architecture, "nvcc": nvcc, EARLY: early(body)}
        rows.append(row | {name: counts[name] for name in COUNTS})
    return sorted(rows, key=lambda row: (row["kernel"], row["sm"]))


def loop_rows(library: Path) -> list[dict[str, Any]]:
    """One row per loop of each kernel for sm_90; loop 0 is the straight code."""
    nvcc, rows = nvcc_version(library), []
    for architecture, kernel, body in disassembled(library):
        if architecture == LOOPS_SM:
            for number, (depth, counts) in enumerate(loops(body)):
                row = {"kernel": kernel, "loop": number, "depth": depth, "nvcc": nvcc}
                rows.append(row | {name: counts[name] for name in COUNTS})
    return sorted(rows, key=lambda row: (row["kernel"], row["loop"]))


def faults(rows: list[dict[str, Any]]) -> list[str]:
    """Accesses that no kernel may have: of single bytes, of local memory, before its wait."""
    found = []
    for row in rows:
        wrong = [name for name in COUNTS if name.endswith(".8") or name in ("LDL", "STL")]
        wrong.append(EARLY)
        used = [f"{row[name]} {name}" for name in wrong if row[name]]
        if used:
            found.append(f"{row['kernel']} (sm_{row['sm']}): {', '.join(used)}")
    return found


def differences(rows: list[dict[str, Any]], table: Path, key: str = "sm") -> list[str]:
    """How rows differ from a table made by the same nvcc; empty for another's.

    Only the architectures that the rows have are compared.

    Args:
        rows: as built.
        table: as committed.
        key: the column that tells rows of a kernel apart: "sm" or "loop".
    """
    columns = COLUMNS if key == "sm" else LOOP_COLUMNS
    with table.open(newline="") as file:
        committed = {(row["kernel"], row[key]): row for row in csv.DictReader(file)}
    built = {str(row[key]) for row in rows}
    made = {(row["kernel"], str(row[key])): {n: str(row[n]) for n in columns} for row in rows}
    kept = {at: row for at, row in committed.items() if key == "loop" or at[1] in built}
    if {row["nvcc"] for row in kept.values()} != {row["nvcc"] for row in made.values()}:
        return []
    lines = []
    for at in sorted(kept.keys() | made.keys()):
        before, after = kept.get(at), made.get(at)
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
        lines.append(f"{at[0]} {key} {at[1]}: {change}")
    return lines


def main(argv: list[str] | None = None) -> int:
    """Read the binary, then write the table or compare with it."""
    options = read_options(argv, __doc__.split("\n")[0])
    try:
        libraries = options.library or [extension()]
        rows = [row for library in libraries for row in instructions(library)]
        looped = [row for library in libraries for row in loop_rows(library)]
    except FileNotFoundError as error:
        print(f"sass: {error}", file=sys.stderr)
        return 2
    rows.sort(key=lambda row: (row["kernel"], row["sm"]))
    problems = faults(rows)
    if options.check:
        problems += differences(rows, TABLE)
        problems += differences(looped, LOOPS, "loop") if looped else []
    else:
        machine.write_table(TABLE, COLUMNS, ({n: row[n] for n in COLUMNS} for row in rows))
        machine.write_table(LOOPS, LOOP_COLUMNS, looped)
    for problem in problems:
        print(problem, file=sys.stderr)
    print(f"{len(rows)} kernels, {len(problems)} problems")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
