"""The flow `market-data`: a region's market orders, as one exact record per item type, in a DynamoDB table."""

import time
from datetime import datetime
from typing import Annotated, Any, cast

from prefect import Flow, State, flow, unmapped
from prefect.artifacts import create_markdown_artifact
from prefect.client.schemas.objects import FlowRun
from prefect.runtime import flow_run
from prefect.states import Completed
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
)
from pydantic_core import PydanticCustomError

from tasks.aggregate import Book, aggregate
from tasks.build_iterator import build_iterator
from tasks.esi import Esi
from tasks.fetch_pages import fetch_pages, is_whole, offers
from tasks.get_page_count import Snapshot, get_page_count
from tasks.kept_pages import forget_pages
from tasks.lease import Lease
from tasks.store_records import Changes, begin_store, complete_store, store_records
from tasks.table import Table, check_table_name
from tasks.table_snapshot import Detail, OrderType, Parameters, Price


class Summary(BaseModel):
    """What a run did, and where the table stands after it."""

    model_config = ConfigDict(frozen=True)

    region_id: int
    table_name: str  # filled in
    last_modified: datetime  # names the snapshot that the table holds now, UTC
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
    pages_retried: int  # pages that did not come at the first attempt
    waiting_seconds: float  # for limits, for another attempt, for another run, for the next snapshot
    seconds: float

    @property
    def line(self) -> str:
        """The summary in one line."""
        stand = f"{self.table_name} has region {self.region_id} of {self.last_modified:%Y-%m-%d %H:%M:%S} UTC"
        if self.not_modified:
            return f"not modified: {stand}"
        did = f"{self.written:,} written, {self.deleted:,} deleted, {self.unchanged:,} unchanged"
        return f"{stand}: {self.records:,} records ({did})"


def or_give(allowed: str) -> WrapValidator:
    """Makes a refusal name the value and what to give instead: `0 is refused: give 1 to 500`."""

    def check(value: object, validate: ValidatorFunctionWrapHandler) -> object:
        try:
            given = validate(value)
        except ValidationError:
            given = None
        if given is None or (type(given) is int and isinstance(value, bool)):
            told = {"value": repr(value), "allowed": allowed}
            raise PydanticCustomError("refused", "{value} is refused: give {allowed}", told)
        return given

    return WrapValidator(check)


def fill_in(table_name: str, region_id: int = 10000002) -> str:
    """Gives the name of a region's table.

    Raises:
        ValueError: DynamoDB takes no such name.
    """
    return check_table_name(table_name.replace("{region_id}", str(region_id)))


def check_template(table_name: str) -> str:
    """Gives a table name, not yet filled in, back.

    Raises:
        ValueError: filled in, it is no table name.
    """
    fill_in(table_name)
    return table_name


RegionId = Annotated[int, Field(ge=10_000_000, le=19_999_999), or_give("a region's id, such as 10000002 for The Forge")]
TableName = Annotated[
    str,
    Field(pattern=r"^([A-Za-z0-9_.-]|\{region_id\})+$"),
    AfterValidator(check_template),
    or_give("3 to 255 letters, digits and _ . -, {region_id} is filled in"),
]
Sides = Annotated[OrderType, or_give("sell, buy or all")]
PriceChoice = Annotated[Price, or_give("min, max, mean, weighted_mean, median or percentile_5")]
DetailChoice = Annotated[Detail, or_give("compact, full or fuzzwork")]
FetchConcurrency = Annotated[int, Field(ge=1, le=500), or_give("1 to 500, the pages in flight at once")]
StoreConcurrency = Annotated[int, Field(ge=1, le=100), or_give("1 to 100, the BatchWriteItem calls in flight at once")]
Force = Annotated[bool, or_give("true or false")]


_summaries: dict[str, Summary] = {}  # of runs that are ending, by flow run id


def hand_over(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:  # noqa: ARG001 (Prefect's names)
    """Gives a caller its summary even if Prefect's server answers too late that it took the run's end in.

    Prefect asks again, is told that the run has ended already, and is given a state that has no data.
    """
    summary = _summaries.pop(str(flow_run.id), None)
    if state.data is None:
        state.data = summary


@flow(
    name="market-data",
    description="Keeps a DynamoDB table equal to the newest snapshot of a region's market.",
    persist_result=False,
    on_completion=[hand_over],
)
def market_data(
    region_id: RegionId = 10000015,
    table_name: TableName = "MarketData",
    order_type: Sides = "sell",
    price: PriceChoice = "min",
    detail: DetailChoice = "compact",
    fetch_concurrency: FetchConcurrency = 20,
    store_concurrency: StoreConcurrency = 8,
    force: Force = False,
) -> Summary:
    """Brings a table to the newest snapshot of a region's market, and writes only what differs.

    Args:
        region_id: The market region, such as 10000002 for The Forge.
        table_name: The DynamoDB table, with partition key pk (S); {region_id} in it is filled in.
        order_type: Which orders are aggregated, and so which item types have a record.
        price: What a record's price is; percentile_5 is the mean of the best 5 % of the volume.
        detail: compact is price and volume; full and fuzzwork add the maps buy and sell.
        fetch_concurrency: Pages in flight at once, never exceeded.
        store_concurrency: BatchWriteItem calls in flight at once.
        force: Run even if the snapshot is stored, accept one that has shrunk, and replace another region's records.

    Returns:
        What the run did, and where the table stands.

    Raises:
        EsiError: a page, by its number, could not be had; the table is as it was.
        TableError: the table, by its name, refused; the next run repairs what is unfinished.
    """
    started = time.monotonic()
    parameters = Parameters(region_id, order_type, price, detail)
    name = fill_in(table_name, region_id)
    with (
        Esi.from_environment(fetch_concurrency) as esi,
        Table(name, store_concurrency) as table,
        Lease(table) as lease,
    ):
        for _ in offers():  # a snapshot that moves on while it is fetched gives way to the next
            snapshot = get_page_count(parameters, table, esi, force=force)
            if snapshot.is_stored:
                return finish(summarize(snapshot, table, esi, started))
            chunks = build_iterator(snapshot.pages)
            pages = fetch_pages.map(chunks, unmapped(snapshot), unmapped(esi)).result()
            if is_whole(pages):
                break
        book = aggregate(pages, parameters)
        changes = begin_store(book, snapshot, parameters, lease, force=force)
        store_records.map(changes.split(), unmapped(lease)).result()
        complete_store(book, snapshot, parameters, lease)
        return finish(summarize(snapshot, table, esi, started, book, changes))


def summarize(
    snapshot: Snapshot, table: Table, esi: Esi, started: float, book: Book | None = None, changes: Changes | None = None
) -> Summary:
    """Gives the summary of a run that began at `started`, by the monotonic clock; one not modified has no book."""
    orders = book.orders if book else snapshot.stored.orders if snapshot.stored else 0
    records = len(book.records) if book else snapshot.stored.records if snapshot.stored else 0
    return Summary(
        region_id=snapshot.region_id,
        table_name=table.name,
        last_modified=snapshot.last_modified,
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
        retries=esi.failures + table.failures,
        pages_retried=len(esi.failed_pages),
        waiting_seconds=round(esi.waits.seconds + table.waits.seconds, 3),
        seconds=round(time.monotonic() - started, 3),
    )


def finish(summary: Summary) -> Summary:
    """Ends the run with the summary's line as its state's message, and with an artifact if the table changed hands.

    Prefect unwraps the state: a caller gets the summary itself.
    """
    forget_pages(str(flow_run.id))
    _summaries[str(flow_run.id)] = summary
    if summary.not_modified:
        return cast("Summary", Completed(name="NotModified", message=summary.line, data=summary))
    rows = "\n".join(f"| {name} | {value} |" for name, value in summary.model_dump().items())
    create_markdown_artifact(f"| {summary.line} | |\n| --- | --- |\n{rows}", key=f"summary-{summary.region_id}")
    return cast("Summary", Completed(message=summary.line, data=summary))
