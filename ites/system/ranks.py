"""Processes that work together, as `torchrun` starts them.

`torchrun --nproc-per-node 2 -m ites train ...` starts two processes, which are rank 0 and
rank 1 of 2; without it there is one, rank 0 of 1. Only rank 0 writes files and prints.
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
"""How long a rank waits for another that is alive but silent; a dead one is noticed at once."""


@dataclass(frozen=True)
class Ranks:
    """A process among those that work together.

    Args:
        rank: this one, from 0.
        count: of all processes.
        local: this one among those of its machine, which is its GPU's number.
    """

    rank: int = 0
    count: int = 1
    local: int = 0

    @classmethod
    def here(cls) -> Ranks:
        """This process, as `torchrun` describes it in the environment."""
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
        """This rank's part of `size` things; the parts are in order and differ by one at most."""
        return slice(self.rank * size // self.count, (self.rank + 1) * size // self.count)

    def any(self, flag: bool, device: torch.device) -> bool:
        """Whether the flag is up on any rank; waits for them all."""
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
        """Meet the other ranks, by NCCL on GPUs, gloo on CPUs; they stay together after the block.

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
    """The device of a setting: "auto" is a GPU where there is one; each rank has its own.

    Raises:
        ItesError: there is no such device here.
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
