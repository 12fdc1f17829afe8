"""Write `ites/ops/choices.json`, the ranking for `backend=None`, from measured times.

    python -m benchmarks.ops.choose [benchmarks/results/<device>/ops.json ...]

Backends are ordered by their mean time over all batches, forward and with the backward pass. Each
time is relative to the fastest of its row. One order serves all batches of an op. The command tells
where another backend than the first is faster at some batch by more than a tenth.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

from benchmarks import machine
from ites.ops import backends
from ites.system.files import atomic_write

TABLE = Path(backends.__file__).with_name("choices.json")
CLEARLY = 1.1


def order(rows: list[dict[str, Any]]) -> tuple[list[str], list[str]]:
    """Backends of one op, fastest first; and in words where the first is not the fastest.

    Args:
        rows: of that op, as `benchmarks.ops.run` writes them.
    """
    works: dict[tuple[Any, ...], dict[str, float]] = defaultdict(dict)
    for row in rows:
        if row["provider"] in backends.BACKENDS and row["mode"] != "backward":
            work = tuple(row[name] for name in ("case", "dtype", "mode", "batch"))
            works[work][row["provider"]] = row["seconds"]
    logarithms: dict[str, list[float]] = defaultdict(list)
    for times in works.values():
        fastest = min(times.values())
        for backend, seconds in times.items():
            logarithms[backend].append(math.log(seconds / fastest))
    ranked = sorted(logarithms, key=lambda b: sum(logarithms[b]) / len(logarithms[b]))
    exceptions = []
    for work, times in works.items():
        if ranked[0] not in times:  # it leaves so few poses to another
            continue
        fastest_backend = min(times, key=lambda b: times[b])
        behind = times[ranked[0]] / times[fastest_backend]
        if behind > CLEARLY:
            named = " ".join(map(str, work))
            exceptions.append(
                f"{named}: {fastest_backend} is {behind:.2f} x as fast as {ranked[0]}"
            )
    return ranked, exceptions


def choices(result: dict[str, Any]) -> tuple[dict[str, list[str]], list[str]]:
    """The order of backends for every op of a result, and the exceptions."""
    by_op: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in result["rows"]:
        by_op[row["op"]].append(row)
    orders, exceptions = {}, []
    for op, rows in sorted(by_op.items()):
        orders[op], more = order(rows)
        exceptions += more
    return orders, exceptions


def main(argv: list[str] | None = None) -> int:
    """Replace the tables of the kinds of device that were measured."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("results", nargs="*", type=Path, help="default: those of this machine")
    options = parser.parse_args(argv)
    here = machine.results_folder(machine.pick_device()) / "ops.json"
    table = json.loads(TABLE.read_text())
    for path in options.results or [here]:
        result = json.loads(path.read_text())
        orders, exceptions = choices(result)
        about = result["machine"]
        kept = ("device", "torch", "triton", "commit", "date")
        table[about["kind"]] |= {"measured": {k: about[k] for k in kept}, "ops": orders}
        for op, ranked in orders.items():
            print(f"{about['kind']:5} {op:24} {' > '.join(ranked)}")
        print(*(f"exception: {exception}" for exception in exceptions), sep="\n")
    with atomic_write(TABLE) as temporary:
        temporary.write_text(json.dumps(table, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
