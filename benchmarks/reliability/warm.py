"""Run commands of `ites` in forks of one process that has PyTorch imported, under faults.

Starting Python and importing PyTorch takes seconds; a fork takes milliseconds. `Warm` starts that
process, with `faults.c` preloaded, and sends it jobs.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

ROOT = Path(__file__).parents[2]
SOURCE = Path(__file__).with_name("faults.c")
KINDS = {"": 0, "kill": 1, "full": 2, "stop": 3}


def workplace() -> tempfile.TemporaryDirectory[str]:
    """A temporary folder below `build`: on the checkout's disk, not in memory."""
    (ROOT / "build").mkdir(exist_ok=True)
    return tempfile.TemporaryDirectory(dir=ROOT / "build")


@dataclass(frozen=True)
class Job:
    """A command and its fault.

    Args:
        words: of the command line, after `ites`.
        folder: where the command runs; calls that change files below it are counted.
        fault: "", "kill", "full" or "stop", at call `at`; see `faults.c`.
        at: counted from 0.
        kill_after: seconds after which the process is killed; 0: never.
        backwards: whether the clock goes backwards.
        closed: whether standard output is a pipe that nobody reads.
        hidden: folders that are made empty and read-only for the process.
        read_only: folders that the process cannot write.
        threads: of PyTorch; 0: as in the environment.
        environment: variables to set; None removes one.
        meanwhile: jobs that run while this one is stopped.
        remove: files to remove while this one is stopped.
    """

    words: tuple[str, ...]
    folder: str
    fault: str = ""
    at: int = -1
    kill_after: float = 0.0
    backwards: bool = False
    closed: bool = False
    hidden: tuple[str, ...] = ()
    read_only: tuple[str, ...] = ()
    threads: int = 0
    environment: dict[str, str | None] = field(default_factory=dict)
    meanwhile: tuple[Job, ...] = ()
    remove: tuple[str, ...] = ()


@dataclass(frozen=True)
class Ended:
    """How a job ended: its exit code, negative for a signal; its output; the calls it made."""

    code: int
    out: str
    error: str
    calls: int
    seconds: float
    meanwhile: tuple[Ended, ...] = ()


def library(folder: Path) -> Path:
    """Compile `faults.c` into a folder.

    Raises:
        FileNotFoundError: there is no C compiler.
    """
    digest = hashlib.sha256(SOURCE.read_bytes()).hexdigest()[:12]
    path = folder / f"faults-{digest}.so"
    if not path.exists():
        compiler = shutil.which("cc")
        if compiler is None:
            raise FileNotFoundError("faults.c needs a C compiler, cc")
        folder.mkdir(parents=True, exist_ok=True)
        made = folder / f"{path.name}.{os.getpid()}"
        command = [compiler, "-O1", "-shared", "-fPIC", "-o", str(made), str(SOURCE), "-ldl"]
        subprocess.run(command, check=True)
        made.rename(path)
    return path


class Warm:
    """The process that forks the jobs; a context manager.

    Args:
        build: where `faults.c` is compiled to.

    Raises:
        FileNotFoundError: there is no C compiler.
    """

    def __init__(self, build: Path = ROOT / "build" / "reliability") -> None:
        paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
        environment = {
            **os.environ,
            "LD_PRELOAD": str(library(build)),
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": os.pathsep.join(paths),
        }
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.reliability.warm"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )

    def __enter__(self) -> Warm:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def run(self, job: Job) -> Ended:
        """Run a job to its end."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(asdict(job)) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the process that forks has died")
        return _ended(json.loads(line))


def _ended(found: dict[str, Any]) -> Ended:
    return Ended(**{**found, "meanwhile": tuple(map(_ended, found["meanwhile"]))})


# The process that forks


def _serve() -> None:
    import pydantic.type_adapter  # noqa: F401  # by the command line, late
    import torch._dynamo  # noqa: F401  # by each optimiser

    import ites.cli.main
    import ites.evaluation.evaluate
    import ites.export
    import ites.inference.lift
    import ites.show.report
    import ites.show.view
    import ites.training.engine
    import ites.workflows.fit  # noqa: F401

    with contextlib.suppress(ImportError):
        import torch.utils.tensorboard  # noqa: F401
    with contextlib.suppress(ImportError):
        from plotly.graph_objects import Figure, Scatter

        Figure([Scatter()]).to_html()  # imports the rest of it
    gc.collect()
    gc.freeze()  # a fork that collects garbage would copy every page
    for line in sys.stdin:
        print(json.dumps(_run(json.loads(line))), flush=True)


def _run(job: dict[str, Any]) -> dict[str, Any]:
    """Fork, wait, and say how it ended."""
    files = [os.memfd_create(name) for name in ("out", "error", "calls")]
    begun = time.monotonic()
    child = os.fork()
    if child == 0:
        _become(job, files)
    timer = None
    if job["kill_after"]:
        timer = threading.Timer(job["kill_after"], os.kill, (child, signal.SIGKILL))
        timer.start()
    meanwhile = []
    _, status = os.waitpid(child, os.WUNTRACED)
    while os.WIFSTOPPED(status):
        for path in job["remove"]:
            Path(path).unlink()
        meanwhile += [_run(other) for other in job["meanwhile"]]
        os.kill(child, signal.SIGCONT)
        _, status = os.waitpid(child, os.WUNTRACED)
    if timer is not None:
        timer.cancel()
    out, error, calls = (_content(file) for file in files)
    return {
        "code": os.waitstatus_to_exitcode(status),
        "out": out,
        "error": error,
        "calls": int(calls or -1),
        "seconds": time.monotonic() - begun,
        "meanwhile": meanwhile,
    }


def _content(file: int) -> str:
    with open(file, encoding="utf-8", errors="replace") as stream:
        stream.seek(0)
        return stream.read()


def _become(job: dict[str, Any], files: list[int]) -> None:
    """Become the job; never returns."""
    import atexit

    from ites.cli.main import main

    code = 70
    try:
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        if job["closed"]:
            reader, writer = os.pipe()
            os.close(reader)
            os.dup2(writer, 1)
        else:
            os.dup2(files[0], 1)
        os.dup2(files[1], 2)
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
        sys.stderr = open(2, "w", closefd=False, buffering=1)  # noqa: SIM115
        os.chdir(job["folder"])
        for name, value in job["environment"].items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
        if job["hidden"] or job["read_only"]:
            _mount(job["hidden"], job["read_only"])
            os.chdir(job["folder"])
        if job["threads"]:
            import torch

            torch.set_num_threads(job["threads"])
        faults = ctypes.CDLL(None)
        place = os.fsencode(job["folder"] + "/")
        faults.faults_set(
            KINDS[job["fault"]], ctypes.c_long(job["at"]), place, int(job["backwards"])
        )
        try:
            main(job["words"])
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
        atexit._run_exitfuncs()
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        faults.faults_count.restype = ctypes.c_long
        os.write(files[2], str(faults.faults_count()).encode())
    except BaseException as error:
        os.write(files[1], f"harness: {type(error).__name__}: {error}".encode())
    finally:
        os._exit(code)


def _mount(hidden: list[str], read_only: list[str]) -> None:
    """Change folders in a mount namespace of this process's own: empty, or not to be written."""
    libc = ctypes.CDLL(None, use_errno=True)
    new_mounts, recursive, private = 0x20000, 0x4000, 0x40000
    forbid, again, bind = 1, 0x20, 0x1000

    def mount(source: str | None, target: str, kind: str | None, flags: int) -> None:
        names = [None if name is None else name.encode() for name in (source, target, kind)]
        if libc.mount(*names, flags, None):
            raise OSError(ctypes.get_errno(), "no mount", target)

    if libc.unshare(new_mounts):
        raise OSError(ctypes.get_errno(), "no mount namespace")
    mount(None, "/", None, recursive | private)
    for folder in hidden:
        mount("tmpfs", folder, "tmpfs", forbid)
    for folder in read_only:
        mount(folder, folder, None, bind)
        mount(None, folder, None, forbid | again | bind)


if __name__ == "__main__":
    _serve()
