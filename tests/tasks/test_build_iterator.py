"""Build Iterator: each page once, in order, in chunks of bounded size and number."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tasks.build_iterator import ALONE_PAGES, MAX_CHUNK_PAGES, Chunk, make_chunk, split_pages
from tasks.esi.answers import MAX_PAGES
from tasks.esi.errors import TransientError
from tasks.network import Waits
from tasks.orders.columns import Orders, decode_orders


@example(pages=1)
@example(pages=ALONE_PAGES + 1)
@example(pages=MAX_PAGES)
@given(pages=st.integers(1, MAX_PAGES))
def test_split_gives_every_page_once_in_order(pages: int) -> None:
    """The chunks have the pages from 1 to the last one, in order."""
    chunks = split_pages(pages)
    assert [page for chunk in chunks for page in chunk.left] == list(range(1, pages + 1))


@given(pages=st.integers(1, MAX_PAGES))
def test_split_bounds_size_and_number(pages: int) -> None:
    """No chunk is over `MAX_CHUNK_PAGES`, and there are at most 8 chunks unless that size needs more."""
    chunks = split_pages(pages)
    assert max(len(chunk.left) for chunk in chunks) <= MAX_CHUNK_PAGES
    assert len(chunks) <= max(ALONE_PAGES, -(-pages // MAX_CHUNK_PAGES))


@pytest.mark.parametrize("pages", [1, 2, 7, ALONE_PAGES])
def test_small_region_gets_a_chunk_a_page(pages: int) -> None:
    """In a small region each page has its own task run, as in the state machine."""
    assert [chunk.left for chunk in split_pages(pages)] == [[page] for page in range(1, pages + 1)]


def test_the_forge_has_few_task_runs() -> None:
    """The 433 pages of The Forge are 4 chunks, all but the last of 109 pages."""
    sizes = [len(chunk.left) for chunk in split_pages(433)]
    assert sizes == [109] * 3 + [106]


@pytest.mark.parametrize(
    ("chunk", "name"),
    [
        pytest.param(make_chunk(7, 7), "7", id="one-page"),
        pytest.param(make_chunk(41, 80), "41-80", id="several"),
    ],
)
def test_chunk_is_named_by_its_pages(chunk: Chunk, name: str) -> None:
    """A chunk's name in the UI is the range of its pages."""
    assert str(chunk) == name


def test_chunk_keeps_its_missing_pages() -> None:
    """A chunk fetches only the pages that it does not have yet."""
    chunk = make_chunk(3, 6)

    def fetch(page: int) -> Orders:
        if page in {3, 5}:
            raise TransientError("not now")
        return decode_orders(b"[]", f"page {page}")

    with ThreadPoolExecutor() as threads, pytest.raises(TransientError, match="not now"):
        chunk.do(fetch, threads.submit, Waits())
    assert chunk.left == [3, 5]


def test_chunks_share_nothing() -> None:
    """A page fetched for one chunk does not show up in another."""
    one, other = split_pages(2)
    with ThreadPoolExecutor() as threads:
        one.do(lambda page: decode_orders(b"[]", f"page {page}"), threads.submit, Waits())
    assert (one.left, other.left) == ([], [2])
