"""The flow `universe`: all regions' markets, each by a run of its own of the flow `market-data`."""

import sys
import time
from typing import Any, cast

from prefect import flow
from prefect.logging import get_run_logger
from prefect.states import Completed

from flows.market_data import market_data
from flows.next_run import as_deployed
from flows.parameters import (
    Concurrency,
    DetailChoice,
    KeyChoice,
    PriceChoice,
    RegionIds,
    Sides,
    TableTemplate,
    check_tables,
)
from tasks.catalogue.names import list_regions
from tasks.esi.token_bucket import create_limit
from tasks.reporting.reporter import Reporter, name_universe_run, report_afterwards
from tasks.reporting.universe_summary import UniverseSummary, summarize_universe, write_universe_summary
from tasks.run_region import RegionError, RegionRun, find_workers, run_regions

__all__ = ["UniverseSummary", "universe"]


@as_deployed
@flow(
    name="universe",
    description="Keeps DynamoDB tables equal to the newest snapshots of many regions' markets, or of all.",
    persist_result=False,
    flow_run_name=name_universe_run,
)
def universe(
    region_ids: RegionIds = None,
    table_name: TableTemplate = "MarketData-{region_id}",
    key: KeyChoice = "type",
    order_type: Sides = "sell",
    price: PriceChoice = "min",
    detail: DetailChoice = "compact",
    concurrency: Concurrency = 8,
) -> UniverseSummary:
    """Bring many regions' records to their newest snapshots, the largest region first.

    Args:
        region_ids: The regions; all that have a market if not given.
        table_name: Each region's table, {region_id} is filled in; without it they share one, by key region_type.
        key: type is 34; region_type is 10000002#34, for a table that several regions share.
        order_type: Which orders are aggregated, and so which item types have a record.
        price: What a record's price is; percentile_5 is the mean of the best 5 % of the volume.
        detail: compact is price and volume; full and fuzzwork add the maps buy and sell.
        concurrency: Regions at once.

    Returns:
        What became of each region, and of all together. A region that fails does not keep the others from theirs.

    Raises:
        ValueError: several regions would share a table whose keys do not tell them apart; or ESI_TOKENS is no number.
        RegionError: all of them failed.
    """
    started = time.monotonic()
    runs = [RegionRun(region_id) for region_id in list_regions(region_ids)]
    check_tables(len(runs), table_name, key)
    parameters = {"table_name": table_name, "key": key, "order_type": order_type, "price": price, "detail": detail}
    with_workers = find_workers()
    if with_workers:
        create_limit()
    with Reporter() as report:
        report.begin("Run Region", len(runs), "regions")
        results = run_regions(runs, parameters, None if with_workers else market_data, concurrency, report)
    summary = summarize_universe(results, time.monotonic() - started)
    for failure in [result.failure for result in summary.regions if result.failure]:
        get_run_logger().warning(failure)
    report_afterwards(write_universe_summary, summary)
    if summary.failed == len(runs):
        raise RegionError(f"all of {summary.line}; the first: {summary.regions[0].failure}")
    return cast("UniverseSummary", Completed(message=summary.line, data=summary))  # which Prefect unwraps


def check_together(parameters: dict[str, Any]) -> None:
    """Raise unless a run's parameters, each valid, go together.

    Raises:
        ValueError: several regions would share a table whose keys do not tell them apart.
    """
    check_tables(len(list_regions(parameters["region_ids"])), parameters["table_name"], parameters["key"])


if __name__ == "__main__":
    from flows.command import run_flow

    sys.exit(run_flow(universe, "python -m flows.universe", check=check_together))
