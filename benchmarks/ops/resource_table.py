"""A table of what compiled kernels take of a GPU: registers, local memory and shared memory.

The figures depend on the version of the compiler, which the last column names.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import machine

Row = Mapping[str, Any]


class ResourceTable(NamedTuple):
    """A committed table.

    Attributes:
        path: of the CSV file.
        columns: those that name a row, "sm" among them; then registers, bytes of local memory and
            bytes of shared memory; then the compiler's version.
    """

    path: Path
    columns: tuple[str, ...]

    def differences(self, rows: Iterable[Row]) -> list[str]:
        """How rows differ from the committed ones.

        Only the architectures of the rows are compared. Nothing is compared with another
        compiler's rows.
        """
        made = self._keyed(rows)
        with self.path.open(newline="") as file:
            committed = self._keyed(csv.DictReader(file))
        architectures, compiler = {row["sm"] for row in made.values()}, self.columns[-1]
        committed = {key: row for key, row in committed.items() if row["sm"] in architectures}
        versions = [{row[compiler] for row in table.values()} for table in (committed, made)]
        if versions[0] != versions[1]:
            return []
        return [
            f"{' '.join(key)}: committed {self._use(committed.get(key))}; "
            f"now {self._use(made.get(key))}"
            for key in sorted(committed.keys() | made.keys())
            if committed.get(key) != made.get(key)
        ]

    def line(self, row: Row) -> str:
        """A row for people."""
        names = "".join(f"{row[name]:<{8 if name == 'sm' else 40}}" for name in self.columns[:-4])
        return f"{names}{self._use(row)}"

    def finish(self, rows: list[Row], *, check: bool, write: bool) -> int:
        """Print the problems of rows and write the table.

        Args:
            rows: of all kernels.
            check: compare them with the committed table instead of writing it.
            write: whether the rows are complete.

        Returns:
            The exit status: 1 if a kernel spills or differs.
        """
        problems = [f"{self.line(row)}: spills" for row in rows if row[self.columns[-3]]]
        if check:
            problems += self.differences(rows)
        elif write:
            machine.write_table(self.path, self.columns, rows)
        for problem in problems:
            print(problem, file=sys.stderr)
        print(f"{len(rows)} kernels, {len(problems)} problems")
        return 1 if problems else 0

    def _keyed(self, rows: Iterable[Row]) -> dict[tuple[str, ...], dict[str, str]]:
        texts = [{name: str(row[name]) for name in self.columns} for row in rows]
        return {tuple(row[name] for name in self.columns[:-4]): row for row in texts}

    def _use(self, row: Row | None) -> str:
        if row is None:
            return "absent"
        return ", ".join(f"{name} {row[name]}" for name in self.columns[-4:-1])
