"""This project's flow for any paginated API, with a region's orders declared; makes the same records as market_data."""

import os
from typing import Any

from flows.paged_api import paged_api
from tasks.esi.client import ESI_HEADERS

SOURCE: Any = {
    "headers": ESI_HEADERS,
    "pages": {"count_header": "X-Pages"},
    "snapshot_header": "Last-Modified",
    "expires_header": "Expires",
    "fields": {"order_id": "int", "type_id": "int", "price": "number", "volume_remain": "int", "is_buy_order": "bool"},
}
VALUES = {"price": {"min": "price"}, "volume": {"sum": "volume_remain"}}
RECORDS: Any = {"key": "type_id", "where": {"is_buy_order": False}, "once_by": "order_id", "values": VALUES}


def run(region_ids: list[int], table_name: str, fetch_concurrency: int) -> None:
    """Fill a region's table with its cheapest sell orders, writing only the differences."""
    url = f"{os.environ['ESI_URL']}/markets/{region_ids[0]}/orders?order_type=all"
    paged_api(SOURCE | {"url": url}, RECORDS, table_name.format(region_id=region_ids[0]), fetch_concurrency)
