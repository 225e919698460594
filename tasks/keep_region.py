"""Keep Region: takes one region of a round through the plain functions of the states, in one task run."""

import threading
import time
from collections.abc import Mapping, Sequence

from prefect import task
from prefect.futures import PrefectFuture

from tasks.build_iterator import Chunk
from tasks.esi.client import Esi
from tasks.fetch_pages import MAX_SNAPSHOTS, SnapshotMovedOn, fetch_chunk, moved_on_again
from tasks.get_page_count import find_snapshot
from tasks.orders.records import Book
from tasks.orders.source import OrderSource
from tasks.reporting.progress import Timing
from tasks.reporting.reporter import Reporter
from tasks.reporting.summary import Summary
from tasks.reporting.universe_summary import RegionResult, describe_result
from tasks.retries import NOT_KEPT, RETRIED, Work
from tasks.run import Run, Target, open_targets
from tasks.store_records import begin_writing, finish_writing, split_writes, write_part
from tasks.table.client import Table
from tasks.table.read import read_snapshots
from tasks.table.requests import Item
from tasks.table.snapshot import Snapshot


class Region:
    """A region's run in a round, and the progress of its attempts: a retry resumes there.

    Not thread-safe.
    """

    def __init__(
        self, region_id: int, run: Run[Summary], known: Mapping[Table, Item | None], turns: threading.Semaphore
    ) -> None:
        self._region_id = region_id
        self._run = run
        self._known = known  # `#snapshot` as read for the whole round, for the first attempt
        self._turns = turns  # of which an attempt has one
        self._chunk: Chunk = Work("", [])  # all pages; named for the snapshot
        self._books: dict[int, Book] = {}  # made from them, by market

    def __str__(self) -> str:
        return str(self._region_id)

    def keep(self) -> Summary:
        """Update the markets to the latest snapshot, and let another region in while this one waits for its next.

        Raises:
            EsiError: a page could not be fetched; the table is unchanged.
            TableError: the table refused; the next attempt or run writes the rest.
        """
        run = self._run

        def wait(seconds: float) -> None:
            self._turns.release()
            try:
                run.esi.waits.sleep(seconds)
            finally:
                self._turns.acquire()

        with open_targets(run.targets):
            for _ in range(MAX_SNAPSHOTS):
                run.report.begin("Get Page Count")
                known, self._known = self._known, {}
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
            for part in split_writes(comparison.updates):
                write_part(part, run)
            finish_writing(comparison, snapshot, run)
            self._books = {}
            return run.finish(snapshot, comparison.updates)

    def _make_books(self, snapshot: Snapshot, run: Run[Summary]) -> list[Book]:
        """Return the pending markets' records; fetch the pages that are still missing if they are not made yet."""
        if str(self._chunk) != str(snapshot):
            self._chunk, self._books = Work(str(snapshot), range(1, snapshot.pages + 1)), {}
        if not self._books:
            run.report.begin("Fetch Pages")
            pages = [fetch_chunk(self._chunk, snapshot, run)]
            run.report.begin("Aggregate")
            ids = [target.id for target in run.targets]
            self._books = dict(zip(ids, run.source.make_books(pages, ids), strict=True))
        return [self._books[target.id] for target in run.list_pending(snapshot)]


@task(name="Keep Region", task_run_name="Keep Region {region}", **RETRIED, **NOT_KEPT)
def keep_region(region: Region) -> Summary:
    """Update one region's tables to its latest snapshot."""
    return region.keep()


def keep_regions(
    regions: Sequence[tuple[OrderSource, list[Target]]], esi: Esi, concurrency: int, report: Reporter
) -> list[RegionResult]:
    """Update regions in order, `concurrency` at once, and return each one's result."""
    known = read_snapshots([target.table for _source, targets in regions for target in targets])
    turns = threading.Semaphore(concurrency)
    futures: dict[int, PrefectFuture[Summary]] = {}

    def end(_future: PrefectFuture[Summary]) -> None:
        report.count(1)
        turns.release()

    for source, targets in regions:
        turns.acquire()
        run = Run(source, targets, esi.share(), Timing(), Summary, time.monotonic(), kept_by="universe")
        future = keep_region.submit(Region(source.market.id, run, known, turns))
        future.add_done_callback(end)
        futures[source.market.id] = future
    return [describe_result(each, future.result(raise_on_failure=False)) for each, future in futures.items()]
