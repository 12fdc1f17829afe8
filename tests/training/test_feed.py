"""The batches of a training; `test_distributed.py` has their shares among processes."""

from __future__ import annotations

import torch

from ites.system.ranks import Ranks
from ites.training.feed import Feed


def test_a_batch_beyond_the_poses_takes_memory_for_the_poses_alone():
    data, index = torch.arange(10.0).view(5, 2), torch.zeros(1, dtype=torch.int64)
    feed = Feed((data,), index, seed=0, batch=10**8, batches=1, ranks=Ranks.here())
    assert [chunk.shape for chunk in feed.chunk] == [(1, 5, 2)]
    feed.seek(0, 0)
    (batch,) = feed.batch(5)
    assert batch[batch[:, 0].argsort()].tolist() == data.tolist()
