"""Fetch Pages: pages that belong to the snapshot, and pages that do not."""

from datetime import UTC, datetime, timedelta

import pytest

from tasks.esi.answers import Answer
from tasks.esi.errors import TransientError
from tasks.esi.markets import find_market
from tasks.fetch_pages import MAX_SNAPSHOTS, SnapshotMovedOn, check_same_snapshot, is_whole, moved_on_again
from tasks.orders.columns import decode_orders
from tasks.table.snapshot import Snapshot

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)


def answer(moved: timedelta, pages: int) -> Answer:
    """Return an answer that is so much newer than the snapshot, with so many pages."""
    return Answer(last_modified=NOON + moved, pages=pages, etag="", fresh_seconds=0, body=b"")


SNAPSHOT = Snapshot(last_modified=NOON, expires=NOON, etag="", pages=5, stored={}, pending=[7])


def test_page_of_the_snapshot_passes() -> None:
    """A page with the snapshot's `Last-Modified` and page count belongs to it."""
    check_same_snapshot(answer(timedelta(), 5), SNAPSHOT, "page 1")


@pytest.mark.parametrize(("moved", "pages"), [(300, 5), (300, 6), (0, 4), (0, 6)])
def test_newer_page_means_the_snapshot_moved_on(moved: int, pages: int) -> None:
    """A newer page, or another number of pages, means another snapshot, and the message names both."""
    with pytest.raises(SnapshotMovedOn, match=rf"page 1 is of .* {pages} pages; the snapshot was of .* 5 pages"):
        check_same_snapshot(answer(timedelta(seconds=moved), pages), SNAPSHOT, "page 1")


def test_older_page_may_pass() -> None:
    """A page older than the snapshot is a transient error: a cache has not caught up."""
    with pytest.raises(TransientError, match="page 1 is of .*, older than the snapshot"):
        check_same_snapshot(answer(timedelta(seconds=-300), 5), SNAPSHOT, "page 1")


def test_chunk_that_is_missing_is_noticed() -> None:
    """The pages are whole if each chunk has its orders."""
    assert is_whole([decode_orders(b"[]", "page 1")] * 2)
    assert not is_whole([decode_orders(b"[]", "page 1"), None])


def test_moving_on_again_is_explained() -> None:
    """After three snapshots that moved on, a run gives up and says what helps."""
    assert MAX_SNAPSHOTS == 3
    with pytest.raises(TransientError, match="3 snapshots moved on .* raise fetch_concurrency"):
        raise moved_on_again(find_market(10000002).endpoint)
