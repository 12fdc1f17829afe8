"""Reading, computing and writing at the same time."""

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
    """Do what `for item in source: sink(work(item))` does, with `source` and `sink` in threads.

    `work` runs in the caller's thread. All see the items in their order. At most `2 * ahead + 3`
    items are held at a time, however many there are.

    Args:
        source: gives the items; advanced by one thread.
        work: makes a result of an item.
        sink: takes the results, in another thread.
        ahead: items that wait between two of the three.

    Raises:
        Whatever one of the three raises; no item is begun after that but those that waited.
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
