"""Killed runs and retried runs, with a real worker and real kills."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from mypy_boto3_dynamodb import DynamoDBClient

from deployments.automations import apply_automations, read_automations
from deployments.local.market.market import refuse
from deployments.local.prepare import open_client
from deployments.local.processes import Child
from deployments.local.servers import prefect
from tests.support.api import Api
from tests.support.chaos.kills import FINAL, running_below
from tests.support.runs import ask
from tests.support.servers import wait_for
from tests.support.tables import records, scan
from tests.support.truth import truth
from tests.support.worlds import VENAL, Clock, Faulty

DEPLOYMENT = "market-data/untagged"
LIMITED_DEPLOYMENT = "market-data/venal"  # with the concurrency limit of prefect.yaml

pytestmark = [pytest.mark.outage, pytest.mark.usefixtures("store_url")]


@pytest.fixture
def market(clock: Clock) -> Faulty:
    """Return the market of these tests."""
    return Faulty(clock)


def test_retry_resumes_from_the_failed_state(
    own_api: Api,
    worker: Child,
    market: Faulty,
    clock: Clock,
    dynamodb: DynamoDBClient,
    table_name: str,
    tmp_path: Path,
) -> None:
    """A retry starts over with a new snapshot, or fetches only missing pages of the same; then no page is kept."""
    assert worker.poll() is None
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
    for text in ("gone: starting over", "still the latest: its pages are not fetched again"):
        wait_for(lambda: any(text in line for line in read_log(own_api, run_id)), "the log")  # noqa: B023 (waited for)


def retry(run_id: str) -> None:
    """Retry a run with Prefect's command."""
    subprocess.run(prefect("flow-run", "retry", run_id), check=True, capture_output=True)


def read_log(own_api: Api, run_id: str) -> list[str]:
    """Return the log of a run."""
    wanted = {"logs": {"flow_run_id": {"any_": [run_id]}}, "limit": 200}
    return [line["message"] for line in ask(own_api, "/logs/filter", wanted)]


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
    """A run that is killed together with its worker is marked as Crashed instead of staying Running or Pending."""
    (wanted,) = [each for each in read_automations() if each["name"] == f"market-data crashes {automation}"]
    quick = {"name": table_name, "trigger": wanted["trigger"] | {"within": 10}}  # the minimum that Prefect allows
    with open_client(own_api.url) as client:
        apply_automations(client, [wanted | quick])
        apply_automations(client, [wanted | quick])  # as a second `make up` does
    market.latency_seconds = 30.0
    run_id = own_api.create_run(deployment, {"region_id": VENAL, "table_name": table_name})
    while own_api.read_state(run_id).type != state:
        time.sleep(0.02)
    time.sleep(heartbeat_seconds)  # enough for the first heartbeat, if there is to be one
    runs = running_below(worker.pid)
    worker.kill()
    for pid in runs:
        os.kill(pid, signal.SIGKILL)
    wait_for(lambda: own_api.read_state(run_id).type in FINAL, "the end")
    end = own_api.read_state(run_id)
    assert (end.type, end.reason) == ("CRASHED", wanted["actions"][0]["message"])
    (known,) = [found["id"] for found in ask(own_api, "/automations/filter", {}) if found["name"] == table_name]
    own_api.send("DELETE", f"/automations/{known}")
