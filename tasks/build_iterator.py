"""Build Iterator: splits page numbers into chunks, one mapped task run each."""

import math
from typing import TYPE_CHECKING, TypeAlias

from prefect import task

from tasks.retries import NOT_KEPT, Work
from tasks.run import Run

if TYPE_CHECKING:
    from tasks.orders.columns import Orders

CHUNKS = 4  # a task run costs as much as 10 pages, with the work of Prefect's server
MAX_CHUNK_PAGES = 120  # larger markets get more chunks
ALONE_PAGES = 8  # up to this, each page is a chunk

Chunk: TypeAlias = "Work[int, Orders]"  # consecutive page numbers, 1 or more


@task(name="Build Iterator", task_run_name="Build Iterator", **NOT_KEPT)
def build_iterator(pages: int, run: Run) -> list[Chunk]:
    """Return a snapshot's chunks: every page once, in order."""
    run.report.begin("Build Iterator")
    return split_pages(pages)


def split_pages(pages: int) -> list[Chunk]:
    """Split pages 1 to `pages` into chunks: up to 8 pages one each, otherwise 4 or more of 120 pages at most."""
    size = 1 if pages <= ALONE_PAGES else min(math.ceil(pages / CHUNKS), MAX_CHUNK_PAGES)
    return [make_chunk(first, min(first + size - 1, pages)) for first in range(1, pages + 1, size)]


def make_chunk(first: int, last: int) -> Chunk:
    """Return the chunk of pages `first` to `last`, named `41-80`, or `7` for a single page."""
    return Work(str(first) if first == last else f"{first}-{last}", range(first, last + 1))
