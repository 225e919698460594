"""The tables of a summary."""

import pytest

from tasks.orders.records import Record
from tasks.reporting.artifacts import find_movers
from tasks.table.records import Changes


@pytest.mark.parametrize(
    ("old", "new", "percents"),
    [
        pytest.param((1e12, 50), (1e12 + 1e8, 50), None, id="a price by 0.01 %, much ISK"),
        pytest.param((5.0, 10_000_000), (5.0, 10_000_001), None, id="a volume by a unit"),
        pytest.param((5.0, 50), (5.0, 50), None, id="only its details"),
        pytest.param((1000.0, 50), (999.0, 50), ("-0.1", "+0.0"), id="a price by 0.1 %"),
        pytest.param((1e5, 50), (99_999.0, 100), ("+0.0", "+100.0"), id="a volume alone"),
    ],
)
def test_movers_have_moved(old: tuple[float, int], new: tuple[float, int], percents: tuple[str, str] | None) -> None:
    """A type whose price and volume both round to 0.0 % has not moved."""
    item = {"pk": {"S": "34"}, "price": {"N": repr(old[0])}, "volume": {"N": str(old[1])}}
    movers = find_movers([Changes([Record(34, *new)], {"34": item}, [], 0, 0)])
    assert [(row["price %"], row["volume %"]) for row in movers] == ([percents] if percents else [])
