"""What one run carries through its states."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from logging import Logger, LoggerAdapter
from typing import Any

import msgspec
from prefect.logging import get_run_logger

from tasks.esi.client import Esi
from tasks.esi.markets import Market
from tasks.reporting.outcome import note_outcome
from tasks.reporting.reporter import Reporter, name_run
from tasks.reporting.summary import Summary, summarize
from tasks.reporting.timing import Timing
from tasks.retries import forget_old_pages
from tasks.table.client import Table
from tasks.table.lease import Lease
from tasks.table.records import Book, Changes
from tasks.table.snapshot import Parameters, Snapshot


class Run(msgspec.Struct, frozen=True):
    """One run: of which market, with what, into which table."""

    market: Market
    parameters: Parameters  # what the records are made with
    esi: Esi
    lease: Lease  # on the table
    report: Timing
    force: bool  # run even if the snapshot is stored, and accept one that has shrunk
    started: float  # monotonic time
    end: Callable[[Summary, Changes | None], None]  # is given what the run has done
    get_logger: Callable[[], Logger | LoggerAdapter[Any]] = get_run_logger  # of the state that calls it

    @property
    def table(self) -> Table:
        """The table that the run writes."""
        return self.lease.table

    @property
    def log(self) -> "Logger | LoggerAdapter[Any]":
        """The log of the state that is under way."""
        return self.get_logger()

    def finish(self, snapshot: Snapshot, book: Book | None = None, changes: Changes | None = None) -> Summary:
        """End the run, and return its summary; without a book and changes the table had the snapshot already."""
        self.report.end()
        seconds = time.monotonic() - self.started
        summary = summarize(
            snapshot, self.parameters, self.table, self.esi, self.report.seconds, seconds, book, changes
        )
        self.end(summary, changes)
        return summary


@contextmanager
def open_run(market: Market, parameters: Parameters, esi: Esi, table: Table, *, force: bool) -> Iterator[Run]:
    """Open a flow run's report and its lease on the table, until the block ends."""
    forget_old_pages()
    with Reporter() as report, Lease(table) as lease:
        report.rename(name_run())
        yield Run(market, parameters, esi, lease, report, force, time.monotonic(), note_outcome)
