"""Markets of a small region, in one table."""

from typing import Any

from deployments.local.market.book import make_orders
from flows.market_data import Summary, market_data
from tests.support.esi import EsiMarket

REGION = 10000005  # one page


def find_busiest(market: EsiMarket, region_id: int) -> list[int]:
    """Return a region, its busiest system, and its two busiest stations."""
    orders = make_orders(market.seed, region_id, market.index)
    stations = orders[orders.location_id < 10**12].location_id.value_counts().index.tolist()
    return [region_id, int(orders.system_id.value_counts().index[0]), *map(int, stations[:2])]


def keep(table_name: str, markets: list[int], region_id: int = REGION, **parameters: Any) -> Summary:
    """Run the flow for markets of a region in one table."""
    summary: Summary = market_data(region_id, table_name, key="market_type", markets=markets, **parameters)
    return summary
