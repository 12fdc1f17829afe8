"""Run commands in faulty places: how each ends, what it says, and what it leaves.

    python -m benchmarks.reliability.places [--command lift ...] [--fault "closed pipe" ...]
        [--publish]

A run is right if it gives what a run without a fault gives. It is also right if its exit code is 1
or 2, with the reason in one line of at most 300 characters, file first. It then leaves nothing, or
complete work that the next call continues to the same result. A state that was continued to it
before is not continued again. Faults that need another user or a mount are made by root alone.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.reliability.commands import (
    COMMANDS,
    Trial,
    broken,
    differences,
    files_of,
    make_template,
    orphans,
    place,
    state_of,
)
from benchmarks.reliability.kills import evenly
from benchmarks.reliability.tables import renew
from benchmarks.reliability.warm import Ended, Job, Warm, workplace

COLUMNS = ("fault", "command", "runs", "exit code", "line", "left", "right")
LINE = 300
NAMES_A_FILE = re.compile(r"ites: [^:]+: .+")
FINDINGS = ("warning: ", "note: ")
"""How a line about doubtful keypoints begins; such lines come with and without a fault."""
ROOM = (0, 4, 16, 64, 256)
"""KiB that a small disk has beyond a command's inputs."""
RESULT, NOTHING, RESUMABLE = "the result", "nothing", "work to continue"


@dataclass(frozen=True)
class Found:
    """How a run ended: exit code, its line, what it left, and whether that is right."""

    code: int
    line: str
    left: str
    right: bool


class Place(Trial):
    """A command that is run in faulty places; for its arguments see `Trial`."""

    def run(self, job: Job) -> list[Found]:
        """Run a job in a fresh folder, and judge it and what ran meanwhile."""
        self.place()
        return self.judged(job, self.warm.run(job))

    def judged(self, job: Job, ended: Ended) -> list[Found]:
        """Judge what a job did to its folder."""
        gone = {str(Path(path).relative_to(self.work)) for path in job.remove}
        left, complete = self.left(gone)
        found = []
        for one in (ended, *ended.meanwhile):
            lines = [x for x in one.error.splitlines() if not x.startswith(FINDINGS)]
            line = "\n".join(lines).strip()
            told = bool(NAMES_A_FILE.fullmatch(line)) and len(line) <= LINE
            told &= "unexpected" not in line
            right = complete and (
                one.code == 0 or (one.code in (1, 2) and (told or job.closed and not line))
            )
            found.append(Found(one.code, shown(line, self.work), left, right))
        if ended.code == 0 and left != RESULT:
            found[0] = replace(found[0], right=False)
        return found

    def left(self, gone: set[str]) -> tuple[str, bool]:
        """What lies in the folder, and whether it is whole."""
        given = set(files_of(place(self.command, self.template, self.work.with_name("given"))))
        new = sorted(set(files_of(self.work)) - given)
        lying = orphans(self.work)
        if not new and not lying and not self.empty_folders():
            return NOTHING, True
        different = [name for name in differences(self.work, self.clean) if name not in gone]
        if not different and not lying:
            return RESULT, True
        if not lying and not broken(self.work, files_of(self.clean)) and not self.command.again:
            return f"of two files the first, whole: {' '.join(new)}", True
        if self.command.again and not broken(self.work):
            state = state_of(self.work)
            if state in self.continued:
                return RESUMABLE, True
            for name in gone:
                path = self.template / name
                shutil.copy2(path, self.work / name)
            ended = self.again()
            lying = [ended.error] * bool(ended.code) + orphans(self.work)
            lying += differences(self.work, self.clean)
            if not lying:
                self.continued.add(state)
                return RESUMABLE, True
        return f"{' '.join([*lying, *different, *self.empty_folders()][:3])}", False

    def empty_folders(self) -> list[str]:
        """Folders without a file."""
        found = (path for path in self.work.rglob("*") if path.is_dir())
        return [str(path.relative_to(self.work)) for path in found if not any(path.iterdir())]


def shown(line: str, work: Path) -> str:
    """A line for the table: without what differs from run to run."""
    line = line.replace(f"{work}/", "").replace(str(work), ".").replace("|", "\\|")
    return re.sub(r"process \d+", "process N", re.sub(r"\s+", " ", line))


# The faults: each yields what its runs found


def disk_full(where: Place) -> Iterator[Found]:
    """The disk is full from one call on: every call in turn."""
    for at in evenly(where.calls, where_most):
        yield from where.run(replace(where.job, fault="full", at=at))


def small_disk(where: Place) -> Iterator[Found]:
    """A tmpfs with little room beyond the inputs."""
    if os.geteuid():
        return
    work = where.work
    for room in ROOM:
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        inputs = sum(
            -(-path.stat().st_size // 4096) * 4
            for name in where.command.inputs
            for path in [where.template / name, *(where.template / name).rglob("*")]
        )
        size = inputs + room + 4
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={size}k", "tmpfs", str(work)], check=True
        )
        try:
            for name in where.command.inputs:
                copy = shutil.copytree if (where.template / name).is_dir() else shutil.copy2
                copy(where.template / name, work / name)
            ended = where.warm.run(where.job)
            copied = work.with_name("copied")
            shutil.rmtree(copied, ignore_errors=True)
            shutil.copytree(work, copied)
        finally:
            subprocess.run(["umount", "-l", str(work)], check=True)
        shutil.rmtree(work)
        copied.rename(work)
        yield from where.judged(where.job, ended)


def read_only(where: Place) -> Iterator[Found]:
    """A folder in a file system that is mounted read-only."""
    if not os.geteuid():
        yield from where.run(replace(where.job, read_only=(str(where.work),)))


def input_removed(where: Place) -> Iterator[Found]:
    """An input is removed in the middle of the run."""
    removed = [where.work / name for name in where.command.inputs]
    paths = [path for path in removed if (where.template / path.name).is_file()]
    if paths:
        half = replace(where.job, fault="stop", at=where.calls // 2)
        yield from where.run(replace(half, remove=(str(paths[0]),)))


def closed_pipe(where: Place) -> Iterator[Found]:
    """Nobody reads standard output."""
    yield from where.run(replace(where.job, closed=True))


def clock_backwards(where: Place) -> Iterator[Found]:
    """Each look at the clock gives an earlier time."""
    yield from where.run(replace(where.job, backwards=True))


def no_shared_memory(where: Place) -> Iterator[Found]:
    """/dev/shm cannot be written."""
    if not os.geteuid():
        yield from where.run(replace(where.job, hidden=("/dev/shm",)))


def no_home(where: Place) -> Iterator[Found]:
    """HOME and the cache's folder are unset, or cannot exist."""
    for value in (None, "/proc/nowhere"):
        environment = {name: value for name in ("HOME", "XDG_CACHE_HOME", "MPLCONFIGDIR")}
        yield from where.run(replace(where.job, environment=environment))


def no_temporary_folder(where: Place) -> Iterator[Found]:
    """TMPDIR cannot exist, and the usual folders cannot be written."""
    if not os.geteuid():
        environment: dict[str, str | None] = dict.fromkeys(("TMPDIR", "TMP", "TEMP"), "/proc/none")
        hidden = ("/tmp", "/var/tmp")
        yield from where.run(replace(where.job, environment=environment, hidden=hidden))


def two_at_once(where: Place) -> Iterator[Found]:
    """The same command runs in the same folder, while the first is in its middle."""
    half = replace(where.job, fault="stop", at=where.calls // 2)
    yield from where.run(replace(half, meanwhile=(where.job,)))


FAULTS = {
    "disk full at each write": disk_full,
    "small disk": small_disk,
    "read-only folder": read_only,
    "input removed in mid-run": input_removed,
    "closed pipe": closed_pipe,
    "clock backwards": clock_backwards,
    "no /dev/shm": no_shared_memory,
    "no HOME": no_home,
    "no TMPDIR": no_temporary_folder,
    "two at once": two_at_once,
}
where_most = 1000


def summary(fault: str, command: str, found: list[Found]) -> dict[str, object]:
    """A row of the table of all runs of a command under a fault."""
    lines = list(dict.fromkeys(one.line for one in found if one.line))
    shown = "; ".join(lines[:2]) + (f"; {len(lines) - 2} more like these" if lines[2:] else "")
    values = (
        fault,
        command,
        len(found),
        ", ".join(map(str, sorted({one.code for one in found}))),
        shown,
        ", ".join(sorted({one.left for one in found})),
        f"{sum(one.right for one in found)} of {len(found)}",
    )
    return dict(zip(COLUMNS, values, strict=True))


def main(argv: list[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--command", nargs="+", choices=COMMANDS, default=list(COMMANDS))
    parser.add_argument("--fault", nargs="+", choices=FAULTS, default=list(FAULTS))
    parser.add_argument("--most", type=int, default=1000, help="writes at which a disk is full")
    parser.add_argument("--publish", action="store_true", help="put the rows in the table")
    given = parser.parse_args(argv)
    global where_most
    where_most = given.most
    rows, wrong = [], 0
    with contextlib.ExitStack() as stack:
        home = Path(stack.enter_context(workplace()))
        home.chmod(0o755)
        warm = stack.enter_context(Warm())
        make_template(warm, home / "template")
        places = {
            name: Place(warm, COMMANDS[name], home / "template", home / name.replace(" ", "-"))
            for name in given.command
        }
        for fault in given.fault:
            for name, where in places.items():
                found = list(FAULTS[fault](where))
                for number, one in enumerate(found):
                    if not one.right:
                        wrong += 1
                        print(f"{name}, {fault}, run {number}: wrong: {one}", flush=True)
                if found:
                    rows.append(summary(fault, name, found))
                    print("  ".join(map(str, rows[-1].values())), flush=True)
                    if given.publish:
                        renew("places", COLUMNS, COLUMNS[:2], rows)
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
