"""Process parts of a scene in several threads: NumPy releases the interpreter lock while it computes."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Given = TypeVar("Given")
Made = TypeVar("Made")


def in_order(work: Callable[[Given], Made], over: Iterable[Given], *, threads: int) -> Iterator[Made]:
    """Yield the results of ``work`` in order of the inputs; at most ``threads`` results are waiting."""
    with ThreadPoolExecutor(threads, thread_name_prefix="parts") as pool:
        ahead: deque[Future[Made]] = deque()
        for one in over:
            ahead.append(pool.submit(work, one))
            if len(ahead) == threads:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()
