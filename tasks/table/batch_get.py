"""Reads items of many tables at once."""

from collections.abc import Sequence

from tasks.table.client import Table
from tasks.table.errors import TableError, ThrottledError, TransientTableError
from tasks.table.pace import Pace
from tasks.table.requests import Item, name_key

MOST_KEYS = 100  # DynamoDB's limit for BatchGetItem
FEW = 8  # tables that cost no more calls one by one


def read_snapshots(tables: Sequence[Table]) -> list[list[Item | None]]:
    """Return each table's item `#snapshot`, by strongly consistent BatchGetItem.

    A call fails for all its tables if one is missing, without naming it. So the tables are halved until few are left.

    Returns:
        For each table a list of one item, or of None if it has no such item; an empty list for the few around a
        missing table, and for all of a call that failed for another reason: each has to be read by itself.
    """
    try:
        if len(tables) <= MOST_KEYS:
            return [[item] for item in get_items([(table, table.keys.snapshot) for table in tables])]
    except TransientTableError:
        return [[] for _ in tables]
    except TableError:
        if len(tables) <= FEW:
            return [[] for _ in tables]
    half = len(tables) // 2
    return read_snapshots(tables[:half]) + read_snapshots(tables[half:])


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
        pace.note(progress=any(responses.values()))
        if left and not first.wait_for_capacity(pace):
            raise ThrottledError(f"table {first.name} and others: reads were left unprocessed {pace.stalled} times")
    return [found.get((table.name, name_key(key))) for table, key in keys]
