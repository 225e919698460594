"""What one run passes between its states."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from logging import Logger, LoggerAdapter
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeAlias

import msgspec
from prefect.exceptions import MissingContextError
from prefect.logging import get_logger, get_run_logger

from tasks.esi.client import Esi
from tasks.esi.endpoint import Endpoint
from tasks.esi.markets import Market
from tasks.orders.choices import Key
from tasks.orders.records import Book
from tasks.orders.source import OrderSource
from tasks.reporting.outcome import S, end_run
from tasks.reporting.progress import Timing
from tasks.reporting.reporter import Reporter
from tasks.reporting.summary import Counts, MarketSummary, add_up, count_price_changes, find_earlier
from tasks.retries import forget_old_pages
from tasks.table.client import Table
from tasks.table.connection import Connection
from tasks.table.lease import Lease
from tasks.table.records import Changes
from tasks.table.requests import Keys
from tasks.table.snapshot import Marker, Snapshot, TableSnapshot

if TYPE_CHECKING:
    from tasks.declared.source import DeclaredSource

Source: TypeAlias = "OrderSource | DeclaredSource"  # what a run fetches, and how its items become records
Columns = Any  # a page's items, as the source decodes them: arrays by name


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


class Update(NamedTuple):
    """A target's records, and how its table differs from them."""

    target: Target
    book: Book
    changes: Changes


class Run(msgspec.Struct, Generic[S], frozen=True):
    """One run: its source, targets and clients."""

    source: Source
    targets: Sequence[Target]  # to update, ascending by id
    esi: Esi
    report: Timing
    summary: type[S]  # of its source
    started: float  # monotonic time
    force: bool = False  # store the snapshot even if it is stored already, older or shrunk
    kept_by: str = "schedule"  # see `send_event`

    @property
    def log(self) -> "Logger | LoggerAdapter[Any]":
        """The current state's logger; without Prefect a plain one."""
        try:
            return get_run_logger()
        except MissingContextError:
            return get_logger(__name__)

    @property
    def endpoint(self) -> Endpoint:
        """The source's endpoint."""
        return self.source.endpoint

    def list_pending(self, snapshot: Snapshot) -> list[Target]:
        """Return the targets that do not have the snapshot yet."""
        return [target for target in self.targets if target.id in snapshot.pending]

    def finish(self, snapshot: Snapshot, updates: Sequence[Update] = ()) -> S:
        """End the run with the snapshot that the table has now, and return its summary; see `end_run`."""
        self.report.end()
        tables: list[Table] = [target.table for target in self.targets]
        changes = [changes for _target, _book, changes in updates]
        updated = {update.target.id: update for update in updates}
        markets = [summarize(each, snapshot.stored.get(each.id), updated.get(each.id)) for each in self.targets]
        causes = sum((table.failures for table in tables), self.esi.failures)
        waits = [self.esi.waits, *(table.waits for table in tables)]
        figures: dict[str, Any] = {  # of which each kind of summary takes those that it has
            **self.source.facts,
            "markets": markets,
            "orders": sum(market.orders for market in markets),
            "items": sum(market.orders for market in markets),
            "price_changes": count_price_changes(changes),
            "table_name": ", ".join(dict.fromkeys(table.name for table in tables)),
            "esi_url": self.esi.url,
            "last_modified": snapshot.last_modified,
            "expires": snapshot.expires,
            "compared_with": find_earlier(snapshot, self.targets[0].blank.parameters),
            "not_modified": snapshot.is_stored,
            "pages": snapshot.pages,
            **add_up(markets, Counts.model_fields),
            "consumed_write_units": sum(table.write_units for table in tables),
            "consumed_read_units": sum(table.read_units for table in tables),
            "foreign": sum(each.foreign for each in changes),
            "retries": causes.total(),
            "retry_causes": dict(causes),
            "pages_retried": len(self.esi.failed_pages),
            "waiting_seconds": round(sum(each.seconds for each in waits), 3),
            "age_seconds": round((datetime.now(UTC) - snapshot.last_modified).total_seconds(), 3),
            "seconds": round(time.monotonic() - self.started, 3),
            "state_seconds": {name: round(seconds, 3) for name, seconds in self.report.seconds.items()},
        }
        return end_run(self.summary(**figures), changes, self.kept_by)


def summarize(target: Target, stored: Marker | None, update: Update | None) -> MarketSummary:
    """Return a target's summary; without an update, its table already had the snapshot."""
    orders, records = (stored.orders, stored.records) if stored else (0, 0)
    unchanged = Update(target, Book([], orders), Changes([], {}, [], unchanged=records, foreign=0))
    _target, book, changes = update or unchanged
    return MarketSummary(
        market_id=target.id,
        table_name=target.table.name,
        not_modified=update is None,
        orders=book.orders,
        records=changes.wanted,
        written=len(changes.puts),
        deleted=len(changes.deletes),
        unchanged=changes.unchanged,
    )


def list_targets(
    source: OrderSource, table_names: Mapping[Market, str], connection: Connection | int, key: Key = "type"
) -> list[Target]:
    """Return the markets of a source, ascending by id: the order of their leases, so that no two runs deadlock."""
    targets = []
    for market in sorted(table_names, key=lambda market: market.id):
        table = Table(table_names[market], connection, Keys(market.id if key == "market_type" else None))
        blank = TableSnapshot(market_id=market.id, region_id=source.market.id, parameters=source.parameters)
        targets.append(Target(market.id, str(market), blank, Lease(table)))
    return targets


@contextmanager
def open_targets(targets: Sequence[Target]) -> Iterator[None]:
    """Open the tables and their leases until the block ends."""
    with ExitStack() as stack:
        for target in targets:
            stack.enter_context(target.table)
            stack.enter_context(target.lease)
        yield


@contextmanager
def open_run(source: Source, targets: Sequence[Target], esi: Esi, summary: type[S], *, force: bool) -> Iterator[Run[S]]:
    """Open a flow run's reporter and leases, until the block ends."""
    forget_old_pages()
    with Reporter() as report, open_targets(targets):
        yield Run(source, targets, esi, report, summary, time.monotonic(), force)
