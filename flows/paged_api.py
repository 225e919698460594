"""The flow `paged-api`: any API with pages, by declaration."""

from prefect import flow

from flows import parameters
from flows.market_data import keep_table
from flows.next_run import KEEPS_TABLE, as_deployed
from tasks.declared.declaration import Records, Source, check_declaration
from tasks.declared.source import DeclaredSource
from tasks.esi.client import Esi, Pool, read_user_agent
from tasks.esi.credentials import BlockAuth
from tasks.esi.pause import Rate
from tasks.reporting.summary import SourceSummary
from tasks.run import Target, open_run
from tasks.table.client import Table
from tasks.table.keys import ItemKeys
from tasks.table.lease import Lease
from tasks.table.snapshot import SourceSnapshot

__all__ = ["Records", "Source", "SourceSummary", "paged_api"]


@as_deployed
@flow(name="paged-api", **KEEPS_TABLE)
def paged_api(
    source: Source,
    records: Records,
    table_name: parameters.TableName,
    fetch_concurrency: parameters.FetchConcurrency = 20,
    store_concurrency: parameters.StoreConcurrency = 8,
    force: parameters.Force = False,
) -> SourceSummary:
    """Update a table to the newest snapshot of an API with pages, with the states of the flow market-data.

    Raises:
        ValueError: the declaration contradicts itself.
        EsiError: a page could not be fetched; the table is unchanged.
        TableError: the table refused; the next run writes the rest.
    """
    check_declaration(source, records)
    declared = DeclaredSource(source, records)
    auth = BlockAuth(source.authorization_block) if source.authorization_block else None
    rate = Rate(declared.endpoint.requests_per_second)
    table = Table(table_name, store_concurrency, keys=ItemKeys(is_pair=len(records.key_fields) == 2))
    blank = SourceSnapshot(source=source.url, declaration=declared.description, snapshot_header=source.snapshot_header)
    targets = [Target(0, declared.endpoint.name, blank, Lease(table))]
    with (
        Esi(Pool(source.base_url, read_user_agent(), fetch_concurrency, rate, auth, source.headers)) as esi,
        open_run(declared, targets, esi, SourceSummary, force=force) as run,
    ):
        return keep_table(run)


if __name__ == "__main__":
    from flows.command import run_flow

    raise SystemExit(run_flow(paged_api, "python -m flows.paged_api", check=check_declaration))
