"""Merges pages, each order once, and aggregates orders to records: one row per item type, exact to the last digit.

Prices are whole cents, so sums and products are computed in integers, and a figure is rounded once, by the final
division of its formula.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from tasks.orders.choices import Detail, OrderType, Parameters, Price
from tasks.orders.columns import Orders, concatenate
from tasks.orders.details import SIDES
from tasks.orders.exact import sum_exactly
from tasks.orders.prices import PRICES
from tasks.orders.records import Book, Record

Place = tuple[str, int]  # a column of `PLACES`, and its value


def make_books(chunks: list[Orders], places: Sequence[Place | None], how: Parameters) -> list[Book]:
    """Return the records of each place, None for everywhere; see `merge_pages`."""
    orders, counts = merge_pages(chunks, how.order_type if how.detail == "compact" else "all", places)
    books: list[Book] = []
    for place, count in zip(places, counts, strict=True):
        there = orders if place is None else orders[orders[place[0]] == place[1]]
        books.append(Book(list_records(aggregate_orders(there, how.order_type, how.price, how.detail)), count))
    return books


def merge_pages(
    chunks: list[Orders], side: OrderType = "all", places: Sequence[Place | None] = (None,)
) -> tuple[pd.DataFrame, list[int]]:
    """Merge chunks; of an order on two pages keep the first.

    Args:
        chunks: in the order of the pages. Their columns are removed, to save memory.
        side: the orders to return.
        places: where to count orders; None for everywhere.

    Returns:
        The side's orders, one row each, with the chunks' columns except `order_id`; and the number of orders on both
        sides at each place.
    """
    is_wanted = mark_first([chunk.pop("order_id") for chunk in chunks])
    columns = {name: concatenate([chunk[name] for chunk in chunks]) for name, _ in filter(None, places)}
    counts = [int((is_wanted & (columns[place[0]] == place[1]) if place else is_wanted).sum()) for place in places]
    del columns
    if side != "all":
        is_wanted &= concatenate([chunk["is_buy_order"] for chunk in chunks]) == (side == "buy")
    names = list(chunks[0])
    return pd.DataFrame({name: take(chunks, name, is_wanted) for name in names}, copy=False), counts


def mark_first(order_ids: list[np.ndarray]) -> np.ndarray:
    """Return for each order whether it is the first with its id."""
    merged = concatenate(order_ids)
    is_first = np.ones(len(merged), "bool")
    merged.sort()  # in place, to save memory
    if (merged[1:] == merged[:-1]).any():  # rare
        is_first[:] = False
        is_first[np.unique(np.concatenate(order_ids), return_index=True)[1]] = True
    return is_first


def take(chunks: list[Orders], name: str, is_wanted: np.ndarray) -> np.ndarray:
    """Remove a column from the chunks, and return its selected values."""
    column = concatenate([chunk.pop(name) for chunk in chunks])
    return column if is_wanted.all() else column[is_wanted]


def select_side(orders: pd.DataFrame, order_type: OrderType) -> pd.DataFrame:
    """Return the orders of one side, or all."""
    if order_type == "all":
        return orders
    is_chosen = orders.is_buy_order == (order_type == "buy")
    return orders if is_chosen.all() else orders[is_chosen]


def aggregate_orders(orders: pd.DataFrame, order_type: OrderType, price: Price, detail: Detail) -> pd.DataFrame:
    """Return each item type's record, from the orders of `merge_pages`.

    Returns:
        One row per type, index `type_id` ascending; `price` float64 (ISK), `volume` object (int, units), and with
        details `buy` and `sell`, dicts of figures by name. Empty if there are no orders of `order_type`.
    """
    chosen = select_side(orders, order_type)
    volumes = sum_exactly(chosen.volume_remain, chosen.type_id)
    prices = PRICES[price](chosen, order_type)
    records = pd.DataFrame({"price": prices, "volume": pd.Series(volumes.tolist(), volumes.index, "object")})
    if detail == "compact":
        return records
    describe, empty = SIDES[detail]
    for side in ("buy", "sell"):
        figures = describe(select_side(orders, side), side)
        records[side] = pd.Series([figures.get(type_id, empty) for type_id in records.index], records.index, "object")
    return records


def list_records(records: pd.DataFrame) -> list[Record]:
    """Return the rows of a frame, as `aggregate_orders` returns it, as records."""
    columns = [records.index.tolist(), *(records[name].tolist() for name in records.columns)]
    return list(map(Record._make, zip(*columns, *[[None] * len(records)] * (5 - len(columns)), strict=True)))
