"""Prefect's server goes away in the middle of a run, or together with the worker: real processes, real kills."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from mypy_boto3_dynamodb import DynamoDBClient

from deployments.local.api import Api
from deployments.local.market.market import Market
from deployments.local.processes import Child
from deployments.local.stack import prefect
from tests.chaos.kills import FINAL, running_below
from tests.conftest import scan
from tests.flows.test_market_data import VENAL, records, truth
from tests.servers import PrefectServer, wait_for

POOL = "outage"
DEPLOYMENT = "market-data/venal"  # with the concurrency limit of prefect.yaml
OUTAGE_SECONDS = 20.0

pytestmark = [pytest.mark.usefixtures("store_url", "served"), pytest.mark.xdist_group("own_server")]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """Where a worker's output goes."""
    return tmp_path / "worker.log"


@pytest.fixture
def worker(own_api: Api, log: Path) -> Iterator[Child]:
    """A worker with a pool of its own, and the deployment in it."""
    own_api.create_pool(POOL)
    deploy = [prefect(), "--no-prompt", "deploy", "--name", "venal", "--pool", POOL]
    subprocess.run(deploy, check=True, capture_output=True)
    child = start_worker(log)
    yield child
    child.stop()


def start_worker(log: Path) -> Child:
    """Starts a worker."""
    command = [prefect(), "worker", "start", "--pool", POOL, "--type", "process"]
    return Child("worker", command, os.environ, log)


def test_run_outlives_an_outage_of_the_server(
    own_server: PrefectServer, worker: Child, market: Market, dynamodb: DynamoDBClient, table_name: str
) -> None:
    """A run whose Prefect server is gone for 20 s in its middle completes all the same, and so does the worker."""
    api = own_server.api
    market.latency_seconds = 2.0
    run_id = api.create_run(DEPLOYMENT, {"table_name": table_name})
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
    own_server: PrefectServer, worker: Child, log: Path, table_name: str
) -> None:
    """Worker and server are killed while a run is Pending and has the only slot: in two minutes another completes."""
    api = own_server.api
    run_id = api.create_run(DEPLOYMENT, {"table_name": table_name})
    while api.read_state(run_id).type != "PENDING":
        time.sleep(0.02)
    children = running_below(worker.process.pid)
    worker.process.kill()
    own_server.kill()
    for pid in children:
        os.kill(pid, signal.SIGKILL)
    killed = time.monotonic()
    own_server.start()
    second = start_worker(log)
    try:
        while True:
            run_id = api.create_run(DEPLOYMENT, {"table_name": table_name})
            wait_for(lambda: api.read_state(run_id).type in FINAL, "the run's end")  # noqa: B023 (waited for here)
            if api.read_state(run_id).type == "COMPLETED":
                break
            assert api.read_state(run_id).type == "CANCELLED"
            assert time.monotonic() - killed < 120.0
            time.sleep(5)
    finally:
        second.stop()
