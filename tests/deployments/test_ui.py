"""A run in Prefect's UI, in a real browser."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
from mypy_boto3_dynamodb import DynamoDBClient

from flows.paged_api import paged_api
from tasks.declared.declaration import check_declaration
from tests.support.api import Api
from tests.support.browser import CHROMIUM, find_run, look_at_run, run_from_form
from tests.support.commands import Commands
from tests.support.programs import needs
from tests.support.runs import ask, find_runs, read_events, run_command
from tests.support.servers import wait_for
from tests.support.tables import expire
from tests.support.worlds import Clock

pytestmark = [
    pytest.mark.usefixtures("served", "store_url"),
    needs(CHROMIUM, "there is no chromium: apt-get install chromium"),
]


def test_run_can_be_inspected(
    own_api: Api, commands: Commands, dynamodb: DynamoDBClient, clock: Clock, table_name: str, tmp_path: Path
) -> None:
    """A run, its graph, its states and its artifacts can be reached from the dashboard, and are complete."""
    started = datetime.now(UTC)
    assert run_command(commands, table_name) == 0
    wait_for(lambda: bool(read_events(own_api, "market.", started)), "the first run's event")
    expire(dynamodb, table_name)
    clock.now += 300
    assert run_command(commands, table_name) == 0
    ui_url = own_api.url.removesuffix("/api")
    look_at_run(ui_url, find_run(ui_url), tmp_path)


@pytest.mark.parametrize("path", ["", "/v2"])
def test_declaration_is_a_form(own_api: Api, path: str) -> None:
    """Both UIs show a declaration as a form, with JSON for maps; a run of it unchanged has the declared parameters."""
    fields = {"id": "int", "buy": {"type": "int", "path": "/buys/unit_price"}}
    pages = {"first": 0, "count_header": "X-Page-Total"}
    parameters = {
        "source": {"url": "https://api.example/prices?page_size=200", "pages": pages, "fields": fields},
        "records": {"key": "id", "values": {"cheapest": {"min": "buy"}, "offers": "count"}},
        "table_name": "TradingPost",
    }
    deployment = ask(
        own_api,
        "/deployments/",
        {
            "name": f"form{path.replace('/', '-')}",
            "flow_id": ask(own_api, "/flows/", {"name": paged_api.name})["id"],
            "parameters": parameters,
            "parameter_openapi_schema": paged_api.parameters.model_dump(),
            "enforce_parameter_schema": True,
        },
    )["id"]
    definitions = paged_api.parameters.definitions or {}
    members = [definitions[model]["properties"] for model in ("Source", "Pages", "Records")]
    titles = [name.replace("_", " ") for each in members for name in each]
    run_from_form(own_api.url.removesuffix("/api") + path, deployment, titles, ["unit_price", "cheapest"])
    (run,) = find_runs(own_api, deployment)
    given = paged_api.validate_parameters(run.parameters)
    assert given == paged_api.validate_parameters(run.parameters | parameters)
    check_declaration(given["source"], given["records"])
