"""How commands end: one line on standard error, whatever happens, and what is whole stays."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from ites.cli.errors import describe, run
from ites.cli.main import main
from ites.data.store import PoseStore
from ites.data.synthetic.synthetic import prepare_synthetic
from ites.errors import ItesError
from ites.models import Teacher
from ites.pose.skeleton import HUMAN36M
from ites.runs.checkpoint import Metadata, load_model, save_model
from ites.runs.folder import RunFolder
from ites.system.lock import lock

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}


def start(*arguments: object, **options: Any) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "ites", *map(str, arguments)]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
    return subprocess.Popen(command, text=True, env=ENVIRONMENT, **streams)


def ites(*arguments: object, **options: Any) -> tuple[int, str]:
    """The exit code of a command and its standard error."""
    process = start(*arguments, **options)
    _, output = process.communicate()
    return process.returncode, output


def here(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str]:
    """The same in this process."""
    with pytest.raises(SystemExit) as stop:
        main([str(argument) for argument in arguments])
    return int(stop.value.code or 0), capsys.readouterr().err


def is_one_line(output: str) -> bool:
    return output.startswith("ites: ") and output.count("\n") == 1 and len(output) <= 301


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "x.h5"
    prepare_synthetic(path, poses=400, seconds=2.0)
    return path


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with a teacher."""
    run = tmp_path_factory.mktemp("run")
    torch.manual_seed(0)
    model = Teacher(HUMAN36M, width=16, blocks=1, atoms=3)
    save_model(RunFolder(run).weights("teacher"), model, Metadata("teacher", HUMAN36M, 1.0))
    return run


@pytest.mark.parametrize(
    "error, code, what",
    [
        (ItesError("a.h5: expected a store"), 2, "a.h5: expected a store"),
        (MemoryError(), 1, "not enough memory"),
        (RuntimeError("DefaultCPUAllocator: not enough memory: you tried"), 1, "not enough memory"),
        (
            RuntimeError("can't allocate memory: you tried"),
            1,
            "not enough memory",
        ),
        (RecursionError("maximum recursion depth exceeded"), 1, "RecursionError"),
        (OSError(errno.ENOSPC, "No space left on device", "a.h5"), 1, "a.h5: No space left"),
        (OSError(errno.EROFS, "Read-only file system", "a.h5"), 1, "a.h5: Read-only"),
        (PermissionError(errno.EACCES, "Permission denied", "a.h5"), 1, "a.h5: Permission denied"),
        (FileNotFoundError(errno.ENOENT, "No such file", "a.h5"), 2, "a.h5: No such file"),
        (OSError("h5py says something"), 1, "h5py says something"),
        (KeyError("x\ny" * 1000), 1, "unexpected KeyError"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_any_error_is_one_line(
    error: Exception, code: int, what: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def app(*_: Any, **__: Any) -> None:
        raise error

    assert describe(error)[0] == code
    with pytest.raises(SystemExit) as stop:
        run(app, ["lift"])
    output = capsys.readouterr().err
    assert stop.value.code == code and what in output and is_one_line(output)


def test_a_wrong_option_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    code, output = here(capsys, "lift", "--frobnicate", "x" * 500)
    assert code == 2 and is_one_line(output) and "--frobnicate" in output
    code, output = here(capsys, "lift", "-o", "clip3d.npz")
    assert code == 2 and is_one_line(output)
    assert "keypoints" in output.lower() and "ites lift --help" in output
    code, output = here(capsys, "evaluate", "run", "--data", "a.h5", "--scale", "own")
    assert code == 2 and is_one_line(output) and "own" in output


def closed_pipe() -> int:
    """The writing end of a pipe that nobody reads."""
    reading, writing = os.pipe()
    os.close(reading)
    return writing


TRAINING = ("train", "teacher", "--steps", 20, "--log-every", 2, "--width", 16, "--blocks", 1)


def test_a_training_goes_on_when_nobody_reads(store: Path, tmp_path: Path) -> None:
    pipe = closed_pipe()
    code, output = ites(*TRAINING, "--data", store, "--out", tmp_path / "run", stdout=pipe)
    os.close(pipe)
    assert (code, output) == (0, "")
    assert load_model(tmp_path / "run")[1].step == 20


def test_other_commands_end_quietly_when_nobody_reads(tmp_path: Path) -> None:
    pipe = closed_pipe()
    code, output = ites("doctor", stdout=pipe)
    os.close(pipe)
    assert (code, output) == (1, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_standard_output_is_one_line(store: Path, tmp_path: Path) -> None:
    for arguments in (("--version",), (*TRAINING, "--data", store, "--out", tmp_path)):
        with open("/dev/full", "w") as full:
            code, output = ites(*arguments, stdout=full)
        assert code == 1 and is_one_line(output), (arguments, output)
        assert "standard output: No space left on device" in output


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Mounts a small file system with options; skips where none may be mounted."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def mount(options: str) -> Path:
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
        try:
            subprocess.run(command, check=True, capture_output=True)
        except (OSError, subprocess.SubprocessError) as error:
            pytest.skip(f"no small file system: {error}")
        return folder

    yield mount
    subprocess.run(["umount", "-l", str(folder)], capture_output=True)


def keypoints(path: Path, frames: int = 20_000) -> Path:
    generator = np.random.default_rng(0)
    np.save(path, generator.normal(500, 50, (frames, 17, 2)).astype(np.float32))
    return path


@pytest.mark.parametrize(
    "suffix, place, word", [("h5", "size=1m", "No space left"), ("npz", "ro", "Read-only")]
)
def test_lift_into_a_bad_place(
    teacher: Path,
    tmp_path: Path,
    mounted: Callable[[str], Path],
    suffix: str,
    place: str,
    word: str,
) -> None:
    disk, source = mounted(place), keypoints(tmp_path / "k.npy")
    code, output = ites("lift", teacher, source, "-o", disk / f"o.{suffix}")
    assert code == 1 and is_one_line(output) and word in output, output
    assert not list(disk.rglob("*"))


def test_a_training_on_a_full_disk_keeps_what_is_whole(
    store: Path, mounted: Callable[[str], Path]
) -> None:
    disk = mounted("size=1m")
    small = disk / "small"
    code, output = ites(*TRAINING, "--data", store, "--out", small)
    assert code == 0, output
    large = ("train", "teacher", "--steps", 4, "--data", store, "--out", disk / "large")
    code, output = ites(*large)
    assert code == 1 and is_one_line(output) and "No space left" in output, output
    assert not [path for path in disk.rglob("*") if path.name.endswith((".tmp", ".lock"))]
    assert load_model(small)[1].step == 20


def test_a_second_training_is_refused_with_the_firsts_number(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    with lock(out / ".training.lock", "another training"):
        code, output = here(capsys, *TRAINING, "--data", store, "--out", out)
    assert code == 2 and is_one_line(output)
    assert f"{out}: another training is going on in process {os.getpid()}" in output
    assert not out.exists()
    code, output = here(capsys, *TRAINING, "--data", store, "--out", out)
    assert code == 0 and not (out / ".training.lock").exists()


def test_a_crash_leaves_no_lock(tmp_path: Path) -> None:
    path = tmp_path / "run" / ".training.lock"
    code = (
        "import sys; from ites.system.lock import lock\n"
        "with lock(sys.argv[1], 'run: a training'): print('held', flush=True); input()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=ENVIRONMENT,
    )
    assert process.stdout and process.stdout.readline() == b"held\n"
    with (
        pytest.raises(ItesError, match=f"run: a training is going on in process {process.pid}"),
        lock(path, "run: a training"),
    ):
        pass
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert path.exists()
    with lock(path, "run: a training"):
        assert path.read_text() == f"{os.getpid()}\n"
    assert not path.exists()


def test_a_second_lifting_into_a_file_is_refused(
    teacher: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = keypoints(tmp_path / "k.npy", 10), tmp_path / "o.npz"
    with lock(tmp_path / ".o.npz.lock", "o.npz"):
        code, output = here(capsys, "lift", teacher, source, "-o", out)
    assert code == 2 and is_one_line(output) and f"process {os.getpid()}" in output
    assert not out.exists() and not (tmp_path / "o.npz.parts").exists()
    assert here(capsys, "lift", teacher, source, "-o", out)[0] == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["k.npy", "o.npz"]


def test_the_store_is_whole_or_absent(tmp_path: Path, mounted: Callable[[str], Path]) -> None:
    disk = mounted("size=2m")
    code, _ = ites("prepare", "synthetic", "--poses", 2000, "--out", disk / "x.h5")
    assert code == 0
    before = (disk / "x.h5").read_bytes()
    code, output = ites("prepare", "synthetic", "--poses", 100_000, "--out", disk / "x.h5")
    assert code == 1 and is_one_line(output) and "x.h5: No space left" in output, output
    assert [path.name for path in disk.iterdir()] == ["x.h5"]
    assert (disk / "x.h5").read_bytes() == before
    with PoseStore(disk / "x.h5") as store:
        assert len(store) > 1000


KILLED = """
import os, signal, sys
from ites.cli.main import main
left, fsync = int(sys.argv.pop(1)), os.fsync
def count(handle):
    global left
    left -= 1
    if not left:
        os.kill(os.getpid(), signal.SIGKILL)
    fsync(handle)
os.fsync = count
main()
"""


@pytest.mark.parametrize("command, moment", [("prepare", 1), *(("lift", n) for n in (1, 3, 5, 6))])
def test_killed_at_a_write_leaves_nothing_after_the_next_call(
    teacher: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str, moment: int
) -> None:
    """Each file is written with two calls of fsync: of the file, then of its folder."""
    out = tmp_path / "out.h5"
    if command == "prepare":
        arguments = ["prepare", "synthetic", "--poses", "400", "--out", str(out)]
        inputs = set()
    else:
        source = keypoints(tmp_path / "k.npy", 10)
        arguments = ["lift", str(teacher), str(source), "-o", str(out)]
        inputs = {source}
    code = subprocess.run(
        [sys.executable, "-c", KILLED, str(moment), *arguments],
        env=ENVIRONMENT,
        capture_output=True,
    ).returncode
    assert code == -signal.SIGKILL
    assert set(tmp_path.iterdir()) != inputs  # it left something
    assert out.exists() == (moment == 6)
    assert here(capsys, *arguments)[0] == 0
    assert set(tmp_path.iterdir()) == {*inputs, out}
    with h5py.File(out) as file:
        assert file.attrs["format"] in ("ites-lifted", "ites-pose-store")


def test_torchrun_hands_on_every_option_behind_two_dashes(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`torchrun` takes --run for a short form of its own --run-path, and refuses it."""
    from torch.distributed.run import get_args_parser

    words = ["lift", "there", "is", "no", "such", "-o", "a.npz", "--run", "run"]
    with pytest.raises(SystemExit):
        get_args_parser().parse_args(["-m", "ites", *words])
    given = get_args_parser().parse_args(["-m", "ites", "--", *words]).training_script_args
    monkeypatch.setattr("sys.argv", ["ites", *given])
    with pytest.raises(SystemExit, match="2"):
        main()
    output = capsys.readouterr().err.splitlines()[-1]
    with pytest.raises(SystemExit, match="2"):
        main(words)
    assert capsys.readouterr().err.splitlines()[-1] == output and output.startswith("ites: lift: ")


def test_a_closed_pipe_does_not_stop_a_training_behind_two_dashes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[bool] = []

    @contextmanager
    def guarded(endures: bool) -> Iterator[None]:
        seen.append(endures)
        yield

    monkeypatch.setattr("ites.cli.errors._guarded_output", guarded)
    for words in (["--", "train"], ["train"], ["--", "lift"]):
        with pytest.raises(SystemExit):
            run(lambda *_, **__: 0, words)
    assert seen == [True, True, False]
