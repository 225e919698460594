"""Runs that end without a word, runs that are retried, and Prefect's server gone: a real worker, real kills."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from mypy_boto3_dynamodb import DynamoDBClient

from deployments.local.api import Api
from deployments.local.market.market import refuse
from deployments.local.processes import Child
from deployments.local.stack import prefect, read_automations
from tests.support.chaos.kills import FINAL, running_below
from tests.support.servers import PrefectServer, wait_for
from tests.support.tables import records, scan
from tests.support.truth import truth
from tests.support.worlds import VENAL, Clock, Faulty

POOL = "outage"
DEPLOYMENT = "market-data/outage"
LIMITED_DEPLOYMENT = "market-data/venal"  # with the concurrency limit of prefect.yaml
OUTAGE_SECONDS = 20.0

pytestmark = [pytest.mark.outage, pytest.mark.usefixtures("store_url")]


@pytest.fixture
def market(clock: Clock) -> Faulty:
    """The market of these tests."""
    return Faulty(clock)


@pytest.fixture(scope="module")
def deployed(own_server: PrefectServer) -> None:
    """A pool, and the two deployments in it."""
    own_server.api.create_pool(POOL)
    for what in (["flows/market_data.py:market_data", "--name", "outage"], ["--name", "venal"]):
        command = [prefect(), "--no-prompt", "deploy", *what, "--pool", POOL]
        subprocess.run(command, env=os.environ | own_server.settings, check=True, capture_output=True)


@pytest.fixture
def start_worker(deployed: None, own_api: Api, served: str, tmp_path: Path) -> Iterator[Callable[[], Child]]:
    """Start a worker, whose runs see the market and keep their pages; it is stopped in the end."""
    kept = {"PREFECT_RESULTS_PERSIST_BY_DEFAULT": "true", "PREFECT_LOCAL_STORAGE_PATH": str(tmp_path / "kept")}
    environ = os.environ | kept | {"ESI_URL": served, "PREFECT_LOGGING_LEVEL": "INFO"}
    workers: list[Child] = []

    def start() -> Child:
        command = [prefect(), "worker", "start", "--pool", POOL, "--type", "process"]
        workers.append(Child("worker", command, environ, tmp_path / "worker.log"))
        return workers[-1]

    yield start
    for worker in workers:
        worker.stop()


@pytest.fixture
def worker(start_worker: Callable[[], Child]) -> Child:
    """A worker."""
    return start_worker()


def test_retry_goes_on_from_the_failed_state(
    own_api: Api,
    worker: Child,
    market: Faulty,
    clock: Clock,
    dynamodb: DynamoDBClient,
    table_name: str,
    tmp_path: Path,
) -> None:
    """A retry starts over with the next snapshot, or fetches what did not come of the same; then nothing is kept."""
    assert worker.is_running()
    market.plan = {"5": [refuse(403, "no"), refuse(403, "no")]}
    run_id = own_api.create_run(DEPLOYMENT, {"region_id": VENAL, "table_name": table_name})
    wait_for(lambda: own_api.read_state(run_id).type == "FAILED", "the failure")
    assert own_api.read_state(run_id).reason == (
        f'page 5 of region {VENAL}: ESI answered 403 Forbidden: "no"; not retried'
    )
    folder = tmp_path / "kept" / "market-data" / run_id
    (first,) = folder.iterdir()
    clock.now += 300
    retry(run_id)
    wait_for(lambda: not market.plan["5"], "the second failure")
    wait_for(lambda: own_api.read_state(run_id).type == "FAILED", "its end")
    (second,) = set(folder.iterdir()) - {first}
    kept = {file.name for file in second.iterdir()}
    assert kept
    assert "5" not in kept
    market.reset_counts()
    retry(run_id)
    wait_for(lambda: own_api.read_state(run_id).type == "COMPLETED", "the retry's end")
    assert set(market.pages) == {str(page) for page in range(1, 8)} - kept
    assert records(scan(dynamodb, table_name)) == truth(market, VENAL)
    assert not list(folder.parent.glob("*"))
    for said in ("gone: starting over", "still on offer: its pages are not fetched again"):
        wait_for(lambda: any(said in line for line in read_log(own_api, run_id)), "the log")  # noqa: B023 (waited for)


def retry(run_id: str) -> None:
    """Retry a run, as a user does."""
    subprocess.run([prefect(), "flow-run", "retry", run_id], check=True, capture_output=True)


def read_log(own_api: Api, run_id: str) -> list[str]:
    """Return the log of a run."""
    wanted = {"logs": {"flow_run_id": {"any_": [run_id]}}, "limit": 200}
    found = httpx.post(f"{own_api.url}/logs/filter", json=wanted, trust_env=False).json()
    return [line["message"] for line in found]


@pytest.mark.parametrize(
    ("automation", "deployment", "state", "heartbeat_seconds"),
    [
        ("silent runs", LIMITED_DEPLOYMENT, "RUNNING", 1.0),
        ("other silent runs", DEPLOYMENT, "RUNNING", 0.0),
        ("stuck runs", DEPLOYMENT, "PENDING", 0.0),
    ],
)
def test_killed_run_is_crashed(
    own_api: Api,
    worker: Child,
    market: Faulty,
    table_name: str,
    automation: str,
    deployment: str,
    state: str,
    heartbeat_seconds: float,
) -> None:
    """A run that was killed together with its worker is not shown as Running or Pending for ever; here for seconds."""
    (wanted,) = [each for each in read_automations() if each["name"] == f"market-data crashes {automation}"]
    quick = {"name": table_name, "trigger": wanted["trigger"] | {"within": 10}}  # the shortest that Prefect takes
    own_api.apply_automations([wanted | quick])
    own_api.apply_automations([wanted | quick])  # as a second `make up` does
    market.latency_seconds = 30.0
    run_id = own_api.create_run(deployment, {"region_id": VENAL, "table_name": table_name})
    while own_api.read_state(run_id).type != state:
        time.sleep(0.02)
    time.sleep(heartbeat_seconds)  # for its first heartbeat to be on its way, or not
    runs = running_below(worker.process.pid)
    worker.process.kill()
    for pid in runs:
        os.kill(pid, signal.SIGKILL)
    wait_for(lambda: own_api.read_state(run_id).type in FINAL, "the end")
    end = own_api.read_state(run_id)
    assert (end.type, end.reason) == ("CRASHED", wanted["actions"][0]["message"])
    present = httpx.post(f"{own_api.url}/automations/filter", json={}, trust_env=False).json()
    (known,) = [found["id"] for found in present if found["name"] == table_name]
    httpx.delete(f"{own_api.url}/automations/{known}", trust_env=False).raise_for_status()


def test_run_outlives_an_outage_of_the_server(
    own_server: PrefectServer, worker: Child, market: Faulty, dynamodb: DynamoDBClient, table_name: str
) -> None:
    """A run whose Prefect server is gone for 20 s in its middle completes all the same, and so does the worker."""
    api = own_server.api
    market.latency_seconds = 2.0
    run_id = api.create_run(LIMITED_DEPLOYMENT, {"table_name": table_name})
    wait_for(lambda: market.in_flight > 1, "the pages' requests")
    own_server.kill()
    time.sleep(OUTAGE_SECONDS)
    market.latency_seconds = 0.0
    own_server.start()
    wait_for(lambda: api.read_state(run_id).type in FINAL, "the run's end")
    assert api.read_state(run_id).type == "COMPLETED"
    assert records(scan(dynamodb, table_name)) == truth(market, VENAL)
    assert worker.is_running()


def test_slot_comes_back_after_worker_and_server_died(
    own_server: PrefectServer, worker: Child, start_worker: Callable[[], Child], table_name: str
) -> None:
    """Worker and server are killed while a run is Pending and has the only slot: in two minutes another completes."""
    api = own_server.api
    run_id = api.create_run(LIMITED_DEPLOYMENT, {"table_name": table_name})
    while api.read_state(run_id).type != "PENDING":
        time.sleep(0.02)
    children = running_below(worker.process.pid)
    worker.process.kill()
    own_server.kill()
    for pid in children:
        os.kill(pid, signal.SIGKILL)
    killed = time.monotonic()
    own_server.start()
    start_worker()
    while True:
        run_id = api.create_run(LIMITED_DEPLOYMENT, {"table_name": table_name})
        wait_for(lambda: api.read_state(run_id).type in FINAL, "the run's end")  # noqa: B023 (waited for here)
        if api.read_state(run_id).type == "COMPLETED":
            break
        assert api.read_state(run_id).type == "CANCELLED"
        assert time.monotonic() - killed < 120.0
        time.sleep(5)
