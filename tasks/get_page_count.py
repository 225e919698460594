"""Get Page Count: which snapshot ESI offers, of how many pages, and whether the table has it already."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from prefect import task

from tasks.aggregate import import_early
from tasks.esi.answers import MAX_AHEAD, Answer
from tasks.esi.errors import NotFoundError, RefusedError, TransientError
from tasks.esi.markets import Market
from tasks.retries import NOT_KEPT, RETRIED, forget_pages, kept_snapshots
from tasks.run import Run
from tasks.table.create import create_missing
from tasks.table.errors import MissingTableError
from tasks.table.requests import Item
from tasks.table.snapshot import UNKNOWN, Snapshot, TableSnapshot, is_fresh, is_newer, made_alike, parse_snapshot

PAGE_SECONDS = 0.2  # from request to answer; fetch_concurrency pages come at once
MAX_WAIT_SECONDS = 60.0


@task(name="Get Page Count", task_run_name="Get Page Count", **RETRIED, **NOT_KEPT)
def get_page_count(run: Run) -> Snapshot:
    """Return the snapshot on offer, by one GetItem and one HEAD; no HEAD before the stored snapshot's `Expires`."""
    run.report.begin("Get Page Count")
    snapshot = find_snapshot(run)
    run.report.tag(snapshot.region_id, snapshot.last_modified)
    if snapshot.is_stored:
        forget_pages()
    elif kept := kept_snapshots():
        news = "still on offer: its pages are not fetched again" if str(snapshot) in kept else "gone: starting over"
        run.log.info("an earlier attempt has kept pages of %s, which is %s", ", ".join(kept), news)
    return snapshot


def find_snapshot(run: Run, read: Callable[[], Item | None] | None = None) -> Snapshot:
    """Return the snapshot on offer, and whether the table has it already.

    Args:
        run: of which market, into which table.
        read: returns the item `#snapshot`; by GetItem if not given.

    Raises:
        EsiError: ESI does not say.
        TableError: the table cannot be read, or is another market's.
    """
    item = read_item(run, read or run.table.read_snapshot)
    stored = parse_snapshot(item, run.table.name, run.market, force=run.force)
    ours = None if run.force else made_alike(stored, run.parameters)
    if ours and is_fresh(ours, datetime.now(UTC)):
        run.log.info("not modified: ESI has nothing newer than %s before %s", ours.last_modified, ours.expires)
        return as_stored(ours, ours.expires)
    answer = ask(run)
    if ours and (answer.last_modified == ours.last_modified or is_newer(ours, answer)):
        run.log.info("not modified: the table has the snapshot of %s", ours.last_modified)
        return as_stored(ours, valid_until(answer))
    if stored and not run.force:
        check_not_older(answer, stored, run.market)
    if wait_seconds := seconds_to_wait(answer, run.esi.fetch_concurrency):
        run.log.info(
            "the snapshot of %s ends too soon: waiting %.0f s for the next", answer.last_modified, wait_seconds
        )
        run.esi.waits.sleep(wait_seconds)
        answer = ask(run)
    run.log.info("%s: %d pages of %s", str(run.market), answer.pages, answer.last_modified)
    import_early()
    run.lease.start_scan(item, stored.records if stored else 0)
    return offered(answer, run.market.id, stored)


def read_item(run: Run, read: Callable[[], Item | None]) -> Item | None:
    """Return the item `#snapshot`, None if the table has none; a missing table on this machine is created.

    Raises:
        MissingTableError: there is no such table, and it is not to be on this machine.
        TransientTableError: it is being created.
        TableError: see `tasks.table.client`.
    """
    try:
        return read()
    except MissingTableError as error:
        create_missing(run.table, error)
        return None


def ask(run: Run) -> Answer:
    """Ask ESI for the snapshot on offer.

    Raises:
        RefusedError: there is no such market, or ESI refuses for good.
        TransientError: see `tasks.esi.client`.
    """
    try:
        return run.esi.head(run.market)
    except NotFoundError as error:
        raise RefusedError(f"{error}; is there a market {run.market}?") from error


def check_not_older(answer: Answer, stored: TableSnapshot, market: Market) -> None:
    """Raise if ESI offers a snapshot that is older than the one that the table holds, or is being brought to.

    Raises:
        TransientError: it does; a cache has not caught up.
    """
    if is_newer(stored, answer):
        raise TransientError(
            f"{market}: ESI offers the snapshot of {answer.last_modified}, older than the table's of "
            f"{stored.last_modified}; run with force if the table is to go back"
        )


def seconds_to_wait(answer: Answer, fetch_concurrency: int) -> float:
    """Return how long to wait for the next snapshot; 0 if this one lasts until its pages are here, or over a minute.

    ESI asks for it: pages fetched across a change are of two snapshots, and all for nothing.
    """
    fetch_seconds = answer.pages * PAGE_SECONDS / fetch_concurrency
    wait_seconds = answer.fresh_seconds + 1  # its dates are whole seconds
    return wait_seconds if 0 < answer.fresh_seconds < fetch_seconds and wait_seconds <= MAX_WAIT_SECONDS else 0.0


def offered(answer: Answer, region_id: int, stored: TableSnapshot | None) -> Snapshot:
    """Return the snapshot that ESI offers, for the table to be brought to."""
    return Snapshot(
        region_id=region_id,
        last_modified=answer.last_modified,
        expires=valid_until(answer),
        etag=answer.etag,
        pages=answer.pages,
        stored=stored,
        is_stored=False,
        answered=answer.answered,
    )


def valid_until(answer: Answer) -> datetime:
    """Return when ESI's answer expires, by this machine's clock; `UNKNOWN` if that is not said, or cannot be."""
    fresh = timedelta(seconds=answer.fresh_seconds)
    return datetime.now(UTC) + fresh if fresh and fresh <= MAX_AHEAD else UNKNOWN


def as_stored(stored: TableSnapshot, expires: datetime) -> Snapshot:
    """Return the snapshot that the table holds already."""
    return Snapshot(
        region_id=stored.region_id,
        last_modified=stored.last_modified,
        expires=expires,
        etag=stored.etag,
        pages=stored.pages,
        stored=stored,
        is_stored=True,
    )
