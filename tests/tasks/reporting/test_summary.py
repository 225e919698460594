"""The figures of a summary."""

import pytest

from tasks.orders.records import Record
from tasks.reporting.summary import count_price_changes, percent
from tasks.table.records import Changes


def test_price_changes_are_counted() -> None:
    """Types with a new price are counted by whole percent, the largest changes together; new types are left out."""
    old = {"1": 100.0, "2": 100.0, "3": 100.0, "4": 100.0, "5": 7.0}
    new = {1: 103.2, 2: 102.9, 3: 900.0, 4: 1.0, 5: 7.0, 6: 5.0}
    replaced = {pk: {"pk": {"S": pk}, "price": {"N": str(price)}, "volume": {"N": "1"}} for pk, price in old.items()}
    changes = Changes([Record(type_id, price, 2) for type_id, price in new.items()], replaced, [], 0, 0)
    assert count_price_changes([changes]) == {-25: 1, 3: 2, 25: 1}


def test_item_without_a_price_has_no_change() -> None:
    """An item of another program has no price to compare with."""
    changes = Changes([Record(1, 5.0, 2)], {"1": {"pk": {"S": "1"}}}, [], 0, 0)
    assert count_price_changes([changes]) == {}


@pytest.mark.parametrize(("old", "new", "expected"), [(100.0, 125.0, 25.0), (8.0, 6.0, -25.0), (0.0, 5.0, 0.0)])
def test_percent(old: float, new: float, expected: float) -> None:
    """The change is in percent, and 0 if the old value is 0."""
    assert percent(old, new) == expected
