"""`#snapshot`: what it stores, and when it is trusted."""

from datetime import UTC, datetime, timedelta
from typing import Any, get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.orders.choices import Detail, OrderType, Parameters, Price
from tasks.table.errors import TableError
from tasks.table.requests import Item
from tasks.table.snapshot import TableSnapshot, is_fresh, made_alike
from tests.support.tables import NOON, STORED

instants = st.datetimes(datetime(2003, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 (bounds)


counts = st.integers(0, 10**9)


snapshots = st.builds(
    TableSnapshot,
    state=st.sampled_from(["writing", "complete"]),
    market_id=counts,
    region_id=counts,
    parameters=st.builds(
        Parameters,
        order_type=st.sampled_from(get_args(OrderType)),
        price=st.sampled_from(get_args(Price)),
        detail=st.sampled_from(get_args(Detail)),
    ),
    last_modified=instants,
    expires=instants,
    etag=st.text(max_size=40),
    pages=counts,
    orders=counts,
    records=counts,
    written_at=instants,
    owner=st.text(max_size=40),
    lease=counts,
    version=counts,
)


@given(snapshot=snapshots)
def test_snapshot_item_comes_back(snapshot: TableSnapshot) -> None:
    """Any `#snapshot` is read back as it was written."""
    assert TableSnapshot.from_item(snapshot.to_item()) == snapshot


def test_foreign_snapshot_is_refused() -> None:
    """The error for another program's `#snapshot` says so, and what to do."""
    with pytest.raises(
        TableError, match="#snapshot is not this program's .*: give another table_name, or run with force"
    ):
        TableSnapshot.from_item({"pk": {"S": "#snapshot"}})


PARAMETERS = Parameters("sell", "min", "compact")


def test_same_parameters_are_alike() -> None:
    """A complete snapshot of the same parameters and format can end a run as not modified."""
    assert made_alike(STORED, PARAMETERS) is STORED


@pytest.mark.parametrize(
    "change",
    [
        {"state": "writing"},
        {"parameters": Parameters("all", "min", "compact")},
        {"parameters": Parameters("sell", "max", "compact")},
        {"parameters": Parameters("sell", "min", "full")},
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
    """A stored `Expires` counts only if it is ahead, by at most 15 minutes from now and from when it was written."""
    dates = {"expires": NOON + timedelta(minutes=expires), "written_at": NOON + timedelta(minutes=written)}
    assert is_fresh(msgspec.structs.replace(STORED, **dates), NOON) is expected


def parse(item: Item, market_id: int, region_id: int, *, force: bool) -> TableSnapshot | None:
    """Return the `#snapshot` in an item of the table `Market`, for a run of a market."""
    blank = TableSnapshot(market_id=market_id, region_id=region_id, parameters=PARAMETERS)
    return blank.parse(item, "Market", force=force)


@pytest.mark.parametrize(
    ("region_id", "own"), [(10000015, "MarketData-{region_id}"), (10**12 + 1, "StructureMarket-{structure_id}")]
)
def test_table_of_another_market_is_refused(region_id: int, own: str) -> None:
    """The error for another market's table suggests a table name that the flow can fill in."""
    with pytest.raises(TableError, match=f"table Market holds region 10000002, not {region_id}: .*{own}.* with force"):
        parse(STORED.to_item(), region_id, region_id, force=False)


def test_market_of_another_region_s_pages_is_refused() -> None:
    """A market made from another region's pages is refused; with `force` it counts as missing."""
    stored = msgspec.structs.replace(STORED, market_id=60003760).to_item()
    with pytest.raises(TableError, match="station 60003760 from the pages of region 10000002, not of region 10000043"):
        parse(stored, 60003760, 10000043, force=False)
    assert parse(stored, 60003760, 10000043, force=True) is None
    assert parse(stored, 60003760, 10000002, force=False)
