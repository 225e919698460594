"""What a run did, in figures."""

import time
from collections import Counter
from datetime import UTC, datetime

from pydantic import BaseModel, ConfigDict

from tasks.aggregate import Book
from tasks.esi import Esi
from tasks.get_page_count import Snapshot
from tasks.reporter import Reporter
from tasks.store_records import Changes
from tasks.table import Table

MOST_PERCENT = 25  # changes beyond are counted with those of as much


class Summary(BaseModel):
    """What a run did, and where the table stands after it."""

    model_config = ConfigDict(frozen=True)

    region_id: int
    table_name: str  # filled in
    last_modified: datetime  # names the snapshot that the table holds now, UTC
    expires: datetime | None = None  # until then ESI has no newer one, UTC by this machine's clock
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
        return f"{stand}: {self.records:,} records ({did})"


def summarize(
    snapshot: Snapshot,
    table: Table,
    esi: Esi,
    reporter: Reporter,
    started: float,
    book: Book | None = None,
    changes: Changes | None = None,
) -> Summary:
    """Gives the summary of a run that began at `started`, by the monotonic clock; one not modified has no book."""
    orders = book.orders if book else snapshot.stored.orders if snapshot.stored else 0
    records = len(book.records) if book else snapshot.stored.records if snapshot.stored else 0
    return Summary(
        region_id=snapshot.region_id,
        table_name=table.name,
        last_modified=snapshot.last_modified,
        expires=snapshot.expires,
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
        seconds=round(time.monotonic() - started, 3),
        state_seconds={name: round(seconds, 3) for name, seconds in reporter.seconds.items()},
        price_changes=count_price_changes(changes) if changes else {},
    )


def count_price_changes(changes: Changes) -> dict[int, int]:
    """Counts the item types whose price has changed, by whole percents, at most `MOST_PERCENT` up or down."""
    counts: Counter[int] = Counter()
    for row in changes.puts:
        old, new = changes.replaced.get(str(row[0]), {}).get("price"), row[1]
        if old and (was := float(old["N"])) != new:
            counts[max(-MOST_PERCENT, min(round(percent(was, new)), MOST_PERCENT))] += 1
    return dict(sorted(counts.items()))


def percent(old: float, new: float) -> float:
    """Gives by how many percent a figure has grown."""
    return (new / old - 1) * 100 if old else 0.0
