"""One DynamoDB-compatible store and one Prefect server for all tests, begun by pytest's first process."""

import os
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack

import boto3
import pytest
from mypy_boto3_dynamodb import DynamoDBClient

from benchmarks.heartbeats import stop_heartbeats
from deployments.local.market.market import Market
from deployments.local.market.server import serve
from tasks.table.requests import Item
from tests.support.api import Api
from tests.support.servers import PrefectServer, start_servers, wait_for, wait_for_store

SERVERS = pytest.StashKey[ExitStack]()


def pytest_configure(config: pytest.Config) -> None:
    """Start the servers, without waiting, and set the environment that all of pytest's processes get."""
    if hasattr(config, "workerinput"):
        return
    config.stash[SERVERS] = start_servers()


def pytest_unconfigure(config: pytest.Config) -> None:
    """Stop the servers."""
    if SERVERS in config.stash:
        config.stash[SERVERS].close()


@pytest.fixture(scope="session", autouse=True)
def no_heartbeats() -> Iterator[None]:
    """Flow runs of this process send no heartbeats: Prefect ends them in steps of a second, and so each run."""
    with stop_heartbeats():
        yield


@pytest.fixture(scope="session")
def store_url() -> str:
    """The address of a DynamoDB-compatible server that checks as strictly as DynamoDB does."""
    return wait_for_store()


@pytest.fixture(scope="session")
def api() -> Iterator[Api]:
    """A Prefect server's API."""
    with Api(os.environ["PREFECT_API_URL"]) as opened:
        wait_for(opened.is_up, "the Prefect server")
        yield opened


@pytest.fixture(scope="session")
def own_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrefectServer]:
    """A second Prefect server, for tests that create automations, kill it, or look into its database."""
    server = PrefectServer(tmp_path_factory.mktemp("prefect"))
    yield server
    server.stop()


@pytest.fixture
def own_api(own_server: PrefectServer, monkeypatch: pytest.MonkeyPatch) -> Api:
    """The API of the second Prefect server, which commands that the test runs find as well."""
    for name, value in own_server.settings.items():
        monkeypatch.setenv(name, value)
    return own_server.api


@pytest.fixture(scope="session")
def dynamodb(store_url: str) -> Iterator[DynamoDBClient]:
    """A client of the store, as a reader has it."""
    client = boto3.client("dynamodb", endpoint_url=store_url)
    yield client
    client.close()


@pytest.fixture
def table_name() -> str:
    """A name that no other test has."""
    return f"Market-{uuid.uuid4()}"


class Clock:
    """A clock that stands until it is moved."""

    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        """Return the unix time."""
        return self.now


@pytest.fixture
def clock() -> Clock:
    """The market's clock: a minute after a snapshot of today."""
    return Clock(time.time() // 300 * 300 + 60)


@pytest.fixture
def market(clock: Clock) -> Market:
    """The market that the flow sees in `served`; a new snapshot comes when the clock is moved by 300 s."""
    return Market(clock=clock)


@pytest.fixture
def served(market: Market, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of the market, which the flow finds in ESI_URL."""
    with serve(market) as url:
        monkeypatch.setenv("ESI_URL", url)
        yield url


def scan(dynamodb: DynamoDBClient, table_name: str) -> dict[str, Item]:
    """Return all of a table by `pk`, as a reader sees it."""
    pages = dynamodb.get_paginator("scan").paginate(TableName=table_name, ConsistentRead=True)
    return {item["pk"]["S"]: dict(item) for page in pages for item in page["Items"]}
