"""What one run passes between its states."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from logging import Logger, LoggerAdapter
from types import MappingProxyType
from typing import Any, Generic, Protocol

import msgspec
from prefect.logging import get_run_logger

from tasks.esi.client import Esi
from tasks.esi.endpoint import Endpoint
from tasks.esi.markets import Market
from tasks.orders.records import Book
from tasks.orders.source import OrderSource
from tasks.reporting.outcome import S, note_outcome
from tasks.reporting.reporter import Reporter, name_run
from tasks.reporting.subject import Subject
from tasks.reporting.summary import RunSummary, Tally
from tasks.reporting.timing import Timing
from tasks.retries import forget_old_pages
from tasks.table.client import Table
from tasks.table.lease import Lease
from tasks.table.records import Changes
from tasks.table.requests import Item
from tasks.table.snapshot import Marker, Snapshot, TableSnapshot

Columns = Any  # a page's items, as the source decodes them: arrays by name


class Source(Protocol):
    """What a run fetches, and how its items become records."""

    @property
    def endpoint(self) -> Endpoint:
        """The endpoint with the pages."""

    @property
    def form(self) -> str:
        """A name for the columns that pages are decoded to, so that kept pages are not mistaken."""

    def prepare(self) -> None:
        """Do what can be done while pages are in flight."""

    def decode(self, body: bytes, what: str) -> Columns:
        """Decode a page's JSON; `what` names it in messages.

        Raises:
            RefusedError: it is invalid, and would be after a retry.
            TransientError: a retry may get a valid one.
        """

    def join(self, pages: list[Columns]) -> Columns:
        """Return the items of several pages, in order."""

    def make_books(self, chunks: list[Columns], target_ids: Sequence[int]) -> list[Book]:
        """Return the records of some targets; the chunks may be emptied."""


class Target(msgspec.Struct, frozen=True):
    """A market, or all that another source has, and the lease on its part of a table."""

    id: int  # of the market
    name: str  # in messages
    blank: Marker  # its `#snapshot`, without a snapshot
    lease: Lease

    @property
    def table(self) -> Table:
        """The table client."""
        return self.lease.table


class Run(msgspec.Struct, Generic[S], frozen=True):
    """One run: its source, targets and clients."""

    source: Source
    subject: Subject
    targets: Sequence[Target]  # to update, ascending by id
    esi: Esi
    report: Timing
    force: bool  # store the snapshot even if it is stored already, older or shrunk
    started: float  # monotonic time
    summarize: Callable[[Tally], S]
    end: Callable[[RunSummary, list[Changes]], None]  # called with the run's summary and changes
    get_logger: Callable[[], Logger | LoggerAdapter[Any]] = get_run_logger  # the logger of the calling state

    @property
    def log(self) -> "Logger | LoggerAdapter[Any]":
        """The current state's logger."""
        return self.get_logger()

    @property
    def endpoint(self) -> Endpoint:
        """The source's endpoint."""
        return self.source.endpoint

    def list_pending(self, snapshot: Snapshot) -> list[Target]:
        """Return the targets that do not have the snapshot yet."""
        return [target for target in self.targets if target.id in snapshot.pending]

    def parse(self, item: Item | None, target: Target) -> Marker | None:
        """Return the `#snapshot` in an item of a target, None without one.

        Raises:
            TableError: it is another market's or source's, or another program's, and `force` is not set.
        """
        return target.blank.parse(item, target.table.name, force=self.force)

    def finish(self, snapshot: Snapshot, results: Mapping[int, tuple[Book, Changes]] = MappingProxyType({})) -> S:
        """End the run and return its summary.

        Args:
            snapshot: that the table has now.
            results: of the targets that were written, by id.
        """
        self.report.end()
        seconds = time.monotonic() - self.started
        tables = {target.id: target.table for target in self.targets}
        summary = self.summarize(Tally(snapshot, tables, self.esi, self.report.seconds, seconds, results))
        self.end(summary, [changes for _book, changes in results.values()])
        return summary


def list_targets(source: OrderSource, tables: Mapping[Market, Table]) -> list[Target]:
    """Return the markets of a source, ascending by id: the order of their leases, so that no two runs deadlock."""
    region_id, how = source.market.id, source.parameters
    return [
        Target(
            market.id,
            str(market),
            TableSnapshot(market_id=market.id, region_id=region_id, parameters=how),
            Lease(tables[market]),
        )
        for market in sorted(tables, key=lambda market: market.id)
    ]


@contextmanager
def open_targets(targets: Sequence[Target]) -> Iterator[Sequence[Target]]:
    """Open the tables, then the leases, until the block ends."""
    with ExitStack() as stack:
        for target in targets:
            stack.enter_context(target.table)
        for target in targets:
            stack.enter_context(target.lease)
        yield targets


@contextmanager
def open_run(
    source: Source,
    subject: Subject,
    targets: Sequence[Target],
    esi: Esi,
    summarize: Callable[[Tally], S],
    *,
    force: bool,
) -> Iterator[Run[S]]:
    """Open a flow run's reporter and leases, until the block ends."""
    forget_old_pages()
    with Reporter() as report, open_targets(targets):
        report.rename(name_run())
        yield Run(source, subject, targets, esi, report, force, time.monotonic(), summarize, note_outcome)
