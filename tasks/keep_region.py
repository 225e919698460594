"""Keep Region: one region's market, through the plain functions of the states, in a round of many regions."""

import threading
import time
from collections import Counter
from collections.abc import Sequence

from prefect import task
from prefect.futures import PrefectFuture

from tasks.aggregate import make_book
from tasks.build_iterator import Chunk, make_chunk
from tasks.esi.client import Esi
from tasks.esi.markets import find_market
from tasks.fetch_pages import MAX_SNAPSHOTS, SnapshotMovedOn, fetch_chunk, moved_on_again
from tasks.get_page_count import find_snapshot
from tasks.reporting.outcome import complete, send_outcome
from tasks.reporting.reporter import Reporter
from tasks.reporting.summary import Summary
from tasks.reporting.timing import Timing
from tasks.reporting.universe_summary import RegionResult, list_results
from tasks.retries import NOT_KEPT, RETRIED, Work
from tasks.run import Run
from tasks.store_records import begin_writing, cut_batches, finish_writing, write_part
from tasks.table.batch_get import read_snapshots
from tasks.table.client import Table
from tasks.table.connection import Connection
from tasks.table.lease import Lease
from tasks.table.records import Book, Changes
from tasks.table.requests import Item
from tasks.table.snapshot import Parameters, Snapshot

KEPT_BY = "universe"


class Region:
    """A region in a round, and what its attempts have got so far: a retry goes on from there.

    It belongs to the thread of its task run.
    """

    def __init__(self, parameters: Parameters, table_name: str, esi: Esi, shared_by: int | None) -> None:
        self.parameters = parameters
        self.table_name = table_name
        self.shared_by = shared_by  # the region's id, if the table has other regions' records as well
        self.stored: list[Item | None] = []  # `#snapshot`, if the round has read it; for the first attempt
        self._all_esi = esi
        self._esi: Esi | None = None
        self._failures: Counter[str] = Counter()  # of the table, in earlier attempts
        self._snapshot = ""
        self._chunk: Chunk | None = None
        self._book: Book | None = None

    def __str__(self) -> str:
        return str(self.parameters.region_id)

    def keep(self, connection: Connection) -> Summary:
        """Bring the table to the newest snapshot.

        Raises:
            EsiError: a page could not be had; the table is as it was.
            TableError: the table refused; what is unfinished is repaired by the next attempt or run.
        """
        self._esi = self._esi or self._all_esi.share()
        with self.open_table(connection) as table, Lease(table) as lease:
            table.failures = self._failures
            market = find_market(self.parameters.region_id)
            return self._keep(
                Run(market, self.parameters, self._esi, lease, Timing(), False, time.monotonic(), end_region)
            )

    def open_table(self, connection: Connection) -> Table:
        """Return the region's table, as one attempt uses it."""
        return Table(self.table_name, connection, self.shared_by)

    def _keep(self, run: Run) -> Summary:
        for _ in range(MAX_SNAPSHOTS):
            run.report.begin("Get Page Count")
            snapshot = find_snapshot(run, self.stored.pop if self.stored else None)
            if snapshot.is_stored:
                return run.finish(snapshot)
            try:
                book = self._make_book(snapshot, run)
                break
            except SnapshotMovedOn:
                continue
        else:
            raise moved_on_again()
        run.report.begin("Store Records")
        changes = begin_writing(book, snapshot, run)
        write_part(Work("all", cut_batches(changes.writes)), run)
        finish_writing(book, snapshot, run)
        return run.finish(snapshot, book, changes)

    def _make_book(self, snapshot: Snapshot, run: Run) -> Book:
        """Fetch the pages that are still missing, and aggregate all.

        Raises:
            SnapshotMovedOn: a page belongs to a newer snapshot.
            EsiError: a page could not be had.
        """
        if self._snapshot != str(snapshot):
            self._snapshot, self._chunk, self._book = str(snapshot), make_chunk(1, snapshot.pages), None
        if self._book is None:
            assert self._chunk
            run.report.begin("Fetch Pages")
            pages = [fetch_chunk(self._chunk, snapshot, run)]
            run.report.begin("Aggregate")
            self._book = make_book(pages, run.parameters)
        return self._book


@task(name="Keep Region", task_run_name="Keep Region {region}", **RETRIED, **NOT_KEPT)
def keep_region(region: Region, connection: Connection) -> Summary:
    """Bring one region's table to its newest snapshot."""
    return complete(region.keep(connection))


def keep_regions(
    regions: Sequence[Region], connection: Connection, concurrency: int, report: Reporter
) -> list[RegionResult]:
    """Keep regions in their order, `concurrency` at once, and return what became of each.

    Raises:
        TableError: the store refused before any region was asked for.
    """
    report.begin("Keep Region", len(regions), "regions")
    for region, stored in zip(regions, read_snapshots([each.open_table(connection) for each in regions]), strict=True):
        region.stored = stored
    room = threading.Semaphore(concurrency)
    futures: dict[int, PrefectFuture[Summary]] = {}

    def end(_future: PrefectFuture[Summary]) -> None:
        report.count(1)
        room.release()

    for region in regions:
        room.acquire()
        future = keep_region.submit(region, connection)
        future.add_done_callback(end)
        futures[region.parameters.region_id] = future
    return list_results({region_id: future.result(raise_on_failure=False) for region_id, future in futures.items()})


def end_region(summary: Summary, _changes: Changes | None) -> None:
    """Send what became of a region as an event; the round's summary has the rest."""
    send_outcome(summary, KEPT_BY)
