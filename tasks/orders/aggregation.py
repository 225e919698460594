"""Records of orders: one row per item type, exact to the last digit.

Prices are whole hundredths of an ISK (cents), so sums and products are done in integers, and a figure is rounded
once, by the division that ends its formula.
"""

import pandas as pd

from tasks.orders.choices import Detail, OrderType, Price
from tasks.orders.details import SIDES
from tasks.orders.exact import sum_exactly
from tasks.orders.merge import select_side
from tasks.orders.prices import PRICES


def aggregate_orders(orders: pd.DataFrame, order_type: OrderType, price: Price, detail: Detail) -> pd.DataFrame:
    """Return each item type's record.

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
