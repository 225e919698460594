"""Fetch Pages: downloads a chunk's pages concurrently, and decodes them straight into columns."""

from collections.abc import Sequence
from functools import partial
from typing import Any, cast

from prefect import task
from prefect.states import Completed
from prefect.transactions import get_transaction

from tasks.build_iterator import Chunk
from tasks.esi.answers import Answer
from tasks.esi.endpoint import Endpoint
from tasks.esi.errors import NotFoundError, RefusedError, TransientError
from tasks.retries import RETRIED, keep_pages
from tasks.run import Columns, Run
from tasks.table.snapshot import Snapshot

MAX_SNAPSHOTS = 3


class SnapshotMovedOn(Exception):  # noqa: N818 (no error: the run starts over)
    """A page belongs to a newer snapshot than the one being fetched."""


@task(name="Fetch Pages", task_run_name="Fetch Pages {chunk}", **RETRIED, **keep_pages())
def fetch_pages(chunk: Chunk, snapshot: Snapshot, run: Run[Any]) -> Columns:
    """Return a chunk's items, or None in a state named `MovedOn` if the snapshot has moved on."""
    run.report.begin("Fetch Pages", snapshot.pages, "pages")
    try:
        return fetch_chunk(chunk, snapshot, run)
    except SnapshotMovedOn as moved_on:
        if transaction := get_transaction():
            transaction.write_on_commit = False  # there are no pages to keep
        return cast("Columns", Completed(name="MovedOn", message=str(moved_on)))  # which Prefect unwraps to None


def fetch_chunk(chunk: Chunk, snapshot: Snapshot, run: Run[Any]) -> Columns:
    """Return a chunk's items; keep fetched pages for a retry. See `fetch_page` for the errors."""
    if chunk.has_failed:
        run.esi.expect(len(chunk.left))
    try:
        pages = chunk.do(partial(fetch_page, snapshot=snapshot, run=run), run.esi.submit, run.esi.waits)
    except RefusedError as error:
        run.esi.give_up(error)
        raise
    return run.source.join(pages)


def fetch_page(page: int, snapshot: Snapshot, run: Run[Any]) -> Columns:
    """Download one page of a snapshot and decode its items.

    Raises:
        SnapshotMovedOn: the page, or a source with fewer pages, belongs to a newer snapshot.
        RefusedError: the response is invalid, and a retry would be too.
        TransientError: a retry may succeed.
    """
    what = run.endpoint.page(page).name
    try:
        answer = run.esi.get(run.endpoint, page)
    except NotFoundError as error:
        check_same_snapshot(run.esi.head(run.endpoint), snapshot, what)
        raise RefusedError(
            f"{error}, though {run.endpoint.noun} has {snapshot.pages} pages of the same snapshot; nothing was "
            "stored, the next run tries again"
        ) from error
    try:
        check_same_snapshot(answer, snapshot, what)
        items = run.source.decode(answer.body, what)
    except TransientError as error:
        run.esi.count_failure(page, error.cause)
        raise
    run.report.count(1)
    return items


def check_same_snapshot(answer: Answer, snapshot: Snapshot, what: str) -> None:
    """Raise unless a response belongs to `snapshot`.

    Raises:
        SnapshotMovedOn: it is newer, or has another number of pages.
        TransientError: it is older: a cache has not caught up.
    """
    is_dated = answer.name == snapshot.name == ""
    if is_dated and answer.last_modified < snapshot.last_modified:
        raise TransientError(
            f"{what} is of {answer.last_modified}, older than the snapshot of {snapshot.last_modified}",
            cause="older snapshot",
        )
    is_other = answer.name != snapshot.name or (is_dated and answer.last_modified > snapshot.last_modified)
    if is_other or answer.pages not in {0, snapshot.pages}:
        raise SnapshotMovedOn(
            f"{what} is of {answer.name or answer.last_modified}, {answer.pages} pages; "
            f"the snapshot was of {snapshot.name or snapshot.last_modified}, {snapshot.pages} pages"
        )


def is_whole(chunks: Sequence[Columns | None]) -> bool:
    """Return whether no chunk is None, so that all are of one snapshot."""
    return all(orders is not None for orders in chunks)


def moved_on_again(endpoint: Endpoint) -> TransientError:
    """Return the error for a run whose snapshots all moved on while their pages were fetched."""
    given = endpoint.snapshot_header if endpoint.needs_count else ""
    header = f", or check that {given} is the same on all pages" if given else ""
    return TransientError(
        f"{MAX_SNAPSHOTS} snapshots moved on while their pages were fetched (see the task runs in state MovedOn): "
        "nothing was stored, the next run tries again; "
        f"if this goes on, raise fetch_concurrency{header}"
    )
