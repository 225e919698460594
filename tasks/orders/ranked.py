"""Figures over ranked frames: `type_id`, `cents` and `volume`, ascending by the first two."""

import numpy as np
import pandas as pd

from tasks.orders.exact import CENTS, cumulate, divide, multiply, sum_exactly, to_isk, widen


def rank(type_id: "pd.Series[int]", cents: "pd.Series[int]", volume: "pd.Series[int]") -> pd.DataFrame:
    """Return a frame of the three, ascending by type, then price."""
    order = np.lexsort((cents, type_id))
    columns = {"type_id": type_id, "cents": cents, "volume": volume}
    return pd.DataFrame({name: column.to_numpy()[order] for name, column in columns.items()})


def best_twentieth(ranked: pd.DataFrame, *, dearest: bool) -> "pd.Series[float]":
    """Return the volume-weighted mean price (ISK) of the cheapest, or dearest, twentieth of each type's volume.

    The row at the boundary counts in part: with volume v after b better units of V, as clip(V − 20·b, 0, 20·v)
    twentieths of a unit.
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
    """Return the lowest price (ISK) up to which the orders have half of each type's volume."""
    volume = widen(ranked.volume, factor=2)
    total = volume.groupby(ranked.type_id).transform("sum")
    reached = ranked[cumulate(volume, ranked.type_id) * 2 >= total]
    return to_isk(reached.groupby("type_id").cents.first())


def middle(cents: "pd.Series[int]", type_id: "pd.Series[int]") -> "pd.Series[float]":
    """Return each type's unweighted median price (ISK), ascending by type."""
    ascending = cents.to_numpy()[np.lexsort((cents, type_id))]
    count = type_id.groupby(type_id).size()
    first = count.cumsum() - count
    low, high = ascending[first + (count - 1) // 2], ascending[first + count // 2]
    return divide(pd.Series(low, count.index, "object") + high, pd.Series(2 * CENTS, count.index))
