"""Distributed processes, as `torchrun` starts them.

`torchrun --nproc-per-node 2 -m ites train ...` starts two processes, rank 0 and rank 1 of 2.
Without it there is one process, rank 0 of 1. Only rank 0 writes files and prints.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist

from ites.errors import ItesError

PATIENCE = timedelta(minutes=30)
"""Timeout for a rank that is alive but silent; a dead one is noticed at once."""


@dataclass(frozen=True)
class Ranks:
    """One process of a distributed job.

    Args:
        rank: the index of this process, from 0.
        count: the number of processes.
        local: the index of this process on its machine; also its GPU index.
    """

    rank: int = 0
    count: int = 1
    local: int = 0

    @classmethod
    def here(cls) -> Ranks:
        """This process, from `torchrun`'s environment variables."""
        rank, count, local = (
            int(os.environ.get(name, default))
            for name, default in (("RANK", "0"), ("WORLD_SIZE", "1"), ("LOCAL_RANK", "0"))
        )
        return cls(rank, count, local)

    @property
    def is_main(self) -> bool:
        """Whether this is rank 0, which writes and prints."""
        return self.rank == 0

    @property
    def distributed(self) -> bool:
        """Whether there are other processes."""
        return self.count > 1

    def share(self, size: int) -> slice:
        """This rank's share of `size` items; shares are contiguous and differ by at most one."""
        return slice(self.rank * size // self.count, (self.rank + 1) * size // self.count)

    def any(self, flag: bool, device: torch.device) -> bool:
        """Whether the flag is set on any rank; waits for all ranks."""
        if not self.distributed:
            return flag
        flags = torch.tensor([flag], dtype=torch.int32, device=device)
        dist.all_reduce(flags, dist.ReduceOp.MAX)
        return bool(flags.item())

    def barrier(self, device: torch.device) -> None:
        """Wait for all ranks."""
        self.any(False, device)

    @contextmanager
    def joined(self, device: torch.device) -> Iterator[None]:
        """Join the process group, with NCCL on GPUs and gloo on CPUs; it persists after the block.

        Raises:
            ItesError: another rank died or was stopped within the block.
        """
        if not self.distributed:
            yield
            return
        try:
            if device.type == "cuda":
                torch.cuda.set_device(device)
            if not dist.is_initialized():
                backend = "nccl" if device.type == "cuda" else "gloo"
                dist.init_process_group(backend, timeout=PATIENCE)
            yield
        except RuntimeError as error:
            if not isinstance(error, dist.DistError) and "gloo" not in str(error):
                raise
            raise ItesError(
                f"rank {self.rank} of {self.count} lost another rank, which died or was stopped; "
                f"resume all of them ({str(error).splitlines()[0]})",
                code="lost-rank",
            ) from None

    def leave(self) -> None:
        """Wait for all ranks, then destroy the process group.

        A rank that leaves early makes the others fail.
        """
        if self.distributed and dist.is_initialized():
            dist.barrier()
            dist.destroy_process_group()


def pick_device(name: str, ranks: Ranks) -> torch.device:
    """The device of a setting: "auto" is a GPU if available; each rank has its own GPU.

    Raises:
        ItesError: the device is not available.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if ranks.distributed and name.startswith("cuda"):
        name = f"cuda:{ranks.local}"
    try:
        device = torch.device(name)
        torch.empty(0, device=device).cpu()  # "meta" holds no numbers
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ItesError(f"device: cannot use {name!r} here: {reason}") from None
    return device
