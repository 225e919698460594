"""Exact arithmetic: int64 where it suffices, otherwise Python's integers (dtype object)."""

from decimal import Decimal

import numpy as np
import pandas as pd

from tasks.orders.columns import COARSE_ISK

CENTS = 100  # to one ISK
INT64_SAFE = 2.0**62  # half of the range of int64, because it is compared with inexact float sums


def to_cents(price: "pd.Series[float]") -> "pd.Series[int]":
    """Return prices (ISK, two decimals) in whole cents, int64."""
    if (price < COARSE_ISK).all():
        return (price * CENTS).round().astype("int64")
    exact = [int(Decimal(repr(p)) * CENTS) for p in price.tolist()]  # float multiplication would round larger ones
    return pd.Series(exact, price.index, "int64")


def to_isk(cents: "pd.Series[int]") -> "pd.Series[float]":
    """Return whole cents in ISK, float64, each rounded once."""
    return pd.Series([whole / CENTS for whole in cents.tolist()], cents.index, "float64")


def widen(values: "pd.Series[int]", factor: float = 1) -> "pd.Series[int]":
    """Return values in a dtype in which their sum times `factor` cannot overflow."""
    return values if values.to_numpy("float64").sum() * factor < INT64_SAFE else values.astype("object")


def multiply(one: "pd.Series[int]", other: "pd.Series[int]") -> "pd.Series[int]":
    """Return the products, row by row."""
    fits = float(one.to_numpy("float64") @ other.to_numpy("float64")) < INT64_SAFE
    return one * other if fits else one.astype("object") * other.astype("object")


def sum_exactly(values: "pd.Series[int]", by: "pd.Series[int] | list[pd.Series[int]]") -> "pd.Series[int]":
    """Return the sum of each group as Python's integers, ascending by key."""
    return widen(values).groupby(by).sum().astype("object")


def cumulate(volume: "pd.Series[int]", type_id: "pd.Series[int]") -> "pd.Series[int]":
    """Return the running total of volume within each type; a type's rows must be adjacent."""
    units = volume.to_numpy()
    running = units.cumsum()
    starts = np.flatnonzero(type_id.ne(type_id.shift()))
    before = running[starts] - units[starts]
    return pd.Series(running - np.repeat(before, np.diff(starts, append=len(units))), volume.index)


def divide(numerator: "pd.Series[int]", denominator: "pd.Series[int]") -> "pd.Series[float]":
    """Return the quotients, float64, each rounded once: Python divides integers of any size correctly."""
    pairs = zip(numerator.tolist(), denominator.tolist(), strict=True)
    return pd.Series([n / d for n, d in pairs], numerator.index, "float64")
