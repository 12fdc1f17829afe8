"""Derive each op's issue, shared-memory and bandwidth bounds on an H100 from its machine code.

    python -m benchmarks.ops.bounds           writes the table into docs/kernels.md
    python -m benchmarks.ops.bounds --check   compares with it; exits with 1

`results/loops.csv` and `results/sass.csv` count each kernel's instructions loop by loop. `KERNELS`
says how often the warps of a block run each loop for one tile, which follows from the sources. A
warp's instruction takes an issue slot of one of four schedulers. An access to shared memory takes
a cycle per 128 bytes of a warp, or one cycle where the lanes of a pose read one place. Bytes are
those of the benchmarks' cases, or what the kernel itself reads and writes. Instructions of a
branch that a call does not take count too, so the first two bounds may be somewhat too high; bank
conflicts and waiting are not counted. Not run on a GPU.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from benchmarks.ops import bench_dictionary, bench_graph, bench_rotation
from benchmarks.ops.bench_graph import EDGES
from benchmarks.ops.cases import JOINTS, SAMPLES
from benchmarks.ops.sass import LOOPS, LOOPS_SM, TABLE
from ites.system.files import atomic_write

PAGE = Path(__file__).parents[2] / "docs/kernels.md"
BEGIN, END = "<!-- bounds: python -m benchmarks.ops.bounds -->", "<!-- end of bounds -->"

PROCESSORS, CLOCK = 132, 1.75e9  # of an H100
MEMORY, L2 = 3.0e12, 4.0e12  # bytes per second
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
    unit: in the table, a pose where it is not said. bandwidth: of the memory that the bytes come
    from.
    trips: warps' runs of each loop per tile, by the loop's number in results/loops.csv; 0 is the
    straight code. Loops that are not named do not run, or once per block for many tiles. one_place:
    how many of a loop's reads of 16 bytes get one place for all lanes of a pose.
    """

    name: str
    op: str
    bytes: float
    units: int
    trips: Mapping[int, int]
    one_place: Mapping[int, int] = {}
    unit: str = "pose"
    bandwidth: float = MEMORY


def _bytes(cases: object, name: str, mode: str) -> float:
    """Bytes per pose of a benchmark's case."""
    case = next(case for case in cases if case.name == name)  # type: ignore[attr-defined]
    return float(case.work.of(mode, 1, 4)[0])


_ROTATION, _DICTIONARY, _GRAPH = bench_rotation.CASES, bench_dictionary.CASES, bench_graph.CASES
_DRAWS, _POINTS = rounds(TILE * SAMPLES), rounds(TILE * JOINTS)
_COPY = rounds(FLOAT4S)

# The norm family's large batches, see norm_blocks.cuh: a block's slice of channels and its rows.
NORM_CHANNELS, SLICE, NORM_ROWS, NORM_WARPS, DOWN = 128, 32, 8192, 8, 32
RANGES = POSES // NORM_ROWS
JOINING = NORM_WARPS * RANGES // DOWN  # runs of the loop over the ranges' results
HALVING = NORM_WARPS * 5  # runs of a loop over halves of a block's 32 rows of threads


def _rows(unrolled: int) -> int:
    """Warps' runs of a loop over a block's rows, of which a thread takes so many per run."""
    return NORM_WARPS * NORM_ROWS // DOWN // unrolled


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
    # Norms of 2^20 rows of 128 channels: a block has 32 of these and 8,192 rows, a thread 256.
    *(
        Kernel(
            f"{name}<float, true>",
            op,
            tensors * 4 * NORM_CHANNELS,
            NORM_ROWS * SLICE // NORM_CHANNELS,
            trips,
            unit="row",
        )
        for name, op, tensors, trips in (
            ("moments", "`batch_norm_relu`, statistics", 1, {0: 8, 1: _rows(8)}),
            ("apply", "its second launch", 3, {0: 8, 1: JOINING, 2: _rows(2)}),
            ("sums", "its gradient, sums", 4, {0: 8, 2: _rows(4)}),
            ("backward_apply", "its second launch", 3, {0: 8, 1: JOINING, 3: _rows(4)}),
            ("joint_moments", "`nested_norm_relu`, statistics", 2, {0: 8, 1: _rows(4), 3: HALVING}),
            ("nested_apply", "its second launch", 4, {0: 8, 1: JOINING, 2: HALVING, 3: _rows(2)}),
            ("nested_sums", "its gradient, sums", 3, {0: 8, 2: _rows(4)}),
            ("nested_backward", "its second launch", 5, {0: 8, 1: JOINING, 3: _rows(4)}),
        )
    ),
    Kernel(  # a tile of four poses: two warps for the non-local block, four for the convolution
        "graph_mix_17<float>",
        "`graph_mix`",
        _bytes(_GRAPH, "graph_mix", "forward"),
        4,
        {0: 6, 1: 2, 3: 2, 4: 2, 5: 2, 7: 4 * JOINTS, 8: 4 * 2},
    ),
    Kernel(  # loops 43 to 75 are sums over 16 lanes, 76 to 92 clear columns that nothing uses
        "graph_mix_backward_17<float>",
        "its gradient",
        _bytes(_GRAPH, "graph_mix", "backward"),
        4,
        {
            4: 4,
            34: 4 * JOINTS,
            35: 4 * (EDGES - JOINTS),
            42: 2,
            **dict.fromkeys(range(43, 76), 2 * 4),
            **dict.fromkeys(range(76, 93), 2),
            93: 2 * JOINTS,
        },
    ),
    # Layers of 512 rows and 256 outputs, 1,024 inner places: a block has 64 x 32, in 32 chunks.
    *(
        Kernel(
            f"{name}<Tf32, 64>",
            op,
            4 * (1024 * (64 + 32) + 64 * 32 * tensors) / 8,
            64 * 32 // 256,
            {
                0: 8,
                1: 8 * 3,
                2: 8 * 3,
                **dict.fromkeys((4, 6, 8), 8 * 2),
                10: 8 * 32,
                11: 8 * 29,
                13: 8 * 29 * 2,
                **joining,
            },
            unit="row",
            bandwidth=L2,
        )
        for name, op, tensors, joining in (
            ("linear_norm_relu", "`linear_norm_relu`, TF32", 2, {15: 8 * 4}),
            ("linear_norm_relu_backward", "its gradient", 3, {16: 8 * 2}),
        )
    ),
    Kernel(  # a block's 1,360 rows of 128 x 128 of a weight, in 85 chunks; eight blocks' sums
        "weight_gradients<Tf32>",
        "`weight_gradients`, TF32",
        4 * 2 * 128,
        1360,
        {
            0: 8,
            1: 8 * 8,
            2: 8 * 3,
            3: 8 * 3 * 2,
            5: 8 * 3 * 2,
            7: 8 * 85,
            8: 8 * 82 * 2,
            10: 8 * 82 * 2,
            12: 8 * 85 * 2,
            13: 8 * 2,
            14: 8 * 2 * 8,
        },
        unit="row of 128 x 128",
        bandwidth=L2,
    ),
    Kernel(  # a warp has a row of 1,024 weights for up to four poses
        "linear_relu<4>",
        "`linear_relu`",
        4 * 1024,
        1,
        {0: 1, 1: 1024 // (2 * 4 * WARP)},
        unit="row of weights",
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
    per_cycle = kernel.bandwidth / PROCESSORS / CLOCK
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
        "| kernel | per | issue | shared memory | memory | bound | of 2^20 |",
        "|---|---|---|---|---|---|---|",
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
            kernel.unit,
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
