"""How tables stand, told from Prefect's deployments or from the table alone."""

import re
from datetime import UTC, datetime, timedelta

import pytest
from mypy_boto3_dynamodb import DynamoDBClient

from deployments.local.api import Api
from deployments.local.status import show_status
from flows.market_data import market_data
from tests.conftest import scan
from tests.flows.test_sight import ask

REGION_ID = 10000003  # one page

pytestmark = pytest.mark.usefixtures("served", "store_url", "api")


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal in which no line is folded."""
    monkeypatch.setenv("COLUMNS", "250")


def deploy(api: Api, table_name: str) -> None:
    """Makes a deployment whose last run has failed, and whose next one is due in a minute."""
    flow = ask(api, "/flows/", {"name": "market-data"})
    parameters = {"region_id": REGION_ID, "table_name": table_name}
    ask(api, "/deployments/", {"name": table_name, "flow_id": flow["id"], "parameters": parameters})
    run_id = api.create_run(f"market-data/{table_name}", {})
    for past in ({"type": "RUNNING"}, {"type": "FAILED", "name": "Failed", "message": "page 3"}):
        ask(api, f"/flow_runs/{run_id}/set_state", {"state": past, "force": True})
    due = f"{datetime.now(UTC) + timedelta(seconds=60):%Y-%m-%dT%H:%M:%SZ}"
    state: dict[str, object] = {"type": "SCHEDULED", "state_details": {"scheduled_time": due}}
    ask(api, f"/deployments/{api.find_deployment(f'market-data/{table_name}').id}/create_flow_run", {"state": state})


def test_fresh_table_is_told_from_the_table_alone(table_name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Without a server the table's own `#snapshot` tells."""
    market_data(REGION_ID, table_name)
    assert show_status({table_name: REGION_ID}, None)
    said = capsys.readouterr().out
    assert "Vale of the" in said
    assert "stale" not in said


def test_stale_and_empty_tables_are_told(
    table_name: str, dynamodb: DynamoDBClient, capsys: pytest.CaptureFixture[str]
) -> None:
    """A table whose snapshot is over 15 minutes old is stale, and so is one that is not there."""
    market_data(REGION_ID, table_name)
    item = scan(dynamodb, table_name)["#snapshot"]
    old = f"{datetime.now(UTC) - timedelta(seconds=901):%Y-%m-%dT%H:%M:%SZ}"
    dynamodb.put_item(TableName=table_name, Item=item | {"last_modified": {"S": old}})
    assert not show_status({table_name: REGION_ID}, None)
    assert not show_status({f"{table_name}-none": REGION_ID}, None)
    said = capsys.readouterr().out
    assert f"stale, older than 15 minutes or empty: {table_name}\n" in said
    assert f"stale, older than 15 minutes or empty: {table_name}-none\n" in said


def test_runs_are_told(api: Api, table_name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """With a server, the last run's end, how late it began, and the next run are told; a table once."""
    market_data(REGION_ID, table_name)
    deploy(api, table_name)
    show_status({table_name: REGION_ID}, api)
    line, reason = [line for line in capsys.readouterr().out.splitlines() if line.strip().startswith(table_name)]
    assert re.search(r" Failed +\d s +in [56]\d s", line)
    assert reason == f"{table_name}: page 3"
