"""Keep Region: takes one region of a round through the plain functions of the states, in one task run."""

import threading
import time
from collections.abc import Sequence

from prefect import task
from prefect.futures import PrefectFuture

from tasks.build_iterator import Chunk, make_chunk
from tasks.esi.client import Esi
from tasks.esi.markets import Market, find_market
from tasks.fetch_pages import MAX_SNAPSHOTS, SnapshotMovedOn, fetch_chunk, moved_on_again
from tasks.get_page_count import find_snapshot
from tasks.orders.choices import Key, Parameters
from tasks.orders.records import Book
from tasks.orders.source import OrderSource
from tasks.reporting.progress import Timing
from tasks.reporting.reporter import Reporter
from tasks.reporting.summary import Summary
from tasks.reporting.universe_summary import RegionResult, describe_result
from tasks.retries import NOT_KEPT, RETRIED
from tasks.run import Run, list_targets, open_targets
from tasks.store_records import begin_writing, finish_writing, split_writes, write_part
from tasks.table.client import Table
from tasks.table.connection import Connection
from tasks.table.read import read_snapshots
from tasks.table.requests import Item
from tasks.table.snapshot import Snapshot


class Region:
    """A region in a round, and the progress of its attempts: a retry resumes there.

    Not thread-safe.
    """

    def __init__(self, region_id: int, tables: dict[Market, str], key: Key, parameters: Parameters, esi: Esi) -> None:
        self.region_id = region_id
        self.known: dict[int, Item | None] = {}  # `#snapshot` by market, as read for the whole round
        self._source = OrderSource(find_market(region_id), list(tables), parameters)
        self._tables = tables  # the names, by market
        self._key = key
        self._all_esi = esi  # the round's
        self._esi: Esi | None = None
        self._started = 0.0  # monotonic time of the first attempt
        self._attempted: dict[int, Table] = {}  # by market, with the counts of all attempts
        self._snapshot = ""
        self._chunk: Chunk | None = None
        self._books: dict[int, Book] = {}  # by market

    def __str__(self) -> str:
        return str(self.region_id)

    def note_read(self, table: Table, found: list[Item | None]) -> None:
        """Note `#snapshot` of one of the markets as the round has read it, if it has, and what that cost."""
        if table.market_id and found:
            self.known[table.market_id] = found[0]
            self._attempted[table.market_id] = table

    def open_tables(self, connection: Connection) -> dict[Market, Table]:
        """Return the markets with a table client each, for one attempt."""
        return {market: Table(name, connection, market.id, self._key) for market, name in self._tables.items()}

    def keep(self, connection: Connection, turns: threading.Semaphore) -> Summary:
        """Update the markets to the latest snapshot, and let another region in while this one waits for its next.

        Raises:
            EsiError: a page could not be fetched; the table is unchanged.
            TableError: the table refused; the next attempt or run writes the rest.
        """
        self._started = self._started or time.monotonic()
        self._esi = self._esi or self._all_esi.share()
        with open_targets(list_targets(self._source, self.open_tables(connection))) as targets:
            for target in targets:
                if earlier := self._attempted.get(target.id):
                    target.table.continue_counts(earlier)
                self._attempted[target.id] = target.table
            run = Run(self._source, targets, self._esi, Timing(), Summary, self._started, kept_by="universe")
            return self._keep(run, turns)

    def _keep(self, run: Run[Summary], turns: threading.Semaphore) -> Summary:
        def wait(seconds: float) -> None:
            turns.release()
            try:
                run.esi.waits.sleep(seconds)
            finally:
                turns.acquire()

        for _ in range(MAX_SNAPSHOTS):
            run.report.begin("Get Page Count")
            known, self.known = self.known, {}
            snapshot = find_snapshot(run, known, wait)
            if snapshot.is_stored:
                return run.finish(snapshot)
            try:
                books = self._make_books(snapshot, run)
                break
            except SnapshotMovedOn:
                continue
        else:
            raise moved_on_again(run.endpoint)
        run.report.begin("Store Records")
        comparison = begin_writing(books, snapshot, run)
        for part in split_writes(comparison.compared):
            write_part(part, run)
        finish_writing(comparison, snapshot, run)
        self._books = {}
        return run.finish(snapshot, comparison.results)

    def _make_books(self, snapshot: Snapshot, run: Run[Summary]) -> list[Book]:
        """Return the pending markets' records; fetch the pages that are still missing if they are not made yet.

        Raises:
            SnapshotMovedOn: a page belongs to a newer snapshot.
            EsiError: a page could not be fetched.
        """
        if self._snapshot != str(snapshot):
            self._snapshot, self._chunk, self._books = str(snapshot), make_chunk(1, snapshot.pages), {}
        if not self._books.keys() >= set(snapshot.pending):
            assert self._chunk
            run.report.begin("Fetch Pages")
            pages = [fetch_chunk(self._chunk, snapshot, run)]
            self._chunk = make_chunk(1, snapshot.pages)  # should a market fall behind again
            run.report.begin("Aggregate")
            ids = [target.id for target in run.targets]
            self._books = dict(zip(ids, run.source.make_books(pages, ids), strict=True))
        return [self._books[target.id] for target in run.list_pending(snapshot)]


@task(name="Keep Region", task_run_name="Keep Region {region}", **RETRIED, **NOT_KEPT)
def keep_region(region: Region, connection: Connection, turns: threading.Semaphore) -> Summary:
    """Update one region's tables to its latest snapshot."""
    return region.keep(connection, turns)


def keep_regions(
    regions: Sequence[Region], connection: Connection, concurrency: int, report: Reporter
) -> list[RegionResult]:
    """Update regions in order, `concurrency` at once, and return each one's result."""
    tables = [(region, table) for region in regions for table in region.open_tables(connection).values()]
    for (region, table), found in zip(tables, read_snapshots([table for _region, table in tables]), strict=True):
        region.note_read(table, found)
    turns = threading.Semaphore(concurrency)
    futures: dict[int, PrefectFuture[Summary]] = {}

    def end(_future: PrefectFuture[Summary]) -> None:
        report.count(1)
        turns.release()

    for region in regions:
        turns.acquire()
        future = keep_region.submit(region, connection, turns)
        future.add_done_callback(end)
        futures[region.region_id] = future
    return [describe_result(each, future.result(raise_on_failure=False)) for each, future in futures.items()]
