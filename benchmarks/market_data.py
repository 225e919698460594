"""The flow of this project, called in-process as a program that uses it would."""

from flows import market_data as product


def run(region_id: int, table_name: str, fetch_concurrency: int) -> None:
    """Fill a table with a region's cheapest sell orders: what differs."""
    product.market_data(region_id=region_id, table_name=table_name, fetch_concurrency=fetch_concurrency)
