"""Kill commands at each of their writes, and at random moments, and call them again.

    python -m benchmarks.reliability.kills [--random 200] [--command lift ...] [--publish]

A kill is SIGKILL. At each call that changes a file, see `faults.c`, one run of the command is
killed; these runs come in random order. If the call is a write, half of its bytes are written.
After a kill each file is checked: absent, or whole. Then the command is called again, a training
and a lifting with --resume. All files must be bit for bit those of an undisturbed run, and nothing
else may be left. The second call is left out where an earlier kill of the command has left the same
files, but for the bytes of temporary files, and was continued without a fault.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from benchmarks.reliability.commands import (
    COMMANDS,
    Trial,
    broken,
    differences,
    files_of,
    make_template,
    orphans,
    state_of,
)
from benchmarks.reliability.fuzz import SCRATCH
from benchmarks.reliability.tables import renew
from benchmarks.reliability.warm import Warm

COLUMNS = (
    "command", "calls that change a file", "kills at a call", "kills at random",
    "file neither absent nor whole", "next call failed", "result differs", "orphan left",
)  # fmt: skip
FAILURES = COLUMNS[4:]
PORTION = 20
"""Kills after which the table is written; a run that is stopped then leaves a row of fewer."""


class Killing(Trial):
    """A command that is killed again and again; for its arguments see `Trial`."""

    def kill(self, at: int = -1, after: float = 0.0) -> list[tuple[str, str]]:
        """Kill one run at a call, or after seconds: which of `FAILURES` were found, and where."""
        self.place()
        fault = "kill" if at >= 0 else ""
        ended = self.warm.run(replace(self.job, fault=fault, at=at, kill_after=after))
        if at >= 0 and ended.code != -9:
            raise RuntimeError(f"{self.command.words}: exit code {ended.code} at call {at}")
        grows = self.command.words[0] in ("train", "fit")
        found = broken(self.work, None if grows else files_of(self.clean))
        failures = [(FAILURES[0], name) for name in found]
        left = state_of(self.work)
        if left in self.continued:
            return failures
        ended = self.again() if ended.code else ended
        if ended.code:
            failures.append((FAILURES[1], ended.error))
        failures += [(FAILURES[2], name) for name in differences(self.work, self.clean)]
        failures += [(FAILURES[3], name) for name in orphans(self.work)]
        if not failures:
            self.continued.add(left)
        return failures


def evenly(count: int, most: int) -> Iterable[int]:
    """At most so many of the numbers below `count`, evenly spaced."""
    return (
        sorted({index * count // most for index in range(most)}) if count > most else range(count)
    )


def main(argv: list[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--random", type=int, default=200, help="kills at random moments, in all")
    parser.add_argument("--most", type=int, default=1000, help="kills at calls, per command")
    parser.add_argument("--command", nargs="+", choices=COMMANDS, default=list(COMMANDS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--publish", action="store_true", help="put the rows in the table")
    given = parser.parse_args(argv)
    rng, rows = random.Random(given.seed), []
    with tempfile.TemporaryDirectory(dir=SCRATCH) as home, Warm() as warm:
        template = Path(home) / "template"
        make_template(warm, template)
        for index, name in enumerate(given.command):
            killing = Killing(warm, COMMANDS[name], template, Path(home) / name.replace(" ", "-"))
            drawn = len(range(index, given.random, len(given.command)))
            trials = [(at, 0.0) for at in evenly(killing.calls, given.most)]
            trials += [(-1, rng.uniform(0.01, 1.1) * killing.seconds) for _ in range(drawn)]
            random.Random(given.seed).shuffle(trials)
            rows.append(
                {"command": name, COLUMNS[1]: killing.calls, **dict.fromkeys(COLUMNS[2:], 0)}
            )
            for number, (at, after) in enumerate(trials, 1):
                rows[-1][COLUMNS[2] if at >= 0 else COLUMNS[3]] += 1
                failures = killing.kill(at, after)
                for failure in {failure for failure, _ in failures}:
                    rows[-1][failure] += 1
                for failure, where in failures:
                    moment = f"call {at}" if at >= 0 else f"{after:.3f} s"
                    print(f"{name}, killed at {moment}: {failure}: {where}", flush=True)
                if given.publish and (number == len(trials) or number % PORTION == 0):
                    renew("kills", COLUMNS, COLUMNS[:1], rows)
            print("  ".join(f"{key} {value}" for key, value in rows[-1].items()), flush=True)
    return int(any(row[failure] for row in rows for failure in FAILURES))


if __name__ == "__main__":
    sys.exit(main())
