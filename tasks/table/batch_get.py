"""Reads items of many tables at once."""

from collections.abc import Sequence

from tasks.table.client import Table
from tasks.table.errors import TableError, ThrottledError
from tasks.table.pace import Pace
from tasks.table.requests import Item, name_key

MOST_KEYS = 100  # DynamoDB's limit for BatchGetItem


def read_snapshots(tables: Sequence[Table]) -> list[list[Item | None]]:
    """Return each table's item `#snapshot`, by strongly consistent BatchGetItem.

    Returns:
        For each table a list of one item, or of None if it has no such item. An empty list for the tables of a call
        that failed, as it does for all if one table is missing: each then has to be read by itself.
    """
    found: list[list[Item | None]] = []
    for start in range(0, len(tables), MOST_KEYS):
        some = tables[start : start + MOST_KEYS]
        try:
            found += [[item] for item in get_items([(table, table.keys.snapshot) for table in some])]
        except TableError:
            found += [[] for _ in some]
    return found


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
