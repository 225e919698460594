"""Get Page Count: finds the latest snapshot, its number of pages, and whether the table already has it."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from types import MappingProxyType

from prefect import task

from tasks.aggregate import import_early
from tasks.esi.answers import MAX_AHEAD, Answer
from tasks.esi.errors import NotFoundError, RefusedError, TransientError
from tasks.esi.markets import Market, find_market
from tasks.retries import NOT_KEPT, RETRIED, forget_pages, kept_snapshots
from tasks.run import Run
from tasks.table.client import Table
from tasks.table.create import create_missing, name_keys
from tasks.table.errors import KeySchemaError, MissingTableError
from tasks.table.requests import Item
from tasks.table.snapshot import UNKNOWN, Snapshot, TableSnapshot, is_fresh, is_newer, made_alike

PAGE_SECONDS = 0.2  # from request to response; fetch_concurrency pages are in flight at once
MAX_WAIT_SECONDS = 60.0


@task(name="Get Page Count", task_run_name="Get Page Count", **RETRIED, **NOT_KEPT)
def get_page_count(run: Run) -> Snapshot:
    """Return the latest snapshot, by one GetItem and one HEAD; no HEAD before the stored snapshot's `Expires`."""
    run.report.begin("Get Page Count")
    snapshot = find_snapshot(run)
    run.report.tag(snapshot.region_id, snapshot.last_modified)
    if snapshot.is_stored:
        forget_pages()
    elif kept := kept_snapshots():
        state = "still the latest: its pages are not fetched again" if str(snapshot) in kept else "gone: starting over"
        run.log.info("an earlier attempt kept pages of %s, which is %s", ", ".join(kept), state)
    return snapshot


def find_snapshot(
    run: Run,
    known: Mapping[int, Item | None] = MappingProxyType({}),
    wait: Callable[[float], None] | None = None,
) -> Snapshot:
    """Return the latest snapshot, and the markets for which the table does not have it yet.

    Args:
        run: the source and its markets.
        known: `#snapshot` items that were read just now, by market.
        wait: waits so many seconds for the next snapshot.

    Raises:
        EsiError: no usable response from ESI.
        TableError: the table cannot be read, or is another market's.
    """
    items = {each.market.id: read_item(each.table, known) for each in run.targets}
    stored = {each.market.id: found for each in run.targets if (found := run.parse(items[each.market.id], each))}
    usable = {} if run.force else {each: found for each, found in stored.items() if made_alike(found, run.parameters)}
    is_whole = len(usable) == len(run.targets)
    if is_whole and all(is_fresh(found, datetime.now(UTC)) for found in usable.values()):
        first = min(usable.values(), key=lambda found: found.expires)
        run.log.info("not modified: ESI has no newer snapshot than %s before %s", first.last_modified, first.expires)
        return as_stored(run.source.id, stored, first.expires)
    answer = ask(run)
    pending = list_behind(answer, usable, run)
    if pending and (wait_seconds := seconds_to_wait(answer, run.esi.fetch_concurrency)):
        run.log.info(
            "the snapshot of %s expires too soon: waiting %.0f s for the next one", answer.last_modified, wait_seconds
        )
        (wait or run.esi.waits.sleep)(wait_seconds)
        answer = ask(run)
        pending = list_behind(answer, usable, run)
    if not pending:
        run.log.info("not modified: the table has the snapshot of %s", answer.last_modified)
        return as_stored(run.source.id, stored, valid_until(answer))
    for market_id in [] if run.force else [each for each in pending if each in stored]:
        check_not_older(answer, stored[market_id], find_market(market_id))
    run.log.info("%s: %d pages of %s", str(run.source), answer.pages, answer.last_modified)
    run.esi.expect(answer.pages)
    import_early()
    snapshot = offered(answer, run.source.id, stored, pending)
    for target in run.list_pending(snapshot):
        previous = stored.get(target.market.id)
        target.lease.start_scan(items[target.market.id], previous.records if previous else 0)
    return snapshot


def list_behind(answer: Answer, usable: dict[int, TableSnapshot], run: Run) -> list[int]:
    """Return the markets whose records in the table are neither of the snapshot on offer nor of a newer one."""
    held = {
        each for each, found in usable.items() if found.last_modified == answer.last_modified or is_newer(found, answer)
    }
    return [target.market.id for target in run.targets if target.market.id not in held]


def read_item(table: Table, known: Mapping[int, Item | None]) -> Item | None:
    """Return the item `#snapshot`, None if the table has none; create a missing table on this machine.

    Raises:
        MissingTableError: there is no such table, and the store is not on this machine.
        TransientTableError: it is being created.
        KeySchemaError: the table's key schema does not match the parameter `key`.
        TableError: see `tasks.table.client`.
    """
    if table.market_id and table.market_id in known:
        return known[table.market_id]
    try:
        return table.read_snapshot()
    except MissingTableError as error:
        create_missing(table, error)
        return None
    except KeySchemaError as error:
        raise name_keys(table, error) from error


def ask(run: Run) -> Answer:
    """Ask ESI for the latest snapshot.

    Raises:
        RefusedError: there is no such market, or ESI refused.
        TransientError: see `tasks.esi.client`.
    """
    try:
        return run.esi.head(run.source)
    except NotFoundError as error:
        raise RefusedError(f"{error}; is there a market {run.source}?") from error


def check_not_older(answer: Answer, stored: TableSnapshot, market: Market) -> None:
    """Raise if ESI's snapshot is older than the one that the table has, or is being updated to.

    Raises:
        TransientError: it is: a cache has not caught up.
    """
    if is_newer(stored, answer):
        raise TransientError(
            f"{market}: ESI offers the snapshot of {answer.last_modified}, older than the table's of "
            f"{stored.last_modified}; to store it anyway, run with force"
        )


def seconds_to_wait(answer: Answer, fetch_concurrency: int) -> float:
    """Return how long to wait for the next snapshot: 0 if this one lasts for the fetch, or the wait exceeds a minute.

    Pages fetched across a change are of two snapshots, and useless.
    """
    fetch_seconds = answer.pages * PAGE_SECONDS / fetch_concurrency
    wait_seconds = answer.fresh_seconds + 1  # ESI's dates are in whole seconds
    return wait_seconds if 0 < answer.fresh_seconds < fetch_seconds and wait_seconds <= MAX_WAIT_SECONDS else 0.0


def offered(answer: Answer, region_id: int, stored: dict[int, TableSnapshot], pending: list[int]) -> Snapshot:
    """Return the snapshot in a response of ESI's."""
    return Snapshot(
        region_id=region_id,
        last_modified=answer.last_modified,
        expires=valid_until(answer),
        etag=answer.etag,
        pages=answer.pages,
        stored=stored,
        pending=pending,
        answered=answer.answered,
    )


def valid_until(answer: Answer) -> datetime:
    """Return when a response expires, by this machine's clock; `UNKNOWN` if `Expires` is missing or implausible."""
    fresh = timedelta(seconds=answer.fresh_seconds)
    return datetime.now(UTC) + fresh if timedelta() < fresh <= MAX_AHEAD else UNKNOWN


def as_stored(region_id: int, stored: dict[int, TableSnapshot], expires: datetime) -> Snapshot:
    """Return the snapshot that the table already has; the newest, if markets have different ones."""
    newest = max(stored.values(), key=lambda found: found.last_modified)
    return Snapshot(
        region_id=region_id,
        last_modified=newest.last_modified,
        expires=expires,
        etag=newest.etag,
        pages=newest.pages,
        stored=stored,
        pending=[],
    )
