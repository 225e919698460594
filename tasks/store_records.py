"""Store Records: puts new and changed records, deletes old ones, and leaves the rest alone.

First `#snapshot` becomes `writing`, which takes the lease. After the writes, in mapped task runs, it is `complete`.
"""

import math
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Literal, NamedTuple

import msgspec
from prefect import task

from tasks.orders.records import AnyRecord, Book
from tasks.retries import NOT_KEPT, RETRIED, Work, forget_pages
from tasks.run import Run, Target, Update
from tasks.table.errors import TableError, TransientTableError
from tasks.table.guards import refuse_older, refuse_shrunk, refuse_unknown
from tasks.table.lease import LeaseLostError
from tasks.table.records import Changes, compare, to_request
from tasks.table.requests import BATCH_ITEMS
from tasks.table.snapshot import Marker, Snapshot, made_alike

PARTS = 2  # the usual number of mapped task runs
PART_BATCHES = (20, 400)  # least and most in each


class Batch(NamedTuple):
    """Up to 25 writes to one target: records to put, keys to delete."""

    target: Target
    writes: list[AnyRecord | str]


Part = Work[Batch, None]


class Comparison(msgspec.Struct, frozen=True):
    """How the table differs from the records."""

    updates: list[Update]  # of the markets that are to be updated
    refusals: list[TableError]  # why others are not


@task(name="Store Records", task_run_name="Store Records: compare", **RETRIED, **NOT_KEPT)
def compare_records(books: list[Book], snapshot: Snapshot, run: Run[Any]) -> Comparison:
    """Compare the records with the table's; where they differ, take the lease."""
    run.report.begin("Store Records: compare")
    return begin_writing(books, snapshot, run)


@task(name="Store Records", task_run_name="Store Records {part}", **RETRIED, **NOT_KEPT)
def store_records(part: Part, comparison: Comparison, run: Run[Any]) -> None:
    """Send one part's writes, 25 per call."""
    run.report.begin("Store Records", sum(len(update.changes.writes) for update in comparison.updates), "writes")
    write_part(part, run)


@task(name="Store Records", task_run_name="Store Records: complete", **RETRIED, **NOT_KEPT)
def complete_table(comparison: Comparison, snapshot: Snapshot, run: Run[Any]) -> None:
    """Set `#snapshot` to `complete` and release the lease: the table now has this snapshot."""
    run.report.begin("Store Records")
    finish_writing(comparison, snapshot, run)
    forget_pages()


def begin_writing(books: list[Book], snapshot: Snapshot, run: Run[Any]) -> Comparison:
    """Return how the table differs from the records, with a lease on each market that does.

    Raises:
        TableError: see `compare_market`; with several markets only transient ones, refusals are collected.
    """
    updates: list[Update] = []
    refusals: list[TableError] = []
    pending = run.list_pending(snapshot)
    for target, book in zip(pending, books, strict=True):
        try:
            updates.append(Update(target, book, compare_market(target, book, snapshot, run)))
        except TransientTableError:
            raise
        except TableError as error:
            if len(pending) == 1:
                raise
            refusals.append(error)
    # Only now the leases: no market is left in `writing` because of another one.
    return Comparison([take_lease(update, snapshot, run) for update in updates], refusals)


def take_lease(update: Update, snapshot: Snapshot, run: Run[Any]) -> Update:
    """Take the lease if there is something to write; compare again if another run has written meanwhile."""
    target, book, changes = update
    while changes.writes and not target.lease.take(describe("writing", target, snapshot, book.orders, changes.held)):
        changes = compare_market(target, book, snapshot, run)
    return Update(target, book, changes)


def compare_market(target: Target, book: Book, snapshot: Snapshot, run: Run[Any]) -> Changes:
    """Return how a market in the table differs from its records, once no other run is writing it.

    Raises:
        LeaseHeldError: another run is still writing the market.
        TableError: the table is another market's, newer, or would shrink too much, and `force` is not set.
    """
    stored = target.blank.parse(target.lease.wait(run.log.info), target.table.name, force=run.force)
    if stored and not run.force:
        refuse_older(snapshot, stored, target.table.name, run.endpoint.most_ahead)
    changes = compare(book.records, target.lease.scan(), target.table.keys)
    if not run.force:
        refuse_unknown(changes, stored, target.blank, target.table.name)
        refuse_shrunk(changes, target.name, target.blank.thing)
    counts = len(changes.puts), len(changes.deletes), changes.unchanged
    run.log.info("%s: %d to write, %d to delete, %d unchanged", target.name, *counts)
    return changes


def split_writes(updates: Sequence[Update]) -> list[Part]:
    """Split the writes of all markets into about `PARTS` parts, in batches of up to 25 of one market."""
    batches = [
        Batch(target, writes[start : start + BATCH_ITEMS])
        for target, writes in [(target, changes.writes) for target, _book, changes in updates]
        for start in range(0, len(writes), BATCH_ITEMS)
    ]
    least, most = PART_BATCHES
    size = min(max(least, math.ceil(len(batches) / PARTS)), most)
    parts: list[Part] = []
    last = 0
    for start in range(0, len(batches), size):
        some = batches[start : start + size]
        first, last = last + 1, last + sum(len(batch.writes) for batch in some)
        parts.append(Work(f"{first}-{last}", some))
    return parts


def write_part(part: Part, run: Run[Any]) -> None:
    """Write what is left of a part."""

    def write(batch: Batch) -> None:
        table = batch.target.table
        table.write_batch([to_request(each, table.keys) for each in batch.writes], batch.target.lease.check)
        run.report.count(len(batch.writes))

    # By each market's own table: its lease waits for these.
    part.do(write, lambda function, batch: batch.target.table.submit(function, batch), run.targets[0].table.waits)


def finish_writing(comparison: Comparison, snapshot: Snapshot, run: Run[Any]) -> None:
    """Set each `#snapshot` to `complete`; also succeed if another run already stored this snapshot, or a newer one.

    Raises:
        TableError: a market was refused, or lost to a run with another snapshot; the others are complete.
    """
    failures = list(comparison.refusals)
    for target, book, _changes in comparison.updates:
        final = describe("complete", target, snapshot, book.orders, len(book.records))
        try:
            target.lease.complete(final)
        except LeaseLostError as error:
            stored = final.parse(target.table.read_snapshot(), target.table.name, force=run.force)
            alike = made_alike(stored, final.parameters)
            if alike is None or alike.last_modified < final.last_modified:
                failures.append(error)
    for failure in failures[1:]:
        run.log.error("%s", failure)
    if failures:
        raise failures[0]


def describe(
    state: Literal["writing", "complete"], target: Target, snapshot: Snapshot, orders: int, records: int
) -> Marker:
    """Return the `#snapshot` for a state, written now."""
    return msgspec.structs.replace(
        target.blank,
        **({"snapshot": snapshot.name} if snapshot.name else {}),  # a field of a declared source's alone
        orders=orders,
        state=state,
        last_modified=snapshot.last_modified,
        expires=snapshot.expires,
        etag=snapshot.etag,
        pages=snapshot.pages,
        records=records,
        written_at=datetime.now(UTC),
    )
