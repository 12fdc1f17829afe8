"""The output of a training: a CSV file, TensorBoard, a progress bar or plain lines."""

from __future__ import annotations

import csv
import importlib.util
import io
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import ClassVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)

from ites.runs.folder import RunFolder
from ites.runs.settings import Settings
from ites.system.console import duration, say
from ites.system.files import atomic_write

Row = Mapping[str, int | float]


class GrowingCsv:
    """A CSV file that grows row by row.

    Args:
        path: the file; rows with `step` up to `keep` stay, later rows are removed.
        columns: the header; it contains `step`.
        keep: the last step to keep; 0 starts a new file.
    """

    def __init__(self, path: Path, columns: Sequence[str], keep: int = 0) -> None:
        rows: list[dict[str, str]] = []
        if keep and path.is_file():
            with path.open(newline="") as file:
                rows = [row for row in csv.DictReader(file) if _is_kept(row, keep)]
        with atomic_write(path) as temporary, temporary.open("w", newline="") as file:
            writer = csv.DictWriter(file, columns, extrasaction="ignore", lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
        self._path, self._file = path, path.open("a", newline="")
        self._writer = csv.DictWriter(self._file, columns, lineterminator="\n")

    def add(self, row: Row) -> None:
        """Append a row and flush it to disk.

        Raises:
            OSError: it cannot be written; the error names the file.
        """
        with _naming(self._path):
            self._writer.writerow(row)
            self._file.flush()

    def close(self) -> None:
        """Close the file."""
        with _naming(self._path):
            self._file.close()


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Put a path into errors of the system."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None


def _is_kept(row: Mapping[str, str | None], keep: int) -> bool:
    """Whether a row is complete and its step is at most `keep`."""
    return None not in row.values() and int(row["step"] or keep + 1) <= keep


class Log:
    """The log of one stage of a run; a context manager.

    Writes `<stage>.log.csv`, `<stage>.evaluation.csv` if there are evaluations, and TensorBoard
    events if that package is installed. Shows a progress bar on a terminal, lines elsewhere.

    Args:
        folder: of the run.
        settings: of the stage.
        losses: names of the columns that hold them.
        steps: of the whole training.
        step: steps done so far; later rows of an earlier part of this training are dropped.
        console: where lines are printed.
        label: put before the stage's name, such as "seed 3"; "" for none.
        progress: the bars of several trainings, to which this one adds its own, and which the
            caller starts and stops; None: a bar alone.
    """

    def __init__(
        self,
        folder: RunFolder,
        settings: Settings,
        losses: Sequence[str],
        *,
        steps: int,
        step: int,
        console: Console,
        label: str = "",
        progress: Progress | None = None,
    ) -> None:
        stage = settings.stage
        name = f"{label} {stage}" if label else stage
        columns = ["step", "epoch", *losses, "learning_rate", "poses_per_second", "seconds"]
        kept = step - step % settings.log_every  # rows of an earlier part of this training
        self._folder, self._stage, self._steps, self._step = folder, stage, steps, step
        self._before, self._console = step, console
        self._table = GrowingCsv(folder.log(stage), columns, kept)
        self._evaluations: GrowingCsv | None = None
        self._board = _tensorboard(folder.tensorboard(stage), kept, console)
        self._shown = time.monotonic()
        self._name, self._owns_progress = name, progress is None
        self._progress = progress or progress_bars(console)
        self._task = self._progress.add_task(name, total=steps, completed=step, losses="")

    def __enter__(self) -> Log:
        if self._owns_progress:
            self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._progress.update(self._task, completed=self._step)
        if self._owns_progress:
            self._progress.stop()
        try:
            with ExitStack() as stack:  # closes all, whichever fails
                for part in (self._board, self._evaluations, self._table):
                    if part is not None:
                        stack.callback(part.close)
        except OSError:
            if error is None:  # else the first error counts
                raise

    def advance(self, step: int) -> None:
        """Show the progress of the training; most calls return at once."""
        self._step = step
        if time.monotonic() - self._shown > 0.2:
            self._shown = time.monotonic()
            self._progress.update(self._task, completed=step)

    def row(self, row: Row, losses: Sequence[str]) -> None:
        """Record a row of the table; `losses` names the columns to show."""
        self._table.add(row)
        self._scalars("loss", {name: row[name] for name in losses}, int(row["step"]))
        rates = ("learning_rate", "poses_per_second")
        self._scalars("rate", {name: row[name] for name in rates}, int(row["step"]))
        speed = f"{row['poses_per_second']:,.0f} poses/s"
        shown = "  ".join([*(f"{name} {row[name]:.5f}" for name in losses), speed])
        self._progress.update(self._task, completed=row["step"], losses=shown)
        if not self._console.is_terminal:
            left = (self._steps - row["step"]) * row["seconds"] / max(row["step"], 1)
            self.say(f"{self._name} {row['step']}/{self._steps}  {shown}  {duration(left)} left")

    def evaluation(self, step: int, metrics: Row) -> None:
        """Record the metrics of an evaluation after `step` steps."""
        if self._evaluations is None:
            path = self._folder.evaluation_log(self._stage)
            self._evaluations = GrowingCsv(path, ["step", *metrics], self._before)
        self._evaluations.add({"step": step, **metrics})
        self._scalars("evaluation", metrics, step)
        shown = "  ".join(f"{name} {value:.1f}" for name, value in metrics.items())
        self.say(f"{self._name} {step}/{self._steps}  {shown}")

    def say(self, line: str) -> None:
        """Print a line above the progress bar."""
        say(self._console, line)

    def _scalars(self, group: str, values: Row, step: int) -> None:
        if self._board is not None:
            for name, value in values.items():
                self._board.add_scalar(f"{group}/{name}", value, step)


def progress_bars(console: Console) -> Progress:
    """Bars of trainings with their latest losses; shown on a terminal only."""
    return Progress(
        TextColumn("[bold]{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[losses]}"),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
    )


def quiet_console() -> Console:
    """A console that shows nothing."""
    return Console(file=io.StringIO())


@cache
def _has_tensorboard(console: Console) -> bool:
    """Whether TensorBoard is installed; prints one line if it is not."""
    if importlib.util.find_spec("tensorboard") is not None:
        return True
    say(console, "no TensorBoard events: it is not installed (pip install 'ites[log]')")
    return False


def _tensorboard(folder: Path, kept: int, console: Console) -> _Board | None:
    """A TensorBoard writer, or None where the package is not installed."""
    return _Board(folder, kept + 1) if _has_tensorboard(console) else None


class _Board:
    """TensorBoard's writer; an error of its thread is raised by the next call of any open writer.

    TensorBoard would print that error's traceback.

    Args:
        folder: where the events go.
        first: the first step; later events of an earlier training are hidden.

    Raises:
        OSError: the events cannot be written; every method raises it. It names the folder.
    """

    _boards: ClassVar[list[_Board]] = []
    _print: ClassVar[Callable[[threading.ExceptHookArgs], object]]  # the hook without writers

    def __init__(self, folder: Path, first: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._folder = folder
        self._error: BaseException | None = None
        self._open()
        try:
            with self._named():
                self._writer = SummaryWriter(str(folder), purge_step=first)
        except BaseException:
            self._end()
            raise

    def add_scalar(self, name: str, value: float, step: int) -> None:
        """Write a number."""
        with self._named():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Write what is left, and close the file."""
        try:
            with self._named():
                self._writer.close()
        finally:
            self._end()

    def _open(self) -> None:
        if not _Board._boards:
            _Board._print = threading.excepthook
            threading.excepthook = _Board._failed
        _Board._boards.append(self)

    def _end(self) -> None:
        if self in _Board._boards:
            _Board._boards.remove(self)
            if not _Board._boards:
                threading.excepthook = _Board._print

    @staticmethod
    def _failed(failure: threading.ExceptHookArgs) -> None:
        if type(failure.thread).__module__.startswith("tensorboard."):
            for board in _Board._boards:
                board._error = failure.exc_value
        else:
            _Board._print(failure)

    @contextmanager
    def _named(self) -> Iterator[None]:
        with _naming(self._folder):
            yield
            if self._error is not None:
                raise self._error
