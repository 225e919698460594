"""The flow `market-data`: a region's market orders, as one exact record per item type, in a DynamoDB table."""

import sys
import time
from typing import Any, cast

from prefect import Flow, State, flow, unmapped
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import FlowRun
from prefect.runtime import flow_run
from prefect.states import Completed

from flows.next_run import as_deployed, follow_esi
from flows.parameters import (
    DetailChoice,
    FetchConcurrency,
    Force,
    KeyChoice,
    PriceChoice,
    RegionId,
    Sides,
    StoreConcurrency,
    TableTemplate,
    fill_in,
)
from tasks.aggregate import aggregate
from tasks.build_iterator import build_iterator
from tasks.esi.client import Esi
from tasks.esi.token_bucket import TokenBucket
from tasks.fetch_pages import fetch_pages, is_whole, offers
from tasks.get_page_count import get_page_count
from tasks.reporting import telemetry
from tasks.reporting.artifacts import write_movers, write_summary
from tasks.reporting.failure import explain_failure
from tasks.reporting.history import draw_history
from tasks.reporting.reporter import Reporter, attempt, name_run, report_afterwards, send_event
from tasks.reporting.summary import Summary, summarize
from tasks.retries import forget_old_pages, forget_pages
from tasks.store_records import begin_store, complete_store, store_records
from tasks.table.client import Table
from tasks.table.lease import Lease
from tasks.table.records import Changes
from tasks.table.snapshot import Parameters

__all__ = ["Summary", "market_data"]

telemetry.set_up()


_ended: dict[str, tuple[Summary, Changes | None]] = {}  # by flow run id: runs whose hooks have not been called yet


def hand_over(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:  # noqa: ARG001 (Prefect's names)
    """Return the summary even if Prefect's confirmation of the final state was lost.

    Prefect sends the state again, learns that the run has ended already, and gets a state that has no data.
    """
    if state.data is None:
        state.data = _ended[str(flow_run.id)][0]


def leave_news(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:  # noqa: ARG001 (Prefect's)
    """Schedule the next run, and report on this one if it has stored something; its end is recorded already."""
    summary, changes = _ended.pop(str(flow_run.id))
    follow_esi(flow_run, summary)
    if changes:
        report_afterwards(report_changes, summary, changes)


def report_changes(client: SyncPrefectClient, summary: Summary, changes: Changes) -> None:
    """Create the artifacts of a run that has stored something."""
    attempt(write_movers, client, summary, changes)
    attempt(write_summary, client, summary, attempt(draw_history, client, summary) or {})


@as_deployed
@flow(
    name="market-data",
    description="Keeps a DynamoDB table equal to the newest snapshot of a region's market.",
    persist_result=False,
    flow_run_name=name_run,
    on_completion=[hand_over, leave_news],
    on_failure=[explain_failure],
)
def market_data(
    region_id: RegionId = 10000015,
    table_name: TableTemplate = "MarketData",
    order_type: Sides = "sell",
    price: PriceChoice = "min",
    detail: DetailChoice = "compact",
    fetch_concurrency: FetchConcurrency = 20,
    store_concurrency: StoreConcurrency = 8,
    force: Force = False,
    key: KeyChoice = "type",
) -> Summary:
    """Bring a table to the newest snapshot of a region's market, and write only what differs.

    Args:
        region_id: The market region, such as 10000002 for The Forge.
        table_name: The DynamoDB table, with partition key pk (S); {region_id} in it is filled in.
        order_type: Which orders are aggregated, and so which item types have a record.
        price: What a record's price is; percentile_5 is the mean of the best 5 % of the volume.
        detail: compact is price and volume; full and fuzzwork add the maps buy and sell.
        fetch_concurrency: Pages in flight at once, never exceeded.
        store_concurrency: BatchWriteItem calls in flight at once.
        force: Run even if the snapshot is stored, accept one that has shrunk, and replace another region's records.
        key: type is 34; region_type is 10000002#34, for a table that several regions share.

    Returns:
        What the run did, and where the table stands.

    Raises:
        EsiError: a page, by its number, could not be had; the table is as it was.
        TableError: the table, by its name, refused; the next run repairs what is unfinished.
    """
    parameters = Parameters(region_id, order_type, price, detail)
    shared_by = region_id if key == "region_type" else None
    with (
        TokenBucket() as tokens,
        Esi.from_environment(fetch_concurrency, tokens) as esi,
        Table(fill_in(table_name, region_id), store_concurrency, shared_by) as table,
    ):
        return store_market(parameters, esi, table, force=force)


def store_market(parameters: Parameters, esi: Esi, table: Table, *, force: bool) -> Summary:
    """Take a market, a region's or a structure's, through the states, in their order."""
    started = time.monotonic()
    forget_old_pages()
    with Reporter() as reporter, Lease(table) as lease:
        for _ in offers():  # a snapshot that moves on while it is fetched gives way to the next
            with reporter.state("Get Page Count"):
                snapshot = get_page_count(parameters, table, esi, force=force)
            reporter.tag(snapshot)
            if snapshot.is_stored:
                return finish(summarize(snapshot, parameters, table, esi, reporter.seconds, started), reporter)
            with reporter.state("Build Iterator"):
                chunks = build_iterator(snapshot.pages)
            with reporter.state("Fetch Pages", chunks, "pages"):
                pages = fetch_pages.map(chunks, unmapped(snapshot), unmapped(esi)).result()
            if is_whole(pages):
                break
        with reporter.state("Aggregate"):
            book = aggregate(pages, parameters)
        with reporter.state("Store Records: compare"):
            changes = begin_store(book, snapshot, parameters, lease, force=force)
            parts = changes.split()
        with reporter.state("Store Records", parts, "writes"):
            store_records.map(parts, unmapped(lease)).result()
            complete_store(book, snapshot, parameters, lease)
        summary = summarize(snapshot, parameters, table, esi, reporter.seconds, started, book, changes)
        return finish(summary, reporter, changes)


def finish(summary: Summary, reporter: Reporter, changes: Changes | None = None) -> Summary:
    """End the run with the summary's line as its state's message, and tell of it.

    Prefect unwraps the state: a caller gets the summary itself.
    """
    forget_pages(str(flow_run.id))
    _ended[str(flow_run.id)] = summary, changes
    reporter.hand_up(summary)
    event = "not-modified" if summary.not_modified else "stored"
    attempt(send_event, event, summary.region_id, summary.model_dump(mode="json"))
    name = "NotModified" if summary.not_modified else "Completed"
    return cast("Summary", Completed(name=name, message=summary.line, data=summary))


if __name__ == "__main__":
    from flows.command import run_flow

    sys.exit(run_flow(market_data, "python -m flows.market_data"))
