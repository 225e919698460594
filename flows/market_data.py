"""The flow `market-data`: stores one exact record per item type of a region's market orders in DynamoDB."""

from prefect import flow, unmapped

from flows import parameters
from flows.next_run import KEEPS_TABLE, as_deployed
from tasks.aggregate import aggregate
from tasks.build_iterator import build_iterator
from tasks.esi.client import Esi
from tasks.esi.markets import find_market
from tasks.esi.token_bucket import TokenBucket
from tasks.fetch_pages import MAX_SNAPSHOTS, fetch_pages, is_whole, moved_on_again
from tasks.get_page_count import get_page_count
from tasks.imports import tune_garbage_collector
from tasks.orders.choices import Parameters
from tasks.orders.source import OrderSource
from tasks.reporting import telemetry
from tasks.reporting.outcome import S
from tasks.reporting.summary import Summary
from tasks.run import Run, list_targets, open_run
from tasks.store_records import compare_records, complete_table, split_writes, store_records
from tasks.table.connection import open_connection

__all__ = ["Summary", "market_data"]

telemetry.set_up()
tune_garbage_collector()


@as_deployed
@flow(name="market-data", **KEEPS_TABLE)
def market_data(
    region_id: parameters.RegionId = 10000015,
    table_name: parameters.TableTemplate = "MarketData",
    order_type: parameters.Sides = "sell",
    price: parameters.PriceChoice = "min",
    detail: parameters.DetailChoice = "compact",
    fetch_concurrency: parameters.FetchConcurrency = 20,
    store_concurrency: parameters.StoreConcurrency = 8,
    force: parameters.Force = False,
    key: parameters.KeyChoice = "type",
    markets: parameters.Markets = None,
) -> Summary:
    """Update a table to the newest snapshot of a region's market, writing only the differences.

    Raises:
        ValueError: the markets would share keys, or are not all in the region.
        EsiError: a page could not be fetched; the table is unchanged.
        TableError: the table refused; the next run writes the rest.
    """
    names = parameters.check_markets(region_id, markets, table_name, key)
    source = OrderSource(find_market(region_id), list(names), Parameters(order_type, price, detail))
    with (
        TokenBucket(requests=1) as tokens,
        Esi.from_environment(fetch_concurrency, tokens) as esi,
        open_connection(store_concurrency) as connection,
    ):
        targets = list_targets(source, names, connection, key)
        with open_run(source, targets, esi, Summary, force=force) as run:
            return keep_table(run)


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
    store_records.map(split_writes(comparison.updates), unmapped(comparison), unmapped(run)).result()
    complete_table(comparison, snapshot, run)
    return run.finish(snapshot, comparison.updates)


if __name__ == "__main__":
    from flows.command import run_flow

    raise SystemExit(run_flow(market_data, "python -m flows.market_data", check=parameters.check_markets))
