"""Fetch Pages: a chunk's pages, downloaded side by side, decoded straight into the columns that count."""

import time
from collections.abc import Iterator, Sequence
from typing import cast

from prefect import task
from prefect.logging import get_run_logger
from prefect.states import Completed
from prefect.transactions import get_transaction

from tasks.build_iterator import Chunk
from tasks.esi.answers import Answer
from tasks.esi.client import Esi
from tasks.esi.errors import NotFoundError, RefusedError, TransientError
from tasks.esi.markets import name_market
from tasks.orders.columns import Orders, decode_orders, join_pages
from tasks.retries import RETRIED, keep_pages
from tasks.table.snapshot import Snapshot

MAX_SNAPSHOTS = 3


class SnapshotMovedOn(Exception):  # noqa: N818 (no error: the run starts over)
    """A page belongs to a newer snapshot than the one that is being fetched."""


@task(name="Fetch Pages", task_run_name="Fetch Pages {chunk}", **RETRIED, **keep_pages())
def fetch_pages(chunk: Chunk, snapshot: Snapshot, esi: Esi) -> Orders:
    """Return a chunk's orders, `DTYPES`; nothing, in a state named `MovedOn`, if the snapshot has moved on."""
    try:
        fetch_missing(chunk, snapshot, esi)
    except SnapshotMovedOn as news:
        if transaction := get_transaction():
            transaction.write_on_commit = False  # there is nothing to keep
        return cast("Orders", Completed(name="MovedOn", message=str(news)))  # which Prefect unwraps to None
    orders = join_pages([chunk.fetched.pop(page) for page in sorted(chunk.fetched)])
    get_run_logger().debug("pages %s: %d orders", chunk, len(orders["order_id"]))
    return orders


def fetch_missing(chunk: Chunk, snapshot: Snapshot, esi: Esi) -> None:
    """Fetch the pages that the chunk does not have yet, and keep all that come even if one fails.

    Raises:
        SnapshotMovedOn: a page belongs to a newer snapshot.
        RefusedError: a page will not come by asking again.
        TransientError: a page did not come this time.
    """
    chunk.note_retry(esi.waits)
    esi.expect(len(chunk.missing()))
    futures = {page: esi.submit(fetch_page, page, snapshot, esi) for page in chunk.missing()}
    failed: list[TransientError] = []
    try:
        for page, future in futures.items():  # not as_completed: it waits for ever for what a closing client cancels
            try:
                chunk.fetched[page] = future.result()
                chunk.done = len(chunk.fetched)
            except TransientError as error:
                failed.append(error)
    except RefusedError as error:
        esi.give_up(error)
        raise
    finally:
        for future in futures.values():
            future.cancel()
    if failed:
        chunk.failed_at = time.monotonic()
        raise failed[0]


def fetch_page(page: int, snapshot: Snapshot, esi: Esi) -> Orders:
    """Download one page of a snapshot and return its orders, as `decode_orders` does.

    Raises:
        SnapshotMovedOn: the page, or a region with fewer pages, belongs to a newer snapshot.
        RefusedError: the answer is wrong and will stay so.
        TransientError: the answer may be right next time.
    """
    what = f"page {page} of {name_market(snapshot.region_id)}"
    try:
        answer = esi.get(snapshot.region_id, page)
    except NotFoundError as error:
        check_same_snapshot(esi.head(snapshot.region_id), snapshot, what)
        kind = name_market(snapshot.region_id).split()[0]
        raise RefusedError(
            f"{error}, though the {kind} has {snapshot.pages} pages of the same snapshot; nothing was stored, the next "
            "run asks again"
        ) from error
    try:
        check_same_snapshot(answer, snapshot, what)
        return decode_orders(answer.body, what)
    except TransientError as error:
        esi.count_failure(page, error.cause)
        raise


def check_same_snapshot(answer: Answer, snapshot: Snapshot, what: str) -> None:
    """Raise unless an answer belongs to `snapshot`.

    Raises:
        SnapshotMovedOn: it is newer, or has another number of pages.
        TransientError: it is older, from a cache that has not caught up.
    """
    if answer.last_modified < snapshot.last_modified:
        raise TransientError(
            f"{what} is of {answer.last_modified}, older than the snapshot of {snapshot.last_modified}",
            cause="older snapshot",
        )
    if answer.last_modified > snapshot.last_modified or answer.pages not in {0, snapshot.pages}:
        raise SnapshotMovedOn(
            f"{what} is of {answer.last_modified}, {answer.pages} pages; "
            f"the snapshot was of {snapshot.last_modified}, {snapshot.pages} pages"
        )


def is_whole(chunks: Sequence[Orders | None]) -> bool:
    """Return whether all chunks are there; one that found the snapshot to have moved on gives nothing."""
    return all(orders is not None for orders in chunks)


def offers() -> Iterator[int]:
    """Count the snapshots that a run may begin to fetch.

    Raises:
        TransientError: each of them moved on before its last page was there.
    """
    yield from range(1, MAX_SNAPSHOTS + 1)
    raise TransientError(
        f"{MAX_SNAPSHOTS} snapshots moved on while their pages were fetched, as the task runs in state MovedOn say: "
        "nothing was stored, the next run tries again; if it happens again, raise fetch_concurrency"
    )
