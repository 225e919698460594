"""Store Records: write what differs from the table's present items, delete what is gone, and nothing else.

First `#snapshot` says `writing`, which is the lease of `tasks.table.lease`. Then come the writes, mapped, and last it
says `complete`.
"""

import math
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Literal

from prefect import task

from tasks.retries import NOT_KEPT, RETRIED, Work, forget_pages
from tasks.run import Run
from tasks.table.guards import refuse_older, refuse_shrunk
from tasks.table.lease import LeaseLostError
from tasks.table.records import Book, Changes, Record, compare, list_records, to_request
from tasks.table.requests import BATCH_ITEMS
from tasks.table.snapshot import Snapshot, TableSnapshot, parse_snapshot

PARTS = 4  # mapped task runs, about
PART_WRITES = (500, 5000)  # at least and at most in each

Batch = list[Record | str]  # at most 25 writes: records to put, keys of types to delete
Part = Work[Batch, None]


@task(name="Store Records", task_run_name="Store Records: compare", **RETRIED, **NOT_KEPT)
def compare_records(book: Book, snapshot: Snapshot, run: Run) -> Changes:
    """Compare the records with the table's, and if they differ take the lease: `#snapshot` says `writing`."""
    run.report.begin("Store Records: compare")
    return begin_writing(book, snapshot, run)


@task(name="Store Records", task_run_name="Store Records {part}", **RETRIED, **NOT_KEPT)
def store_records(part: Part, changes: Changes, run: Run) -> None:
    """Send one part's writes, 25 a call."""
    run.report.begin("Store Records", len(changes.writes), "writes")
    write_part(part, run)


@task(name="Store Records", task_run_name="Store Records: complete", **RETRIED, **NOT_KEPT)
def complete_table(book: Book, snapshot: Snapshot, run: Run) -> None:
    """Turn `#snapshot` to `complete`, and release the lease: from now on the table is this snapshot."""
    run.report.begin("Store Records")
    finish_writing(book, snapshot, run)
    forget_pages()


def begin_writing(book: Book, snapshot: Snapshot, run: Run) -> Changes:
    """Return how the table differs from the records, with the lease taken if it does.

    If another run has written between the comparison and the lease, compare again.

    Raises:
        ShrinkError: too few of the table's records would be left, and `force` is not set.
        TableError: the table has another market's records, or a newer snapshot, and `force` is not set.
        LeaseHeldError: another run is writing the table, and goes on.
    """
    records = list_records(book.records)
    while True:
        stored = parse_snapshot(run.lease.wait(run.log.info), run.table.name, run.market, force=run.force)
        if stored and not run.force:
            refuse_older(snapshot, stored, run.table.name)
        changes = compare(records, run.lease.scan(stored.records if stored else 0))
        if not run.force:
            refuse_shrunk(changes, run.market)
        if not changes.writes:
            break
        if run.lease.take(describe("writing", snapshot, run, book.orders, changes.held)):
            break
    run.log.info("%d to write, %d to delete, %d unchanged", len(changes.puts), len(changes.deletes), changes.unchanged)
    return changes


def split_writes(changes: Changes) -> list[Part]:
    """Split the writes into about `PARTS` parts, in batches of at most 25."""
    writes = changes.writes
    least, most = PART_WRITES
    size = min(max(least, math.ceil(len(writes) / PARTS)), most)
    parts = [(start, writes[start : start + size]) for start in range(0, len(writes), size)]
    return [Work(f"{start + 1}-{start + len(part)}", cut_batches(part)) for start, part in parts]


def cut_batches(writes: Batch) -> Iterator[Batch]:
    """Cut writes into batches of at most 25."""
    return (writes[start : start + BATCH_ITEMS] for start in range(0, len(writes), BATCH_ITEMS))


def write_part(part: Part, run: Run) -> None:
    """Write what is left of a part.

    Raises:
        TableError: see `Table.write_batch`.
    """

    def write(batch: Batch) -> None:
        run.table.write_batch([to_request(each, run.table.keys) for each in batch], run.lease.check)
        run.report.count(len(batch))

    part.do(write, run.table.submit, run.table.waits)


def finish_writing(book: Book, snapshot: Snapshot, run: Run) -> None:
    """Turn `#snapshot` to `complete`; also succeeds if another run already stored this snapshot.

    Raises:
        LeaseLostError: another run has written something else.
    """
    wanted = describe("complete", snapshot, run, book.orders, len(book.records))
    try:
        run.lease.complete(wanted)
    except LeaseLostError:
        stored = parse_snapshot(run.table.read_snapshot(), run.table.name, run.market, force=False)
        if stored is None or not is_same(stored, wanted):
            raise


def is_same(stored: TableSnapshot, wanted: TableSnapshot) -> bool:
    """Return whether the table is complete, of the snapshot and the parameters that are wanted."""
    same = stored.last_modified == wanted.last_modified and stored.parameters == wanted.parameters
    return same and stored.state == "complete"


def describe(
    state: Literal["writing", "complete"], snapshot: Snapshot, run: Run, orders: int, records: int
) -> TableSnapshot:
    """Return the item `#snapshot` of a state, as of now."""
    return TableSnapshot(
        state=state,
        region_id=run.market.id,
        order_type=run.parameters.order_type,
        price=run.parameters.price,
        detail=run.parameters.detail,
        last_modified=snapshot.last_modified,
        expires=snapshot.expires,
        etag=snapshot.etag,
        pages=snapshot.pages,
        orders=orders,
        records=records,
        written_at=datetime.now(UTC),
    )
