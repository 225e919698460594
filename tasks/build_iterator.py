"""Build Iterator: page numbers to chunks, one mapped task run each."""

import math

import msgspec
from prefect import task
from prefect.cache_policies import NO_CACHE

from tasks.network import Waits
from tasks.orders.columns import Orders

CHUNKS = 8  # enough to see the work move, few enough for the UI
MAX_CHUNK_PAGES = 60  # a task run, with what Prefect's server does for it, costs as much as 10 pages


class Chunk(msgspec.Struct):
    """Consecutive pages that one task run fetches. It keeps what comes: a retry asks only for what is missing."""

    first: int  # page number, 1 or more
    last: int  # inclusive
    fetched: dict[int, Orders] = {}  # orders by page number
    done: int = 0  # pages that have come
    failed_at: float = 0.0  # monotonic time; 0 at the first attempt

    def __str__(self) -> str:
        return f"{self.first}" if self.first == self.last else f"{self.first}-{self.last}"

    @property
    def total(self) -> int:
        """How many pages it has."""
        return self.last - self.first + 1

    def note_retry(self, waits: Waits) -> None:
        """Add the time since the attempt before, if there was one, to what was waited."""
        if self.failed_at:
            waits.add(self.failed_at)

    def missing(self) -> list[int]:
        """Return the page numbers that have not come yet, ascending."""
        return [page for page in range(self.first, self.last + 1) if page not in self.fetched]


@task(name="Build Iterator", task_run_name="Build Iterator", cache_policy=NO_CACHE, persist_result=False)
def build_iterator(pages: int) -> list[Chunk]:
    """Return the chunks of a snapshot of `pages` pages: every page once, in order."""
    return split_pages(pages)


def split_pages(pages: int) -> list[Chunk]:
    """Split pages 1 to `pages` into about `CHUNKS` chunks: one page each up to 8 pages, at most 60 pages each."""
    size = min(max(1, math.ceil(pages / CHUNKS)), MAX_CHUNK_PAGES)
    return [Chunk(first, min(first + size - 1, pages)) for first in range(1, pages + 1, size)]
