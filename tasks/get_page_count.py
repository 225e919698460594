"""Get Page Count: which snapshot ESI offers, of how many pages, and whether the table has it already."""

from datetime import UTC, datetime, timedelta
from functools import partial

import msgspec
from prefect import task
from prefect.logging import get_run_logger
from prefect.runtime import flow_run

from tasks.esi.client import (
    MAX_AHEAD,
    Answer,
    Esi,
    NotFoundError,
    RefusedError,
    TransientError,
    is_structure,
    name_market,
)
from tasks.kept_pages import kept_snapshots
from tasks.retries import NOT_KEPT, RETRIED
from tasks.table.client import Item, MissingTableError, Table, TableError
from tasks.table.snapshot import FORMAT_VERSION, UNKNOWN, Parameters, TableSnapshot

PAGE_SECONDS = 0.2  # from request to answer; fetch_concurrency pages come at once
MAX_WAIT_SECONDS = 60.0


class Snapshot(msgspec.Struct, frozen=True):
    """One generation of a region's order book, on offer."""

    region_id: int
    last_modified: datetime  # names it, UTC
    expires: datetime  # UTC by this machine's clock; `UNKNOWN` if ESI says nothing that can be believed
    etag: str  # of the first page
    pages: int  # 1 or more
    stored: TableSnapshot | None  # where the table stands
    is_stored: bool  # the table holds this snapshot, made with the same parameters
    answered: datetime = msgspec.field(default_factory=partial(datetime.now, UTC))  # it was on offer, by ESI's clock

    def __str__(self) -> str:
        return f"{self.last_modified:%Y%m%dT%H%M%SZ}-{self.pages}p"


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
    """Gives where the table stands, None if it holds nothing of ours; a missing table on this machine is created.

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


def understand(item: Item | None, table_name: str, region_id: int, *, force: bool) -> TableSnapshot | None:
    """Reads the item `#snapshot`; of this region, or with `force`, one that cannot be read is as good as none.

    Raises:
        TableError: it is another region's, or another program's, and `force` is not set.
    """
    if item is None:
        return None
    stored_region = item.get("region_id", {}).get("N", "")
    if stored_region not in {"", str(region_id)} and not force:
        own = "StructureMarket-{structure_id}" if is_structure(region_id) else "MarketData-{region_id}"
        raise TableError(
            f"table {table_name} holds region {stored_region}, not {region_id}: give each market its own table, such "
            f'as table_name="{own}", or run with force to replace its records'
        )
    try:
        return TableSnapshot.from_item(item)
    except TableError as error:
        if force or stored_region:
            return None
        raise TableError(f"table {table_name}: {error}") from error


def made_alike(stored: TableSnapshot | None, parameters: Parameters) -> TableSnapshot | None:
    """Gives `stored` if its records are all there and were made with `parameters`, by this format."""
    if stored is None or stored.state != "complete" or stored.version != FORMAT_VERSION:
        return None
    return stored if stored.parameters == parameters else None


def is_fresh(stored: TableSnapshot, now: datetime) -> bool:
    """Return whether ESI has nothing newer yet, by the stored `Expires`; one further ahead than can be says nothing.

    Ahead of now, and of when it was written: what was said 23 hours ahead comes near in the end.
    """
    return now < stored.expires <= min(now, stored.written_at) + MAX_AHEAD


def is_newer(stored: TableSnapshot, offered: Answer | Snapshot) -> bool:
    """Return whether the table has a newer snapshot than is on offer; one further ahead than can be is not newer."""
    return offered.last_modified < stored.last_modified <= offered.answered + MAX_AHEAD


def ask(esi: Esi, region_id: int) -> Answer:
    """Asks ESI for the snapshot on offer.

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
    """Gives how long to wait for the next snapshot; 0 if this one lasts until its pages are here, or over a minute.

    ESI asks for it: pages fetched across a change are of two snapshots, and all for nothing.
    """
    fetch_seconds = answer.pages * PAGE_SECONDS / fetch_concurrency
    wait_seconds = answer.fresh_seconds + 1  # its dates are whole seconds
    return wait_seconds if 0 < answer.fresh_seconds < fetch_seconds and wait_seconds <= MAX_WAIT_SECONDS else 0.0


def offered(answer: Answer, region_id: int, stored: TableSnapshot | None) -> Snapshot:
    """Gives the snapshot that ESI offers, for the table to be brought to."""
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
    """Gives the snapshot that the table holds already."""
    return Snapshot(
        region_id=stored.region_id,
        last_modified=stored.last_modified,
        expires=expires,
        etag=stored.etag,
        pages=stored.pages,
        stored=stored,
        is_stored=True,
    )
