"""The flow `structure-market`: a player structure's market, which ESI shows only to characters who may dock there."""

import sys
from functools import partial

from prefect import flow

from flows.market_data import keep_table
from flows.next_run import as_deployed, schedule_next
from flows.parameters import (
    BlockName,
    DetailChoice,
    FetchConcurrency,
    Force,
    PriceChoice,
    Sides,
    StoreConcurrency,
    StructureId,
    StructureTable,
    fill_in_structure,
)
from tasks.esi.client import Esi
from tasks.esi.credentials import sign_in
from tasks.esi.markets import find_market
from tasks.orders.choices import Parameters
from tasks.orders.source import OrderSource
from tasks.reporting.failure import explain_failure
from tasks.reporting.outcome import complete, keep_summary, report_outcome
from tasks.reporting.subject import about_region
from tasks.reporting.summary import Summary, summarize
from tasks.run import list_targets, open_run
from tasks.table.client import Table


@as_deployed
@flow(
    name="structure-market",
    description="Keeps a DynamoDB table equal to the newest snapshot of a player structure's market.",
    persist_result=False,
    on_completion=[keep_summary, schedule_next, report_outcome],
    on_failure=[explain_failure],
)
def structure_market(
    structure_id: StructureId,
    table_name: StructureTable = "StructureMarket-{structure_id}",
    order_type: Sides = "sell",
    price: PriceChoice = "min",
    detail: DetailChoice = "compact",
    fetch_concurrency: FetchConcurrency = 20,
    store_concurrency: StoreConcurrency = 8,
    force: Force = False,
    credentials: BlockName = "eve-sso",
) -> Summary:
    """Update a table to the newest snapshot of a structure's market, with the states of the flow market-data.

    Args:
        structure_id: The player structure, such as 1035466617946.
        table_name: The DynamoDB table, with partition key pk (S); {structure_id} in it is filled in.
        order_type: The orders to aggregate; item types without any have no record.
        price: How a record's price is computed; percentile_5 is the mean of the best 5 % of the volume.
        detail: compact has price and volume; full and fuzzwork add the maps buy and sell.
        fetch_concurrency: The most pages in flight at once.
        store_concurrency: BatchWriteItem calls in flight at once.
        force: Store the snapshot even if it is stored already or has shrunk, or the table has another market's records.
        credentials: The Secret block with client_id, refresh_token and optionally client_secret for EVE SSO.

    Returns:
        What the run did, and which snapshot the table has; region_id is the structure's id.

    Raises:
        EsiError: a page could not be fetched, or EVE SSO refused; the table is unchanged.
        TableError: the table refused; the next run writes the rest.
    """
    market = find_market(structure_id)
    source = OrderSource(market, [market], Parameters(order_type, price, detail))
    table = Table(fill_in_structure(table_name, structure_id), store_concurrency, structure_id)
    subject, targets = about_region(structure_id), list_targets(source, {market: table})
    with (
        Esi.from_environment(fetch_concurrency, auth=sign_in(credentials)) as esi,
        open_run(source, subject, targets, esi, partial(summarize, source), force=force) as run,
    ):
        return complete(keep_table(run))


if __name__ == "__main__":
    from flows.command import run_flow

    sys.exit(run_flow(structure_market, "python -m flows.structure_market"))
