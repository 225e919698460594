"""Store Records: what differs from the table's present items is written, what is gone is deleted, and nothing else.

First `#snapshot` says `writing`, which is the lease of `tasks.table.lease`, then come the writes, mapped, and last it says
`complete`.
"""

import math
import time
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Literal

import msgspec
import pandas as pd
from prefect import task
from prefect.logging import get_run_logger

from tasks.aggregate import Book
from tasks.get_page_count import Snapshot, is_newer, understand
from tasks.network import Waits
from tasks.retries import NOT_KEPT, RETRIED
from tasks.table.client import (
    Item,
    TableError,
    TransientTableError,
    batches,
    delete_request,
    put_request,
)
from tasks.table.lease import Lease, LeaseLostError
from tasks.table.read import NAMES, is_type_id
from tasks.table.snapshot import Parameters, TableSnapshot

PARTS = 8  # mapped task runs, about
HANDFUL = 20  # records that a market may lose at once, however few are left
PART_REQUESTS = (500, 2500)  # at least and at most in each

Row = tuple[Any, ...]  # a record: type_id, price, volume, and with details buy and sell; a tenth of its item's size


class ShrinkError(TableError):
    """The snapshot lacks so many of the table's records that it is more likely broken than true."""


class Part(msgspec.Struct):
    """Consecutive write requests that one task run sends. It forgets what is stored, so that a retry sends the rest."""

    first: int  # number of its first request, 1 or more
    last: int  # inclusive
    batches: dict[int, list[Row | str]]  # not yet stored, at most 25 each, by number: rows to put, keys to delete
    failed_at: float = 0.0  # monotonic time; 0 at the first attempt

    def __str__(self) -> str:
        return f"{self.first}-{self.last}"

    @property
    def total(self) -> int:
        """How many requests it has."""
        return self.last - self.first + 1

    @property
    def done(self) -> int:
        """How many of them are stored."""
        return self.total - sum(map(len, list(self.batches.values())))  # a copy: others take batches out meanwhile

    def note_retry(self, waits: Waits) -> None:
        """Adds the time since the attempt before, if there was one, to what was waited."""
        if self.failed_at:
            waits.add(self.failed_at)


class Changes(msgspec.Struct, frozen=True):
    """How the table differs from the records that it is to hold."""

    puts: list[Row]  # new or different
    replaced: dict[str, Item]  # what the table holds instead, by `pk`, of those that differ
    deletes: list[str]  # keys of types that are gone
    unchanged: int
    foreign: int  # items that are no type's; never touched

    @property
    def held(self) -> int:
        """How many records the table holds now."""
        return self.unchanged + len(self.replaced) + len(self.deletes)

    @property
    def wanted(self) -> int:
        """How many it is to hold."""
        return self.unchanged + len(self.puts)

    def split(self) -> list[Part]:
        """Gives the write requests as parts, about `PARTS` of them."""
        writes: list[Row | str] = [*self.puts, *self.deletes]
        least, most = PART_REQUESTS
        size = min(max(least, math.ceil(len(writes) / PARTS)), most)
        parts = [writes[start : start + size] for start in range(0, len(writes), size)]
        return [
            Part(number * size + 1, number * size + len(part), dict(enumerate(batches(part))))
            for number, part in enumerate(parts)
        ]


@task(name="Store Records", task_run_name="Store Records: compare", **RETRIED, **NOT_KEPT)
def begin_store(book: Book, snapshot: Snapshot, parameters: Parameters, lease: Lease, *, force: bool) -> Changes:
    """Compare the records with the table's, and if they differ take the lease: `#snapshot` says `writing`.

    If another run has written between the comparison and the lease, compare again.

    Raises:
        ShrinkError: too few of the table's records would be left, and `force` is not set.
        TableError: the table has another region's records, or a newer snapshot, and `force` is not set.
        LeaseHeldError: another run writes the table, and goes on.
    """
    logger = get_run_logger()
    rows = list_rows(book.records)
    while True:
        stored = understand(lease.wait(logger.info), lease.table.name, parameters.region_id, force=force)
        if stored and not force:
            refuse_older(snapshot, stored, lease.table.name)
        changes = compare(rows, lease.table.scan(stored.records if stored else 0))
        if not force:
            refuse_shrunk(changes, parameters.region_id)
        if not (changes.puts or changes.deletes):
            break
        if lease.take(describe("writing", snapshot, parameters, book.orders, changes.held)):
            break
    logger.info("%d to write, %d to delete, %d unchanged", len(changes.puts), len(changes.deletes), changes.unchanged)
    return changes


@task(name="Store Records", task_run_name="Store Records {part}", **RETRIED, **NOT_KEPT)
def store_records(part: Part, lease: Lease) -> None:
    """Sends one part's write requests, 25 a call."""
    part.note_retry(lease.table.waits)
    futures = {number: lease.table.submit(write_batch, batch, lease) for number, batch in part.batches.items()}
    failed: list[TransientTableError] = []
    try:
        for number, future in futures.items():
            try:
                future.result()
                del part.batches[number]
            except TransientTableError as error:
                failed.append(error)
    finally:
        for future in futures.values():
            future.cancel()
    if failed:
        part.failed_at = time.monotonic()
        raise failed[0]


@task(name="Store Records", task_run_name="Store Records: complete", **RETRIED, **NOT_KEPT)
def complete_store(book: Book, snapshot: Snapshot, parameters: Parameters, lease: Lease) -> None:
    """Turns `#snapshot` to `complete`, and gives the lease back: from now on the table is this snapshot.

    That another run has come first with the same snapshot is as good.

    Raises:
        LeaseLostError: another run has written something else.
    """
    wanted = describe("complete", snapshot, parameters, book.orders, len(book.records))
    try:
        lease.complete(wanted)
    except LeaseLostError:
        stored = understand(lease.table.read_snapshot(), lease.table.name, parameters.region_id, force=False)
        if stored is None or not is_same(stored, wanted):
            raise


def is_same(stored: TableSnapshot, wanted: TableSnapshot) -> bool:
    """Tells whether the table is complete, of the snapshot and the parameters that are wanted."""
    same = stored.last_modified == wanted.last_modified and stored.parameters == wanted.parameters
    return same and stored.state == "complete"


def refuse_older(snapshot: Snapshot, stored: TableSnapshot, table_name: str) -> None:
    """Raises if the table has begun to hold a newer snapshot.

    Raises:
        TableError: it has.
    """
    if is_newer(stored, snapshot):
        raise TableError(
            f"table {table_name} has the snapshot of {stored.last_modified} by {stored.owner}, newer than this run's "
            f"of {snapshot.last_modified}: this run wrote nothing"
        )


def refuse_shrunk(changes: Changes, region_id: int) -> None:
    """Raise if a market would lose most of its records: more than a handful, and more than are left.

    Raises:
        ShrinkError: it would.
    """
    left = changes.held - len(changes.deletes)
    if 2 * left < changes.held and len(changes.deletes) > HANDFUL:
        raise ShrinkError(
            f"region {region_id} has {changes.wanted:,} records, the table {changes.held:,}: under half of them, "
            f"{left:,}, would be left, so nothing was written; if the market is right, run with force"
        )


def list_rows(records: pd.DataFrame) -> list[Row]:
    """Gives the records one by one.

    Args:
        records: as `tasks.aggregate.aggregate_orders` gives them.
    """
    columns = [records.index.tolist(), *(records[name].tolist() for name in records.columns)]
    return list(zip(*columns, strict=True))


def write_batch(batch: list[Row | str], lease: Lease) -> None:
    """Puts and deletes up to 25 records.

    Raises:
        TableError: see `Table.write_batch`.
    """
    lease.table.write_batch(list(map(to_request, batch)), lease.check)


def to_request(write: Row | str) -> Item:
    """Gives the request that puts a record, or deletes that of a key."""
    return delete_request(write) if isinstance(write, str) else put_request(to_item(write))


def to_item(row: Row) -> Item:
    """Gives a record as the table holds it."""
    type_id, price, volume, *sides = row
    item = {"pk": {"S": str(type_id)}, "price": number(price), "volume": number(volume)}
    item.update(zip(("buy", "sell"), map(number_map, sides), strict=False))
    return item


def number(value: float) -> Item:
    """Gives a number as the shortest decimal that is exactly it: 5.7, never 5.7000000000000002 or 5.70."""
    if isinstance(value, int):
        return {"N": str(value)}
    return {"N": format(Decimal(repr(value)).normalize(), "f")}


def number_map(figures: dict[str, float | int]) -> Item:
    """Gives a map of numbers."""
    return {"M": {name: number(value) for name, value in figures.items()}}


def compare(rows: list[Row], present: dict[str, Item]) -> Changes:
    """Gives what must be written and deleted to make the table's records those of `rows`.

    Args:
        rows: the records that the table is to hold.
        present: the table as it is, by `pk`.
    """
    puts = [row for row in rows if not is_equal(row, present.get(str(row[0])))]
    wanted = {str(row[0]) for row in rows}
    others = [pk for pk in present if pk not in wanted]
    deletes = [pk for pk in others if is_type_id(pk)]
    replaced = {pk: present[pk] for row in puts if (pk := str(row[0])) in present}
    return Changes(puts, replaced, deletes, len(rows) - len(puts), len(others) - len(deletes))


def is_equal(row: Row, other: Item | None) -> bool:
    """Return whether an item has a record's attributes, however a store writes its numbers: 5.70 is 5.7.

    Attributes of others do not count: an older global table adds `aws:rep:updatetime` and more to each item.
    """
    if other is None:
        return False
    ours, present = ({name: item[name] for name in NAMES if name in item} for item in (to_item(row), other))
    return ours == present or read_numbers(ours) == read_numbers(present)


def read_numbers(item: Item) -> Item:
    """Gives an item with its numbers as numbers."""
    return {
        name: Decimal(value["N"]) if "N" in value else read_numbers(value["M"]) if "M" in value else value
        for name, value in item.items()
    }


def describe(
    state: Literal["writing", "complete"], snapshot: Snapshot, parameters: Parameters, orders: int, records: int
) -> TableSnapshot:
    """Gives the item `#snapshot` of a state, as of now."""
    return TableSnapshot(
        state=state,
        region_id=parameters.region_id,
        order_type=parameters.order_type,
        price=parameters.price,
        detail=parameters.detail,
        last_modified=snapshot.last_modified,
        expires=snapshot.expires,
        etag=snapshot.etag,
        pages=snapshot.pages,
        orders=orders,
        records=records,
        written_at=datetime.now(UTC),
    )
