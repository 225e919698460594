"""Reads market tables, for programs that use them."""

from collections.abc import Sequence
from decimal import Decimal
from itertools import product

import msgspec
from boto3.dynamodb.types import TypeDeserializer

from tasks.table.batch_get import MOST_KEYS, get_items
from tasks.table.client import Table
from tasks.table.connection import open_connection
from tasks.table.errors import TableError
from tasks.table.lease import read_holder
from tasks.table.records import NAMES, is_type_id
from tasks.table.requests import Item
from tasks.table.snapshot import TableSnapshot

ATTEMPTS = 5
WAIT_SECONDS = 1.0  # after the first attempt; twice as long after each further one

Prices = dict[int, "dict[int, Record]"]  # by market, by item type


class Record(msgspec.Struct, frozen=True):
    """An item type's record at a market."""

    price: Decimal = Decimal(0)  # ISK
    volume: int = 0  # units
    buy: dict[str, Decimal] | None = None  # with details: figures of each side by name
    sell: dict[str, Decimal] | None = None


class UnreadableError(TableError):
    """The market has no whole snapshot in the table now, or none that stayed for long enough to be read."""


def read_records(table_name: str, market_id: int | None = None) -> tuple[dict[int, Record], TableSnapshot]:
    """Return a market's records, all of one snapshot, and what that snapshot is.

    `#snapshot` is read before and after the records: if it is the same and `complete`, no run has written meanwhile.
    While a run writes, the market is read again a few times, for a quarter of a minute at most.

    Args:
        table_name: where boto3's settings find it.
        market_id: whose records, of a table with key `market_type`; nothing for a table with key `type`.

    Returns:
        Records by item type, ascending; and the item `#snapshot`.

    Raises:
        UnreadableError: a run is still writing, or ended while it wrote, or there is no `#snapshot`.
        TableError: see `tasks.table.client`.
    """
    with Table(table_name, 8, market_id, "market_type" if market_id else "type") as table:
        return read_whole(table)


def read_whole(table: Table) -> tuple[dict[int, Record], TableSnapshot]:
    """Do what `read_records` does, with a client that is open already."""
    for attempt in range(ATTEMPTS):
        before = table.read_snapshot()
        if before is None:
            raise no_snapshot(table)
        snapshot = TableSnapshot.from_item(before)
        if snapshot.state == "complete":
            items = table.scan(snapshot.records)
            after = table.read_snapshot()
            if after and TableSnapshot.from_item(after) == snapshot:
                names = sorted(filter(is_type_id, items), key=int)
                return {int(name): to_record(items[name]) for name in names}, snapshot
        elif not read_holder(before):
            raise UnreadableError(f"table {table.name}: the last run ended while it wrote; the next one repairs it")
        if attempt < ATTEMPTS - 1:
            table.waits.sleep(WAIT_SECONDS * 2**attempt)
    raise UnreadableError(f"table {table.name} was being written by {snapshot.owner} at each of {ATTEMPTS} attempts")


def read_prices(
    table_name: str, type_ids: Sequence[int], market_ids: Sequence[int]
) -> tuple[Prices, dict[int, TableSnapshot]]:
    """Return the records of some item types at some markets, by BatchGetItem, 100 keys a call.

    It proves no generation: while a run writes, records of two snapshots may stand side by side. So each market's
    snapshot comes with it, whose `state` and `last_modified` say how far to trust what was read.

    Args:
        table_name: of a table with key `market_type`, where boto3's settings find it.
        type_ids: the item types.
        market_ids: the markets.

    Returns:
        Records by market, by item type, without types that have none; and each market's `#snapshot`.

    Raises:
        UnreadableError: the table does not have one of the markets.
        TableError: see `tasks.table.client`.
    """
    types, markets = list(dict.fromkeys(type_ids)), list(dict.fromkeys(market_ids))
    with open_connection(1, 1) as connection:
        tables = {each: Table(table_name, connection, each, "market_type") for each in markets}
        wanted = [(table, table.keys.snapshot) for table in tables.values()]
        wanted += [(tables[market], tables[market].keys.make(str(each))) for market, each in product(markets, types)]
        items: list[Item | None] = []
        for start in range(0, len(wanted), MOST_KEYS):
            items += get_items(wanted[start : start + MOST_KEYS])
    found = dict(zip(markets, items, strict=False))
    if missing := [market for market, item in found.items() if item is None]:
        raise no_snapshot(tables[missing[0]])
    prices: Prices = {market: {} for market in markets}
    for (market, each), item in zip(product(markets, types), items[len(markets) :], strict=True):
        if item is not None:
            prices[market][each] = to_record(item)
    return prices, {market: TableSnapshot.from_item(item) for market, item in found.items() if item is not None}


def no_snapshot(table: Table) -> UnreadableError:
    """Return the error for a market that is not in the table."""
    what = f"market {table.keys.market_id} in it: it has no" if table.keys.market_id else "item"
    return UnreadableError(f"table {table.name} has no {what} #snapshot: no run has stored anything there yet")


def to_record(item: Item) -> Record:
    """Turn an item in DynamoDB's notation to a record: without its key, and what others add."""
    read = TypeDeserializer().deserialize
    values = {name: read(item[name]) for name in NAMES if name in item}
    return Record(**values | {"volume": int(values.get("volume", 0))})
