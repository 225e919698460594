"""One DynamoDB-compatible store and one Prefect server for all tests, begun by pytest's first process."""

import os
import shutil
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import boto3
import pytest
from mypy_boto3_dynamodb import DynamoDBClient

from deployments.local.api import Api
from deployments.local.environment import (
    STORE_VENV,
    Options,
    aws_environment,
    base_environment,
    prefect_environment,
    store_environment,
)
from deployments.local.market.market import Market
from deployments.local.market.server import serve
from deployments.local.processes import Child, free_port
from deployments.local.stack import answers, prefect
from tasks.table import Item

START_SECONDS = 120.0
SERVERS = pytest.StashKey[ExitStack]()


def pytest_configure(config: pytest.Config) -> None:
    """Starts the servers, without waiting, and sets the environment that all of pytest's processes get."""
    if hasattr(config, "workerinput"):
        return
    servers = config.stash[SERVERS] = ExitStack()
    home = Path(tempfile.mkdtemp(prefix="market-data-tests-"))
    servers.callback(shutil.rmtree, home, ignore_errors=True)
    store_port, api_port = free_port(), free_port()
    base = base_environment(os.environ) | {"TMPDIR": str(home)}
    prefect_settings = prefect_environment(f"http://127.0.0.1:{api_port}/api")
    prefect_settings |= {"PREFECT_HOME": str(home / "prefect"), "PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS": "2"}
    aws = aws_environment(Options(0, "local", ""), f"http://127.0.0.1:{store_port}", {})
    for name in [name for name in os.environ if name.startswith(("AWS_", "PREFECT_", "ESI_"))]:
        del os.environ[name]
    os.environ.update(prefect_settings | aws | {"NO_PROXY": base["NO_PROXY"], "PREFECT_LOGGING_LEVEL": "WARNING"})
    api = [prefect(), "server", "start", "--host", "127.0.0.1", "--port", str(api_port)]
    store = store_environment(store_port, home / "store") | {"PERSIST_STATE": "0"}
    for name, command, environ in (
        ("store", [str(STORE_VENV / "bin" / "ministack")], base | store),
        ("server", api, base | prefect_settings),
    ):
        servers.callback(Child(name, command, environ, home / f"{name}.log").stop)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Stops the servers."""
    if SERVERS in config.stash:
        config.stash[SERVERS].close()


@pytest.fixture(scope="session")
def store_url() -> str:
    """The address of a DynamoDB-compatible server that checks as strictly as DynamoDB does."""
    url = os.environ["AWS_ENDPOINT_URL_DYNAMODB"]
    wait_for(lambda: answers(f"{url}/_ministack/health"), "the store")
    return url


@pytest.fixture(scope="session")
def api() -> Iterator[Api]:
    """A Prefect server's API."""
    with Api(os.environ["PREFECT_API_URL"]) as opened:
        wait_for(opened.is_up, "the Prefect server")
        yield opened


def wait_for(ready: Callable[[], bool], what: str) -> None:
    """Waits until a server that is starting answers."""
    deadline = time.monotonic() + START_SECONDS
    while not ready():
        assert time.monotonic() < deadline, f"{what} did not start"
        time.sleep(0.05)


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
        """Gives the unix time."""
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
    """Gives all of a table by `pk`, as a reader sees it."""
    pages = dynamodb.get_paginator("scan").paginate(TableName=table_name, ConsistentRead=True)
    return {item["pk"]["S"]: dict(item) for page in pages for item in page["Items"]}
