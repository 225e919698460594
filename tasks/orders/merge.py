"""Pages put together, each order once."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from tasks.orders.choices import OrderType
from tasks.orders.columns import Orders, concatenate

Place = tuple[str, int]  # a column that says where orders are, and the value that is meant


def merge_pages(
    chunks: list[Orders], side: OrderType = "all", places: Sequence[Place | None] = (None,)
) -> tuple[pd.DataFrame, list[int]]:
    """Put the chunks together, an order that shows up on two pages once: its first one.

    Args:
        chunks: in the order of the pages. It takes their columns out of them, so that no order is held twice.
        side: which orders it returns.
        places: where orders are counted; None is everywhere.

    Returns:
        The orders of the side, with the chunks' columns but `order_id`, one row an order; and for each place the
        number of orders on both sides.
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
    """Return for each order, bool, whether it shows up there for the first time."""
    merged = concatenate(order_ids)
    is_first = np.ones(len(merged), "bool")
    merged.sort()  # in place: a snapshot's ids are as large as its prices
    if (merged[1:] == merged[:-1]).any():  # hardly ever
        is_first[:] = False
        is_first[np.unique(np.concatenate(order_ids), return_index=True)[1]] = True
    return is_first


def take(chunks: list[Orders], name: str, is_wanted: np.ndarray) -> np.ndarray:
    """Take a column out of the chunks, and return the values that are wanted."""
    column = concatenate([chunk.pop(name) for chunk in chunks])
    return column if is_wanted.all() else column[is_wanted]


def select_side(orders: pd.DataFrame, order_type: OrderType) -> pd.DataFrame:
    """Return the orders of one side, or all."""
    if order_type == "all":
        return orders
    is_chosen = orders.is_buy_order == (order_type == "buy")
    return orders if is_chosen.all() else orders[is_chosen]
