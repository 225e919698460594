"""Get Page Count: finds the latest snapshot, its number of pages, and whether the table already has it."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Any

from prefect import task

from tasks.esi.answers import Answer
from tasks.esi.errors import TransientError
from tasks.imports import load
from tasks.retries import NOT_KEPT, RETRIED, forget_pages, kept_snapshots
from tasks.run import Run
from tasks.table.client import Table
from tasks.table.create import create_missing, name_keys
from tasks.table.errors import KeySchemaError, MissingTableError
from tasks.table.requests import Item
from tasks.table.snapshot import UNKNOWN, Marker, Snapshot, is_fresh, is_newer, is_same, made_alike

PAGE_SECONDS = 0.2  # from request to response; fetch_concurrency pages are in flight at once
MAX_WAIT_SECONDS = 60.0


@task(name="Get Page Count", task_run_name="Get Page Count", **RETRIED, **NOT_KEPT)
def get_page_count(run: Run[Any]) -> Snapshot:
    """Return the latest snapshot, by one GetItem and one HEAD; no HEAD before the stored snapshot's `Expires`."""
    run.report.begin("Get Page Count")
    snapshot = find_snapshot(run)
    run.report.tag(snapshot.last_modified)
    if snapshot.is_stored:
        forget_pages()
    elif kept := kept_snapshots():
        load("numpy")  # before Prefect's threads read kept pages, each on its own
        state = "still the latest: its pages are not fetched again" if str(snapshot) in kept else "gone: starting over"
        run.log.info("an earlier attempt kept pages of %s, which is %s", ", ".join(kept), state)
    return snapshot


def find_snapshot(
    run: Run[Any],
    known: Mapping[Table, Item | None] = MappingProxyType({}),  # `#snapshot` items as just read
    wait: Callable[[float], None] | None = None,  # waits that many seconds for the next snapshot
) -> Snapshot:
    """Return the latest snapshot, and the markets for which the table does not have it yet.

    Raises:
        EsiError: no usable response from ESI.
        TableError: the table cannot be read, or is another market's.
    """
    items = {each.id: read_item(each.table, known) for each in run.targets}
    parsed = {each.id: each.blank.parse(items[each.id], each.table.name, force=run.force) for each in run.targets}
    stored = {each: found for each, found in parsed.items() if found}
    parameters = {each.id: each.blank.parameters for each in run.targets}
    usable = {} if run.force else {each: at for each, at in stored.items() if made_alike(at, parameters[each])}
    most_ahead = run.endpoint.most_ahead
    is_whole = len(usable) == len(run.targets)
    if is_whole and all(is_fresh(found, datetime.now(UTC), most_ahead) for found in usable.values()):
        first = min(usable.values(), key=lambda found: found.expires)
        run.log.info("not modified: there is no newer snapshot than %s before %s", first.last_modified, first.expires)
        return as_stored(stored, first.expires)
    answer = run.esi.head(run.endpoint)
    pending = list_behind(answer, usable, run)
    if pending and (
        wait_seconds := seconds_to_wait(answer, run.esi.fetch_concurrency, run.endpoint.requests_per_second)
    ):
        run.log.info(
            "the snapshot of %s expires too soon: waiting %.0f s for the next one", answer.last_modified, wait_seconds
        )
        (wait or run.esi.waits.sleep)(wait_seconds)
        answer = run.esi.head(run.endpoint)
        pending = list_behind(answer, usable, run)
    if not pending:
        run.log.info("not modified: the table has the snapshot of %s", answer.last_modified)
        return as_stored(stored, valid_until(answer))
    snapshot = make_snapshot(answer, valid_until(answer), stored, pending)
    for target in run.list_pending(snapshot):
        if target.id in stored and not run.force:
            check_not_older(answer, stored[target.id], target.name, most_ahead)
    run.log.info("%s: %d pages of %s", run.endpoint.name, answer.pages, answer.last_modified)
    run.esi.expect(answer.pages)
    run.source.prepare()
    for target in run.list_pending(snapshot):
        target.lease.start_scan(items[target.id])
    return snapshot


def list_behind(answer: Answer, usable: dict[int, Marker], run: Run[Any]) -> list[int]:
    """Return the targets whose records in the table are neither of the snapshot on offer nor of a newer one."""
    most_ahead = run.endpoint.most_ahead
    held = {each for each, found in usable.items() if is_same(found, answer) or is_newer(found, answer, most_ahead)}
    return [target.id for target in run.targets if target.id not in held]


def read_item(table: Table, known: Mapping[Table, Item | None]) -> Item | None:
    """Return the item `#snapshot`, None if the table has none; create a missing table on this machine.

    Raises:
        TableError: see `create_missing`, and `name_keys` for a table with other keys than the parameter `key` says.
    """
    if table in known:
        return known[table]
    try:
        return table.read_snapshot()
    except MissingTableError as error:
        create_missing(table, error)
        return None
    except KeySchemaError as error:
        raise name_keys(table, error) from error


def check_not_older(answer: Answer, stored: Marker, name: str, most_ahead: timedelta) -> None:
    """Raise a TransientError if the table has, or is being updated to, a newer snapshot: a cache has not caught up."""
    if is_newer(stored, answer, most_ahead):
        raise TransientError(
            f"{name}: the snapshot on offer is of {answer.last_modified}, older than the table's of "
            f"{stored.last_modified}; to store it anyway, run with force"
        )


def seconds_to_wait(answer: Answer, fetch_concurrency: int, requests_per_second: float = float("inf")) -> float:
    """Return how long to wait for the next snapshot: 0 if this one lasts for the fetch, or the wait exceeds a minute.

    Pages fetched across a change are of two snapshots, and useless.
    """
    fetch_seconds = max(answer.pages * PAGE_SECONDS / fetch_concurrency, answer.pages / requests_per_second)
    wait_seconds = answer.fresh_seconds + 1  # ESI's dates are in whole seconds
    return wait_seconds if 0 < answer.fresh_seconds < fetch_seconds and wait_seconds <= MAX_WAIT_SECONDS else 0.0


def valid_until(answer: Answer) -> datetime:
    """Return when a response expires, by this machine's clock; `UNKNOWN` if it does not say."""
    return datetime.now(UTC) + timedelta(seconds=answer.fresh_seconds) if answer.fresh_seconds > 0 else UNKNOWN


def as_stored(stored: dict[int, Marker], expires: datetime) -> Snapshot:
    """Return the snapshot that the table already has; the newest, if markets have different ones."""
    newest = max(stored.values(), key=lambda found: found.last_modified)
    return make_snapshot(newest, expires, stored, [])


def make_snapshot(of: Answer | Marker, expires: datetime, stored: dict[int, Marker], pending: list[int]) -> Snapshot:
    """Return the snapshot that a response or `#snapshot` names."""
    answered = of.answered if isinstance(of, Answer) else datetime.now(UTC)
    return Snapshot(of.last_modified, expires, of.etag, of.pages, stored, pending, answered, of.name)
