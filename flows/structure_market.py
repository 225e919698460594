"""The flow `structure-market`: a player structure's market, which ESI shows only to characters who may dock there."""

from prefect import flow

from flows import parameters
from flows.market_data import keep_table
from flows.next_run import KEEPS_TABLE, as_deployed
from tasks.esi.client import Esi
from tasks.esi.credentials import sign_in
from tasks.esi.markets import find_market
from tasks.orders.choices import Parameters
from tasks.orders.source import OrderSource
from tasks.reporting.summary import Summary
from tasks.run import list_targets, open_run


@as_deployed
@flow(name="structure-market", **KEEPS_TABLE)
def structure_market(
    structure_id: parameters.StructureId,
    table_name: parameters.StructureTable = "StructureMarket-{structure_id}",
    order_type: parameters.Sides = "sell",
    price: parameters.PriceChoice = "min",
    detail: parameters.DetailChoice = "compact",
    fetch_concurrency: parameters.FetchConcurrency = 20,
    store_concurrency: parameters.StoreConcurrency = 8,
    force: parameters.Force = False,
    credentials: parameters.BlockName = "eve-sso",
) -> Summary:
    """Update a table to the newest snapshot of a structure's market, with the states of the flow market-data.

    In the summary, region_id is the structure's id.

    Raises:
        EsiError: a page could not be fetched, or EVE SSO refused; the table is unchanged.
        TableError: the table refused; the next run writes the rest.
    """
    market = find_market(structure_id)
    source = OrderSource(market, [market], Parameters(order_type, price, detail))
    name = parameters.fill_in(table_name, structure_id=structure_id)
    targets = list_targets(source, {market: name}, store_concurrency)
    with (
        Esi.from_environment(fetch_concurrency, auth=sign_in(credentials)) as esi,
        open_run(source, targets, esi, Summary, force=force) as run,
    ):
        return keep_table(run)


if __name__ == "__main__":
    from flows.command import run_flow

    raise SystemExit(run_flow(structure_market, "python -m flows.structure_market"))
