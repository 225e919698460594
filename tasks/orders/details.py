"""The figures that `detail` adds, for each side and item type."""

import math
from collections.abc import Callable, Iterable
from typing import NamedTuple

import pandas as pd

from tasks.orders.choices import Detail, OrderType
from tasks.orders.exact import CENTS, divide, multiply, sum_exactly, to_cents, to_isk
from tasks.orders.ranked import best_twentieth, middle, rank, weighted_median
from tasks.orders.records import Figures


class Side(NamedTuple):
    """How a choice of `detail` describes the orders of one side."""

    describe: Callable[[pd.DataFrame, OrderType], dict[int, Figures]]  # by item type
    empty: Figures  # of an item type without orders on this side


def describe_full(orders: pd.DataFrame, side: OrderType) -> dict[int, Figures]:
    """Return the figures of `full`, weighted by the remaining volume of orders.

    For orders of volume v and price p: `weighted_average` = Σvp / Σv; `stddev` is the population's,
    √(Σvp²/Σv − (Σvp/Σv)²); `median` is the lowest price up to which the orders have half of Σv.
    """
    ranked = rank(orders.type_id, to_cents(orders.price), orders.volume_remain)
    cents, volume, types = ranked.cents, ranked.volume, ranked.type_id
    prices, total = orders.groupby("type_id").price, sum_exactly(volume, types)
    value = multiply(cents, volume)
    value_sum, square_sum = sum_exactly(value, types), sum_exactly(multiply(cents, value), types)
    variance = [(v * s - w * w) / (v * v * CENTS**2) for v, w, s in zip(total, value_sum, square_sum, strict=True)]
    return by_type(
        total.index,
        weighted_average=divide(value_sum, total * CENTS),
        max=prices.max(),
        min=prices.min(),
        stddev=map(math.sqrt, variance),
        median=weighted_median(ranked),
        volume=total,
        order_count=prices.size(),
        percentile=best_twentieth(ranked, dearest=side == "buy"),
    )


def describe_fuzzwork(orders: pd.DataFrame, side: OrderType) -> dict[int, Figures]:
    """Return the figures of `fuzzwork`, over price levels, like Fuzzwork's aggregates.

    A level is all orders of one price. Sell levels above 100 × the lowest, and buy levels below 1/100 of the highest,
    count with volume 0. `volume`, `weightedAverage` and `percentile` (of exactly volume/20 units, from the best price
    on) use the remaining volume; `max`, `min`, `median` and `stddev` (the sample's, n − 1; 0.01 for one level) weight
    all levels equally; `orderCount` counts levels. Source: fuzzysteve/FuzzMarket, scripts/aggloader-esi.py.
    """
    merged = sum_exactly(orders.volume_remain, [orders.type_id, to_cents(orders.price)])
    levels = merged.rename_axis(["type_id", "cents"]).rename("volume").reset_index()
    best = levels.groupby("type_id").cents.transform("max" if side == "buy" else "min")
    outlier = levels.cents * 100 < best if side == "buy" else levels.cents > 100 * best
    levels["volume"] = levels.volume.mask(outlier, 0)
    types, cents = levels.type_id, levels.cents
    total, count = sum_exactly(levels.volume, types), levels.groupby("type_id").size()
    cents_sum, square_sum = sum_exactly(cents, types), sum_exactly(multiply(cents, cents), types)
    variance = [
        (n * s - c * c) / (n * (n - 1) * CENTS**2) if n > 1 else 0.0001
        for n, c, s in zip(count.tolist(), cents_sum, square_sum, strict=True)
    ]
    return by_type(
        total.index,
        weightedAverage=divide(sum_exactly(multiply(cents, levels.volume), types), total * CENTS),
        max=to_isk(cents.groupby(types).max()),
        min=to_isk(cents.groupby(types).min()),
        stddev=map(math.sqrt, variance),
        median=middle(cents, types),
        volume=total,
        orderCount=count,
        percentile=best_twentieth(levels, dearest=side == "buy"),
    )


FUZZWORK_NAMES = ("weightedAverage", "max", "min", "stddev", "median", "volume", "orderCount", "percentile")
SIDES: dict[Detail, Side] = {
    "full": Side(describe_full, {}),
    "fuzzwork": Side(describe_fuzzwork, dict.fromkeys(FUZZWORK_NAMES, 0)),
}


def by_type(types: "pd.Index[int]", **figures: Iterable[float | int]) -> dict[int, Figures]:
    """Return columns of figures as one dict per type."""
    columns = [column.tolist() if isinstance(column, pd.Series) else list(column) for column in figures.values()]
    return {t: dict(zip(figures, row, strict=True)) for t, row in zip(types, zip(*columns, strict=True), strict=True)}
