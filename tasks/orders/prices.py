"""The choices of `price`: from orders, one row each, to float64 (ISK) by `type_id` ascending."""

from collections.abc import Callable

import pandas as pd

from tasks.orders.choices import OrderType, Price
from tasks.orders.exact import CENTS, divide, multiply, sum_exactly, to_cents
from tasks.orders.ranked import best_twentieth, middle, rank


def lowest(orders: pd.DataFrame, _order_type: OrderType) -> "pd.Series[float]":
    """Return `min`, the lowest price."""
    return orders.groupby("type_id").price.min()


def highest(orders: pd.DataFrame, _order_type: OrderType) -> "pd.Series[float]":
    """Return `max`, the highest price."""
    return orders.groupby("type_id").price.max()


def mean(orders: pd.DataFrame, _order_type: OrderType) -> "pd.Series[float]":
    """Return `mean`, the unweighted mean over orders."""
    return divide(sum_exactly(to_cents(orders.price), orders.type_id), orders.groupby("type_id").size() * CENTS)


def weighted_mean(orders: pd.DataFrame, _order_type: OrderType) -> "pd.Series[float]":
    """Return `weighted_mean`, Σ price · volume / Σ volume."""
    values = multiply(to_cents(orders.price), orders.volume_remain)
    return divide(sum_exactly(values, orders.type_id), sum_exactly(orders.volume_remain, orders.type_id) * CENTS)


def median(orders: pd.DataFrame, _order_type: OrderType) -> "pd.Series[float]":
    """Return `median`, the unweighted median over orders."""
    return middle(to_cents(orders.price), orders.type_id)


def percentile_5(orders: pd.DataFrame, order_type: OrderType) -> "pd.Series[float]":
    """Return `percentile_5`, the volume-weighted mean price of the best 5 % of the volume.

    The best are the lowest prices, for `buy` the highest. The order at the boundary counts in part.
    """
    return best_twentieth(
        rank(orders.type_id, to_cents(orders.price), orders.volume_remain), dearest=order_type == "buy"
    )


PRICES: dict[Price, Callable[[pd.DataFrame, OrderType], "pd.Series[float]"]] = {
    "min": lowest,
    "max": highest,
    "mean": mean,
    "weighted_mean": weighted_mean,
    "median": median,
    "percentile_5": percentile_5,
}
