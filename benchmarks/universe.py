"""This project's flow for many regions, in one process."""

from flows.universe import universe


def run(region_ids: list[int], table_name: str, _fetch_concurrency: int) -> None:
    """Fill each region's table with its cheapest sell orders, writing only the differences."""
    universe(region_ids=region_ids, table_name=table_name)
