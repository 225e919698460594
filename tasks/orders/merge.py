"""Merges pages, each order once."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from tasks.esi.markets import PLACES, Market
from tasks.orders.choices import OrderType
from tasks.orders.columns import Orders, concatenate


def merge_pages(
    chunks: list[Orders], side: OrderType = "all", markets: Sequence[Market | None] = (None,)
) -> tuple[pd.DataFrame, list[int]]:
    """Merge chunks, in the order of the pages, and empty them, to save memory; of an order on two pages keep the first.

    Returns:
        The side's orders, one row each, with the chunks' columns except `order_id`; and the number of orders on both
        sides in each market, None for all orders.
    """
    is_wanted = mark_first([chunk.pop("order_id") for chunk in chunks])
    names = {PLACES[market.kind] for market in markets if market}
    ids = {name: concatenate([chunk[name] for chunk in chunks]) for name in names}
    counts = [int((is_wanted & (ids[PLACES[each.kind]] == each.id) if each else is_wanted).sum()) for each in markets]
    del ids
    if side != "all":
        is_wanted &= concatenate([chunk["is_buy_order"] for chunk in chunks]) == (side == "buy")
    return pd.DataFrame({name: take(chunks, name, is_wanted) for name in list(chunks[0])}, copy=False), counts


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
