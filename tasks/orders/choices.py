"""What a run may choose: which orders, which price, which details."""

from typing import Literal

OrderType = Literal["sell", "buy", "all"]
Price = Literal["min", "max", "mean", "weighted_mean", "median", "percentile_5"]
Detail = Literal["compact", "full", "fuzzwork"]
Key = Literal["type", "market_type"]
