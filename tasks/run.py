"""What one run passes between its states."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from logging import Logger, LoggerAdapter
from types import MappingProxyType
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
from tasks.table.requests import Item
from tasks.table.snapshot import Parameters, Snapshot, TableSnapshot, parse_snapshot


class Target(msgspec.Struct, frozen=True):
    """A market of a run, and its lease on the table."""

    market: Market
    lease: Lease  # on the market's part of the table

    @property
    def table(self) -> Table:
        """The market's table client."""
        return self.lease.table


class Run(msgspec.Struct, frozen=True):
    """One run: its source, markets, parameters and clients."""

    source: Market  # the region or structure whose pages are fetched
    targets: Sequence[Target]  # the markets to update, ascending by id
    parameters: Parameters  # of the records
    esi: Esi
    report: Timing
    force: bool  # store the snapshot even if it is stored already, older or shrunk
    started: float  # monotonic time
    end: Callable[[Summary, list[Changes]], None]  # called with the run's summary and changes
    get_logger: Callable[[], Logger | LoggerAdapter[Any]] = get_run_logger  # the logger of the calling state

    @property
    def log(self) -> "Logger | LoggerAdapter[Any]":
        """The current state's logger."""
        return self.get_logger()

    @property
    def has_places(self) -> bool:
        """Whether orders need `PLACES`: some market is not the source itself."""
        return any(target.market != self.source for target in self.targets)

    def list_pending(self, snapshot: Snapshot) -> list[Target]:
        """Return the targets that do not have the snapshot yet."""
        return [target for target in self.targets if target.market.id in snapshot.pending]

    def parse(self, item: Item | None, target: Target) -> TableSnapshot | None:
        """Return the `#snapshot` in an item of a target, None without one.

        Raises:
            TableError: it is another market's, or another program's, and `force` is not set.
        """
        return parse_snapshot(item, target.table.name, target.market, self.source, force=self.force)

    def finish(self, snapshot: Snapshot, results: Mapping[int, tuple[Book, Changes]] = MappingProxyType({})) -> Summary:
        """End the run and return its summary.

        Args:
            snapshot: that the table has now.
            results: of the markets that were written, by id.
        """
        self.report.end()
        seconds = time.monotonic() - self.started
        tables = {target.market.id: target.table for target in self.targets}
        summary = summarize(snapshot, self.parameters, tables, self.esi, self.report.seconds, seconds, results)
        self.end(summary, [changes for _book, changes in results.values()])
        return summary


@contextmanager
def open_targets(tables: Sequence[tuple[Market, Table]]) -> Iterator[list[Target]]:
    """Open leases on markets, until the block ends.

    They are taken in the order of the ids, so that no two runs deadlock.
    """
    with ExitStack() as stack:
        ascending = sorted(tables, key=lambda pair: pair[0].id)
        opened = [(market, stack.enter_context(table)) for market, table in ascending]
        yield [Target(market, stack.enter_context(Lease(table))) for market, table in opened]


@contextmanager
def open_run(
    source: Market, tables: Sequence[tuple[Market, Table]], parameters: Parameters, esi: Esi, *, force: bool
) -> Iterator[Run]:
    """Open a flow run's reporter and leases, until the block ends."""
    forget_old_pages()
    with Reporter() as report, open_targets(tables) as targets:
        report.rename(name_run())
        yield Run(source, targets, parameters, esi, report, force, time.monotonic(), note_outcome)
