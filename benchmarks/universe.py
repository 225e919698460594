"""The flow of this project for many regions, in one process."""

from flows.universe import universe


def run(region_ids: list[int], table_name: str, _fetch_concurrency: int) -> None:
    """Fill each region's table with its cheapest sell orders: what differs."""
    universe(region_ids=region_ids, table_name=table_name)
