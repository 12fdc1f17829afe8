"""Recording of work as CUDA graphs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch

Result = TypeVar("Result")


def launch_on(stream: Any, device: torch.device, function: Callable[[], Result]) -> Result:
    """Run a function on a side stream, ordered between the previous and the following work.

    Work must run this way before it is recorded: libraries load and buffers are allocated.
    """
    current = torch.cuda.current_stream(device)
    stream.wait_stream(current)
    with torch.cuda.stream(stream):
        result = function()
    current.wait_stream(stream)
    return result


def record(
    function: Callable[[], Result], *, pool: Any = None, stream: Any = None
) -> tuple[torch.cuda.CUDAGraph, Result]:
    """Record a function as a CUDA graph without running it; return the graph and its result.

    Args:
        function: its tensors keep their addresses; a replay refills the returned tensors.
        pool: memory pool, shared by several graphs.
        stream: the stream to record on.
    """
    graph = torch.cuda.CUDAGraph()
    # Other threads may continue, such as one that waits for a copy.
    with torch.cuda.graph(graph, pool, stream, capture_error_mode="thread_local"):
        result = function()
    return graph, result
