"""The choices for a run's parameters."""

from typing import Literal

OrderType = Literal["sell", "buy", "all"]
Price = Literal["min", "max", "mean", "weighted_mean", "median", "percentile_5"]
Detail = Literal["compact", "full", "fuzzwork"]
Key = Literal["type", "market_type"]
