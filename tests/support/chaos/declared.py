"""The market's orders by declaration, whose records are those of the flow `market-data`, and their `#snapshot`."""

import json
from typing import Any, Literal

from flows.paged_api import paged_api
from tasks.declared.declaration import Records, Source
from tasks.declared.source import DeclaredSource
from tasks.orders.choices import Detail, OrderType, Price
from tasks.table.requests import Item
from tasks.table.snapshot import SourceSnapshot
from tests.support.chaos.market import REGION
from tests.support.tables import fill_in

PARAMETERS: tuple[OrderType, Price, Detail] = (
    "sell",
    "min",
    "compact",
)  # of `market-data`
Extreme = Literal["min", "max"]


def declare(url: str, price: Extreme = "min", **source: Any) -> dict[str, Any]:
    """Return the declaration of the sell orders at a market's address."""
    fields = {"order_id": "int", "type_id": "int", "price": "number", "volume_remain": "int", "is_buy_order": "bool"}
    return {
        "source": {
            "url": f"{url}/markets/{REGION}/orders?order_type=all",
            "headers": {"X-Compatibility-Date": "2026-08-18"},
            "pages": {"count_header": "X-Pages"},
            "snapshot_header": "Last-Modified",
            "expires_header": "Expires",
            "fields": fields,
            "max_fresh_seconds": 900,
        }
        | source,
        "records": {
            "key": "type_id",
            "where": {"is_buy_order": False},
            "once_by": "order_id",
            "values": {"price": {price: "price"}, "volume": {"sum": "volume_remain"}},
        },
    }


def keep(url: str, table_name: str, **parameters: Any) -> Any:
    """Run the flow for the orders at a market's address."""
    return paged_api(**declare(url), table_name=table_name, **parameters)


def read_parameters(marker: SourceSnapshot) -> tuple[str, str, str]:
    """Return the parameters of the flow `market-data` that make the records of a `#snapshot`."""
    [price] = json.loads(marker.parameters)["records"]["values"]["price"]
    return "sell", price, "compact"


def describe(url: str, index: int, state: str, price: Extreme, records: int, owner: str) -> Item:
    """Return an item `#snapshot`."""
    declared = declare(url, price)
    source = DeclaredSource(Source.model_validate(declared["source"]), Records.model_validate(declared["records"]))
    blank = SourceSnapshot(source=source.declared.url, parameters=source.description, snapshot_header="Last-Modified")
    return fill_in(blank, index, state, records, owner)
