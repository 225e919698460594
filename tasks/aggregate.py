"""Aggregate: one record per item type, from all orders of one snapshot, exact to the last digit.

Prices are whole hundredths of an ISK (cents), so sums and products are done in integers, and a figure is rounded
once, by the division that ends its formula.
"""

import math
from collections.abc import Callable, Iterable
from decimal import Decimal

import msgspec
import numpy as np
import pandas as pd
from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.logging import get_run_logger

from tasks.build_iterator import Orders
from tasks.fetch_pages import COARSE_ISK, concatenate
from tasks.table.snapshot import Detail, OrderType, Parameters, Price

CENTS = 100  # to one ISK
INT64_SAFE = (
    2.0**62
)  # a sum of floats decides whether 64 bits are enough for the integers; half their range for its error


class Book(msgspec.Struct, frozen=True):
    """What the table will hold, and of how much it was made."""

    records: pd.DataFrame  # see `aggregate_orders`
    orders: int  # of all types and both sides, each counted once


@task(name="Aggregate", task_run_name="Aggregate", cache_policy=NO_CACHE, persist_result=False)
def aggregate(chunks: list[Orders], parameters: Parameters) -> Book:
    """Gives one record per item type; it uses the chunks up, as `merge_pages` does."""
    side = parameters.order_type if parameters.detail == "compact" else "all"
    orders, count = merge_pages(chunks, side)
    records = aggregate_orders(orders, parameters.order_type, parameters.price, parameters.detail)
    get_run_logger().info("%d orders: %d records", count, len(records))
    return Book(records, count)


def merge_pages(chunks: list[Orders], side: OrderType = "all") -> tuple[pd.DataFrame, int]:
    """Puts the chunks together, an order that shows up on two pages once: its first one.

    Args:
        chunks: in the order of the pages. It takes their columns out of them, so that no order is held twice.
        side: which orders it gives.

    Returns:
        Those orders, `fetch_pages.DTYPES` but `order_id`, one row an order; and the number of orders on both sides.
    """
    is_wanted = mark_first([chunk.pop("order_id") for chunk in chunks])
    count = int(is_wanted.sum())
    if side != "all":
        is_wanted &= concatenate([chunk["is_buy_order"] for chunk in chunks]) == (side == "buy")
    names = list(chunks[0])
    return pd.DataFrame({name: take(chunks, name, is_wanted) for name in names}, copy=False), count


def mark_first(order_ids: list[np.ndarray]) -> np.ndarray:
    """Gives for each order, bool, whether it shows up there for the first time."""
    merged = concatenate(order_ids)
    is_first = np.ones(len(merged), "bool")
    merged.sort()  # in place: a snapshot's ids are as large as its prices
    if (merged[1:] == merged[:-1]).any():  # hardly ever
        is_first[:] = False
        is_first[np.unique(np.concatenate(order_ids), return_index=True)[1]] = True
    return is_first


def take(chunks: list[Orders], name: str, is_wanted: np.ndarray) -> np.ndarray:
    """Takes a column out of the chunks, and gives the values that are wanted."""
    column = concatenate([chunk.pop(name) for chunk in chunks])
    return column if is_wanted.all() else column[is_wanted]


def aggregate_orders(orders: pd.DataFrame, order_type: OrderType, price: Price, detail: Detail) -> pd.DataFrame:
    """Gives each item type's record.

    Args:
        orders: as `merge_pages` gives them.
        order_type: which orders decide about `price` and `volume`, and which types have a record.
        price: what `price` is; see the function of that name in `PRICES`.
        detail: `full` and `fuzzwork` add the columns `buy` and `sell`, of both sides whatever `order_type` is.

    Returns:
        One row per type, index `type_id` ascending; `price` float64 (ISK), `volume` object (int, units), and with
        details `buy` and `sell`, dicts of figures by name. Empty if no order is of `order_type`.
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


def select_side(orders: pd.DataFrame, order_type: OrderType) -> pd.DataFrame:
    """Gives the orders of one side, or all."""
    if order_type == "all":
        return orders
    is_chosen = orders.is_buy_order == (order_type == "buy")
    return orders if is_chosen.all() else orders[is_chosen]


# What `price` can be: orders, one row each, to float64 (ISK) by `type_id` ascending.


def lowest(orders: pd.DataFrame, _order_type: OrderType) -> "pd.Series[float]":
    """`min`: the lowest price."""
    return orders.groupby("type_id").price.min()


def highest(orders: pd.DataFrame, _order_type: OrderType) -> "pd.Series[float]":
    """`max`: the highest price."""
    return orders.groupby("type_id").price.max()


def mean(orders: pd.DataFrame, _order_type: OrderType) -> "pd.Series[float]":
    """`mean`: Σ price / orders, each order counted alike."""
    return divide(sum_exactly(to_cents(orders.price), orders.type_id), orders.groupby("type_id").size() * CENTS)


def weighted_mean(orders: pd.DataFrame, _order_type: OrderType) -> "pd.Series[float]":
    """`weighted_mean`: Σ price · volume / Σ volume."""
    values = multiply(to_cents(orders.price), orders.volume_remain)
    return divide(sum_exactly(values, orders.type_id), sum_exactly(orders.volume_remain, orders.type_id) * CENTS)


def median(orders: pd.DataFrame, _order_type: OrderType) -> "pd.Series[float]":
    """`median`: the middle price, each order counted alike; between the middle two where their number is even."""
    return middle(to_cents(orders.price), orders.type_id)


def percentile_5(orders: pd.DataFrame, order_type: OrderType) -> "pd.Series[float]":
    """`percentile_5`: the volume-weighted mean price of the best 5 % of the volume.

    The best are the cheapest, for `buy` the dearest. The order at the boundary counts with the part that falls within.
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


# What a detail says of one side: orders of that side, one row each, to figures by name, by `type_id`.

Figures = dict[str, float | int]


def describe_full(orders: pd.DataFrame, side: OrderType) -> dict[int, Figures]:
    """`full`: figures over the orders, all but `order_count` weighted by their remaining volume.

    With v the volume and p the price of an order: `weighted_average` = Σvp / Σv; `stddev` is the population's,
    √(Σvp²/Σv − (Σvp/Σv)²); `median` is the first price, going up, at which half of Σv is reached.
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
    """`fuzzwork`: figures over price levels, as market tools know them from Fuzzwork's aggregates.

    Orders of one price are one level. Sell levels above 100 × the lowest, and buy levels below 1/100 of the highest,
    keep their level but get volume 0. `volume`, `weightedAverage` and `percentile` (of exactly volume/20 units, from
    the best price on) are of what volume remains; `max`, `min`, `median` and `stddev` (the sample's, n − 1; 0.01 for
    one level) count each level alike; `orderCount` counts levels. Source: fuzzysteve/FuzzMarket,
    scripts/aggloader-esi.py.
    """
    merged = sum_exactly(orders.volume_remain, [orders.type_id, to_cents(orders.price)])
    levels = pd.DataFrame(
        {
            "type_id": merged.index.get_level_values(0),
            "cents": merged.index.get_level_values(1),
            "volume": merged.to_numpy(),
        }
    )
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
SIDES: dict[Detail, tuple[Callable[[pd.DataFrame, OrderType], dict[int, Figures]], Figures]] = {
    "full": (describe_full, {}),
    "fuzzwork": (describe_fuzzwork, dict.fromkeys(FUZZWORK_NAMES, 0)),
}


def by_type(types: "pd.Index[int]", **figures: Iterable[float | int]) -> dict[int, Figures]:
    """Turns columns of figures into a dict a type."""
    columns = [column.tolist() if isinstance(column, pd.Series) else list(column) for column in figures.values()]
    return {t: dict(zip(figures, row, strict=True)) for t, row in zip(types, zip(*columns, strict=True), strict=True)}


# Figures over ranked frames: `type_id`, `cents` and `volume`, ascending by the first two.


def rank(type_id: "pd.Series[int]", cents: "pd.Series[int]", volume: "pd.Series[int]") -> pd.DataFrame:
    """Gives the three as columns, ascending by type, then price."""
    order = np.lexsort((cents, type_id))
    columns = {"type_id": type_id, "cents": cents, "volume": volume}
    return pd.DataFrame({name: column.to_numpy()[order] for name, column in columns.items()})


def best_twentieth(ranked: pd.DataFrame, *, dearest: bool) -> "pd.Series[float]":
    """Gives the volume-weighted mean price (ISK) of the cheapest, or dearest, twentieth of each type's volume.

    The row at the boundary counts with the part that falls within: of volume v after b better units out of V,
    clip(V − 20·b, 0, 20·v) twentieths of a unit.
    """
    if dearest:
        ranked = ranked.iloc[::-1]
    volume = widen(ranked.volume, factor=20)
    total = volume.groupby(ranked.type_id).transform("sum")
    better = cumulate(volume, ranked.type_id) - volume
    twentieths = np.clip(total - better * 20, 0, volume * 20)
    return divide(
        sum_exactly(multiply(ranked.cents, twentieths), ranked.type_id),
        sum_exactly(ranked.volume, ranked.type_id) * CENTS,
    )


def weighted_median(ranked: pd.DataFrame) -> "pd.Series[float]":
    """Gives the first price (ISK), going up, at which half of each type's volume is reached."""
    volume = widen(ranked.volume, factor=2)
    total = volume.groupby(ranked.type_id).transform("sum")
    reached = ranked[cumulate(volume, ranked.type_id) * 2 >= total]
    return to_isk(reached.groupby("type_id").cents.first())


def middle(cents: "pd.Series[int]", type_id: "pd.Series[int]") -> "pd.Series[float]":
    """Gives each type's middle price (ISK), or the mean of the middle two, ascending by type."""
    ascending = cents.to_numpy()[np.lexsort((cents, type_id))]
    count = type_id.groupby(type_id).size()
    first = count.cumsum() - count
    low, high = ascending[first + (count - 1) // 2], ascending[first + count // 2]
    return divide(pd.Series(low, count.index, "object") + high, pd.Series(2 * CENTS, count.index))


# Exact arithmetic: int64 where that is enough, Python's integers (dtype object) where not.


def to_cents(price: "pd.Series[float]") -> "pd.Series[int]":
    """Gives prices (ISK, two decimals) in whole cents, int64."""
    if (price < COARSE_ISK).all():
        return (price * CENTS).round().astype("int64")
    exact = [int(Decimal(repr(p)) * CENTS) for p in price.tolist()]  # a larger one times 100 would be rounded
    return pd.Series(exact, price.index, "int64")


def to_isk(cents: "pd.Series[int]") -> "pd.Series[float]":
    """Gives whole cents in ISK, float64, each rounded once."""
    return pd.Series([whole / CENTS for whole in cents.tolist()], cents.index, "float64")


def widen(values: "pd.Series[int]", factor: float = 1) -> "pd.Series[int]":
    """Gives values whose sum, times `factor`, cannot overflow."""
    return values if values.to_numpy("float64").sum() * factor < INT64_SAFE else values.astype("object")


def multiply(one: "pd.Series[int]", other: "pd.Series[int]") -> "pd.Series[int]":
    """Gives the products, row by row."""
    fits = float(one.to_numpy("float64") @ other.to_numpy("float64")) < INT64_SAFE
    return one * other if fits else one.astype("object") * other.astype("object")


def sum_exactly(values: "pd.Series[int]", by: "pd.Series[int] | list[pd.Series[int]]") -> "pd.Series[int]":
    """Gives the sum of each group, ascending by its key, as Python's integers."""
    return widen(values).groupby(by).sum().astype("object")


def cumulate(volume: "pd.Series[int]", type_id: "pd.Series[int]") -> "pd.Series[int]":
    """Gives each row's volume plus that of the rows of its type before it; the rows of a type stand together."""
    units = volume.to_numpy()
    running = units.cumsum()
    starts = np.flatnonzero(type_id.ne(type_id.shift()))
    before = running[starts] - units[starts]
    return pd.Series(running - np.repeat(before, np.diff(starts, append=len(units))), volume.index)


def divide(numerator: "pd.Series[int]", denominator: "pd.Series[int]") -> "pd.Series[float]":
    """Gives the quotients, float64, each rounded once: Python divides integers of any size correctly."""
    pairs = zip(numerator.tolist(), denominator.tolist(), strict=True)
    return pd.Series([n / d for n, d in pairs], numerator.index, "float64")
