"""The summary of a run, and what a run is about."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, NamedTuple

import httpx
from pydantic import BaseModel, ConfigDict

from tasks.catalogue.names import market_name, name_region, region_name
from tasks.esi.markets import name_market
from tasks.network import is_this_machine
from tasks.orders.choices import Detail, OrderType, Price
from tasks.orders.records import Record
from tasks.reporting.costs import cost_of_run
from tasks.table.records import Changes
from tasks.table.snapshot import Snapshot, made_alike

MOST_PERCENT = 25  # larger changes are counted as this


class Subject(NamedTuple):
    """What a run is about, a region or structure, or another source: how its events, tags and artifacts name it."""

    kind: str  # region or source
    id: str  # lowercase letters, digits and -
    name: str

    @property
    def resource(self) -> dict[str, str]:
        """The resource of its events."""
        return {"prefect.resource.id": f"market.{self.kind}.{self.id}", "prefect.resource.name": self.name}


class Replacement(NamedTuple):
    """A record that replaces an earlier one of its item type."""

    record: Record
    old_price: float  # ISK
    old_volume: Decimal  # units


class Counts(BaseModel):
    """What was done with records."""

    model_config = ConfigDict(frozen=True)

    records: int  # in the table
    written: int
    deleted: int
    unchanged: int  # records - written

    @property
    def done(self) -> str:
        """What was done, in words."""
        return f"{self.written:,} written, {self.deleted:,} deleted, {self.unchanged:,} unchanged"


class MarketSummary(Counts):
    """What a run did for one of its markets."""

    market_id: int
    table_name: str  # filled in
    not_modified: bool
    orders: int

    @property
    def line(self) -> str:
        """What was done with it, in one line."""
        did = f"{counted(self.records, 'record')} of {self.orders:,} orders: {self.done}"
        return did if self.orders else "no orders of the region are there"


class Totals(Counts):
    """What runs did, and what it cost."""

    pages: int  # of the snapshot
    consumed_write_units: float
    consumed_read_units: float
    retries: int  # of requests to the API and calls to DynamoDB
    seconds: float

    @property
    def cost_usd(self) -> Decimal:
        """The cost of the units."""
        return cost_of_run(self.consumed_write_units, self.consumed_read_units)


class RunSummary(Totals):
    """What a run did, and where the table stands after it, whatever its records are of."""

    table_name: str  # filled in
    esi_url: str = ""  # where the pages came from; empty in an earlier version's
    last_modified: datetime  # names the snapshot that the table has now, UTC
    expires: datetime | None = None  # until then there is no newer one; UTC, by this machine's clock
    compared_with: datetime | None = None  # the table's previous complete snapshot with these parameters, UTC
    not_modified: bool  # the table already had it: nothing was fetched or written
    foreign: int  # items in the table that are not records; never touched
    retry_causes: dict[str, int]  # retries by cause
    pages_retried: int  # pages that failed at least once
    waiting_seconds: float  # for limits, retries, other runs and the next snapshot
    age_seconds: float  # of the snapshot when the run ended, by this machine's clock
    state_seconds: dict[str, float]  # by state

    @property
    def subject(self) -> Subject:
        """What the run was about."""
        return find_subject(vars(self))

    @property
    def names(self) -> str:
        """The names of what the table has."""
        return self.subject.name

    @property
    def line(self) -> str:
        """The summary in one line."""
        stand = f"{self.table_name} has {self.names} of {self.last_modified:%Y-%m-%d %H:%M:%S} UTC"
        if self.not_modified:
            return f"not modified: {stand}"
        return f"{stand}: {counted(self.records, 'record')} ({self.done})"


class Summary(RunSummary):
    """What a run did for a region's or a structure's market."""

    region_id: int
    order_type: OrderType | None = None  # a parameter, like price and detail; None in an earlier version's
    price: Price | None = None
    detail: Detail | None = None
    orders: int  # of the snapshot, each counted once
    markets: list[MarketSummary] = []  # the counts above are their sums; empty in an earlier version's
    price_changes: dict[int, int] = {}  # item types whose price changed, by the change in percent

    @property
    def names(self) -> str:
        """The markets' names: `region 10000002`, or `region 10000002, station 60003760`."""
        return ", ".join(name_market(market.market_id) for market in self.markets) or name_market(self.region_id)

    @property
    def is_made_up(self) -> bool:
        """Whether the orders came from a market on the machine of the run, such as the stand-in, and not from ESI."""
        return is_this_machine(httpx.URL(self.esi_url).host)

    @property
    def source(self) -> str:
        """Where the orders came from, in words."""
        source = httpx.URL(self.esi_url).netloc.decode()
        return f"{source}, not ESI: made up, unless it passes ESI's on" if self.is_made_up else source

    @property
    def rows(self) -> dict[str, str]:
        """The parameters, the region, and its markets unless it is the only one."""
        listed = [] if [market.market_id for market in self.markets] == [self.region_id] else self.markets
        return {
            "orders from": self.source,
            "region": name_region(self.region_id),
            **{f"… {market_name(market.market_id)}": market.line for market in listed},
            "order_type": str(self.order_type),
            "price": str(self.price),
            "detail": str(self.detail),
            "orders": f"{self.orders:,}",
        }


class SourceSummary(RunSummary):
    """What a run did for a declared source."""

    source: str  # its URL
    items: int  # of the snapshot, each counted once

    @property
    def rows(self) -> dict[str, str]:
        """The source and its items."""
        return {"source": self.source, "items": f"{self.items:,}"}


AnySummary = Summary | SourceSummary


def find_subject(given: Mapping[str, Any]) -> Subject:
    """Return the subject in a flow run's parameters, which may be invalid, or in the fields of its summary."""
    if "source" in given:
        source = given["source"]
        url = source.get("url") if isinstance(source, Mapping) else getattr(source, "url", source)
        name = re.sub(r"^https?://", "", str(url)).rstrip("/")
        return Subject("source", re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:200], name)
    market_id = str(given.get("region_id", given.get("structure_id")))
    known = market_id if market_id.isascii() and market_id.isdigit() else "0"
    return Subject("region", known, region_name(int(known)))


def add_up(summaries: Iterable[Counts], names: Iterable[str]) -> dict[str, Any]:
    """Return the sums of some fields, by name."""
    return {name: sum(getattr(each, name) for each in summaries) for name in names}


def find_earlier(snapshot: Snapshot, made_with: object) -> datetime | None:
    """Return the table's previous complete snapshot with the same parameters, None without one."""
    alike = [found for found in snapshot.stored.values() if made_alike(found, made_with)]
    earlier = min((found.last_modified for found in alike), default=snapshot.last_modified)
    return earlier if earlier < snapshot.last_modified else None


def count_price_changes(changes: Sequence[Changes]) -> dict[int, int]:
    """Count the item types whose price changed, by whole percent, at most `MOST_PERCENT` up or down."""
    changed = [each for each in list_replaced(changes) if each.old_price != each.record.price]
    percents = [round(percent(each.old_price, each.record.price)) for each in changed]
    return dict(sorted(Counter(max(-MOST_PERCENT, min(each, MOST_PERCENT)) for each in percents).items()))


def list_replaced(changes: Sequence[Changes]) -> list[Replacement]:
    """Return the records of item types that the table had."""
    puts = [(new, each.replaced.get(new.name, {})) for each in changes for new in each.puts if isinstance(new, Record)]
    old = [(new, item.get("price", {}).get("N"), item.get("volume", {}).get("N")) for new, item in puts]
    return [Replacement(new, float(price), Decimal(volume)) for new, price, volume in old if price and volume]


def counted(number: int, thing: str) -> str:
    """Return a count with its noun: `1 run`, `2,000 runs`."""
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


def percent(old: float, new: float) -> float:
    """Return the change in percent, 0 if `old` is 0."""
    return (new / old - 1) * 100 if old else 0.0
