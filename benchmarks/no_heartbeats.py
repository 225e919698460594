"""The flow of this project, in runs that send no heartbeats: what is left when a run need not wait for their thread."""

from benchmarks import market_data
from benchmarks.heartbeats import stop_heartbeats


def run(region_id: int, table_name: str, fetch_concurrency: int) -> None:
    """Fill a table with a region's cheapest sell orders: what differs."""
    with stop_heartbeats():
        market_data.run(region_id, table_name, fetch_concurrency)
