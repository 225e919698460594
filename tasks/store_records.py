"""Store Records: what differs from the table's present items is written, what is gone is deleted, and nothing else.

First `#snapshot` says `writing`, which is the lease of `tasks.table.lease`. Then come the writes, mapped, and last it
says `complete`.
"""

import time
from datetime import UTC, datetime
from typing import Literal

from prefect import task
from prefect.logging import get_run_logger

from tasks.retries import NOT_KEPT, RETRIED
from tasks.table.errors import TransientTableError
from tasks.table.guards import refuse_older, refuse_shrunk
from tasks.table.lease import Lease, LeaseLostError
from tasks.table.records import Book, Changes, Part, Row, compare, list_rows, to_request
from tasks.table.snapshot import Parameters, Snapshot, TableSnapshot, understand


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
    """Send one part's write requests, 25 a call."""
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
    """Turn `#snapshot` to `complete`, and release the lease: from now on the table is this snapshot.

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
    """Return whether the table is complete, of the snapshot and the parameters that are wanted."""
    same = stored.last_modified == wanted.last_modified and stored.parameters == wanted.parameters
    return same and stored.state == "complete"


def write_batch(batch: list[Row | str], lease: Lease) -> None:
    """Put and delete up to 25 records.

    Raises:
        TableError: see `Table.write_batch`.
    """
    lease.table.write_batch(list(map(to_request, batch)), lease.check)


def describe(
    state: Literal["writing", "complete"], snapshot: Snapshot, parameters: Parameters, orders: int, records: int
) -> TableSnapshot:
    """Return the item `#snapshot` of a state, as of now."""
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
