"""The flow `universe`: many regions' markets, or all, in one process or split among several."""

import time
from typing import cast

from prefect import flow
from prefect.logging import get_run_logger
from prefect.runtime import flow_run
from prefect.states import Completed

from flows import parameters
from flows.next_run import as_deployed, schedule_next
from tasks.esi.client import Esi
from tasks.esi.markets import find_market
from tasks.esi.shared_limit import create_limit
from tasks.esi.token_bucket import TokenBucket
from tasks.imports import tune_garbage_collector
from tasks.keep_region import keep_regions
from tasks.orders.choices import Parameters
from tasks.orders.source import OrderSource
from tasks.reporting import telemetry, universe_summary
from tasks.reporting.artifacts import create_artifact
from tasks.reporting.outcome import Outcome, keep_summary, outcome
from tasks.reporting.reporter import Reporter, report_in_background
from tasks.reporting.universe_summary import RegionResult, UniverseSummary, summarize_universe
from tasks.run import list_targets
from tasks.run_shard import SHARD_TAG, deal_out, has_worker, run_shards, save_summary
from tasks.table.connection import open_connection

telemetry.set_up()
tune_garbage_collector()


@as_deployed
@flow(name="universe", persist_result=False, on_completion=[keep_summary, schedule_next])
def universe(
    region_ids: parameters.RegionIds = None,
    table_name: parameters.TableTemplate = "MarketData-{region_id}",
    key: parameters.KeyChoice = "type",
    order_type: parameters.Sides = "sell",
    price: parameters.PriceChoice = "min",
    detail: parameters.DetailChoice = "compact",
    concurrency: parameters.Concurrency = 8,
    fetch_concurrency: parameters.FetchConcurrency = 20,
    store_concurrency: parameters.StoreConcurrency = 8,
    shards: parameters.Shards = 1,
    markets: parameters.RegionsMarkets = None,
) -> UniverseSummary:
    """Update many regions' records to their newest snapshots, the largest region first.

    A failed region does not affect the others.

    Raises:
        ValueError: keys of several regions would collide in one table.
        RegionError: all regions failed.
    """
    started = time.monotonic()
    names = parameters.check_tables(region_ids, markets, table_name, key)
    with Reporter() as report:

        def keep(region_ids: list[int]) -> list[RegionResult]:
            with (
                TokenBucket(requests=1) as tokens,
                Esi.from_environment(fetch_concurrency, tokens) as esi,
                open_connection(store_concurrency) as connection,
            ):
                made_with = Parameters(order_type, price, detail)
                sources = [OrderSource(find_market(each), list(names[each]), made_with) for each in region_ids]
                regions = [(each, list_targets(each, names[each.market.id], connection, key)) for each in sources]
                return keep_regions(regions, esi, concurrency, report)

        if shards > 1 and has_worker():
            create_limit()
            report.begin("Run Shard", len(names), "regions")
            results = run_shards(deal_out(list(names), shards), flow_run.parameters, report, keep)
        else:
            report.begin("Keep Region", len(names), "regions")
            results = keep(list(names))
    return finish(summarize_universe(results, time.monotonic() - started))


def finish(summary: UniverseSummary) -> UniverseSummary:
    """Report a round, and return its final state; raise a RegionError if all regions failed."""
    for failure in [result.failure for result in summary.regions if result.failure]:
        get_run_logger().warning(failure)
    if SHARD_TAG in flow_run.tags:
        save_summary(summary)
    outcome.set(Outcome(summary, summary.summaries, []))
    text = universe_summary.describe_universe(summary)
    report_in_background(create_artifact, "markdown", text, summary.line, "summary-universe")
    if summary.failed == len(summary.regions):
        raise universe_summary.RegionError(f"all of {summary.line}; the first: {summary.regions[0].failure}")
    return cast("UniverseSummary", Completed(message=summary.line, data=summary))  # which Prefect unwraps


if __name__ == "__main__":
    from flows.command import run_flow

    raise SystemExit(run_flow(universe, "python -m flows.universe", check=parameters.check_tables))
