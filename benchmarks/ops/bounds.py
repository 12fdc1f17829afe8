"""Derive each op's issue, shared-memory and bandwidth bounds on an H100 from its machine code.

    python -m benchmarks.ops.bounds           writes the table into docs/kernels.md
    python -m benchmarks.ops.bounds --check   compares with it; exits with 1

`results/loops.csv` and `results/sass.csv` count each kernel's instructions loop by loop. `KERNELS`
says how often the warps of a block run each loop for one tile, which follows from the sources. A
warp's instruction takes an issue slot of one of four schedulers. An access to shared memory takes
a cycle per 128 bytes of a warp, or one cycle where the lanes of a pose read one place. Bytes are
those of the benchmarks' cases. Instructions of a branch that a call does not take count too, so the
first two bounds may be somewhat too high; bank conflicts and waiting are not counted. Not run on a
GPU.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from benchmarks.ops import bench_dictionary, bench_rotation
from benchmarks.ops.cases import JOINTS, SAMPLES
from benchmarks.ops.sass import LOOPS, LOOPS_SM, TABLE
from ites.system.files import atomic_write

PAGE = Path(__file__).parents[2] / "docs/kernels.md"
BEGIN, END = "<!-- bounds: python -m benchmarks.ops.bounds -->", "<!-- end of bounds -->"

PROCESSORS, CLOCK, BANDWIDTH = 132, 1.75e9, 3.0e12  # of an H100: bytes per second
SCHEDULERS, WARP, LINE = 4, 32, 128  # per processor; threads; bytes of shared memory per cycle
POSES = 1 << 20

TILE = 32  # poses of a block's tile in large batches
THREADS = 272
WARPS = -(-THREADS // WARP)
PAIRS = TILE // 2 * JOINTS  # two poses per thread
FLOAT4S = TILE * 3 * JOINTS // 4  # of a tile's 3D poses
ATOM4S = TILE * 12 // 4  # of a tile's coefficients


def rounds(items: int, threads: int = THREADS) -> int:
    """How often warps run the body of a loop that deals items to a block's threads."""
    whole, left = divmod(items, threads)
    return whole * -(-threads // WARP) + -(-left // WARP)


class Kernel(NamedTuple):
    """A kernel's geometry.

    name: in results/sass.csv. op: in the table. bytes: per unit, that must move. units: of a tile.
    trips: warps' runs of each loop per tile, by the loop's number in results/loops.csv; 0 is the
    straight code. Loops that are not named do not run, or once per block for many tiles. one_place:
    how many of a loop's reads of 16 bytes get one place for all lanes of a pose.
    """

    name: str
    op: str
    bytes: float
    units: int
    trips: Mapping[int, int]
    one_place: Mapping[int, int]


def _bytes(cases: object, name: str, mode: str) -> float:
    """Bytes per pose of a benchmark's case."""
    case = next(case for case in cases if case.name == name)  # type: ignore[attr-defined]
    return float(case.work.of(mode, 1, 4)[0])


_ROTATION, _DICTIONARY = bench_rotation.CASES, bench_dictionary.CASES
_DRAWS, _POINTS = rounds(TILE * SAMPLES), rounds(TILE * JOINTS)
_COPY = rounds(FLOAT4S)
KERNELS = (
    Kernel(
        "rotate_project<17, false>",
        "`rotate_project`",
        _bytes(_ROTATION, "rotate_project", "forward"),
        TILE,
        {0: WARPS, 1: _COPY, 3: WARPS, 4: _DRAWS, 5: SAMPLES * WARPS, 7: SAMPLES * _POINTS},
        {7: 2},
    ),
    Kernel(  # the loop over samples is unrolled twice
        "rotate_project_backward<17, false>",
        "its gradient",
        _bytes(_ROTATION, "rotate_project", "backward"),
        TILE,
        {
            0: WARPS,
            1: _COPY,
            3: WARPS,
            4: _DRAWS,
            5: _POINTS,
            7: SAMPLES // 2 * _POINTS,
            8: _COPY,
        },
        {5: 4, 7: 4},
    ),
    Kernel(  # as above
        "equivariance_distance<17, false>",
        "`equivariance_distance`",
        _bytes(_ROTATION, "equivariance_distance", "forward"),
        TILE,
        {
            0: WARPS,
            1: _COPY,
            3: WARPS,
            4: _DRAWS,
            5: _POINTS,
            6: SAMPLES // 2 * _POINTS,
            7: _DRAWS,
        },
        {5: 2, 6: 4},
    ),
    Kernel(
        "equivariance_distance_backward<17, false>",
        "its gradient",
        _bytes(_ROTATION, "equivariance_distance", "backward"),
        TILE,
        {
            0: WARPS,
            1: _COPY,
            3: WARPS,
            4: _DRAWS,
            7: _POINTS,
            8: SAMPLES * _POINTS,
            9: _COPY,
        },
        {8: 2},
    ),
    Kernel(
        "dictionary_reprojection<17, 12>",
        "`dictionary_reprojection`",
        _bytes(_DICTIONARY, "dictionary_reprojection", "forward"),
        TILE,
        {
            3: WARPS,
            4: rounds(ATOM4S),
            7: rounds(TILE),
            8: rounds(PAIRS),
            9: _COPY,
            11: _COPY,
            13: rounds(TILE),
        },
        {8: 10},
    ),
    Kernel(  # of the error and the canonical pose; sums over 6 or 7 poses, unrolled four times
        "dictionary_reprojection_backward<17, 12>",
        "its gradient",
        _bytes(_DICTIONARY, "dictionary_reprojection", "backward"),
        TILE,
        {
            3: WARPS,
            4: rounds(ATOM4S),
            7: rounds(TILE),
            10: _COPY,
            12: rounds(PAIRS),
            13: 2 * rounds(PAIRS),
            14: rounds(5 * 3 * JOINTS),
            15: rounds(ATOM4S),
            16: JOINTS * rounds(ATOM4S),
            17: rounds(3 * TILE),
            18: rounds(3 * TILE),
            19: rounds(TILE),
        },
        {3: 9, 12: 6, 13: 2, 14: 12, 16: 3},
    ),
    Kernel(
        "invariance_distance<17, 12>",
        "`invariance_distance`",
        _bytes(_DICTIONARY, "invariance_distance", "forward"),
        TILE,
        {
            3: WARPS,
            4: _COPY,
            6: WARPS,
            7: SAMPLES * WARPS,
            8: SAMPLES * rounds(ATOM4S),
            11: rounds(SAMPLES * PAIRS),
            12: SAMPLES * WARPS,
            13: SAMPLES * rounds(TILE),
        },
        {11: 6},
    ),
    Kernel(
        "invariance_distance_backward<17, 12>",
        "its gradient",
        _bytes(_DICTIONARY, "invariance_distance", "backward"),
        TILE,
        {
            3: WARPS,
            4: _COPY,
            6: SAMPLES * WARPS,
            7: SAMPLES * rounds(ATOM4S),
            10: SAMPLES * rounds(PAIRS),
            11: SAMPLES * rounds(5 * 3 * JOINTS),
            12: SAMPLES * rounds(ATOM4S),
            13: SAMPLES * JOINTS * rounds(ATOM4S),
            14: _COPY,
        },
        {6: 9, 10: 6, 11: 12, 13: 3},
    ),
)


class Bound(NamedTuple):
    """Cycles of a streaming multiprocessor per unit."""

    issue: float
    shared: float
    memory: float

    @property
    def largest(self) -> str:
        """What bounds the kernel."""
        return max(zip(self, ("issue", "shared memory", "memory"), strict=True))[1]


def read(path: Path) -> list[dict[str, str]]:
    """The rows of a table."""
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def bound(kernel: Kernel, loops: Mapping[int, Mapping[str, str]]) -> Bound:
    """The bounds of a kernel from its loops' counts.

    Raises:
        ValueError: the geometry names a loop that the machine code lacks.
    """
    if not kernel.trips.keys() <= loops.keys():
        raise ValueError(
            f"{kernel.name}: expected loops {sorted(kernel.trips)}, got {sorted(loops)}; "
            "the machine code has changed, so KERNELS must"
        )
    issued = cycles = 0
    for number, trips in kernel.trips.items():
        counts = loops[number]
        issued += trips * int(counts["all"])
        for kind in ("LDS", "STS", "LDGSTS"):
            for width in (8, 16, 32, 64, 128):
                accesses = trips * int(counts[f"{kind}.{width}"])
                cycles += accesses * max(1, width // 8 * WARP // LINE)
        whole = 128 // 8 * WARP // LINE
        cycles -= trips * kernel.one_place.get(number, 0) * (whole - 1)
    per_cycle = BANDWIDTH / PROCESSORS / CLOCK
    return Bound(
        issued / SCHEDULERS / kernel.units, cycles / kernel.units, kernel.bytes / per_cycle
    )


def table() -> str:
    """The table of bounds, in Markdown.

    Raises:
        ValueError: the two tables of counts differ, or see `bound`.
    """
    loops: dict[str, dict[int, dict[str, str]]] = defaultdict(dict)
    for row in read(LOOPS):
        loops[row["kernel"]][int(row["loop"])] = row
    whole = {row["kernel"]: row for row in read(TABLE) if int(row["sm"]) == LOOPS_SM}
    lines = [
        "| kernel | issue | shared memory | memory | bound | at 2^20 poses |",
        "|---|---|---|---|---|---|",
    ]
    for kernel in KERNELS:
        own = loops[kernel.name]
        counted = sum(int(row["all"]) for row in own.values())
        if kernel.name not in whole or counted != int(whole[kernel.name]["all"]):
            raise ValueError(f"{kernel.name}: {LOOPS.name} and {TABLE.name} differ; make both")
        found = bound(kernel, own)
        spent = 1e3 * max(found) * POSES / PROCESSORS / CLOCK
        cells = (
            kernel.op,
            *(f"{cycles:.0f}" for cycles in found),
            found.largest,
            f"{spent:.2f} ms",
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def replaced(page: str, made: str) -> str:
    """A page with the table between its marks.

    Raises:
        ValueError: it has no marks.
    """
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{PAGE.name}: expected the marks {BEGIN} and {END}")
    return f"{before}{BEGIN}\n\n{made}\n\n{END}{after}"


def main(argv: list[str] | None = None) -> int:
    """Derive, then write the table or compare it."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--check", action="store_true", help="compare with the page")
    options = parser.parse_args(argv)
    page = PAGE.read_text(encoding="utf-8")
    try:
        made = table()
        new = replaced(page, made)
    except ValueError as error:
        print(f"bounds: {error}", file=sys.stderr)
        return 1
    print(made)
    if options.check:
        if new != page:
            print(f"{PAGE.name}: its bounds differ; run this without --check", file=sys.stderr)
        return int(new != page)
    with atomic_write(PAGE) as temporary:
        temporary.write_text(new, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
