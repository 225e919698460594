"""The flow of this project for any API, with a region's orders declared: the same records as `market_data` makes."""

import os

from flows.paged_api import Records, Source, paged_api

SOURCE = {
    "headers": {"X-Compatibility-Date": "2026-08-18"},
    "pages": {"count_header": "X-Pages"},
    "snapshot_header": "Last-Modified",
    "expires_header": "Expires",
    "fields": {"order_id": "int", "type_id": "int", "price": "number", "volume_remain": "int", "is_buy_order": "bool"},
}
VALUES = {"price": {"min": "price"}, "volume": {"sum": "volume_remain"}}
RECORDS = {"key": "type_id", "where": {"is_buy_order": False}, "once_by": "order_id", "values": VALUES}


def run(region_ids: list[int], table_name: str, fetch_concurrency: int) -> None:
    """Fill a region's table with its cheapest sell orders: what differs."""
    url = f"{os.environ['ESI_URL']}/markets/{region_ids[0]}/orders?order_type=all"
    source, records = Source.model_validate(SOURCE | {"url": url}), Records.model_validate(RECORDS)
    paged_api(source, records, table_name.format(region_id=region_ids[0]), fetch_concurrency)
