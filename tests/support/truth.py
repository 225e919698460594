"""What a table must hold, from the orders themselves."""

from decimal import Decimal

import pytest

from deployments.local.market.book import make_orders
from deployments.local.market.market import Market
from tasks.table.read import Record
from tasks.table.requests import Item
from tests.support import reference


def truth(
    market: Market, region_id: int, order_type: str = "sell", price: str = "min", detail: str = "compact"
) -> dict[str, Item]:
    """Return the exact table of the present snapshot, from the orders themselves, without the flow's code."""
    orders = make_orders(market.seed, region_id, market.index)[list(reference.Order._fields)]
    records = reference.aggregate(
        (reference.Order(*row) for row in orders.itertuples(index=False)), order_type, price, detail
    )
    return {str(type_id): to_item(str(type_id), record) for type_id, record in records.items()}


def place_truth(market: Market, region_id: int, market_id: int, **parameters: str) -> dict[str, Item]:
    """Return the exact records of a market in a region, without keys, from the orders that lie there."""
    orders = make_orders(market.seed, region_id, market.index)
    if market_id != region_id:
        orders = orders[(orders.location_id == market_id) | (orders.system_id == market_id)]
    rows = orders[list(reference.Order._fields)].itertuples(index=False)
    how = {"order_type": "sell", "price": "min", "detail": "compact"} | parameters
    records = reference.aggregate((reference.Order(*row) for row in rows), **how)
    return {str(type_id): drop_key(to_item(str(type_id), record)) for type_id, record in records.items()}


def drop_key(item: Item) -> Item:
    """Return an item without its key."""
    return {name: value for name, value in item.items() if name not in {"pk", "sk"}}


def to_item(pk: str, record: reference.Record | Record) -> Item:
    """Return a record as DynamoDB holds it."""
    item: Item = {"pk": {"S": pk}, "price": to_number(record.price), "volume": to_number(record.volume)}
    for side, figures in (("buy", record.buy), ("sell", record.sell)):
        if figures is not None:
            item[side] = {"M": {name: to_number(value) for name, value in figures.items()}}
    return item


def to_number(value: float | Decimal) -> Item:
    """Return a number in plain digits, without zeros that say nothing."""
    digits = f"{value if isinstance(value, Decimal) else Decimal(repr(value)):f}"
    return {"N": digits.rstrip("0").rstrip(".") if "." in digits else digits}


def assert_same(items: dict[str, Item], expected: dict[str, Item]) -> None:
    """Compare tables byte for byte; the standard deviations, whose root rounds once more, to 12 digits."""
    assert items.keys() == expected.keys()
    for pk, item in items.items():
        for side in ("buy", "sell"):
            if got := item.get(side, {}).get("M", {}).pop("stddev", None):
                wanted = expected[pk][side]["M"].pop("stddev")
                assert float(got["N"]) == pytest.approx(float(wanted["N"]), rel=1e-12)
    assert items == expected
