"""Whether each region's table is exact: compared with the market's own orders, added up one by one."""

from decimal import Decimal
from typing import TYPE_CHECKING, Any

from benchmarks.tables import SEED, SNAPSHOT_KEY, Tables, WrongTableError
from deployments.local.market.book import make_orders
from tasks.table.snapshot import TableSnapshot

if TYPE_CHECKING:
    from collections.abc import Iterable

Item = dict[str, Any]
TABLE_NAME = "MarketData-{region_id}"


def true_items(region_id: int, index: int) -> dict[str, Item]:
    """Return the records that a region's table is to hold, exact and in DynamoDB's notation, by item type's id.

    Args:
        region_id: of the market stand-in.
        index: number of the snapshot.
    """
    orders = make_orders(SEED, region_id, index)[["type_id", "price", "volume_remain", "is_buy_order"]]
    return add_up(orders.itertuples(index=False, name=None))


def add_up(orders: "Iterable[tuple[int, float, int, bool]]") -> dict[str, Item]:
    """Return each type's cheapest sell price, and the volume for sale, as items.

    Args:
        orders: type, price, remaining volume, and whether it is a buy order.
    """
    prices: dict[int, float] = {}
    volumes: dict[int, int] = {}
    for type_id, price, volume, is_buy_order in orders:
        if not is_buy_order:
            prices[type_id] = min(price, prices.get(type_id, price))
            volumes[type_id] = volumes.get(type_id, 0) + volume
    return {
        str(type_id): {
            "pk": {"S": str(type_id)},
            "price": {"N": to_digits(price)},
            "volume": {"N": str(volumes[type_id])},
        }
        for type_id, price in prices.items()
    }


def to_digits(price: float) -> str:
    """Return the shortest exact digits of a price, without zeros that say nothing."""
    digits = f"{Decimal(repr(price)):f}"
    return digits.rstrip("0").rstrip(".") if "." in digits else digits


def find_unfinished(tables: Tables, region_ids: list[int], modified: int) -> list[int]:
    """Return the regions whose table is missing, or do not say that it holds the whole snapshot.

    Args:
        tables: of the store.
        region_ids: the regions.
        modified: unix time of the snapshot.
    """
    present = list_names(tables)
    return [
        region_id
        for region_id in region_ids
        if (name := TABLE_NAME.format(region_id=region_id)) not in present
        or not is_complete(read_snapshot(tables, name), region_id, modified)
    ]


def list_names(tables: Tables) -> set[str]:
    """Return the names of the store's tables."""
    pages = tables.client.get_paginator("list_tables").paginate()  # 100 names each
    return {name for page in pages for name in page["TableNames"]}


def read_snapshot(tables: Tables, name: str) -> Item | None:
    """Return a table's item `#snapshot`, if it has one."""
    answer = tables.client.get_item(TableName=name, Key={"pk": {"S": SNAPSHOT_KEY}}, ConsistentRead=True)
    return answer.get("Item")


def is_complete(item: Item | None, region_id: int, modified: int) -> bool:
    """Return whether `#snapshot` says that a table holds the whole snapshot of a region."""
    if item is None:
        return False
    snapshot = TableSnapshot.from_item(item)
    return (snapshot.state, snapshot.region_id, snapshot.last_modified.timestamp()) == ("complete", region_id, modified)


def check_tables(tables: Tables, region_ids: list[int], index: int, unfinished: list[int]) -> int:
    """Compare all tables with the truth, and return how many records they hold.

    Args:
        tables: of the store.
        region_ids: the regions.
        index: number of the snapshot.
        unfinished: regions whose table need not be there, nor whole; what it holds must be true all the same.

    Raises:
        WrongTableError: a record is missing, wrong or too many.
    """
    present, count = list_names(tables), 0
    for region_id in region_ids:
        name = TABLE_NAME.format(region_id=region_id)
        items = {item["pk"]["S"]: item for item in tables.read(name)} if name in present else {}
        items.pop(SNAPSHOT_KEY, None)
        compare(name, items, true_items(region_id, index), is_whole=region_id not in unfinished)
        count += len(items)
    return count


def compare(name: str, items: dict[str, Item], truth: dict[str, Item], *, is_whole: bool) -> None:
    """Compare a table's records with the truth.

    Args:
        name: of the table, for the message.
        items: what it holds, by key.
        truth: what it is to hold.
        is_whole: whether all of it must be there.

    Raises:
        WrongTableError: they differ.
    """
    keys = items.keys() | truth.keys() if is_whole else items.keys()
    if wrong := sorted(key for key in keys if items.get(key) != truth.get(key)):
        key = wrong[0]
        raise WrongTableError(
            f"table {name}: {len(wrong)} of {len(truth)} records are wrong; {key} is {items.get(key)}, "
            f"expected {truth.get(key)}"
        )
