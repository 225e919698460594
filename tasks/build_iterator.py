"""Build Iterator: splits page numbers into chunks, one mapped task run each."""

import math
from typing import Any, TypeAlias

from prefect import task

from tasks.retries import NOT_KEPT, Work
from tasks.run import Columns, Run

CHUNKS = 4  # a task run costs as much as 10 pages, with the work of Prefect's server
MAX_CHUNK_PAGES = 120  # larger markets get more chunks
ALONE_PAGES = 8  # up to this, each page is a chunk

Chunk: TypeAlias = Work[int, Columns]  # consecutive page numbers, 1 or more


@task(name="Build Iterator", task_run_name="Build Iterator", **NOT_KEPT)
def build_iterator(pages: int, run: Run[Any]) -> list[Chunk]:
    """Return a snapshot's chunks: every page once, in order."""
    run.report.begin("Build Iterator")
    return split_pages(pages, run.endpoint.first_page)


def split_pages(pages: int, first_page: int = 1) -> list[Chunk]:
    """Split page numbers into chunks: up to 8 pages one each, otherwise 4 or more of 120 pages at most."""
    size = 1 if pages <= ALONE_PAGES else min(math.ceil(pages / CHUNKS), MAX_CHUNK_PAGES)
    end = first_page + pages
    return [make_chunk(first, min(first + size, end) - 1) for first in range(first_page, end, size)]


def make_chunk(first: int, last: int) -> Chunk:
    """Return the chunk of pages `first` to `last`, named `41-80`, or `7` for a single page."""
    return Work(str(first) if first == last else f"{first}-{last}", range(first, last + 1))
