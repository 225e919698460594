"""Build Iterator: every page once, in order, in chunks of a bounded size and number."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tasks.build_iterator import CHUNKS, MAX_CHUNK_PAGES, Chunk, build_iterator, split_pages
from tasks.esi.answers import MAX_PAGES


@example(pages=1)
@example(pages=CHUNKS + 1)
@example(pages=MAX_PAGES)
@given(pages=st.integers(1, MAX_PAGES))
def test_split_gives_every_page_once_in_order(pages: int) -> None:
    """The chunks' pages, one after the other, are 1 to the last page."""
    chunks = split_pages(pages)
    assert [page for chunk in chunks for page in chunk.missing()] == list(range(1, pages + 1))


@given(pages=st.integers(1, MAX_PAGES))
def test_split_bounds_size_and_number(pages: int) -> None:
    """No chunk is over 60 pages, and there are no more than 8 chunks unless 60 pages each need more."""
    chunks = split_pages(pages)
    assert max(len(chunk.missing()) for chunk in chunks) <= MAX_CHUNK_PAGES
    assert len(chunks) <= max(CHUNKS, -(-pages // MAX_CHUNK_PAGES))


@pytest.mark.parametrize("pages", [1, 2, 7, CHUNKS])
def test_small_region_gets_a_chunk_a_page(pages: int) -> None:
    """A small region shows each page as a task run of its own, as the state machine did."""
    assert [chunk.missing() for chunk in split_pages(pages)] == [[page] for page in range(1, pages + 1)]


def test_the_forge_is_not_drowned_in_task_runs() -> None:
    """The 433 pages of The Forge are 8 chunks, all but the last of 55 pages."""
    sizes = [len(chunk.missing()) for chunk in split_pages(433)]
    assert sizes == [55] * 7 + [48]


def test_task_gives_the_same_chunks() -> None:
    """The Prefect task is the plain function."""
    assert build_iterator.fn(50) == split_pages(50)


@pytest.mark.parametrize(
    ("chunk", "name"),
    [
        pytest.param(Chunk(7, 7), "7", id="one-page"),
        pytest.param(Chunk(41, 80), "41-80", id="several"),
    ],
)
def test_chunk_is_named_by_its_pages(chunk: Chunk, name: str) -> None:
    """A chunk's name in the UI is the range of its pages."""
    assert str(chunk) == name


def test_chunk_misses_what_has_not_come() -> None:
    """A chunk asks only for the pages that it does not have yet."""
    chunk = Chunk(3, 6, {4: {}, 6: {}})
    assert chunk.missing() == [3, 5]


def test_chunks_share_nothing() -> None:
    """A page that comes for one chunk does not show up in another."""
    one, other = split_pages(2)
    one.fetched[1] = {}
    assert other.fetched == {}
