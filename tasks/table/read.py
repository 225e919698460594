"""Reads market tables for other programs, and items of many tables at once."""

from collections.abc import Sequence
from decimal import Decimal
from itertools import product

import msgspec

from tasks.table.client import Table
from tasks.table.connection import open_connection
from tasks.table.errors import TableError, ThrottledError, TransientTableError
from tasks.table.lease import read_holder
from tasks.table.pace import Pace
from tasks.table.records import read_numbers
from tasks.table.requests import ATTRIBUTES, ONE_MARKET, SNAPSHOT_KEY, Item, Keys, name_key
from tasks.table.snapshot import TableSnapshot

ATTEMPTS = 5
WAIT_SECONDS = 1.0  # after the first attempt, then doubled
MOST_KEYS = 100  # DynamoDB's limit for BatchGetItem
FEW = 8  # tables that cost no more calls one by one

Prices = dict[int, "dict[int, Record]"]  # by market, by item type


class Record(msgspec.Struct, frozen=True):
    """An item type's record at a market."""

    price: Decimal = Decimal(0)  # ISK
    volume: int = 0  # units
    buy: dict[str, Decimal] | None = None  # with details: figures of each side by name
    sell: dict[str, Decimal] | None = None


class UnreadableError(TableError):
    """The market has no whole snapshot in the table, or was written while it was read."""


def read_records(table_name: str, market_id: int | None = None) -> tuple[dict[int, Record], TableSnapshot]:
    """Return a market's records, all of one snapshot, and what that snapshot is.

    `#snapshot` is read before and after the records: if both are equal and `complete`, no run has written meanwhile.
    Otherwise the market is read again, a few times within 15 seconds.

    Args:
        table_name: of a table in the account and region of boto3's settings.
        market_id: for a table with key `market_type`; None for one with key `type`.

    Returns:
        Records by item type, ascending; and the item `#snapshot`.

    Raises:
        UnreadableError: a run is still writing, or stopped while writing, or there is no `#snapshot`.
        TableError: see `tasks.table.errors`.
    """
    with Table(table_name, keys=Keys(market_id)) as table:
        return read_whole(table)


def read_whole(table: Table) -> tuple[dict[int, Record], TableSnapshot]:
    """Like `read_records`, with an open client."""
    for attempt in range(ATTEMPTS):
        before = table.read_snapshot()
        if before is None:
            raise no_snapshot(table)
        snapshot = TableSnapshot.from_item(before)
        if snapshot.state == "complete":
            items = table.scan()
            after = table.read_snapshot()
            if after and TableSnapshot.from_item(after) == snapshot:
                names = sorted(filter(ONE_MARKET.is_record, items), key=int)
                return {int(name): to_record(items[name]) for name in names}, snapshot
        elif not read_holder(before):
            raise UnreadableError(f"table {table.name}: the last run stopped while writing; the next one repairs it")
        if attempt < ATTEMPTS - 1:
            table.waits.sleep(WAIT_SECONDS * 2**attempt)
    raise UnreadableError(f"table {table.name} was being written by {snapshot.owner} in all {ATTEMPTS} attempts")


def read_prices(
    table_name: str, type_ids: Sequence[int], market_ids: Sequence[int]
) -> tuple[Prices, dict[int, TableSnapshot]]:
    """Return the records of some item types at some markets, by BatchGetItem, 100 keys a call.

    While a run writes, records of two snapshots may be mixed. Check each market's `#snapshot`: its `state` and
    `last_modified` come with the records.

    Args:
        table_name: of a table with key `market_type`, in the account and region of boto3's settings.
        type_ids: the item types.
        market_ids: the markets.

    Returns:
        Records by market, by item type, without types that have none; and each market's `#snapshot`.

    Raises:
        UnreadableError: the table does not have one of the markets.
        TableError: see `tasks.table.errors`.
    """
    with open_connection(1) as connection:
        tables = {each: Table(table_name, connection, Keys(each)) for each in market_ids}
        wanted = list(product(dict.fromkeys([SNAPSHOT_KEY, *map(str, type_ids)]), tables))  # the snapshots first
        keys = [(tables[market], tables[market].keys.make(name)) for name, market in wanted]
        batches = [keys[start : start + MOST_KEYS] for start in range(0, len(keys), MOST_KEYS)]
        items = [item for batch in batches for item in get_items(batch)]
    prices: Prices = {market: {} for market in tables}
    snapshots: dict[int, TableSnapshot] = {}
    for (name, market), item in zip(wanted, items, strict=True):
        if name == SNAPSHOT_KEY:
            if item is None:
                raise no_snapshot(tables[market])
            snapshots[market] = TableSnapshot.from_item(item)
        elif item is not None:
            prices[market][int(name)] = to_record(item)
    return prices, snapshots


def read_snapshots(tables: Sequence[Table]) -> dict[Table, Item | None]:
    """Return the tables' items `#snapshot`, None for those that have none, by strongly consistent BatchGetItem.

    A call fails for all its tables if one is missing, without naming it, so the tables are halved until few are left.
    Those few are left out, as are all tables of a call that failed for another reason: they have to be read one by one.
    """
    try:
        if len(tables) <= MOST_KEYS:
            return dict(zip(tables, get_items([(table, table.keys.snapshot) for table in tables]), strict=True))
    except TransientTableError:
        return {}
    except TableError:
        if len(tables) <= FEW:
            return {}
    half = len(tables) // 2
    return read_snapshots(tables[:half]) | read_snapshots(tables[half:])


def get_items(keys: Sequence[tuple[Table, Item]]) -> list[Item | None]:
    """Return the items of up to 100 keys, None for missing ones; units and waits count for the first table."""
    first, pace = keys[0][0], Pace()
    found: dict[tuple[str, str], Item] = {}
    left: dict[str, Item] = {}
    for table, key in keys:
        left.setdefault(table.name, {"Keys": [], "ConsistentRead": True})["Keys"].append(key)
    while left:
        answer = first.call("batch_get_item", Pace(), RequestItems=left)
        responses = answer.get("Responses") or {}
        found |= {(name, name_key(item)): item for name, items in responses.items() for item in items}
        left = answer.get("UnprocessedKeys") or {}
        if left and not first.wait_for_capacity(pace, progress=any(responses.values())):
            raise ThrottledError(f"table {first.name} and others: reads were left unprocessed {pace.stalled} times")
    return [found.get((table.name, name_key(key))) for table, key in keys]


def no_snapshot(table: Table) -> UnreadableError:
    """Return the error for a market that is not in the table."""
    what = f"market {table.keys.market_id} in it: it has no" if table.keys.market_id else "item"
    return UnreadableError(f"table {table.name} has no {what} #snapshot: no run has stored anything there yet")


def to_record(item: Item) -> Record:
    """Return the record in an item, without its key and foreign attributes."""
    values = read_numbers({name: item[name] for name in ATTRIBUTES if name in item})
    return Record(**values | {"volume": int(values.get("volume", 0))})
