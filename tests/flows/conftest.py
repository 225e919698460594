"""Fixtures of the flows' tests."""

from collections.abc import Iterator

import pytest
from mypy_boto3_dynamodb import DynamoDBClient

from tests.support.chaos.market import SmallMarket
from tests.support.chaos.play import FIRST_INDEX, hurry
from tests.support.faults.world import World
from tests.support.worlds import Clock


@pytest.fixture
def world(table_name: str, dynamodb: DynamoDBClient) -> Iterator[World]:
    """A small market of three pages, and a table that does not exist yet.

    A lease is given up after eight seconds without its renewal: a busy machine is no failure.
    """
    with hurry(standstill_seconds=15.0):
        market = SmallMarket(1, Clock(FIRST_INDEX * 300.0 + 60))
        yield World(market, table_name, dynamodb)
        market.close()
