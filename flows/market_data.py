"""The flow `market-data`: stores one exact record per item type of a region's market orders in DynamoDB."""

import gc
import sys
from functools import partial
from typing import Any

from prefect import flow, unmapped

from flows.next_run import as_deployed, schedule_next
from flows.parameters import (
    DetailChoice,
    FetchConcurrency,
    Force,
    KeyChoice,
    Markets,
    PriceChoice,
    RegionId,
    Sides,
    StoreConcurrency,
    TableTemplate,
    check_markets,
    fill_in,
)
from tasks.aggregate import aggregate
from tasks.build_iterator import build_iterator
from tasks.esi.client import Esi
from tasks.esi.markets import find_market
from tasks.esi.token_bucket import TokenBucket
from tasks.fetch_pages import MAX_SNAPSHOTS, fetch_pages, is_whole, moved_on_again
from tasks.get_page_count import get_page_count
from tasks.orders.choices import Parameters
from tasks.orders.source import OrderSource
from tasks.reporting import telemetry
from tasks.reporting.failure import explain_failure
from tasks.reporting.outcome import S, complete, keep_summary, report_outcome
from tasks.reporting.subject import about_region
from tasks.reporting.summary import Summary, summarize
from tasks.run import Run, list_targets, open_run
from tasks.store_records import compare_records, complete_table, split_writes, store_records
from tasks.table.client import Table
from tasks.table.connection import open_connection

__all__ = ["Summary", "market_data"]

telemetry.set_up()
gc.freeze()  # otherwise each full collection takes 0.1 s to go through what was imported


@as_deployed
@flow(
    name="market-data",
    description="Keeps a DynamoDB table equal to the newest snapshot of a region's market.",
    persist_result=False,
    on_completion=[keep_summary, schedule_next, report_outcome],
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
    markets: Markets = None,
) -> Summary:
    """Update a table to the newest snapshot of a region's market, writing only the differences.

    Args:
        region_id: The market region, such as 10000002 for The Forge.
        table_name: The DynamoDB table; {region_id} and {market_id} in it are filled in.
        order_type: The orders to aggregate; item types without any have no record.
        price: How a record's price is computed; percentile_5 is the mean of the best 5 % of the volume.
        detail: compact has price and volume; full and fuzzwork add the maps buy and sell.
        fetch_concurrency: The most pages in flight at once.
        store_concurrency: BatchWriteItem calls in flight at once.
        force: Store the snapshot even if it is stored already or has shrunk, or the table has another region's records.
        key: type has the item type as pk; market_type has the market as pk and the item type as sk, for many markets.
        markets: The markets to store: the region, or systems, stations, structures in it; by default the region alone.

    Returns:
        What the run did, and which snapshot the table has.

    Raises:
        ValueError: the markets would share keys, or are not all in the region.
        EsiError: a page could not be fetched; the table is unchanged.
        TableError: the table refused; the next run writes the rest.
    """
    places = check_markets(region_id, markets, table_name, key)
    source = OrderSource(find_market(region_id), places, Parameters(order_type, price, detail))
    with (
        TokenBucket(requests=1) as tokens,
        Esi.from_environment(fetch_concurrency, tokens) as esi,
        open_connection(store_concurrency, len(places)) as connection,
    ):
        tables = {each: Table(fill_in(table_name, region_id, each.id), connection, each.id, key) for each in places}
        targets = list_targets(source, tables)
        with open_run(source, about_region(region_id), targets, esi, partial(summarize, source), force=force) as run:
            return complete(keep_table(run))


def keep_table(run: Run[S]) -> S:
    """Run the states in order, whatever the source."""
    for _ in range(MAX_SNAPSHOTS):  # start over if the snapshot moves on during the fetch
        snapshot = get_page_count(run)
        if snapshot.is_stored:
            return run.finish(snapshot)
        chunks = build_iterator(snapshot.pages, run)
        pages = fetch_pages.map(chunks, unmapped(snapshot), unmapped(run)).result()
        if is_whole(pages):
            break
    else:
        raise moved_on_again(run.endpoint)
    books = aggregate(pages, snapshot, run)
    comparison = compare_records(books, snapshot, run)
    store_records.map(split_writes(comparison.changed), unmapped(comparison), unmapped(run)).result()
    complete_table(comparison, snapshot, run)
    return run.finish(snapshot, comparison.results)


def check_together(given: dict[str, Any]) -> None:
    """Raise if valid parameters contradict each other.

    Raises:
        ValueError: the markets would share keys, or are not all in the region.
    """
    check_markets(given["region_id"], given["markets"], given["table_name"], given["key"])


if __name__ == "__main__":
    from flows.command import run_flow

    sys.exit(run_flow(market_data, "python -m flows.market_data", check=check_together))
