"""The training set in batches, at a fixed address on the device."""

from __future__ import annotations

import math
from concurrent.futures import Future, ThreadPoolExecutor

import torch
from torch import Tensor

from ites.ops import philox
from ites.system.ranks import Ranks

ORDER = 1 << 62  # offset of the draws that shuffle, beyond any step's
CHUNK = 64 << 20  # maximum bytes per chunk


def device_budget(megabytes: float, device: torch.device) -> float:
    """Bytes of a device that a training set may take.

    Args:
        megabytes: the user's choice; 0: half of the free memory of a GPU, all of main memory.
        device: the training's.
    """
    if megabytes:
        return megabytes * 1e6
    return torch.cuda.mem_get_info(device)[0] / 2 if device.type == "cuda" else math.inf


class Feed:
    """The batches of a training in the order of its epochs.

    A chunk of batches lies on the device, gathered in the epoch's order from data on the device.
    Data that do not fit stay in main memory; a thread then gathers the next chunk into pinned
    memory while the present one is used. Both ways give the same order and numbers.

    Args:
        data: tensors (N, ...), on the training's device, or in main memory.
        batch_index: int64 (1,) on the training's device: the next batch's number in the chunk.
        seed: of the order.
        batch: poses per batch over all ranks.
        batches: batches per epoch; the last one may be short.
        ranks: each takes its share of every batch.
        stream: whether the chunks come from main memory.
        limit: maximum bytes per chunk; a chunk holds at least one batch.
    """

    def __init__(
        self,
        data: tuple[Tensor, ...],
        batch_index: Tensor,
        *,
        seed: int,
        batch: int,
        batches: int,
        ranks: Ranks,
        stream: bool = False,
        limit: float = CHUNK,
    ) -> None:
        self.data, self.batch_index, self.seed, self.ranks = data, batch_index, seed, ranks
        self.poses, self.size, self.batches = len(data[0]), batch, batches
        self.whole = min(self.poses // batch, batches)  # full batches
        self.width = -(-min(batch, self.poses) // ranks.count)  # maximum poses per share
        pose_bytes = sum(tensor[0].numel() * tensor.element_size() for tensor in data)
        self.slots = max(1, min(int(limit) // (self.width * pose_bytes), batches))
        shapes = [(self.slots, self.width, *tensor.shape[1:]) for tensor in data]
        self.chunk = tuple(
            tensor.new_empty(shape, device=batch_index.device)
            for tensor, shape in zip(data, shapes, strict=True)
        )
        self._loaded = (-1, -1)  # epoch, chunk
        self._shuffled = -1  # epoch of the order
        self._gathered = self.chunk
        self._thread: ThreadPoolExecutor | None = None
        if stream:
            cuda = batch_index.device.type == "cuda"
            self._gathered = tuple(
                torch.empty_like(chunk, device="cpu", pin_memory=cuda) for chunk in self.chunk
            )
            self._copied = torch.cuda.Event() if cuda else None
            self._thread = ThreadPoolExecutor(1, "feed")
            self._coming: tuple[tuple[int, int], Future[None]] | None = None

    def seek(self, epoch: int, index: int) -> None:
        """Make batch `index` of an epoch available to the next step."""
        number, place = divmod(index, self.slots)
        if (epoch, number) == self._loaded:
            return
        if self._thread is None:
            self._gather(epoch, number)
        else:
            self._receive(self._thread, epoch, number)
        self._loaded = (epoch, number)
        self.batch_index.fill_(place)

    def ahead(self, index: int) -> int:
        """The number of equal-sized batches from `index` on in the chunk."""
        end = (index // self.slots + 1) * self.slots
        return min(end, self.whole) - index if index < self.whole else 1

    def batch(self, poses: int) -> tuple[Tensor, ...]:
        """The batch at `batch_index`: (poses, ...) per tensor; reads device memory only."""
        return tuple(chunk.index_select(0, self.batch_index)[0, :poses] for chunk in self.chunk)

    def _receive(self, thread: ThreadPoolExecutor, epoch: int, number: int) -> None:
        """Copy the gathered chunk to the device and start gathering the next one."""
        if self._coming is None or self._coming[0] != (epoch, number):
            self._coming = ((epoch, number), thread.submit(self._gather, epoch, number))
        self._coming[1].result()
        for chunk, gathered in zip(self.chunk, self._gathered, strict=True):
            chunk.copy_(gathered, non_blocking=True)
        if self._copied is not None:
            self._copied.record(torch.cuda.current_stream(self.batch_index.device))
        last = (number + 1) * self.slots >= self.batches
        following = (epoch + 1, 0) if last else (epoch, number + 1)
        self._coming = (following, thread.submit(self._gather, *following))

    def _gather(self, epoch: int, number: int) -> None:
        """Gather this rank's poses of a chunk."""
        if self._thread is not None and self._copied is not None:
            self._copied.synchronize()
        rows = self._rows(epoch, number)
        for tensor, gathered in zip(self.data, self._gathered, strict=True):
            torch.index_select(tensor, 0, rows, out=gathered.flatten(0, 1)[: len(rows)])

    def _rows(self, epoch: int, number: int) -> Tensor:
        """Indices of the poses in a chunk's slots; slots beyond a share's end are never read."""
        device = self.data[0].device
        if epoch != self._shuffled:
            self._order = epoch_order(self.seed, epoch, self.poses, device)
            self._shuffled = epoch
        first = number * self.slots
        index = torch.arange(first, min(first + self.slots, self.batches), device=device)
        short = self.ranks.share(self.poses - self.whole * self.size).start
        begin = torch.where(index < self.whole, self.ranks.share(self.size).start, short)
        rows = (index * self.size + begin)[:, None] + torch.arange(self.width, device=device)
        return self._order[rows.clamp_(max=self.poses - 1).flatten()]


def epoch_order(seed: int, epoch: int, poses: int, device: torch.device) -> Tensor:
    """The order of the poses in an epoch: a permutation that depends on seed and epoch only.

    It sorts 63 random bits per pose, so it is the same on every device.

    Returns:
        (poses,) int64.
    """
    counter = torch.zeros(3, dtype=torch.int64, device=device)
    counter[0], counter[1] = seed, ORDER + epoch  # no synchronisation with the device
    words = philox(counter, poses, 1)
    return torch.argsort((words[:, 0] << 31) | (words[:, 1] >> 1), stable=True)
