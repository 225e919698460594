"""The choices for a run's parameters."""

from typing import Literal

import msgspec

OrderType = Literal["sell", "buy", "all"]
Price = Literal["min", "max", "mean", "weighted_mean", "median", "percentile_5"]
Detail = Literal["compact", "full", "fuzzwork"]
Key = Literal["type", "market_type"]


class Parameters(msgspec.Struct, frozen=True):
    """How orders are aggregated: the same orders and parameters make the same records."""

    order_type: OrderType
    price: Price
    detail: Detail
