"""The flow `universe`: many regions' markets, or all, in one process or split among several."""

import gc
import sys
import time
from typing import Any, cast

from prefect import flow
from prefect.logging import get_run_logger
from prefect.runtime import flow_run
from prefect.states import Completed

from flows.next_run import as_deployed, schedule_next_round
from flows.parameters import (
    Concurrency,
    DetailChoice,
    FetchConcurrency,
    KeyChoice,
    PriceChoice,
    RegionIds,
    RegionsMarkets,
    Shards,
    Sides,
    StoreConcurrency,
    TableTemplate,
    check_tables,
    fill_in,
)
from tasks.catalogue.names import list_regions
from tasks.esi.client import Esi
from tasks.esi.shared_limit import create_limit
from tasks.esi.token_bucket import TokenBucket
from tasks.keep_region import Region, keep_regions
from tasks.orders.choices import Parameters
from tasks.reporting import telemetry
from tasks.reporting.outcome import keep_summary, note_round
from tasks.reporting.reporter import Reporter, name_universe_run, report_afterwards
from tasks.reporting.universe_summary import (
    RegionError,
    RegionResult,
    UniverseSummary,
    summarize_universe,
    write_universe_summary,
)
from tasks.run_shard import SHARD_TAG, deal_out, hand_over, has_worker, run_shards
from tasks.table.connection import open_connection

__all__ = ["UniverseSummary", "universe"]


telemetry.set_up()
gc.freeze()  # otherwise each full collection takes 0.1 s to go through what was imported


@as_deployed
@flow(
    name="universe",
    description="Keeps DynamoDB tables equal to the newest snapshots of many regions' markets, or of all.",
    persist_result=False,
    on_completion=[keep_summary, schedule_next_round],
)
def universe(
    region_ids: RegionIds = None,
    table_name: TableTemplate = "MarketData-{region_id}",
    key: KeyChoice = "type",
    order_type: Sides = "sell",
    price: PriceChoice = "min",
    detail: DetailChoice = "compact",
    concurrency: Concurrency = 8,
    fetch_concurrency: FetchConcurrency = 20,
    store_concurrency: StoreConcurrency = 8,
    shards: Shards = 1,
    markets: RegionsMarkets = None,
) -> UniverseSummary:
    """Update many regions' records to their newest snapshots, the largest region first.

    Args:
        region_ids: The regions; by default those in markets, or all that have a market.
        table_name: The tables; {region_id} and {market_id} are filled in; without them all markets share one.
        key: type has the item type as pk; market_type has the market as pk and the item type as sk, for many markets.
        order_type: The orders to aggregate; item types without any have no record.
        price: How a record's price is computed; percentile_5 is the mean of the best 5 % of the volume.
        detail: compact has price and volume; full and fuzzwork add the maps buy and sell.
        concurrency: Regions in progress at once, per shard.
        fetch_concurrency: Pages in flight at once, per shard.
        store_concurrency: BatchWriteItem calls in flight at once, per shard.
        shards: Runs of universe/shard that share the regions; 1 runs all in this process.
        markets: The markets to store in each region; by default the region alone.

    Returns:
        The result of each region, and the totals. A failed region does not affect the others.

    Raises:
        ValueError: keys of several regions would collide in one table.
        RegionError: all regions failed.
    """
    started = time.monotonic()
    ids = list_regions(region_ids or (list(markets) if markets else None))
    kept = check_tables(ids, markets, table_name, key)
    with Reporter() as report:
        report.rename(name_universe_run())

        def keep(region_ids: list[int]) -> list[RegionResult]:
            with (
                TokenBucket(requests=1) as tokens,
                Esi.from_environment(fetch_concurrency, tokens) as esi,
                open_connection(store_concurrency, concurrency * max(map(len, kept.values()))) as connection,
            ):
                parameters = Parameters(order_type, price, detail)
                names = {each: {at: fill_in(table_name, each, at.id) for at in kept[each]} for each in region_ids}
                regions = [Region(each, names[each], key, parameters, esi) for each in region_ids]
                return keep_regions(regions, connection, concurrency, report)

        if shards > 1 and has_worker():
            create_limit()
            given = {name: value for name, value in flow_run.parameters.items() if name not in {"region_ids", "shards"}}
            report.begin("Run Shard", len(ids), "regions")
            results = run_shards(deal_out(ids, shards), given, report, keep)
        else:
            report.begin("Keep Region", len(ids), "regions")
            results = keep(ids)
    return finish(summarize_universe(results, time.monotonic() - started))


def finish(summary: UniverseSummary) -> UniverseSummary:
    """Report a round, and return its final state, with the summary's line as the message.

    Raises:
        RegionError: all regions failed.
    """
    for failure in [result.failure for result in summary.regions if result.failure]:
        get_run_logger().warning(failure)
    if SHARD_TAG in flow_run.tags:
        hand_over(summary)
    note_round(summary)
    report_afterwards(write_universe_summary, summary)
    if summary.failed == len(summary.regions):
        raise RegionError(f"all of {summary.line}; the first: {summary.regions[0].failure}")
    return cast("UniverseSummary", Completed(message=summary.line, data=summary))  # which Prefect unwraps


def check_together(parameters: dict[str, Any]) -> None:
    """Raise if valid parameters contradict each other.

    Raises:
        ValueError: keys of several regions would collide in one table.
    """
    markets = parameters["markets"]
    ids = list_regions(parameters["region_ids"] or (list(markets) if markets else None))
    check_tables(ids, markets, parameters["table_name"], parameters["key"])


if __name__ == "__main__":
    from flows.command import run_flow

    sys.exit(run_flow(universe, "python -m flows.universe", check=check_together))
