"""What prefect.yaml deploys."""

from pathlib import Path
from typing import Any

import msgspec
from prefect import Flow

from deployments.local.environment import CHECKOUT
from flows.market_data import market_data
from flows.player_count import player_count
from flows.structure_market import structure_market
from flows.universe import universe

PREFECT_YAML = Path(CHECKOUT, "prefect.yaml")
DEPLOYED: list[dict[str, Any]] = msgspec.yaml.decode(PREFECT_YAML.read_bytes())["deployments"]
FLOWS: dict[str, Flow[..., Any]] = {
    "flows/market_data.py:market_data": market_data,
    "flows/universe.py:universe": universe,
    "flows/player_count.py:player_count": player_count,
    "flows/structure_market.py:structure_market": structure_market,
}
