"""Leave out each barrier and each wait for copies of csrc/cuda in turn; the checker must see it.

    PYTHONPATH=tests/helpers:. python -m emulated_cuda.mutants

Prints what is not caught and exits with 1: a barrier that nothing needs has to go, and one that
the calls below do not test needs another call. Each is left out in a process of its own, which ends
at the first report.
"""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from emulated_cuda import plugin
from ites import ops
from ites.ops.weight_gradients import BITS, weight_gradients
from ites.pose.skeleton import HUMAN36M, Skeleton

CAUGHT = 42  # see races.cpp
LIMIT = 60  # seconds of a process; one that hangs has lost a barrier that others wait at
WAIT = re.compile(
    r"\b(__syncthreads|finish_copies|finish_groups_but<.*>|cluster_wait|wait_for_launch_before)\(\);"
)
FORK = Skeleton("fork", tuple("abcde"), (-1, 0, 1, 1, 3), left=(2,), right=(3,), head=4)

Calls = Callable[[], None]


def sites() -> dict[str, list[str]]:
    """The barriers and waits, "file:line", by the file of csrc/cuda."""
    found: dict[str, list[str]] = {}
    for file in sorted(plugin.CSRC.glob("cuda/*.cu*")):
        for number, line in enumerate(file.read_text().splitlines(), 1):
            if WAIT.search(line) and "asm" not in line:
                found.setdefault(file.name, []).append(f"{file.name}:{number}")
    return found


def _random(*shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(sum(shape))
    return torch.randn(shape, generator=generator).requires_grad_()


def _differentiate(*outputs: Tensor | None) -> None:
    sum(out.sum() for out in outputs if out is not None and out.requires_grad).backward()


def rotation() -> None:
    """The rotation family, in several tiles, samples in several rounds."""
    draw = ops.RotationDraw(torch.tensor([5, 7, 3]), 9)
    for batch in (3, 37):
        for joints in (17, 5):
            pose = _random(batch, joints, 3)
            turn = ops.TurnDraw(draw.counter, _random(batch), _random(2).detach(), 9)
            for rotations in (draw, turn):
                for rotated in (False, True):
                    _differentiate(
                        *ops.rotate_project(pose, rotations, with_rotated=rotated, backend="cuda")
                    )
                points, depth = _random(9 * batch, joints, 2), _random(9 * batch, joints, 1)
                _differentiate(
                    ops.equivariance_distance(pose, points, depth, rotations, backend="cuda")
                )


def dictionary() -> None:
    """The dictionary family, with several tiles per block."""
    for batch in (3, 67, 200):
        for joints, atoms in ((17, 12), (5, 7)):
            parts = _random(atoms, 3 * joints), _random(3 * joints)
            _differentiate(
                *ops.dictionary_reprojection(
                    _random(batch, atoms), *parts, _random(batch, 3),
                    _random(batch, joints, 2).detach(), backend="cuda",
                )
            )  # fmt: skip
            views, canonical = _random(9 * batch, atoms), _random(batch, joints, 3)
            _differentiate(ops.invariance_distance(views, *parts, canonical, backend="cuda"))


def graph() -> None:
    """The graph family, both kernels, with several tiles per block."""
    for batch in (3, 37):
        for skeleton, channels, inner in (
            (HUMAN36M, 64, 64), (HUMAN36M, 36, 68), (HUMAN36M, 8, 0), (FORK, 8, 4),
        ):  # fmt: skip
            columns = 2 * (channels + inner) + (4 if inner else 0)
            bias = _random(channels + (inner + 1 if inner else 0))
            _differentiate(
                *ops.graph_mix(
                    _random(batch, skeleton.num_joints, columns), _random(len(skeleton.edges)),
                    bias, ops.graph_of(skeleton, torch.device("cpu")), channels,
                    _random(inner) if inner else None,
                    _random(batch, skeleton.num_joints, channels), backend="cuda",
                )
            )  # fmt: skip


def norm() -> None:
    """The norms, few rows and many."""
    for rows in (5, 200, 700):
        x, skip = _random(rows, 40), _random(rows, 40)
        weights = [_random(40) for _ in range(3)]
        _differentiate(ops.batch_norm_relu(x, *weights[:2], skip, backend="cuda")[0])
        _differentiate(
            ops.nested_norm_relu(x, weights[0], skip, *weights[1:], x, backend="cuda")[0]
        )


def frame() -> None:
    """A stream's frames, more than the block has warps, and windows that are not full."""
    root, head = HUMAN36M.root, HUMAN36M.head
    parents, joints = zip(*HUMAN36M.bones, strict=True)
    bones = torch.tensor([joints, parents])
    for count in (1, 40):
        points, pose = _random(count, 17, 2).detach(), _random(count, 17, 3).detach()
        sizes = torch.full((64,), torch.nan)
        for _ in range(2):
            ops.frame_points(points, root, head, sizes=sizes, backend="cuda")
            ops.frame_metres(pose, bones, None, sizes, root, head, metres=0.7, backend="cuda")


def linear_norm() -> None:
    """Layers of clusters of one block and of several, with a residual and without."""
    for rows, skips in ((5, (-1, -1)), (40, (-1, 0)), (260, (-1, -1))):
        widths = [(40, 12), (40, 40)]
        weights = [_random(*shape) for shape in widths]
        gammas, betas = ([_random(40) for _ in widths] for _ in range(2))
        layers = ops.NormLayers(weights, gammas, betas, skips)
        _differentiate(ops.linear_norm_relu(_random(rows, 12), layers, backend="cuda")[0])


def weights() -> None:
    """Gradients of weights by one block and by several, whose tiles are many chunks."""
    for rows in (20, 600):
        grads, inputs = [_random(rows, 12).detach()], [_random(rows, 20).detach()]
        weight_gradients(grads, inputs, 1, BITS["tf32"])


FAMILIES: dict[str, Calls] = {
    "rotation.cu": rotation,
    "dictionary.cu": dictionary,
    "graph.cu": graph,
    "graph_17.cuh": graph,
    "graph_any.cuh": graph,
    "graph_tables.cuh": graph,
    "linear_norm.cu": linear_norm,
    "norm.cu": norm,
    "nested_norm.cu": norm,
    "norm_blocks.cuh": norm,
    "weight_gradients.cu": weights,
    "frame.cu": frame,
    "product.cuh": linear_norm,
}


def _without(site: str, calls: Calls) -> bool:
    """Whether leaving out a barrier is noticed: by the checker, by a crash or by a hang."""
    child = os.fork()
    if child == 0:
        signal.alarm(LIMIT)
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115 - a process that ends here
        plugin.load().races_leave_out(site.encode())
        try:
            calls()
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    return status != 0


def missed() -> Iterator[str]:
    """The barriers that can be left out unnoticed."""
    for file, found in sites().items():
        for site in found:
            if not _without(site, FAMILIES[file]):
                yield site


def main() -> int:
    """Check the kernels as they are, then without each barrier."""
    torch.set_num_threads(1)
    plugin.stand_in()
    for calls in dict.fromkeys(FAMILIES.values()):
        calls()
    whole = plugin.reports()
    lost = list(missed())
    for line in (*whole, *(f"not caught: {site}" for site in lost)):
        print(line)
    print(f"{sum(map(len, sites().values()))} barriers and waits, {len(lost)} not caught")
    return 1 if whole or lost else 0


if __name__ == "__main__":
    sys.exit(main())
