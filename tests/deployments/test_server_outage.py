"""Outages of Prefect's server during a run, and while a run holds a slot, with a real worker and real kills."""

import os
import signal
import time
from collections.abc import Callable

import pytest
from mypy_boto3_dynamodb import DynamoDBClient

from deployments.local.processes import Child
from tests.support.chaos.kills import FINAL, running_below
from tests.support.servers import PrefectServer, wait_for
from tests.support.tables import records, scan
from tests.support.truth import truth
from tests.support.worlds import VENAL, Clock, Faulty

DEPLOYMENT = "market-data/venal"  # with the concurrency limit of prefect.yaml
OUTAGE_SECONDS = 20.0

pytestmark = [pytest.mark.outage, pytest.mark.usefixtures("store_url")]


@pytest.fixture
def market(clock: Clock) -> Faulty:
    """Return the market of these tests."""
    return Faulty(clock)


def test_run_outlives_an_outage_of_the_server(
    own_server: PrefectServer, worker: Child, market: Faulty, dynamodb: DynamoDBClient, table_name: str
) -> None:
    """A run completes although its Prefect server is down for 20 s meanwhile, and the worker goes on."""
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
    assert worker.poll() is None


def test_slot_is_freed_after_worker_and_server_are_killed(
    own_server: PrefectServer, worker: Child, start_worker: Callable[[], Child], table_name: str
) -> None:
    """If worker and server are killed while a Pending run holds the only slot, another completes in two minutes."""
    api = own_server.api
    run_id = api.create_run(DEPLOYMENT, {"table_name": table_name})
    while api.read_state(run_id).type != "PENDING":
        time.sleep(0.02)
    children = running_below(worker.pid)
    worker.kill()
    own_server.kill()
    for pid in children:
        os.kill(pid, signal.SIGKILL)
    killed = time.monotonic()
    own_server.start()
    start_worker()
    while True:
        run_id = api.create_run(DEPLOYMENT, {"table_name": table_name})
        wait_for(lambda: api.read_state(run_id).type in FINAL, "the run's end")  # noqa: B023 (waited for here)
        if api.read_state(run_id).type == "COMPLETED":
            break
        assert api.read_state(run_id).type == "CANCELLED"
        assert time.monotonic() - killed < 120.0
        time.sleep(5)
