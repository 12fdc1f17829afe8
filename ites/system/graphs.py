"""Recording work as CUDA graphs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch

Result = TypeVar("Result")


def launch_on(stream: Any, device: torch.device, function: Callable[[], Result]) -> Result:
    """Run a function on another stream, between what came before it and what comes after it.

    Work that will be recorded runs so before: libraries load and buffers are made.
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
    """A CUDA graph of a function, which is recorded and not run; and what it returned.

    Args:
        function: its tensors stay at their places; a replay fills the returned ones anew.
        pool: of memory, shared by several graphs.
        stream: to record on.
    """
    graph = torch.cuda.CUDAGraph()
    # Other threads may go on, such as one that waits for a copy.
    with torch.cuda.graph(graph, pool, stream, capture_error_mode="thread_local"):
        result = function()
    return graph, result
