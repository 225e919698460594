"""When a run ends early, waits, or goes on."""

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from tasks.esi.answers import Answer
from tasks.esi.markets import find_market
from tasks.get_page_count import as_stored, offered, seconds_to_wait
from tasks.table.errors import TableError
from tasks.table.snapshot import UNKNOWN, Parameters, is_fresh, is_newer, made_alike, parse_snapshot
from tests.support.tables import NOON, STORED

PARAMETERS = Parameters(10000002, "sell", "min", "compact")


def answer(pages: int, fresh_seconds: float) -> Answer:
    """Return ESI's answer to HEAD."""
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


@pytest.mark.parametrize("fresh_seconds", [0, 901, 82_800, 1e9])
def test_offer_that_cannot_be_says_nothing(fresh_seconds: float) -> None:
    """An `Expires` that is missing, or more than 15 minutes ahead, is not believed: the next run asks."""
    assert offered(answer(433, fresh_seconds), 10000002, None).expires == UNKNOWN


@pytest.mark.parametrize(
    ("expires", "written", "expected"),
    [
        pytest.param(4, -1, True, id="minutes ahead"),
        pytest.param(15, 0, True, id="just believed"),
        pytest.param(-1, -6, False, id="over"),
        pytest.param(0, -5, False, id="over now"),
        pytest.param(23 * 60, 0, False, id="hours ahead"),
        pytest.param(5, -23 * 60, False, id="was hours ahead"),
        pytest.param(10, -6, False, id="was 16 minutes ahead"),
        pytest.param(23 * 60, 23 * 60, False, id="by a clock that was ahead"),
    ],
)
def test_stored_expires_is_believed_for_15_minutes(expires: int, written: int, expected: bool) -> None:
    """A stored `Expires` keeps a run from asking if it lies ahead, by at most 15 minutes of now and of its writing."""
    dates = {"expires": NOON + timedelta(minutes=expires), "written_at": NOON + timedelta(minutes=written)}
    assert is_fresh(msgspec.structs.replace(STORED, **dates), NOON) is expected


@pytest.mark.parametrize(
    ("ahead", "expected"), [(-5, False), (0, False), (5, True), (15, True), (16, False), (23 * 60, False)]
)
def test_stored_snapshot_is_newer_within_reason(ahead: int, expected: bool) -> None:
    """A stored snapshot is newer than the one on offer up to 15 minutes after ESI's own clock, and no further."""
    offer = msgspec.structs.replace(answer(433, 300), answered=NOON)
    stored = msgspec.structs.replace(STORED, last_modified=NOON + timedelta(minutes=ahead))
    assert is_newer(stored, offer) is expected
    assert is_newer(stored, offered(offer, 10000002, stored)) is expected


@pytest.mark.parametrize(
    ("region_id", "own"), [(10000015, "MarketData-{region_id}"), (10**12 + 1, "StructureMarket-{structure_id}")]
)
def test_another_market_s_table_is_told(region_id: int, own: str) -> None:
    """Who gives another market's table is told a name that the flow of this market can fill in."""
    with pytest.raises(TableError, match=f"table Market holds region 10000002, not {region_id}: .*{own}.* with force"):
        parse_snapshot(STORED.to_item(), "Market", find_market(region_id), force=False)


def test_stored_snapshot_is_given_as_it_is() -> None:
    """A run that ends as not modified tells of the snapshot that the table holds."""
    snapshot = as_stored(STORED, STORED.expires)
    assert (snapshot.is_stored, snapshot.stored, snapshot.pages) == (True, STORED, 433)
