"""The models of one scene while it is worked on."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING

from stac_cloudmask.memory import give_back

if TYPE_CHECKING:
    from stac_cloudmask.models.session import OnnxSegmenter


@contextmanager
def at_work(segmenters: Collection[OnnxSegmenter]) -> Iterator[None]:
    """Open sessions beside what the block does first, and give their working memory back after it.

    What keeps a session from opening is raised where it is first asked.
    """
    with ThreadPoolExecutor(1, thread_name_prefix="open-models") as pool:
        for one in segmenters:
            pool.submit(one.open)
        yield
    for one in segmenters:
        one.rest()
    give_back()
