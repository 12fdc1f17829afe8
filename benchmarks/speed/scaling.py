"""Time and memory against the number of poses and of joints.

    python -m benchmarks.speed.scaling [--quick] [--out FOLDER]

Poses, 10^4 to 10^7 of random keypoints in clips of 1000 frames: loading a store; an epoch's
batches, shuffled and gathered, without the steps between; and `ites lift` from store to file. The
network is small, because the path of the data is measured. A training step does not see how many
poses there are. Joints, 5 to 133, in a chain and in a binary tree: a step of each network at the
paper's sizes, forward, backward and SGD. Each row is measured in a process of its own. Memory is
the growth of that process at its peak, or on a GPU the memory allocated there.

Writes `scaling.csv` and `scaling.svg`, and `scaling.json` with the machine.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch

matplotlib.use("svg")
from matplotlib import pyplot as plt  # noqa: E402

from benchmarks import machine  # noqa: E402
from ites.data.store import PoseStore, PoseStoreWriter  # noqa: E402
from ites.inference.lift import lift  # noqa: E402
from ites.models import Student, Teacher  # noqa: E402
from ites.ops import RotationDraw  # noqa: E402
from ites.pose.camera import human36m_cameras  # noqa: E402
from ites.pose.skeleton import HUMAN36M, Skeleton  # noqa: E402
from ites.runs.checkpoint import Metadata, save_model  # noqa: E402
from ites.system.files import atomic_write  # noqa: E402
from ites.system.ranks import Ranks  # noqa: E402
from ites.training.feed import Feed  # noqa: E402

POSES = (10**4, 10**5, 10**6, 10**7)
JOINTS = (5, 9, 17, 33, 65, 133)
CLIP = 1000
BATCH = 128
SHAPES = ("chain", "tree")
STORE, MODEL = "store.h5", "student.safetensors"


def write_inputs(folder: Path, poses: int) -> None:
    """A store of so many poses, and a small student."""
    rng = np.random.default_rng(0)
    camera = human36m_cameras("S1")[0]
    clip = rng.normal(500, 100, (CLIP, HUMAN36M.num_joints, 2)).astype(np.float32)
    with PoseStoreWriter(folder / STORE, HUMAN36M) as writer:
        writer.add_camera("c", camera)
        for start in range(0, poses, CLIP):
            part = clip[: poses - start] + np.float32(start % 97)
            writer.add(part, camera="c", subject="S1", action="walk", fps=50)
    student = Student(width=8, blocks=1)
    save_model(folder / MODEL, student, Metadata("student", HUMAN36M, 1.0))


def load(folder: Path, device: torch.device) -> None:
    """Read the networks' input of a store."""
    with PoseStore(folder / STORE) as store:
        store.points("train")


def epoch(folder: Path, device: torch.device) -> Callable[[], None]:
    """All batches of an epoch, as a training takes them."""
    with PoseStore(folder / STORE) as store:
        points = torch.from_numpy(store.points("train")[0]).to(device)
    batches = -(-len(points) // BATCH)
    place = torch.zeros(1, dtype=torch.int64, device=device)

    def run() -> None:
        feed = Feed((points,), place, seed=0, batch=BATCH, batches=batches, ranks=Ranks())
        for index in range(batches):
            feed.seek(0, index)
            feed.batch(BATCH)
            place.add_(1)

    return run


def lift_store(folder: Path, device: torch.device) -> None:
    """Lift a store to a file."""
    model, device_name = folder / MODEL, str(device)
    lift(folder / STORE, folder / "out.h5", run=model, temporal=False, device=device_name)


def skeleton_of(shape: str, joints: int) -> Skeleton:
    """A chain of joints, or a binary tree."""
    parents = [(i - 1) // 2 if shape == "tree" else i - 1 for i in range(1, joints)]
    names = tuple(f"joint{i}" for i in range(joints))
    return Skeleton(f"{shape} {joints}", names, (-1, *parents), head=joints - 1)


def step(kind: str, shape: str, joints: int, batch: int, device: torch.device) -> Callable[[], Any]:
    """A step of a network: losses, backward pass, SGD."""
    skeleton = skeleton_of(shape, joints)
    points = 0.1 * torch.randn(batch, joints, 2, device=device)
    counter = torch.zeros(3, dtype=torch.int64, device=device)
    if kind == "teacher":
        teacher = Teacher(skeleton).to(device)
        parameters = list(teacher.parameters())

        def loss() -> torch.Tensor:
            return teacher.losses(points, RotationDraw(counter), True).total()
    else:
        student = Student(skeleton).to(device)
        parameters, depth = list(student.parameters()), torch.zeros_like(points[..., :1])

        def loss() -> torch.Tensor:
            draw = RotationDraw(counter, axes="y", max_angle=2 * torch.pi)
            return student.losses(points, depth, draw).total()

    optimiser = torch.optim.SGD(parameters, lr=1e-3, momentum=0.9, weight_decay=5e-4)

    def run() -> None:
        optimiser.zero_grad()
        loss().backward()
        optimiser.step()
        counter[1] += 1

    run()
    return run


def measure_poses(what: str, folder: Path, device: torch.device) -> dict[str, float]:
    """Seconds and megabytes of a part of the data's path."""
    if what == "epoch of batches":
        return _measured(epoch(folder, device), device)
    function = {"load a store": load, "lift a store": lift_store}[what]
    return _measured(lambda: function(folder, device), device)


def measure_joints(
    kind: str, shape: str, joints: int, batch: int, device: torch.device
) -> dict[str, float]:
    """Seconds and megabytes per step: the memory of the first, the median time of three more."""
    made: list[Callable[[], Any]] = []
    memory = _measured(lambda: made.append(step(kind, shape, joints, batch, device)), device)
    spent = [_measured(made[0], device)["seconds"] for _ in range(3)]
    return {**memory, "seconds": statistics.median(spent)}


def _measured(function: Callable[[], Any], device: torch.device) -> dict[str, float]:
    """Seconds of a call, and by how many megabytes memory grew at its peak."""
    on_gpu = device.type == "cuda"
    if on_gpu:
        torch.cuda.reset_peak_memory_stats(device)
    else:
        Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    before = _kilobytes("VmRSS")
    start = machine.clock()
    function()
    seconds = machine.clock() - start
    grown = 1e3 * (_kilobytes("VmHWM") - before)
    used = torch.cuda.max_memory_allocated(device) if on_gpu else grown
    return {"seconds": seconds, "megabytes": used / 1e6}


def _kilobytes(name: str) -> float:
    found = re.search(rf"{name}:\s*(\d+) kB", Path("/proc/self/status").read_text())
    return float(found[1]) if found else 0.0


def _alone(function: Callable[..., dict[str, float]], *arguments: Any) -> dict[str, float]:
    """The result of a function, called in a process of its own."""
    # A process with CUDA cannot be forked; elsewhere a fork saves the imports.
    context = multiprocessing.get_context("spawn" if torch.cuda.is_available() else "fork")
    with ProcessPoolExecutor(1, mp_context=context) as process:
        return process.submit(function, *arguments).result()


def measure(device: torch.device, quick: bool) -> list[dict[str, Any]]:
    """All rows, printed as they are measured."""
    rows: list[dict[str, Any]] = []

    def tell(what: str, poses: int, joints: int, result: dict[str, float]) -> None:
        rows.append({"what": what, "poses": poses, "joints": joints, **result})
        print(f"{what:22} {poses:9} poses {joints:4} joints {result['seconds']:10.4f} s "
              f"{result['megabytes']:10.1f} MB", flush=True)  # fmt: skip

    for poses in POSES[:2] if quick else POSES:
        with tempfile.TemporaryDirectory() as folder:
            write_inputs(Path(folder), poses)
            for what in ("load a store", "epoch of batches", "lift a store"):
                result = _alone(measure_poses, what, Path(folder), device)
                tell(what, poses, HUMAN36M.num_joints, result)
    batch = 8 if quick else 32
    for kind in ("teacher", "student"):
        for shape in SHAPES[1:] if quick else SHAPES:
            for joints in JOINTS[::2] if quick else JOINTS:
                result = _alone(measure_joints, kind, shape, joints, batch, device)
                tell(f"{kind} step, {shape}", batch, joints, result)
    return rows


def draw(rows: list[dict[str, Any]], about: dict[str, Any], path: Path) -> None:
    """Time and memory against poses and joints, with a line of what grows linearly."""
    figure, axes = plt.subplots(2, 2, figsize=(9, 7), layout="constrained")
    for column, (axis_of, steps) in enumerate((("poses", False), ("joints", True))):
        chosen = [row for row in rows if ("step" in row["what"]) == steps]
        for axis, unit in zip(axes[:, column], ("seconds", "megabytes"), strict=True):
            for what in dict.fromkeys(row["what"] for row in chosen):
                mine = [row for row in chosen if row["what"] == what]
                line = ([row[axis_of] for row in mine], [row[unit] for row in mine])
                axis.loglog(*line, "o-", label=what)
            ends = [min(row[axis_of] for row in chosen), max(row[axis_of] for row in chosen)]
            top = max(row[unit] for row in chosen)
            axis.loglog(ends, [top * ends[0] / ends[1], top], ":", color="0.6", label="linear")
            axis.set_xlabel(axis_of)
            axis.set_ylabel(f"{unit} of a step" if steps and unit == "seconds" else unit)
            axis.grid(True, which="major", alpha=0.3)
        axes[0, column].legend(fontsize="small")
    figure.suptitle(f"{about['device']}, torch {about['torch']}, commit {about['commit']}")
    with atomic_write(path) as temporary:
        figure.savefig(temporary, format="svg")
    plt.close(figure)


def main(argv: list[str] | None = None) -> int:
    """Measure, print, write the files."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, help="default: benchmarks/results/<device>")
    parser.add_argument("--device", default="auto", help="cpu, cuda; auto: a GPU if there is one")
    parser.add_argument("--quick", action="store_true", help="fewer and smaller: minutes")
    options = parser.parse_args(argv)
    device = machine.pick_device(options.device)
    start = time.perf_counter()
    rows = measure(device, options.quick)
    about = machine.describe(device)
    out = options.out or machine.results_folder(device)
    machine.write_table(out / "scaling.csv", list(rows[0]), rows)
    with atomic_write(out / "scaling.json") as path:
        path.write_text(json.dumps({"machine": about, "rows": rows}, indent=1) + "\n")
    draw(rows, about, out / "scaling.svg")
    print(f"{out}: {len(rows)} rows in {time.perf_counter() - start:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
