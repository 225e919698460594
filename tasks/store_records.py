"""Store Records: puts new and changed records, deletes old ones, and leaves the rest alone.

First `#snapshot` becomes `writing`, which takes the lease (see `tasks.table.lease`). Then come the writes, in mapped
task runs. At the end it becomes `complete`.
"""

import math
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from datetime import UTC, datetime
from typing import Literal, NamedTuple

import msgspec
from prefect import task

from tasks.retries import NOT_KEPT, RETRIED, Work, forget_pages
from tasks.run import Run, Target
from tasks.table.guards import ShrinkError, refuse_older, refuse_shrunk
from tasks.table.lease import LeaseLostError
from tasks.table.records import Book, Changes, Record, compare, list_records, to_request
from tasks.table.requests import BATCH_ITEMS
from tasks.table.snapshot import Snapshot, TableSnapshot, parse_snapshot

PARTS = 4  # the usual number of mapped task runs
PART_BATCHES = (20, 200)  # least and most in each


class Batch(NamedTuple):
    """Up to 25 writes to one market: records to put, item types to delete."""

    target: Target
    writes: list[Record | str]


Part = Work[Batch, None]


class Comparison(msgspec.Struct, frozen=True):
    """How the table differs from the new records, by market."""

    targets: list[Target]  # the markets to write
    books: list[Book]  # their records
    changes: list[Changes]  # in their records
    refusal: ShrinkError | None  # of a market that has shrunk

    @property
    def changed(self) -> list[tuple[Target, Changes]]:
        """Each market with its changes."""
        return list(zip(self.targets, self.changes, strict=True))

    @property
    def writes(self) -> int:
        """How many writes there are."""
        return sum(len(each.writes) for each in self.changes)


@task(name="Store Records", task_run_name="Store Records: compare", **RETRIED, **NOT_KEPT)
def compare_records(books: list[Book], snapshot: Snapshot, run: Run) -> Comparison:
    """Compare the records with the table's; where they differ, take the lease."""
    run.report.begin("Store Records: compare")
    return begin_writing(books, snapshot, run)


@task(name="Store Records", task_run_name="Store Records {part}", **RETRIED, **NOT_KEPT)
def store_records(part: Part, comparison: Comparison, run: Run) -> None:
    """Send one part's writes, 25 per call."""
    run.report.begin("Store Records", comparison.writes, "writes")
    write_part(part, run)


@task(name="Store Records", task_run_name="Store Records: complete", **RETRIED, **NOT_KEPT)
def complete_table(comparison: Comparison, snapshot: Snapshot, run: Run) -> None:
    """Set `#snapshot` to `complete` and release the lease: the table now has this snapshot.

    Raises:
        ShrinkError: a market has shrunk and was not written; the others are complete.
    """
    run.report.begin("Store Records")
    finish_writing(comparison, snapshot, run)
    forget_pages()


def begin_writing(books: list[Book], snapshot: Snapshot, run: Run) -> Comparison:
    """Return how the table differs from the records, with a lease on each market that does.

    Raises:
        ShrinkError: too few records of the only market would be left, and `force` is not set.
        TableError: the table has another market's records, or a newer snapshot, and `force` is not set.
        LeaseHeldError: another run is still writing the market.
    """
    pending = run.list_pending(snapshot)
    found: list[Changes | ShrinkError] = []
    for target, book in zip(pending, books, strict=True):
        try:
            found.append(compare_market(target, book, snapshot, run))
        except ShrinkError as refusal:
            if len(pending) == 1:
                raise
            found.append(refusal)
    kept = [
        (target, book, changes)
        for target, book, changes in zip(pending, books, found, strict=True)
        if isinstance(changes, Changes)
    ]
    targets, kept_books, changes = [list(column) for column in zip(*kept, strict=True)] if kept else ([], [], [])
    return Comparison(targets, kept_books, changes, next((e for e in found if isinstance(e, ShrinkError)), None))


def compare_market(target: Target, book: Book, snapshot: Snapshot, run: Run) -> Changes:
    """Return how a market in the table differs from its records, with the lease if it does.

    Compare again if another run has written before the lease was taken.

    Raises:
        ShrinkError: too few of the records would be left, and `force` is not set.
        TableError: see `begin_writing`.
        LeaseHeldError: another run is still writing the market.
    """
    records = list_records(book.records)
    while True:
        item = target.lease.wait(run.log.info)
        stored = parse_snapshot(item, target.table.name, target.market, force=run.force)
        if stored and not run.force:
            refuse_older(snapshot, stored, target.table.name)
        changes = compare(records, target.lease.scan(stored.records if stored else 0))
        if not run.force:
            refuse_shrunk(changes, target.market)
        if not changes.writes or target.lease.take(
            describe("writing", target, snapshot, run, book.orders, changes.held)
        ):
            break
    run.log.info(
        "%s: %d to write, %d to delete, %d unchanged",
        str(target.market),
        len(changes.puts),
        len(changes.deletes),
        changes.unchanged,
    )
    return changes


def split_writes(changed: Sequence[tuple[Target, Changes]]) -> list[Part]:
    """Split the writes of all markets into about `PARTS` parts, in batches of up to 25 of one market."""
    batches = [
        Batch(target, changes.writes[start : start + BATCH_ITEMS])
        for target, changes in changed
        for start in range(0, len(changes.writes), BATCH_ITEMS)
    ]
    least, most = PART_BATCHES
    size = min(max(least, math.ceil(len(batches) / PARTS)), most)
    parts: list[Part] = []
    first = 1
    for start in range(0, len(batches), size):
        some = batches[start : start + size]
        last = first + sum(len(batch.writes) for batch in some) - 1
        parts.append(Work(f"{first}-{last}", some))
        first = last + 1
    return parts


def write_part(part: Part, run: Run) -> None:
    """Write what is left of a part.

    Raises:
        TableError: see `Table.write_batch`.
    """

    def write(batch: Batch) -> None:
        table = batch.target.table
        table.write_batch([to_request(each, table.keys) for each in batch.writes], batch.target.lease.check)
        run.report.count(len(batch.writes))

    def submit(function: Callable[[Batch], None], batch: Batch) -> Future[None]:
        return batch.target.table.submit(function, batch)  # the market's lease waits for these

    part.do(write, submit, run.targets[0].table.waits)


def finish_writing(comparison: Comparison, snapshot: Snapshot, run: Run) -> None:
    """Set each `#snapshot` to `complete`; also succeed if another run already stored this snapshot.

    Raises:
        LeaseLostError: another run has written another snapshot.
        ShrinkError: a market has shrunk and was not written; the others are complete.
    """
    for target, book in zip(comparison.targets, comparison.books, strict=True):
        final = describe("complete", target, snapshot, run, book.orders, len(book.records))
        try:
            target.lease.complete(final)
        except LeaseLostError:
            item = target.table.read_snapshot()
            stored = parse_snapshot(item, target.table.name, target.market, force=False)
            if stored is None or not is_same(stored, final):
                raise
    if comparison.refusal:
        raise comparison.refusal


def is_same(stored: TableSnapshot, final: TableSnapshot) -> bool:
    """Return whether the table is complete, with the same snapshot and parameters."""
    same = stored.last_modified == final.last_modified and stored.parameters == final.parameters
    return same and stored.state == "complete"


def describe(
    state: Literal["writing", "complete"], target: Target, snapshot: Snapshot, run: Run, orders: int, records: int
) -> TableSnapshot:
    """Return the `#snapshot` for a state, written now."""
    return TableSnapshot(
        state=state,
        market_id=target.market.id,
        region_id=run.source.id,
        parameters=run.parameters,
        last_modified=snapshot.last_modified,
        expires=snapshot.expires,
        etag=snapshot.etag,
        pages=snapshot.pages,
        orders=orders,
        records=records,
        written_at=datetime.now(UTC),
    )
