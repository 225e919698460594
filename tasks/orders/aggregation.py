"""Aggregates orders to records: one row per item type, exact to the last digit.

Prices are whole cents, so sums and products are computed in integers, and a figure is rounded once, by the final
division of its formula.
"""

from collections.abc import Sequence

import pandas as pd

from tasks.esi.markets import PLACES, Market
from tasks.orders.choices import Detail, OrderType, Parameters, Price
from tasks.orders.columns import Orders
from tasks.orders.details import SIDES
from tasks.orders.exact import sum_exactly
from tasks.orders.merge import merge_pages, select_side
from tasks.orders.prices import PRICES
from tasks.orders.records import Book, Record


def make_books(chunks: list[Orders], markets: Sequence[Market | None], how: Parameters) -> list[Book]:
    """Return the records of each market, None for all orders; see `merge_pages`."""
    orders, counts = merge_pages(chunks, how.order_type if how.detail == "compact" else "all", markets)
    books: list[Book] = []
    for market, count in zip(markets, counts, strict=True):
        there = orders if market is None else orders[orders[PLACES[market.kind]] == market.id]
        books.append(Book(list_records(aggregate_orders(there, how.order_type, how.price, how.detail)), count))
    return books


def aggregate_orders(orders: pd.DataFrame, order_type: OrderType, price: Price, detail: Detail) -> pd.DataFrame:
    """Return each item type's record, from the orders of `merge_pages`.

    Returns:
        One row per type, index `type_id` ascending; `price` float64 (ISK), `volume` object (int, units), and with
        details `buy` and `sell`, dicts of figures by name. Empty if there are no orders of `order_type`.
    """
    chosen = select_side(orders, order_type)
    volumes = sum_exactly(chosen.volume_remain, chosen.type_id)
    records = pd.DataFrame({"price": PRICES[price](chosen, order_type), "volume": volumes})
    if detail == "compact":
        return records
    for side in ("buy", "sell"):
        figures = SIDES[detail].describe(select_side(orders, side), side)
        each = [figures.get(type_id, SIDES[detail].empty) for type_id in records.index]
        records[side] = pd.Series(each, records.index, "object")
    return records


def list_records(records: pd.DataFrame) -> list[Record]:
    """Return the rows of a frame, as `aggregate_orders` returns it, as records."""
    return [Record(*row) for row in records.itertuples(name=None)]
