"""A table written by an earlier version is read, and not rewritten."""

from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest
from mypy_boto3_dynamodb import DynamoDBClient

from deployments.local.market.market import Market
from flows.market_data import market_data
from tasks.table.requests import Item
from tests.support.tables import expire, records, scan
from tests.support.truth import truth
from tests.support.worlds import Clock

REGION_ID = 10000005  # one page
STORED_AT = datetime(2026, 11, 25, 12, 0, 30, tzinfo=UTC).timestamp()
DUMPS = sorted(Path(__file__).with_name("tables").glob("version-*.json"))  # as each version left it


@pytest.fixture
def clock() -> Clock:
    """Return the market's clock, at the time when the dumps were stored."""
    return Clock(STORED_AT)


@pytest.mark.usefixtures("served", "api")
@pytest.mark.parametrize("dump", DUMPS, ids=lambda dump: dump.stem)
def test_old_table_is_kept(dump: Path, dynamodb: DynamoDBClient, market: Market, clock: Clock, table_name: str) -> None:
    """Its records are compared, and none is written; of the next snapshot, only differences are."""
    items = msgspec.json.decode(dump.read_bytes(), type=list[Item])
    load(dynamodb, table_name, items)
    first = market_data(REGION_ID, table_name)
    assert (first.written, first.deleted, first.unchanged) == (0, 0, first.records)
    assert market_data(REGION_ID, table_name).not_modified
    expire(dynamodb, table_name)
    clock.now += 300
    summary = market_data(REGION_ID, table_name)
    expected = truth(market, REGION_ID)
    old = records({item["pk"]["S"]: item for item in items})
    assert summary.written == sum(old.get(pk) != item for pk, item in expected.items()) < len(expected) / 2
    assert records(scan(dynamodb, table_name)) == expected


def load(dynamodb: DynamoDBClient, table_name: str, items: list[Item]) -> None:
    """Create a table from a dump."""
    dynamodb.create_table(
        TableName=table_name,
        AttributeDefinitions=[{"AttributeName": "pk", "AttributeType": "S"}],
        KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}],
        BillingMode="PAY_PER_REQUEST",
    )
    for item in items:
        dynamodb.put_item(TableName=table_name, Item=item)
