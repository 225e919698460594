"""Get Page Count: when a run ends early, waits, or goes on."""

from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from tasks.esi.answers import Answer
from tasks.get_page_count import as_stored, make_snapshot, seconds_to_wait, valid_until
from tasks.table.snapshot import UNKNOWN, is_newer
from tests.support.tables import NOON, STORED


def answer(pages: int, fresh_seconds: float) -> Answer:
    """Return ESI's answer to a HEAD request."""
    return Answer(last_modified=NOON, pages=pages, etag='"b"', fresh_seconds=fresh_seconds, body=b"")


@pytest.mark.parametrize(
    ("pages", "fresh_seconds", "fetch_concurrency", "wait_seconds"),
    [
        pytest.param(433, 300, 20, 0, id="lasts long enough"),
        pytest.param(433, 4, 20, 5, id="ends before 433 pages are here"),
        pytest.param(433, 4.33, 20, 0, id="ends just as they are here"),
        pytest.param(7, 1, 20, 0, id="few pages are quick"),
        pytest.param(433, 0, 20, 0, id="ends now: says nothing"),
        pytest.param(433, -300, 20, 0, id="has ended: says nothing"),
        pytest.param(433, 59, 1, 60, id="a minute is waited for"),
        pytest.param(433, 60, 1, 0, id="more than a minute is not"),
    ],
)
def test_wait_for_the_next_snapshot(
    pages: int, fresh_seconds: float, fetch_concurrency: int, wait_seconds: float
) -> None:
    """A run waits for the next snapshot if this one expires during the fetch and the wait is at most a minute."""
    assert seconds_to_wait(answer(pages, fresh_seconds), fetch_concurrency) == wait_seconds


def test_offer_expires_by_this_clock() -> None:
    """`Expires` is converted to this machine's clock, however wrong ESI's is."""
    before = datetime.now(UTC)
    assert timedelta(seconds=239) < valid_until(answer(433, 240)) - before < timedelta(seconds=241)


@pytest.mark.parametrize("fresh_seconds", [0, -1, -300])
def test_offer_that_cannot_be_says_nothing(fresh_seconds: float) -> None:
    """An `Expires` that is missing or past is ignored: the next run asks ESI."""
    assert valid_until(answer(433, fresh_seconds)) == UNKNOWN


def test_stored_snapshot_is_returned_as_it_is() -> None:
    """A run that ends as not modified returns the snapshot that the table holds."""
    snapshot = as_stored({10000002: STORED}, STORED.expires)
    assert (snapshot.is_stored, snapshot.stored, snapshot.pages) == (True, {10000002: STORED}, 433)


@pytest.mark.parametrize(
    ("ahead", "expected"), [(-5, False), (0, False), (5, True), (15, True), (16, False), (23 * 60, False)]
)
def test_stored_snapshot_is_newer_within_reason(ahead: int, expected: bool) -> None:
    """A stored snapshot counts as newer only up to 15 minutes ahead of ESI's clock."""
    offer = msgspec.structs.replace(answer(433, 300), answered=NOON)
    stored = msgspec.structs.replace(STORED, last_modified=NOON + timedelta(minutes=ahead))
    assert is_newer(stored, offer) is expected
    snapshot = make_snapshot(offer, UNKNOWN, {10000002: stored}, [10000002])
    assert (is_newer(stored, snapshot), snapshot.is_stored) == (expected, False)
