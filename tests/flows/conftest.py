"""Fixtures of the flows' tests."""

import time
from collections.abc import Iterator

import pytest
from mypy_boto3_dynamodb import DynamoDBClient

from deployments.local.market.market import Request
from tests.support.chaos.market import SmallMarket
from tests.support.chaos.play import FIRST_INDEX, hurry
from tests.support.esi import EsiMarket
from tests.support.faults.world import World
from tests.support.markets import REGION, find_busiest
from tests.support.worlds import Clock


@pytest.fixture
def world(table_name: str, dynamodb: DynamoDBClient) -> Iterator[World]:
    """Yield a small market of three pages, and a table that does not exist yet.

    A lease is given up after eight seconds without its renewal: a busy machine is no failure.
    """
    with hurry(standstill_seconds=15.0):
        market = SmallMarket(1, Clock(FIRST_INDEX * 300.0 + 60))
        yield World(market, table_name, dynamodb)
        market.close()


@pytest.fixture
def response_times(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Return the monotonic times of the market's responses, negative for those that are not a 200."""
    times: list[float] = []
    count = SmallMarket.count

    def note(market: SmallMarket, request: Request, status: int) -> dict[str, str]:
        times.append(time.monotonic() if status == 200 else -time.monotonic())
        return count(market, request, status)

    monkeypatch.setattr(SmallMarket, "count", note)
    return times


@pytest.fixture
def places(market: EsiMarket) -> list[int]:
    """Return the region itself, its busiest system, its two busiest stations."""
    return find_busiest(market, REGION)
