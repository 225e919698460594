"""The flow `paged-api`: any API with pages, by declaration."""

import sys
from functools import partial
from typing import Any

from prefect import flow

from flows.market_data import keep_table
from flows.next_run import as_deployed, schedule_next
from flows.parameters import FetchConcurrency, Force, StoreConcurrency, TableName
from tasks.declared.declaration import Records, Source, check_declaration
from tasks.declared.source import DeclaredSource
from tasks.esi.client import Esi, Pool, read_user_agent
from tasks.esi.credentials import BlockAuth
from tasks.esi.pause import Rate
from tasks.reporting import telemetry
from tasks.reporting.failure import explain_failure
from tasks.reporting.outcome import complete, keep_summary, report_outcome
from tasks.reporting.subject import about_source
from tasks.reporting.summary import SourceSummary, summarize_source
from tasks.run import Target, open_run
from tasks.table.client import Table
from tasks.table.keys import ItemKeys
from tasks.table.lease import Lease
from tasks.table.snapshot import SourceSnapshot

__all__ = ["Records", "Source", "SourceSummary", "paged_api"]

telemetry.set_up()


@as_deployed
@flow(
    name="paged-api",
    description="Keeps a DynamoDB table equal to the newest snapshot of any API with pages, by declaration.",
    persist_result=False,
    on_completion=[keep_summary, schedule_next, report_outcome],
    on_failure=[explain_failure],
)
def paged_api(
    source: Source,
    records: Records,
    table_name: TableName,
    fetch_concurrency: FetchConcurrency = 20,
    store_concurrency: StoreConcurrency = 8,
    force: Force = False,
) -> SourceSummary:
    """Update a table to the newest snapshot of an API with pages, with the states of the flow market-data.

    Args:
        source: The API's endpoint, its pages, and the fields of its items.
        records: The key, and what a record has of the items.
        table_name: The DynamoDB table, with partition key pk (S), and sort key sk (S) if the key has two fields.
        fetch_concurrency: The most pages in flight at once.
        store_concurrency: BatchWriteItem calls in flight at once.
        force: Store the snapshot even if it is stored already or has shrunk, or the table has other records.

    Returns:
        What the run did, and which snapshot the table has.

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
    summarize = partial(summarize_source, source.url, declared.description)
    with (
        Esi(Pool(source.base_url, read_user_agent(), fetch_concurrency, rate, auth, source.headers)) as esi,
        open_run(declared, about_source(source.url), targets, esi, summarize, force=force) as run,
    ):
        return complete(keep_table(run))


def check_together(given: dict[str, Any]) -> None:
    """Raise if valid parameters contradict each other.

    Raises:
        ValueError: records need what the source does not have.
    """
    check_declaration(given["source"], given["records"])


if __name__ == "__main__":
    from flows.command import run_flow

    sys.exit(run_flow(paged_api, "python -m flows.paged_api", check=check_together))
