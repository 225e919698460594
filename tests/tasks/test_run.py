"""What a run shares, used by the states' plain functions."""

import time

import pytest
from mypy_boto3_dynamodb import DynamoDBClient

from tasks.build_iterator import split_pages
from tasks.esi.client import Esi
from tasks.esi.markets import find_market
from tasks.fetch_pages import fetch_chunk
from tasks.get_page_count import find_snapshot
from tasks.orders.choices import Parameters
from tasks.orders.source import OrderSource
from tasks.reporting.progress import Timing
from tasks.reporting.summary import Summary
from tasks.run import Run, list_targets, open_targets
from tasks.store_records import begin_writing, finish_writing, split_writes, write_part
from tests.support.esi import EsiMarket
from tests.support.tables import records, scan
from tests.support.truth import truth
from tests.support.worlds import INSMOTHER


@pytest.mark.usefixtures("served", "store_url")
def test_states_do_without_prefect(market: EsiMarket, dynamodb: DynamoDBClient, table_name: str) -> None:
    """The plain functions of the states, called one after the other, fill a table without a run of Prefect's."""
    region = find_market(INSMOTHER)
    source = OrderSource(region, [region], Parameters("sell", "min", "compact"))
    targets = list_targets(source, {region: table_name}, 2)
    with Esi.from_environment(fetch_concurrency=4) as esi, open_targets(targets):
        run = Run(source, targets, esi, Timing(), Summary, time.monotonic())
        snapshot = find_snapshot(run)
        pages = [fetch_chunk(chunk, snapshot, run) for chunk in split_pages(snapshot.pages)]
        comparison = begin_writing(source.make_books(pages, snapshot.pending), snapshot, run)
        for part in split_writes(comparison.updates):
            write_part(part, run)
        finish_writing(comparison, snapshot, run)
        assert find_snapshot(run).is_stored
    assert records(scan(dynamodb, table_name)) == truth(market, INSMOTHER)
