"""When a run ends early, waits, or goes on."""

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from tasks.esi import Answer
from tasks.get_page_count import as_stored, made_alike, offered, seconds_to_wait
from tasks.table_snapshot import Parameters, TableSnapshot

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
PARAMETERS = Parameters(10000002, "sell", "min", "compact")
STORED = TableSnapshot(
    state="complete",
    region_id=10000002,
    order_type="sell",
    price="min",
    detail="compact",
    last_modified=NOON,
    expires=NOON + timedelta(minutes=5),
    etag='"a"',
    pages=433,
    orders=432_509,
    records=16_853,
    written_at=NOON,
)


def answer(pages: int, fresh_seconds: float) -> Answer:
    """Gives ESI's answer to HEAD."""
    return Answer(last_modified=NOON, pages=pages, etag='"b"', fresh_seconds=fresh_seconds, body=b"")


def test_same_parameters_are_alike() -> None:
    """A complete snapshot of the same parameters and format can end a run as not modified."""
    assert made_alike(STORED, PARAMETERS) is STORED


@pytest.mark.parametrize(
    "change",
    [
        {"state": "writing"},
        {"region_id": 10000015},
        {"order_type": "all"},
        {"price": "max"},
        {"detail": "full"},
        {"version": 99},
    ],
)
def test_other_snapshot_is_not_alike(change: dict[str, Any]) -> None:
    """An unfinished snapshot, or one of other parameters or format, never ends a run."""
    assert made_alike(msgspec.structs.replace(STORED, **change), PARAMETERS) is None


def test_no_snapshot_is_not_alike() -> None:
    """A table without `#snapshot` never ends a run."""
    assert made_alike(None, PARAMETERS) is None


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
    """A snapshot that ends before its pages can be here is left for the next, if that comes within a minute."""
    assert seconds_to_wait(answer(pages, fresh_seconds), fetch_concurrency) == wait_seconds


def test_offer_expires_by_this_clock() -> None:
    """`Expires` is kept as an instant of this machine's clock, however wrong ESI's is."""
    before = datetime.now(UTC)
    snapshot = offered(answer(433, 240), 10000002, None)
    assert timedelta(seconds=239) < snapshot.expires - before < timedelta(seconds=241)
    assert not snapshot.is_stored


def test_stored_snapshot_is_given_as_it_is() -> None:
    """A run that ends as not modified tells of the snapshot that the table holds."""
    snapshot = as_stored(STORED, STORED.expires)
    assert (snapshot.is_stored, snapshot.stored, snapshot.pages) == (True, STORED, 433)
