"""Aggregate: fast integers give the same results as slow fractions, for whatever ESI may send."""

import random
from itertools import product
from typing import cast, get_args

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.orders.aggregation import aggregate_orders
from tasks.orders.choices import Detail, OrderType, Price
from tasks.orders.columns import DTYPES, Orders
from tasks.orders.merge import merge_pages
from tests.support import reference
from tests.support.reference import Figures, Order, Record

EXAMPLES = settings().max_examples
CHOICES = list(product(get_args(OrderType), get_args(Price), get_args(Detail)))
TYPES = [18, 34, 35, 2**31, 2**63 - 1]
CENTS = st.one_of(st.sampled_from([1, 100, 570, 10**15, 9 * 10**16]), st.integers(1, 10_000), st.integers(1, 10**15))
UNITS = st.one_of(st.integers(1, 100), st.sampled_from([2**53 + 1, 2**62, 2**63 - 1]), st.integers(1, 2**63 - 1))
ORDERS = st.lists(
    st.builds(
        Order,
        order_id=st.integers(1, 2**63 - 1),
        type_id=st.sampled_from(TYPES),
        price=CENTS.map(lambda cents: cents / 100),
        volume_remain=UNITS,
        is_buy_order=st.booleans(),
    ),
    max_size=40,
    unique_by=lambda order: order.order_id,
)


def to_page(orders: list[Order]) -> Orders:
    """Return orders as `decode_orders` does."""
    columns = zip(*orders, strict=True) if orders else [()] * len(DTYPES)
    arrays = {name: np.array(column, dtype) for (name, dtype), column in zip(DTYPES.items(), columns, strict=True)}
    return Orders(arrays)


def aggregate(
    orders: list[Order], order_type: OrderType = "sell", price: Price = "min", detail: Detail = "compact"
) -> dict[int, Record]:
    """Return the records of one page of orders, in the reference's shape."""
    return to_records(aggregate_orders(merge_pages([to_page(orders)])[0], order_type, price, detail))


def to_records(frame: pd.DataFrame) -> dict[int, Record]:
    """Return a frame's rows by type."""
    rows = {type_id: row.to_dict() for type_id, row in frame.iterrows()}
    return {
        cast("int", type_id): Record(row["price"], row["volume"], row.get("buy"), row.get("sell"))
        for type_id, row in rows.items()
    }


def assert_same(given: dict[int, Record], expected: dict[int, Record]) -> None:
    """Compare records exactly, but `stddev` with a relative tolerance of 1e-12."""
    assert list(given) == list(expected)
    for one, other in zip(given.values(), expected.values(), strict=True):
        assert (one.price, one.volume) == (other.price, other.volume)
        assert_same_figures(one.buy, other.buy)
        assert_same_figures(one.sell, other.sell)


def assert_same_figures(given: Figures | None, expected: Figures | None) -> None:
    """Compare one side's figures, and their order."""
    if not given or not expected:
        assert given == expected
        return
    assert list(given) == list(expected)
    assert given == expected | {"stddev": pytest.approx(expected["stddev"], rel=1e-12, abs=0)}


@settings(max_examples=3 * EXAMPLES)
@given(orders=ORDERS, choice=st.sampled_from(CHOICES))
def test_records_are_what_fractions_give(orders: list[Order], choice: tuple[OrderType, Price, Detail]) -> None:
    """Every choice is exact, rounded once, whatever the orders are."""
    assert_same(aggregate(orders, *choice), reference.aggregate(orders, *choice))


SELL = Order(1, 34, 5.7, 10, is_buy_order=False)
BUY = SELL._replace(is_buy_order=True)
HUNDRED = [SELL._replace(order_id=n, price=float(n), volume_remain=n) for n in range(1, 101)]
SMALL = {  # their sums fit into 64 bits, so they can be aggregated together
    "one-sell": [SELL],
    "one-buy": [BUY],
    "both-sides": [SELL, BUY],
    "equal-prices": [SELL._replace(volume_remain=n) for n in range(1, 30)],
    "least-price": [SELL._replace(price=0.01), SELL._replace(price=0.02)],
    "boundary-within-an-order": [SELL._replace(volume_remain=19), SELL._replace(price=9.9)],
    "hundred-sells": HUNDRED,
    "hundred-buys": [order._replace(is_buy_order=True) for order in HUNDRED],
    "sells-at-100-times": [SELL._replace(price=price) for price in (1.0, 100.0, 100.01)],
    "buys-at-a-100th": [BUY._replace(price=price) for price in (100.0, 1.0, 0.99)],
}
NAMED = {
    "small": [order._replace(type_id=n) for n, orders in enumerate(SMALL.values(), 1) for order in orders],
    "greatest-price": [SELL._replace(price=1e13), SELL._replace(price=1e13 - 0.01)],
    "past-2^53": [SELL._replace(volume_remain=2**52 + n) for n in range(1, 9)],
    "past-2^63": [SELL._replace(volume_remain=2**63 - n, price=n / 100) for n in range(1, 41)],
    "greatest-of-all": [SELL._replace(volume_remain=2**63 - n, price=1e13 - n) for n in range(1, 9)],
}


@pytest.mark.parametrize("name", NAMED)
def test_records_of_named_books(name: str) -> None:
    """Order books that a random search seldom finds are exact too, for every price and every detail."""
    orders = [order._replace(order_id=number) for number, order in enumerate(NAMED[name], 1)]
    for choice in [choice for choice in CHOICES if "compact" in choice or "min" in choice]:
        assert_same(aggregate(orders, *choice), reference.aggregate(orders, *choice))


@given(orders=ORDERS, choice=st.sampled_from(CHOICES), seed=st.integers(), pages=st.integers(1, 5))
def test_order_of_orders_and_pages_changes_nothing(
    orders: list[Order], choice: tuple[OrderType, Price, Detail], seed: int, pages: int
) -> None:
    """The records are the same, to the last bit, however the orders are shuffled and split into pages."""
    mixed = random.Random(seed).sample(orders, len(orders))
    chunks = [to_page(mixed[page::pages]) for page in range(pages)]
    assert to_records(aggregate_orders(merge_pages(chunks)[0], *choice)) == aggregate(orders, *choice)


@given(orders=ORDERS, twice=st.lists(st.integers(0, 1000), max_size=10), side=st.sampled_from(get_args(OrderType)))
def test_order_on_two_pages_counts_once(orders: list[Order], twice: list[int], side: OrderType) -> None:
    """An order that appears on two pages counts once; the count includes orders of the side left out."""
    again = [orders[n % len(orders)] for n in twice] if orders else []
    merged, count = merge_pages([to_page(orders), to_page(again)], side)
    chosen = [order for order in orders if side == "all" or order.is_buy_order == (side == "buy")]
    pd.testing.assert_frame_equal(merged, merge_pages([to_page(chosen)])[0])
    assert count == [len(orders)]


def test_order_on_two_pages_keeps_its_first_values() -> None:
    """If an order changed between two pages, the first page's values count."""
    changed = SELL._replace(volume_remain=9)
    merged, _count = merge_pages([to_page([SELL]), to_page([changed])])
    assert merged.volume_remain.tolist() == [10]


def test_page_dtypes_survive_an_empty_page() -> None:
    """An empty page does not change the dtype of any column."""
    merged, _count = merge_pages([to_page([]), to_page([SELL]), to_page([])])
    assert {"order_id": "int64"} | {str(name): str(dtype) for name, dtype in merged.dtypes.items()} == DTYPES


@pytest.mark.parametrize("detail", get_args(Detail))
@pytest.mark.parametrize(
    ("orders", "order_type", "types"),
    [
        pytest.param([], "all", [], id="no-orders"),
        pytest.param([BUY], "sell", [], id="buys-only-but-sell-wanted"),
        pytest.param([BUY], "all", [34], id="buys-only"),
        pytest.param([SELL._replace(type_id=35), SELL._replace(order_id=2)], "sell", [34, 35], id="ascending"),
    ],
)
def test_columns(orders: list[Order], order_type: OrderType, types: list[int], detail: Detail) -> None:
    """The frame has the documented columns and dtypes, even if empty, and its types are ascending."""
    frame = aggregate_orders(merge_pages([to_page(orders)])[0], order_type, "min", detail)
    dtypes = {"price": "float64", "volume": "object"}
    if detail != "compact":
        dtypes |= {"buy": "object", "sell": "object"}
    assert {str(name): str(dtype) for name, dtype in frame.dtypes.items()} == dtypes
    assert frame.index.name == "type_id"
    assert frame.index.tolist() == types


@pytest.mark.parametrize("price", get_args(Price))
def test_numbers_are_pythons_own(price: Price) -> None:
    """Volumes and figures are Python's int and float, which can be written exactly."""
    for record in aggregate(HUNDRED, "all", price, "full").values():
        assert type(record.volume) is int
        assert {type(figure) for figure in (record.sell or {}).values()} == {int, float}


@pytest.mark.parametrize(
    ("order_type", "expected"),
    [
        pytest.param("sell", 1.0, id="sell-takes-the-cheapest"),
        pytest.param("buy", 40.0, id="buy-takes-the-dearest"),
        pytest.param("all", 1.0, id="all-takes-the-cheapest"),
    ],
)
def test_percentile_5_takes_the_best_orders(order_type: OrderType, expected: float) -> None:
    """The best 5 % of 40 units are the first two, of the cheapest orders, or for buy of the dearest."""
    orders = [
        Order(n, 34, price, 10, is_buy_order=is_buy)
        for n, (price, is_buy) in enumerate([(1.0, False), (2.0, False), (30.0, True), (40.0, True)], 1)
    ]
    assert aggregate(orders, order_type, "percentile_5")[34].price == expected


def test_median_does_not_weigh() -> None:
    """An order of a million units counts no more than an order of one unit."""
    orders = [Order(n, 34, float(n), 10**6 if n == 1 else 1, is_buy_order=False) for n in range(1, 5)]
    assert aggregate(orders, price="median")[34].price == 2.5
