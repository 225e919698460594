"""Reports never delay a run, even if Prefect's API is slow or refuses them."""

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest
from mypy_boto3_dynamodb import DynamoDBClient

from deployments.local.environment import CHECKOUT
from deployments.local.market.market import Market
from tests.support.api import Api
from tests.support.faults.server import Reports, serve_stopping
from tests.support.runs import ask
from tests.support.servers import wait_for
from tests.support.tables import records, scan
from tests.support.truth import truth

REGION = 10000003  # one page

pytestmark = pytest.mark.usefixtures("served", "store_url")


@pytest.fixture(params=["hold", "refuse"])
def reports(request: pytest.FixtureRequest, api: Api, monkeypatch: pytest.MonkeyPatch) -> Iterator[Reports]:
    """Yield a proxy to the Prefect server that holds reports back until the test lets them pass."""
    reports = Reports(request.param)
    with serve_stopping(api.url, reports) as url:
        monkeypatch.setenv("PREFECT_API_URL", url)
        yield reports
        reports.mode = "pass"


@pytest.mark.parametrize(
    ("region_id", "last_line", "artifact"),
    [
        pytest.param(REGION, "written, 0 deleted", f"summary-{REGION}", id="stored"),
        pytest.param(19_999_999, "market-data failed", "failure-19999999", id="failed"),
    ],
)
def test_stopped_reports_hold_up_no_run(
    api: Api,
    dynamodb: DynamoDBClient,
    market: Market,
    reports: Reports,
    table_name: str,
    region_id: int,
    last_line: str,
    artifact: str,
) -> None:
    """The flow returns before any of its reports has arrived; they arrive later."""
    command = [sys.executable, "-u", "-m", "flows.market_data", "--region-id", str(region_id), "--table-name"]
    with subprocess.Popen(
        [*command, table_name],
        cwd=CHECKOUT,
        env=os.environ | {"PREFECT_LOGGING_LEVEL": "WARNING"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        assert process.stdout
        try:
            assert any(last_line in line for line in process.stdout)
            wait_for(lambda: bool(reports.stopped), "a report")
            assert artifact not in read_keys(api, table_name)
        finally:
            reports.mode = "pass"
    assert artifact in read_keys(api, table_name)
    if region_id == REGION:
        assert records(scan(dynamodb, table_name)) == truth(market, REGION)


def read_keys(api: Api, table_name: str) -> set[str]:
    """Return the keys of the artifacts of a table's runs."""
    runs = ask(
        api,
        "/flow_runs/filter",
        {"flow_runs": {"start_time": {"is_null_": False}}, "sort": "START_TIME_DESC", "limit": 200},
    )
    ours = [run["id"] for run in runs if run["parameters"].get("table_name") == table_name]
    assert ours
    return {found["key"] for found in ask(api, "/artifacts/filter", {"flow_runs": {"id": {"any_": ours}}})}
