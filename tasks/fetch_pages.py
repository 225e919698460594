"""Fetch Pages: downloads a chunk's pages concurrently, and decodes them straight into columns."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

from prefect import task
from prefect.logging import get_run_logger
from prefect.states import Completed
from prefect.transactions import get_transaction

from tasks.build_iterator import Chunk
from tasks.esi.answers import Answer
from tasks.esi.errors import NotFoundError, RefusedError, TransientError
from tasks.retries import RETRIED, keep_pages
from tasks.run import Run
from tasks.table.snapshot import Snapshot

if TYPE_CHECKING:
    from tasks.orders.columns import Orders

MAX_SNAPSHOTS = 3


class SnapshotMovedOn(Exception):  # noqa: N818 (no error: the run starts over)
    """A page belongs to a newer snapshot than the one being fetched."""


@task(name="Fetch Pages", task_run_name="Fetch Pages {chunk}", **RETRIED, **keep_pages())
def fetch_pages(chunk: Chunk, snapshot: Snapshot, run: Run) -> "Orders":
    """Return a chunk's orders, or None in a state named `MovedOn` if the snapshot has moved on."""
    run.report.begin("Fetch Pages", snapshot.pages, "pages")
    try:
        orders = fetch_chunk(chunk, snapshot, run)
    except SnapshotMovedOn as moved_on:
        if transaction := get_transaction():
            transaction.write_on_commit = False  # there are no pages to keep
        return cast("Orders", Completed(name="MovedOn", message=str(moved_on)))  # which Prefect unwraps to None
    get_run_logger().debug("pages %s: %d orders", chunk, len(orders["order_id"]))
    return orders


def fetch_chunk(chunk: Chunk, snapshot: Snapshot, run: Run) -> "Orders":
    """Return a chunk's orders; keep fetched pages for a retry.

    Raises:
        SnapshotMovedOn: a page belongs to a newer snapshot.
        RefusedError: a page was refused.
        TransientError: a page failed, and may succeed on a retry.
    """

    def fetch(page: int) -> "Orders":
        orders = fetch_page(page, snapshot, run)
        run.report.count(1)
        return orders

    if chunk.has_failed:
        run.esi.expect(len(chunk.left))
    try:
        pages = chunk.do(fetch, run.esi.submit, run.esi.waits)
    except RefusedError as error:
        run.esi.give_up(error)
        raise
    from tasks.orders.columns import join_pages  # noqa: PLC0415 (numpy, see `import_early`)

    return join_pages(pages)


def fetch_page(page: int, snapshot: Snapshot, run: Run) -> "Orders":
    """Download one page of a snapshot and return its orders; see `decode_orders`.

    Raises:
        SnapshotMovedOn: the page, or a market with fewer pages, belongs to a newer snapshot.
        RefusedError: the response is invalid, and a retry would be too.
        TransientError: a retry may succeed.
    """
    what = f"page {page} of {run.source}"
    try:
        answer = run.esi.get(run.source, page)
    except NotFoundError as error:
        check_same_snapshot(run.esi.head(run.source), snapshot, what)
        raise RefusedError(
            f"{error}, though the {run.source.kind} has {snapshot.pages} pages of the same snapshot; nothing was "
            "stored, the next run tries again"
        ) from error
    from tasks.orders.columns import decode_orders  # noqa: PLC0415 (numpy, see `import_early`)

    try:
        check_same_snapshot(answer, snapshot, what)
        return decode_orders(answer.body, what, has_places=run.has_places)
    except TransientError as error:
        run.esi.count_failure(page, error.cause)
        raise


def check_same_snapshot(answer: Answer, snapshot: Snapshot, what: str) -> None:
    """Raise unless a response belongs to `snapshot`.

    Raises:
        SnapshotMovedOn: it is newer, or has another number of pages.
        TransientError: it is older: a cache has not caught up.
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


def is_whole(chunks: Sequence["Orders | None"]) -> bool:
    """Return whether no chunk is None, so that all are of one snapshot."""
    return all(orders is not None for orders in chunks)


def moved_on_again() -> TransientError:
    """Return the error for a run whose snapshots all moved on while their pages were fetched."""
    return TransientError(
        f"{MAX_SNAPSHOTS} snapshots moved on while their pages were fetched (see the task runs in state MovedOn): "
        "nothing was stored, the next run tries again; if this goes on, raise fetch_concurrency"
    )
