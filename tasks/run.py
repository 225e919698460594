"""What one run carries through its states."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
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


class Target(msgspec.Struct, frozen=True):
    """One market of a run, and where its records go."""

    market: Market
    lease: Lease  # on the market in its table

    @property
    def table(self) -> Table:
        """The table, as far as it is the market's."""
        return self.lease.table


class Run(msgspec.Struct, frozen=True):
    """One run: whose pages, with what, into which markets' records."""

    source: Market  # the region or structure whose pages are fetched
    targets: Sequence[Target]  # the markets whose orders are on them, ascending by id
    parameters: Parameters  # what the records are made with
    esi: Esi
    report: Timing
    force: bool  # run even if the snapshot is stored, and accept one that has shrunk
    started: float  # monotonic time
    end: Callable[[Summary, list[Changes]], None]  # is given what the run has done
    get_logger: Callable[[], Logger | LoggerAdapter[Any]] = get_run_logger  # of the state that calls it

    @property
    def log(self) -> "Logger | LoggerAdapter[Any]":
        """The log of the state that is under way."""
        return self.get_logger()

    @property
    def has_places(self) -> bool:
        """Whether orders have to say where they are: for a market that is not the source itself."""
        return any(target.market != self.source for target in self.targets)

    def list_pending(self, snapshot: Snapshot) -> list[Target]:
        """Return the targets whose records are not of the snapshot yet."""
        return [target for target in self.targets if target.market.id in snapshot.pending]

    def finish(self, snapshot: Snapshot, books: Sequence[Book] = (), changes: Sequence[Changes] = ()) -> Summary:
        """End the run, and return its summary.

        Args:
            snapshot: that the table holds now.
            books: of the pending targets; none if the table had the snapshot already.
            changes: of the same.
        """
        self.report.end()
        seconds = time.monotonic() - self.started
        markets = [target.market.id for target in self.list_pending(snapshot)]
        summary = summarize(
            snapshot,
            self.parameters,
            {target.market.id: target.table for target in self.targets},
            self.esi,
            self.report.seconds,
            seconds,
            dict(zip(markets, zip(books, changes, strict=True), strict=True)) if books else {},
        )
        self.end(summary, list(changes))
        return summary


@contextmanager
def open_targets(tables: Sequence[tuple[Market, Table]]) -> Iterator[list[Target]]:
    """Open leases on markets, until the block ends.

    They are taken in the order of the ids, so that no two runs wait for each other.
    """
    with ExitStack() as stack:
        ascending = sorted(tables, key=lambda pair: pair[0].id)
        opened = [(market, stack.enter_context(table)) for market, table in ascending]
        yield [Target(market, stack.enter_context(Lease(table))) for market, table in opened]


@contextmanager
def open_run(
    source: Market, tables: Sequence[tuple[Market, Table]], parameters: Parameters, esi: Esi, *, force: bool
) -> Iterator[Run]:
    """Open a flow run's report and its leases, until the block ends."""
    forget_old_pages()
    with Reporter() as report, open_targets(tables) as targets:
        report.rename(name_run())
        yield Run(source, targets, parameters, esi, report, force, time.monotonic(), note_outcome)
