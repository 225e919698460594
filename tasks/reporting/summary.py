"""What a run did, in figures."""

from collections import Counter
from datetime import UTC, datetime

import httpx
from pydantic import BaseModel, ConfigDict

from tasks.esi.client import Esi
from tasks.network import is_this_machine
from tasks.orders.choices import Detail, OrderType, Price
from tasks.table.client import Table
from tasks.table.records import Book, Changes
from tasks.table.snapshot import Parameters, Snapshot, made_alike

MOST_PERCENT = 25  # changes beyond are counted with those of as much


class Summary(BaseModel):
    """What a run did, and where the table stands after it."""

    model_config = ConfigDict(frozen=True)

    region_id: int
    table_name: str  # filled in
    order_type: OrderType | None = None  # of the parameters, as are price and detail; None in an earlier version's
    price: Price | None = None
    detail: Detail | None = None
    esi_url: str = ""  # where the orders came from; empty in an earlier version's
    last_modified: datetime  # names the snapshot that the table holds now, UTC
    expires: datetime | None = None  # until then ESI has no newer one, UTC by this machine's clock
    compared_with: datetime | None = None  # the earlier snapshot of these parameters that the table held whole, UTC
    not_modified: bool  # the table held it already: nothing was fetched or written
    pages: int  # of the snapshot
    orders: int  # of the snapshot, each counted once
    records: int  # in the table
    written: int
    deleted: int
    unchanged: int  # records - written
    consumed_write_units: float
    consumed_read_units: float
    foreign: int  # items in the table that are no type's; never touched
    retries: int  # requests to ESI and calls to DynamoDB that failed and were made again
    retry_causes: dict[str, int]  # by what they failed with
    pages_retried: int  # pages that did not come at the first attempt
    waiting_seconds: float  # for limits, for another attempt, for another run, for the next snapshot
    age_seconds: float  # of the snapshot when the run ended, by this machine's clock
    seconds: float
    state_seconds: dict[str, float]  # by state
    price_changes: dict[int, int] = {}  # item types whose price is another one now, by the change in percent

    @property
    def line(self) -> str:
        """The summary in one line."""
        stand = f"{self.table_name} has region {self.region_id} of {self.last_modified:%Y-%m-%d %H:%M:%S} UTC"
        if self.not_modified:
            return f"not modified: {stand}"
        did = f"{self.written:,} written, {self.deleted:,} deleted, {self.unchanged:,} unchanged"
        return f"{stand}: {counted(self.records, 'record')} ({did})"

    @property
    def is_made_up(self) -> bool:
        """Whether the orders came from a market on the machine of the run, such as the stand-in, and not from ESI."""
        return is_this_machine(httpx.URL(self.esi_url).host)

    @property
    def source(self) -> str:
        """Where the orders came from, in words."""
        source = httpx.URL(self.esi_url).netloc.decode()
        return f"{source}, not ESI: made up, unless it passes ESI's on" if self.is_made_up else source


def summarize(
    snapshot: Snapshot,
    parameters: Parameters,
    table: Table,
    esi: Esi,
    state_seconds: dict[str, float],
    seconds: float,
    book: Book | None = None,
    changes: Changes | None = None,
) -> Summary:
    """Return the summary of a run; one that was not modified has no book and no changes."""
    earlier = made_alike(snapshot.stored, parameters)
    if earlier and earlier.last_modified >= snapshot.last_modified:
        earlier = None
    orders = book.orders if book else snapshot.stored.orders if snapshot.stored else 0
    records = len(book.records) if book else snapshot.stored.records if snapshot.stored else 0
    return Summary(
        region_id=snapshot.region_id,
        table_name=table.name,
        order_type=parameters.order_type,
        price=parameters.price,
        detail=parameters.detail,
        esi_url=esi.url,
        last_modified=snapshot.last_modified,
        expires=snapshot.expires,
        compared_with=earlier.last_modified if earlier else None,
        not_modified=snapshot.is_stored,
        pages=snapshot.pages,
        orders=orders,
        records=records,
        written=len(changes.puts) if changes else 0,
        deleted=len(changes.deletes) if changes else 0,
        unchanged=changes.unchanged if changes else records,
        consumed_write_units=table.write_units,
        consumed_read_units=table.read_units,
        foreign=changes.foreign if changes else 0,
        retries=(esi.failures + table.failures).total(),
        retry_causes=dict(esi.failures + table.failures),
        pages_retried=len(esi.failed_pages),
        waiting_seconds=round(esi.waits.seconds + table.waits.seconds, 3),
        age_seconds=round((datetime.now(UTC) - snapshot.last_modified).total_seconds(), 3),
        seconds=round(seconds, 3),
        state_seconds={name: round(seconds, 3) for name, seconds in state_seconds.items()},
        price_changes=count_price_changes(changes) if changes else {},
    )


def count_price_changes(changes: Changes) -> dict[int, int]:
    """Count the item types whose price has changed, by whole percents, at most `MOST_PERCENT` up or down."""
    counts: Counter[int] = Counter()
    for record in changes.puts:
        old, new = changes.replaced.get(str(record.type_id), {}).get("price"), record.price
        if old and "N" in old and (was := float(old["N"])) != new:
            counts[max(-MOST_PERCENT, min(round(percent(was, new)), MOST_PERCENT))] += 1
    return dict(sorted(counts.items()))


def counted(number: int, thing: str) -> str:
    """Return how many of a thing there are, in words: `1 run`, `2,000 runs`."""
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


def percent(old: float, new: float) -> float:
    """Return by how many percent a figure has grown."""
    return (new / old - 1) * 100 if old else 0.0
