"""Get Page Count: which snapshot ESI offers, of how many pages, and whether the table has it already."""

from datetime import UTC, datetime, timedelta

from prefect import task
from prefect.logging import get_run_logger
from prefect.runtime import flow_run

from tasks.esi.answers import MAX_AHEAD, Answer
from tasks.esi.client import Esi
from tasks.esi.errors import NotFoundError, RefusedError, TransientError
from tasks.esi.markets import name_market
from tasks.retries import NOT_KEPT, RETRIED, kept_snapshots
from tasks.table.client import Table
from tasks.table.errors import MissingTableError
from tasks.table.snapshot import (
    UNKNOWN,
    Parameters,
    Snapshot,
    TableSnapshot,
    is_fresh,
    is_newer,
    made_alike,
    understand,
)

PAGE_SECONDS = 0.2  # from request to answer; fetch_concurrency pages come at once
MAX_WAIT_SECONDS = 60.0


@task(name="Get Page Count", task_run_name="Get Page Count", **RETRIED, **NOT_KEPT)
def get_page_count(parameters: Parameters, table: Table, esi: Esi, *, force: bool) -> Snapshot:
    """Return the snapshot on offer, by one GetItem and one HEAD; no HEAD before the stored snapshot's `Expires`."""
    logger = get_run_logger()
    stored = read_stored(table, parameters.region_id, force=force)
    ours = None if force else made_alike(stored, parameters)
    if ours and is_fresh(ours, datetime.now(UTC)):
        logger.info("not modified: ESI has nothing newer than %s before %s", ours.last_modified, ours.expires)
        return as_stored(ours, ours.expires)
    answer = ask(esi, parameters.region_id)
    if ours and (answer.last_modified == ours.last_modified or is_newer(ours, answer)):
        logger.info("not modified: the table has the snapshot of %s", ours.last_modified)
        return as_stored(ours, valid_until(answer))
    if stored and not force:
        check_not_older(answer, stored, parameters.region_id)
    if wait_seconds := seconds_to_wait(answer, esi.fetch_concurrency):
        logger.info("the snapshot of %s ends too soon: waiting %.0f s for the next", answer.last_modified, wait_seconds)
        esi.waits.sleep(wait_seconds)
        answer = ask(esi, parameters.region_id)
    logger.info("%s: %d pages of %s", name_market(parameters.region_id), answer.pages, answer.last_modified)
    snapshot = offered(answer, parameters.region_id, stored)
    if kept := kept_snapshots(str(flow_run.id)):
        news = "still on offer: its pages are not fetched again" if str(snapshot) in kept else "gone: starting over"
        logger.info("an earlier attempt has kept pages of %s, which is %s", ", ".join(kept), news)
    return snapshot


def read_stored(table: Table, region_id: int, *, force: bool) -> TableSnapshot | None:
    """Return where the table stands, None if it holds nothing of ours; a missing table on this machine is created.

    Raises:
        MissingTableError: the table is not there, nor on this machine.
        TransientTableError: it is being created.
        TableError: the table is another region's, and `force` is not set.
    """
    try:
        return understand(table.read_snapshot(), table.name, region_id, force=force)
    except MissingTableError as error:
        table.create_missing(error)
        return None


def ask(esi: Esi, region_id: int) -> Answer:
    """Ask ESI for the snapshot on offer.

    Raises:
        RefusedError: there is no such region, or ESI refuses for good.
        TransientError: see `tasks.esi.client`.
    """
    try:
        return esi.head(region_id)
    except NotFoundError as error:
        raise RefusedError(f"{error}; is there a market {name_market(region_id)}?") from error


def check_not_older(answer: Answer, stored: TableSnapshot, region_id: int) -> None:
    """Raise if ESI offers a snapshot that is older than the one that the table has begun to hold.

    Raises:
        TransientError: it does; a cache has not caught up.
    """
    if is_newer(stored, answer):
        raise TransientError(
            f"{name_market(region_id)}: ESI offers the snapshot of {answer.last_modified}, older than the table's of "
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
