"""What runs leave on disk: real runs, each in its own process, wherever Prefect keeps results."""

import json
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from mypy_boto3_dynamodb import DynamoDBClient
from prefect.client.schemas.objects import FlowRun
from prefect.filesystems import LocalFileSystem

from deployments.local.market.market import refuse
from tasks.retries import KEEP_SECONDS
from tests.support.api import Api
from tests.support.commands import Commands
from tests.support.runs import deploy, make_run, read_run, schedule, scheduled_runs
from tests.support.tables import expire, records, scan
from tests.support.truth import truth
from tests.support.worlds import VENAL, Clock, Faulty

pytestmark = [pytest.mark.outage, pytest.mark.usefixtures("served", "store_url")]

Execute = Callable[[FlowRun], None]


@pytest.fixture
def market(clock: Clock) -> Faulty:
    """Return the market of these tests."""
    return Faulty(clock)


@pytest.fixture
def block(tmp_path: Path) -> str:
    """Return a storage block, by its slug."""
    name = f"kept-{uuid.uuid4()}"
    LocalFileSystem(basepath=str(tmp_path / "block")).save(name)
    return f"local-file-system/{name}"


@pytest.fixture(scope="module")
def own_commands(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Commands, Path]]:
    """Yield what runs commands whose tasks keep pages, and the folder where they do."""
    folder = tmp_path_factory.mktemp("local")
    kept = {"PREFECT_RESULTS_PERSIST_BY_DEFAULT": "true", "PREFECT_LOCAL_STORAGE_PATH": str(folder)}
    with Commands(**kept) as commands:
        yield commands, folder


@pytest.fixture
def local(own_commands: tuple[Commands, Path]) -> Iterator[Path]:
    """Yield the folder of kept pages, empty at the beginning of each test."""
    _commands, folder = own_commands
    yield folder
    for path in folder.iterdir():
        shutil.rmtree(path)


@pytest.fixture
def execute(api: Api, block: str, local: Path, own_commands: tuple[Commands, Path]) -> Execute:
    """Execute a flow run as a worker does, with kept pages and a storage block for results."""
    environ = {
        "PREFECT__FLOW_ENTRYPOINT": "flows/market_data.py:market_data",
        "PREFECT_RESULTS_PERSIST_BY_DEFAULT": "true",
        "PREFECT_LOCAL_STORAGE_PATH": str(local),
        "PREFECT_DEFAULT_RESULT_STORAGE_BLOCK": block,
    }

    def run(flow_run: FlowRun) -> None:
        pending = {"state": {"type": "PENDING"}, "force": True}
        url = f"{api.url}/flow_runs/{flow_run.id}/set_state"
        httpx.post(url, json=pending, trust_env=False).raise_for_status()
        own_commands[0].run("prefect.engine", str(flow_run.id), **environ).check_returncode()

    return run


def find_files(folder: Path) -> list[str]:
    """Return the names of all files below a folder."""
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def test_good_runs_leave_nothing(
    api: Api, execute: Execute, clock: Clock, dynamodb: DynamoDBClient, table_name: str, tmp_path: Path, local: Path
) -> None:
    """Successful runs leave no pages, neither in the block nor on this machine."""
    deployment_id = deploy(api, {"region_id": VENAL, "table_name": table_name})
    for _ in range(2):
        run = make_run(api, deployment_id, [])
        execute(run)
        assert read_run(api, run).state_name == "Completed"
        clock.now += 300
        expire(dynamodb, table_name)
    assert find_files(tmp_path) == find_files(local) == []


def is_whole(file: Path) -> bool:
    """Return whether Prefect had written a result to its end when the run's process ended."""
    try:
        return file.is_file() and bool(json.loads(file.read_bytes()))
    except ValueError:
        return False


def test_retry_fetches_only_the_missing_page(
    api: Api, execute: Execute, market: Faulty, dynamodb: DynamoDBClient, table_name: str, tmp_path: Path, local: Path
) -> None:
    """A retry on the same machine fetches only the page that failed; then no page is left."""
    market.plan = {"5": [refuse(403, "no")]}
    run = make_run(api, deploy(api, {"region_id": VENAL, "table_name": table_name}), [])
    execute(run)
    assert read_run(api, run).state_name == "Failed"
    kept = {file.name for file in (local / "market-data" / str(run.id)).rglob("*") if is_whole(file)}
    assert kept
    market.reset_counts()
    execute(run)
    assert set(market.pages) == {str(page) for page in range(1, 8)} - kept
    assert records(scan(dynamodb, table_name)) == truth(market, VENAL)
    assert find_files(local) == []
    assert all(file.stat().st_size < 1000 for file in (tmp_path / "block").iterdir())  # Prefect's record of the error


def test_failed_runs_leave_nothing_for_more_than_a_day(
    api: Api, execute: Execute, market: Faulty, table_name: str, local: Path
) -> None:
    """What a run left a day ago is removed by the next run, even if that one fails too."""
    market.plan = {"5": [refuse(403, "no"), refuse(403, "no")]}
    deployment_id = deploy(api, {"region_id": VENAL, "table_name": table_name})
    first, second = (make_run(api, deployment_id, []) for _ in range(2))
    execute(first)
    folder = local / "market-data"
    day_ago = time.time() - KEEP_SECONDS - 60
    left = set(folder.iterdir())
    for path in left:
        os.utime(path, (day_ago, day_ago))
    execute(second)
    assert read_run(api, second).state_name == "Failed"
    assert (folder / str(second.id)).is_dir()
    assert not left & set(folder.iterdir())


def test_pages_of_another_region_are_not_taken(
    api: Api, execute: Execute, market: Faulty, dynamodb: DynamoDBClient, table_name: str
) -> None:
    """If the deployment's region has changed before a retry, the retry fetches all pages of the new one."""
    first, other = 10000009, 10000023  # three pages each
    market.plan = {"3": [refuse(403, "no")]}
    deployment_id = deploy(api, {"region_id": first, "table_name": table_name}, schedule())
    (run,) = scheduled_runs(api, deployment_id)
    execute(run)
    change = {"parameters": {"region_id": other, "table_name": table_name}}
    httpx.patch(f"{api.url}/deployments/{deployment_id}", json=change, trust_env=False).raise_for_status()
    execute(run)
    assert records(scan(dynamodb, table_name)) == truth(market, other)
