"""The ops from several threads and processes: the numbers of one thread, bit for bit."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ites import ops
from ites.ops import backends
from ites.ops.backends import BACKENDS

THREADS = 8
ROUNDS = 25
HERE = [name for name in BACKENDS if name in ("reference", "cpp") and name not in backends.MISSING]


def work(seed: int, backend: str) -> list[Tensor]:
    """Values and gradients of several ops at once."""
    generator = torch.Generator().manual_seed(seed)
    vectors, joints, points = (
        torch.randn(*shape, generator=generator) for shape in ((64, 3), (64, 17, 3), (64, 17, 2))
    )
    weight = torch.randn(20, 34, generator=generator)
    wanted = [tensor.requires_grad_() for tensor in (vectors, joints, points, weight)]
    rotations = ops.so3_exp(vectors, backend=backend)
    turned, _ = ops.rotate_project(joints, rotations.detach(), with_rotated=True, backend=backend)
    features = ops.linear(points.flatten(1), weight, backend=backend)
    total = rotations.sum() + turned.square().sum() + features.square().sum()
    return [
        rotations.detach(),
        turned.detach(),
        features.detach(),
        *torch.autograd.grad(total, wanted),
    ]


def equal(ours: list[Tensor], theirs: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("backend", HERE)
def test_eight_threads_at_once(backend: str) -> None:
    alone = [work(seed, backend) for seed in range(THREADS)]
    with ThreadPoolExecutor(THREADS) as pool:
        found = list(pool.map(lambda i: work(i % THREADS, backend), range(THREADS * ROUNDS)))
    assert all(equal(result, alone[i % THREADS]) for i, result in enumerate(found))


@pytest.mark.parametrize("backend", HERE)
def test_a_refused_call_changes_nothing(backend: str) -> None:
    """In its own thread, in another one, and between the calls of eight."""
    before = work(0, backend)

    def fails_then_works(_: int) -> list[Tensor]:
        for wrong in (torch.zeros(2, 4), torch.zeros(2, 3, dtype=torch.int64)):
            with pytest.raises((ValueError, TypeError)):
                ops.so3_exp(wrong, backend=backend)
        return work(0, backend)

    assert equal(fails_then_works(0), before)
    with ThreadPoolExecutor(THREADS) as pool:
        assert all(equal(result, before) for result in pool.map(fails_then_works, range(40)))


class Rotations(Dataset[Tensor]):
    """Items that are computed by an op in the worker."""

    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> Tensor:
        return ops.so3_exp(torch.full((4, 3), 0.1 * index))


@pytest.mark.parametrize("start, workers", (("fork", 2), ("spawn", 1)))
def test_in_the_workers_of_a_loader(start: str, workers: int) -> None:
    expected = torch.stack([Rotations()[index] for index in range(6)])
    loader = DataLoader(
        Rotations(), batch_size=3, num_workers=workers, multiprocessing_context=start
    )
    assert torch.equal(torch.cat(list(loader)), expected)
