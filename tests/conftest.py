"""One DynamoDB-compatible store and one Prefect server for all tests, started by pytest's first process if needed."""

import os
import signal
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.api import Api
from tests.support.commands import Commands
from tests.support.esi import EsiMarket
from tests.support.servers import PrefectServer, finish_reports, prepare_servers, wait_for, wait_for_store
from tests.support.worlds import Clock, serve

if TYPE_CHECKING:  # what costs a second to import
    from mypy_boto3_dynamodb import DynamoDBClient

NEEDED_BY = {"store": "store_url", "server": "api"}  # the fixtures that wait for a server
# xdist gives each of four or five workers one of these files, and then another one.
LONGEST = ["scale", "schedule", "server_outage", "make_run", "kept_pages"]
LONGEST += ["token_bucket", "outage", "deployed", "make_up", "docker"]
STARTS = pytest.StashKey[dict[str, Callable[[], object]]]()


def pytest_configure(config: pytest.Config) -> None:
    """Set the environment that all of pytest's processes get, and have the servers stopped in the end."""
    if not hasattr(config, "workerinput"):
        # Programs that tests stop by Ctrl-C would ignore it if a shell has started pytest in the background.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        servers = ExitStack()
        config.add_cleanup(servers.close)
        config.stash[STARTS] = prepare_servers(servers)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put first what takes longest, so that no file is left to run alone: outages, then commands on pages."""
    outages = {item.path for item in items if item.get_closest_marker("outage")}
    order = {f"test_{name}": place for place, name in enumerate(LONGEST)}
    items.sort(
        key=lambda item: (
            item.path not in outages,
            order.get(item.path.stem, len(order)),
            item.path.parent != Path(__file__).parent,
        )
    )


@pytest.hookimpl(tryfirst=True)
def pytest_collection_finish(session: pytest.Session) -> None:
    """Note which servers the collected tests need; a worker of xdist has its controller start them."""
    if not session.config.option.collectonly:
        used = {name for item in session.items for name in getattr(item, "fixturenames", ())}
        for server, fixture in NEEDED_BY.items():
            if fixture in used:
                note_of(server).touch()
        start_needed(session.config)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_node_collection_finished(node: object) -> None:
    """Start what a worker has found to be needed."""
    start_needed(node.config)  # type: ignore[attr-defined]  # xdist has no types


def note_of(server: str) -> Path:
    """Return the file whose presence says that a server is needed."""
    return Path(os.environ["PREFECT_HOME"]).with_name(f"{server}-is-needed")


def start_needed(config: pytest.Config) -> None:
    """Start the servers that are needed and have not been started, without waiting."""
    starts = config.stash.get(STARTS, {})
    for server in [server for server in starts if note_of(server).exists()]:
        starts.pop(server)()


@pytest.fixture(scope="session")
def store_url() -> str:
    """Return the address of a DynamoDB-compatible server that checks as strictly as DynamoDB does."""
    return wait_for_store()


@pytest.fixture(scope="session")
def api() -> Iterator[Api]:
    """Yield a Prefect server's API.

    Flow runs of this process send no heartbeats: Prefect ends them in steps of a second, and so each run.
    """
    from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings  # noqa: PLC0415 (two seconds)

    with (
        Api(os.environ["PREFECT_API_URL"]) as opened,
        temporary_settings(updates={PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}),
    ):
        wait_for(opened.is_up, "the Prefect server")
        yield opened
        finish_reports()  # while the server is there


@pytest.fixture(scope="module")  # idle it takes 6 % of a core
def own_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrefectServer]:
    """Yield a second Prefect server, for tests that create automations, kill it, or look into its database."""
    server = PrefectServer(tmp_path_factory.mktemp("prefect"))
    yield server
    server.stop()


@pytest.fixture
def own_api(own_server: PrefectServer, monkeypatch: pytest.MonkeyPatch) -> Api:
    """Return the API of the second Prefect server, which commands that the test runs find as well."""
    for name, value in own_server.settings.items():
        monkeypatch.setenv(name, value)
    return own_server.api


@pytest.fixture(scope="session")
def commands() -> Iterator[Commands]:
    """Yield what runs commands of the checkout."""
    with Commands() as opened:
        yield opened


@pytest.fixture(scope="session")
def dynamodb(store_url: str) -> "Iterator[DynamoDBClient]":
    """Yield a client of the store, as a reader has it."""
    import boto3  # noqa: PLC0415 (half a second)

    client = boto3.client("dynamodb", endpoint_url=store_url)
    yield client
    client.close()


@pytest.fixture
def table_name() -> str:
    """Return a name that no other test has."""
    return f"Market-{uuid.uuid4()}"


@pytest.fixture
def clock() -> Clock:
    """Return the market's clock: a minute after a snapshot of today."""
    return Clock(time.time() // 300 * 300 + 60)


@pytest.fixture
def market(clock: Clock) -> EsiMarket:
    """Return the market that the flow sees in `served`; a new snapshot comes when the clock is moved by 300 s."""
    return EsiMarket(clock=clock)


@pytest.fixture
def served(market: EsiMarket, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Yield the address of the market, which the flow finds in ESI_URL."""
    with serve(market) as url:
        monkeypatch.setenv("ESI_URL", url)
        yield url
