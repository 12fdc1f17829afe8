"""Concurrent reading, computing and writing."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def overlap(
    source: Iterable[Item],
    work: Callable[[Item], Result],
    sink: Callable[[Result], Any],
    ahead: int = 2,
) -> None:
    """Run `for item in source: sink(work(item))` with `source` and `sink` in threads.

    `work` runs in the caller's thread. All three process the items in order. At most
    `2 * ahead + 3` items are in memory at once.

    Args:
        source: yields the items; advanced by one thread.
        work: computes the result of an item.
        sink: receives the results, in another thread.
        ahead: the queue length between two of the three.

    Raises:
        Whatever one of the three raises; after that only queued items are still started.
    """
    items, end = iter(source), object()
    with ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(1) as writer:
        coming = deque(reader.submit(next, items, end) for _ in range(ahead + 1))
        going: deque[Future[Any]] = deque()
        while (item := coming.popleft().result()) is not end:
            coming.append(reader.submit(next, items, end))
            result = work(item)  # type: ignore[arg-type]
            if len(going) > ahead:
                going.popleft().result()
            going.append(writer.submit(sink, result))
        for written in going:
            written.result()
