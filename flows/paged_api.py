"""The flow `paged-api`: any API with pages, by declaration."""

from httpx import Headers
from prefect import flow

from flows import parameters
from flows.market_data import keep_table
from flows.next_run import KEEPS_TABLE, as_deployed
from tasks.declared.declaration import Records, Source, check_declaration
from tasks.declared.source import DeclaredSource
from tasks.esi.client import Esi, Pool
from tasks.esi.credentials import load_headers
from tasks.esi.pause import Rate
from tasks.reporting.summary import SourceSummary
from tasks.run import Target, open_run
from tasks.table.client import Table
from tasks.table.lease import Lease
from tasks.table.requests import ItemKeys
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
    headers = Headers(source.headers)  # in whatever case their names are
    if source.authorization_block:
        headers.update(load_headers(source.authorization_block))
    rate = Rate(declared.endpoint.requests_per_second)
    table = Table(table_name, store_concurrency, ItemKeys(is_pair=len(records.key_fields) == 2))
    blank = SourceSnapshot(source=source.url, parameters=declared.description, snapshot_header=source.snapshot_header)
    targets = [Target(0, declared.endpoint.name, blank, Lease(table))]
    with (
        Esi(Pool(source.base_url, fetch_concurrency, rate, headers=headers)) as esi,
        open_run(declared, targets, esi, SourceSummary, force=force) as run,
    ):
        return keep_table(run)


if __name__ == "__main__":
    from flows.command import run_flow

    raise SystemExit(run_flow(paged_api, "python -m flows.paged_api", check=check_declaration))
