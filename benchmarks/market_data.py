"""This project's flow for one region."""

from flows.market_data import market_data


def run(region_ids: list[int], table_name: str, fetch_concurrency: int) -> None:
    """Fill a region's table with its cheapest sell orders, writing only the differences."""
    market_data(region_id=region_ids[0], table_name=table_name, fetch_concurrency=fetch_concurrency)
