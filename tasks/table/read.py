"""Reads a market table as one whole snapshot, for programs that use it."""

from decimal import Decimal
from typing import Any

from boto3.dynamodb.types import TypeDeserializer

from tasks.table.client import Table
from tasks.table.errors import TableError
from tasks.table.lease import read_holder
from tasks.table.records import NAMES, is_type_id
from tasks.table.snapshot import TableSnapshot

ATTEMPTS = 5
WAIT_SECONDS = 1.0  # after the first attempt; twice as long after each further one

Record = dict[str, Decimal | dict[str, Decimal]]


class UnreadableError(TableError):
    """The table holds no whole snapshot now, or did not hold still for long enough to be read."""


def read_records(table_name: str, region_id: int | None = None) -> tuple[dict[str, Record], TableSnapshot]:
    """Return a table's records, all of one snapshot, and what that snapshot is.

    `#snapshot` is read before and after the scan: if it is the same and `complete`, no run has written meanwhile. While
    a run writes, the table is read again a few times, for a quarter of a minute at most.

    Args:
        table_name: of a market table, where boto3's settings find it.
        region_id: whose records, of a table that several regions share.

    Returns:
        Records by item type, in the table's order: `price` (ISK) and `volume` (units), with details also `buy` and
        `sell`, all numbers as Decimal; and the item `#snapshot`.

    Raises:
        UnreadableError: a run is still writing, or ended while it wrote, or the table has no `#snapshot`.
        TableError: see `tasks.table.client`.
    """
    with Table(table_name, 8, region_id) as table:
        return read_whole(table)


def read_whole(table: Table) -> tuple[dict[str, Record], TableSnapshot]:
    """Do what `read_records` does, with a client that is open already."""
    for attempt in range(ATTEMPTS):
        before = table.read_snapshot()
        if before is None:
            raise UnreadableError(
                f"table {table.name} has no item {table.keys.snapshot['pk']['S']}: no run has stored anything in it yet"
            )
        snapshot = TableSnapshot.from_item(before)
        if snapshot.state == "complete":
            items = table.scan(snapshot.records)
            after = table.read_snapshot()
            if after and TableSnapshot.from_item(after) == snapshot:
                return {pk: to_record(item) for pk, item in items.items() if is_type_id(pk)}, snapshot
        elif not read_holder(before):
            raise UnreadableError(f"table {table.name}: the last run ended while it wrote; the next one repairs")
        if attempt < ATTEMPTS - 1:
            table.waits.sleep(WAIT_SECONDS * 2**attempt)
    raise UnreadableError(f"table {table.name} was being written by {snapshot.owner} at each of {ATTEMPTS} attempts")


def to_record(item: dict[str, Any]) -> Record:
    """Turn an item in DynamoDB's notation to Python's values: what is a record's, not its key or what others add."""
    read = TypeDeserializer().deserialize
    return {name: read(item[name]) for name in NAMES if name in item}
