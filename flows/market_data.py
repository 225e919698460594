"""The flow `market-data`: a region's market orders, as one exact record per item type, in a DynamoDB table."""

import sys
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
from tasks.reporting import telemetry
from tasks.reporting.failure import explain_failure
from tasks.reporting.outcome import complete, keep_summary, report_outcome
from tasks.reporting.summary import Summary
from tasks.run import Run, open_run
from tasks.store_records import compare_records, complete_table, split_writes, store_records
from tasks.table.client import Table
from tasks.table.connection import open_connection
from tasks.table.snapshot import Parameters

__all__ = ["Summary", "market_data"]

telemetry.set_up()


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
    """Bring a table to the newest snapshot of a region's market, and write only what differs.

    Args:
        region_id: The market region, such as 10000002 for The Forge.
        table_name: The DynamoDB table; {region_id} and {market_id} in it are filled in.
        order_type: Which orders are aggregated, and so which item types have a record.
        price: What a record's price is; percentile_5 is the mean of the best 5 % of the volume.
        detail: compact is price and volume; full and fuzzwork add the maps buy and sell.
        fetch_concurrency: Pages in flight at once, never exceeded.
        store_concurrency: BatchWriteItem calls in flight at once.
        force: Run even if the snapshot is stored, accept one that has shrunk, and replace another region's records.
        key: type has pk, the item type; market_type has pk, the market, and sk, the item type, for many markets.
        markets: The markets to keep, all in region_id: itself, systems, stations, structures; it alone if not given.

    Returns:
        What the run did, and where the table stands.

    Raises:
        ValueError: the markets would share keys, or are not all in the region.
        EsiError: a page, by its number, could not be had; the table is as it was.
        TableError: the table, by its name, refused; the next run repairs what is unfinished.
    """
    places = check_markets(region_id, markets, table_name, key)
    with (
        TokenBucket() as tokens,
        Esi.from_environment(fetch_concurrency, tokens) as esi,
        open_connection(store_concurrency, len(places)) as connection,
        open_run(
            find_market(region_id),
            [(place, Table(fill_in(table_name, region_id, place.id), connection, place.id, key)) for place in places],
            Parameters(order_type, price, detail),
            esi,
            force=force,
        ) as run,
    ):
        return complete(keep_table(run))


def keep_table(run: Run) -> Summary:
    """Take a region's or structure's pages through the states, in their order."""
    for _ in range(MAX_SNAPSHOTS):  # a snapshot that moves on while it is fetched gives way to the next
        snapshot = get_page_count(run)
        if snapshot.is_stored:
            return run.finish(snapshot)
        chunks = build_iterator(snapshot.pages, run)
        pages = fetch_pages.map(chunks, unmapped(snapshot), unmapped(run)).result()
        if is_whole(pages):
            break
    else:
        raise moved_on_again()
    books = aggregate(pages, snapshot, run)
    comparison = compare_records(books, snapshot, run)
    store_records.map(split_writes(comparison.changed), unmapped(comparison), unmapped(run)).result()
    complete_table(comparison, snapshot, run)
    return run.finish(snapshot, books, comparison.changes)


def check_together(given: dict[str, Any]) -> None:
    """Raise unless a run's parameters, each valid, go together.

    Raises:
        ValueError: the markets would share keys, or are not all in the region.
    """
    check_markets(given["region_id"], given["markets"], given["table_name"], given["key"])


if __name__ == "__main__":
    from flows.command import run_flow

    sys.exit(run_flow(market_data, "python -m flows.market_data", check=check_together))
