"""The machine that a benchmark runs on: its name, its versions, and the two rates that bound it."""

from __future__ import annotations

import csv
import os
import platform
import re
import statistics
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

import ites
from ites.ops import backends
from ites.system.files import atomic_write

RESULTS = Path(__file__).parent / "results"

Function = Callable[[], object]
Counted = Callable[[], int]


def pick_device(name: str = "auto") -> torch.device:
    """The device of an option; "auto" is a GPU where there is one."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def device_name(device: torch.device) -> str:
    """The processor's name, such as "NVIDIA H200" or "AMD EPYC, 2 threads"."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    model = platform.processor() or platform.machine()
    information = Path("/proc/cpuinfo")
    if information.is_file():
        found = re.search(r"model name\s*:\s*(.+)", information.read_text())
        model = found[1] if found else model
    return f"{model}, {torch.get_num_threads()} threads"


def free_memory(device: torch.device) -> int:
    """Bytes that are free on the device."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device)
    found = re.search(r"MemAvailable:\s*(\d+) kB", Path("/proc/meminfo").read_text())
    return 1024 * int(found[1]) if found else 4 << 30


def results_folder(device: torch.device) -> Path:
    """`benchmarks/results/<device>`, made of the device's name."""
    slug = re.sub(r"[^a-z0-9]+", "-", device_name(device).lower()).strip("-")
    return RESULTS / slug


def describe(device: torch.device) -> dict[str, Any]:
    """What a result must say of where it was measured."""
    return {
        "device": device_name(device),
        "kind": device.type,
        "driver": _output("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader")
        if device.type == "cuda"
        else None,
        "platform": platform.platform(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "triton": _version("triton"),
        "ites": ites.__version__,
        "commit": commit(),
        "missing": backends.MISSING,
        "date": time.strftime("%Y-%m-%d %H:%M:%S %Z"),
    }


def commit() -> str | None:
    """The commit of this tree, with "+" where tracked files differ from it."""
    revision = _output("git", "rev-parse", "--short=12", "HEAD")
    if revision is None:
        return None
    changed = _output("git", "status", "--porcelain", "--untracked-files=no")
    return revision + ("+" if changed else "")


def _output(*command: str) -> str | None:
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=True, cwd=Path(__file__).parent
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def _version(package: str) -> str | None:
    try:
        return __import__(package).__version__
    except ImportError:
        return None


def others_seconds() -> float:
    """Seconds of processor time that other processes and guests of a host had; 0 if unknown."""
    counts = Path("/proc/stat")
    if not counts.is_file():
        return 0.0
    user, nice, system, _idle, _waiting, *others = map(int, counts.read_text().split()[1:9])
    busy = (user + nice + system + sum(others)) / os.sysconf("SC_CLK_TCK")
    return busy - sum(os.times()[:4])


def clock() -> float:
    """Seconds, after the GPU has finished what it was given: a timer for pytest-benchmark."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
    return time.perf_counter()


def seconds_each(function: Function, enough: float = 2e-3) -> tuple[float, int]:
    """Seconds a call, warmed up, and how many calls in a row were timed to last `enough`."""
    function()
    calls = 1
    while True:
        start = clock()
        for _ in range(calls):
            function()
        spent = clock() - start
        if spent >= enough or calls >= 1 << 14:
            return spent / calls, calls
        calls = min(1 << 14, max(2 * calls, int(1.2 * calls * enough / max(spent, 1e-9))))


def interleaved(functions: Mapping[str, Counted], rounds: int, calls: int = 1) -> dict[str, float]:
    """Median seconds per step of each function, in turns so that drifts affect all equally.

    Args:
        functions: what to time, warmed up, by name; each returns how many steps it took.
        rounds: how many times each has its turn.
        calls: of a function in its turn, so that a GPU's launches queue as they do in earnest.
    """
    times: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(rounds):
        for name, function in functions.items():
            start = clock()
            steps = sum(function() for _ in range(calls))
            times[name].append((clock() - start) / steps)
    return {name: statistics.median(spent) for name, spent in times.items()}


def write_table(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Write rows as a CSV table, wholly or not at all; its folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def show_and_write(
    path: Path, columns: Sequence[str], rows: Sequence[Mapping[str, Any]], width: int = 10
) -> None:
    """Print rows in columns of a width, each value's last characters, and write them as CSV."""
    print(" ".join(f"{name:>{width}}" for name in columns))
    for row in rows:
        print(" ".join(f"{str(row[name])[-width:]:>{width}}" for name in columns))
    write_table(path, columns, rows)
    print(f"wrote {path}")


@contextmanager
def matmul_precision(name: str) -> Iterator[None]:
    """PyTorch's float32 matmul precision within a block: "highest", or "high" for TF32."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(name)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def copy_bandwidth(device: torch.device) -> float:
    """Bytes per second of a large copy on the device, reads and writes counted."""
    size = 1 << (32 if device.type == "cuda" else 28)
    source = torch.empty(size // 4, device=device).uniform_()
    target = torch.empty_like(source)
    return 2 * size / _best(lambda: target.copy_(source))


def matrix_product(
    device: torch.device, dtype: torch.dtype = torch.float32
) -> tuple[Function, float]:
    """A large matrix product on random numbers, and the FLOP it takes."""
    size = 8192 if device.type == "cuda" else 2048
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    out = torch.empty_like(a)
    return lambda: torch.mm(a, b, out=out), 2.0 * size**3


def matrix_rate(device: torch.device, dtype: torch.dtype = torch.float32) -> float:
    """Floating-point operations per second of a large matrix product."""
    product, flop = matrix_product(device, dtype)
    return flop / _best(product)


def rates(device: torch.device) -> dict[str, float]:
    """The rates that rows are compared with: copied bytes and products' FLOP, per second."""
    measured = {"copy": copy_bandwidth(device), "float32": matrix_rate(device)}
    if device.type == "cuda":
        with matmul_precision("high"):
            measured["tf32"] = matrix_rate(device)
        measured["bf16"] = matrix_rate(device, torch.bfloat16)
    return measured


def _best(function: Function, rounds: int = 7) -> float:
    return min(seconds_each(function, 5e-2)[0] for _ in range(rounds))
