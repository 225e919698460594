"""A second, slow aggregation, written from the definitions alone: exact fractions, one order at a time."""

from collections import defaultdict
from collections.abc import Iterable
from decimal import Decimal, localcontext
from fractions import Fraction
from typing import NamedTuple

Figures = dict[str, float | int]


class Order(NamedTuple):
    """One order, as ESI gives it."""

    order_id: int
    type_id: int
    price: float  # ISK
    volume_remain: int
    is_buy_order: bool


class Level(NamedTuple):
    """Some volume on offer at a price."""

    price: Fraction  # ISK
    volume: int


class Record(NamedTuple):
    """What the table holds of one item type."""

    price: float
    volume: int
    buy: Figures | None
    sell: Figures | None


def aggregate(orders: Iterable[Order], order_type: str, price: str, detail: str) -> dict[int, Record]:
    """Return the records by type, ascending."""
    sides: dict[str, dict[int, list[Level]]] = {name: defaultdict(list) for name in ("buy", "sell", "all")}
    for order in {order.order_id: order for order in orders}.values():
        level = Level(Fraction(Decimal(repr(order.price))), order.volume_remain)
        sides["buy" if order.is_buy_order else "sell"][order.type_id].append(level)
        sides["all"][order.type_id].append(level)
    records = {}
    for type_id, levels in sorted(sides[order_type].items()):
        described = [describe(sides[side].get(type_id, []), side, detail) for side in ("buy", "sell")]
        chosen = choose_price(levels, price, order_type)
        records[type_id] = Record(float(chosen), sum(level.volume for level in levels), *described)
    return records


def choose_price(levels: list[Level], price: str, order_type: str) -> Fraction:
    """Return what a record's `price` is."""
    prices = [level.price for level in levels]
    match price:
        case "min":
            return min(prices)
        case "max":
            return max(prices)
        case "mean":
            return sum(prices) / Fraction(len(prices))
        case "weighted_mean":
            return weighted_mean(levels)
        case "median":
            return middle(prices)
        case "percentile_5":
            return best_twentieth(levels, dearest=order_type == "buy")
    raise ValueError(price)


def describe(levels: list[Level], side: str, detail: str) -> Figures | None:
    """Return the map of one side, None where the detail has none."""
    if detail == "compact":
        return None
    return describe_full(levels, side) if detail == "full" else describe_fuzzwork(levels, side)


def describe_full(levels: list[Level], side: str) -> Figures:
    """Return the figures of `detail="full"`, none without orders."""
    if not levels:
        return {}
    average = weighted_mean(levels)
    total = sum(level.volume for level in levels)
    variance = sum(level.volume * (level.price - average) ** 2 for level in levels) / total
    ascending = sorted(levels)
    reached = [sum(level.volume for level in ascending[: n + 1]) for n in range(len(ascending))]
    return {
        "weighted_average": float(average),
        "max": float(ascending[-1].price),
        "min": float(ascending[0].price),
        "stddev": root(Fraction(variance)),
        "median": float(next(l.price for l, units in zip(ascending, reached, strict=True) if 2 * units >= total)),
        "volume": total,
        "order_count": len(levels),
        "percentile": float(best_twentieth(levels, dearest=side == "buy")),
    }


def describe_fuzzwork(orders: list[Level], side: str) -> Figures:
    """Return the figures of `detail="fuzzwork"`, all 0 without orders."""
    names = ("weightedAverage", "max", "min", "stddev", "median", "volume", "orderCount", "percentile")
    if not orders:
        return dict.fromkeys(names, 0)
    merged: dict[Fraction, int] = defaultdict(int)
    for order in orders:
        merged[order.price] += order.volume
    prices = sorted(merged)
    lowest_bid, highest_ask = prices[-1] / 100, prices[0] * 100
    is_outlier = {p: p < lowest_bid if side == "buy" else p > highest_ask for p in prices}
    levels = [Level(p, 0 if is_outlier[p] else merged[p]) for p in prices]
    plain_mean = sum(prices) / Fraction(len(prices))
    spread = sum((p - plain_mean) ** 2 for p in prices)
    figures = (
        float(weighted_mean(levels)),
        float(prices[-1]),
        float(prices[0]),
        root(Fraction(spread) / (len(prices) - 1)) if len(prices) > 1 else 0.01,
        float(middle(prices)),
        sum(level.volume for level in levels),
        len(levels),
        float(best_twentieth(levels, dearest=side == "buy")),
    )
    return dict(zip(names, figures, strict=True))


def weighted_mean(levels: list[Level]) -> Fraction:
    """Return the mean price by volume."""
    return Fraction(sum(level.price * level.volume for level in levels)) / sum(level.volume for level in levels)


def middle(prices: list[Fraction]) -> Fraction:
    """Return the median, each price counted alike."""
    ascending = sorted(prices)
    return (ascending[(len(prices) - 1) // 2] + ascending[len(prices) // 2]) / 2


def best_twentieth(levels: list[Level], *, dearest: bool) -> Fraction:
    """Return the mean price of the cheapest, or dearest, 5 % of the volume, taken unit by unit from the best on."""
    wanted = left = Fraction(sum(level.volume for level in levels), 20)
    paid = Fraction(0)
    for level in sorted(levels, reverse=dearest):
        taken = min(left, Fraction(level.volume))
        paid += taken * level.price
        left -= taken
    return paid / wanted


def root(square: Fraction) -> float:
    """Return the square root, from 60 digits."""
    with localcontext() as context:
        context.prec = 60
        return float((Decimal(square.numerator) / Decimal(square.denominator)).sqrt())
