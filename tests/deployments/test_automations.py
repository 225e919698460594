"""The events of runs, and the automations that react to them, on a real server."""

import json
import re
import subprocess
import sys
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from mypy_boto3_dynamodb import DynamoDBClient
from prefect.blocks.notifications import CustomWebhookNotificationBlock
from prefect.settings import PREFECT_API_URL, temporary_settings

from deployments.automations import apply_automations, main, read_automations
from deployments.local.environment import CHECKOUT
from deployments.local.prepare import open_client
from flows.next_run import TAG
from tests.support.api import Api
from tests.support.commands import Commands
from tests.support.faults.server import serve_changed
from tests.support.receiver import receive
from tests.support.runs import ask, deploy, make_run, read_events, run_command, schedule
from tests.support.servers import wait_for
from tests.support.tables import expire, inflate
from tests.support.worlds import Clock

REGION_ID = 10000005  # one page
REGION = f"market.region.{REGION_ID}"

pytestmark = pytest.mark.usefixtures("served", "store_url")


@pytest.fixture
def automations(own_api: Api) -> Iterator[dict[str, str]]:
    """Yield the automations that alert, as quick as Prefect allows; their names by what they alert to."""
    named: dict[str, str] = {}
    for automation in read_automations():
        if automation["actions"] == [{"type": "do-nothing"}]:
            what = automation["name"].removeprefix("market-data tells of ")
            named[what] = f"{automation['name']} {uuid.uuid4()}"
            within = min(10, automation["trigger"]["within"])
            quick = {"name": named[what], "trigger": automation["trigger"] | {"within": within}}
            apply(own_api, [automation | quick])
    yield named
    for found in ask(own_api, "/automations/filter", {"limit": 200}):
        if found["name"] in named.values():
            own_api.send("DELETE", f"/automations/{found['id']}")


def test_events_trigger_the_automations(
    own_api: Api,
    automations: dict[str, str],
    commands: Commands,
    dynamodb: DynamoDBClient,
    clock: Clock,
    table_name: str,
    tmp_path: Path,
) -> None:
    """Runs send events; a shrunk snapshot, a failed run, stale data, a late run and others trigger automations."""
    started = datetime.now(UTC)
    create_late_run(own_api)
    assert run_command(commands, table_name) == 0
    assert run_command(commands, table_name) == 0
    wait_for(lambda: len(read_events(own_api, "market.", started)) == 2, "the first runs' events")
    clock.now += 300
    expire(dynamodb, table_name)
    assert run_command(commands, table_name) == 0
    assert "last 2 runs" in read_summaries(own_api)[0]
    wait_for(lambda: len(read_events(own_api, "market.", started)) == 3, "the third run's event")
    assert report(commands, table_name, tmp_path / "report.html") == 2
    inflate(dynamodb, table_name)
    expire(dynamodb, table_name)
    clock.now += 300
    assert run_command(commands, table_name) == 1
    names = [f"market.snapshot.{what}" for what in ("stored", "not-modified", "stored", "refused")]
    wait_for(lambda: len(read_events(own_api, "market.", started)) == len(names), "the events")
    events = read_events(own_api, "market.", started)
    assert [event["event"] for event in events] == names
    assert {event["resource"]["prefect.resource.id"] for event in events} == {REGION}
    assert {event["resource"]["prefect.resource.name"] for event in events} == {"Detorid"}
    assert [event["payload"].get("table_name") for event in events] == [table_name] * 3 + [None]
    assert "under half" in events[-1]["payload"]["reason"]
    store_in_universe(own_api)
    fail_to_follow(own_api, commands, table_name)
    assert automations.keys() == {
        "shrunk snapshots",
        "failed runs",
        "stale data",
        "stale data in the universe",
        "late runs",
        "runs that are not followed",
    }
    for what, name in automations.items():
        wait_for(lambda: name in find_triggered(own_api, started), what)  # noqa: B023 (waited for)


def store_in_universe(own_api: Api) -> None:
    """Send the event of a region that a universe run has stored."""
    event = {
        "id": str(uuid.uuid4()),
        "occurred": datetime.now(UTC).isoformat(),
        "event": "market.snapshot.stored",
        "resource": {"prefect.resource.id": "market.region.10000006", "market.kept-by": "universe"},
        "payload": {},
    }
    own_api.send("POST", "/events", [event])


RUN_ON = """
import sys
import time
from datetime import UTC, datetime

import boto3

from flows.market_data import market_data

def run_on(seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        assert market_data(19000001, sys.argv[1]).not_modified
        time.sleep(2)  # as a schedule does; the alert looks ten seconds back

market_data(19000001, sys.argv[1])
run_on(15)
boto3.client("dynamodb").update_item(
    TableName=sys.argv[1],
    Key={"pk": {"S": "#snapshot"}},
    UpdateExpression="SET last_modified = :old",
    ExpressionAttributeValues={":old": {"S": "2020-01-01T00:00:00Z"}},
)
print(datetime.now(UTC).isoformat(), flush=True)
run_on(25)
"""


def test_stale_data_trigger_an_alert(own_api: Api, automations: dict[str, str], table_name: str) -> None:
    """Completed runs prevent the alert only while the data are fresh, not once they are hours old."""
    started = datetime.now(UTC)
    command = [sys.executable, "-c", RUN_ON, table_name]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=True)
    ended, aged = datetime.now(UTC), datetime.fromisoformat(done.stdout.split()[-1])
    wait_for(lambda: automations["stale data"] in find_triggered(own_api, started), "the alert")
    fired = [
        datetime.fromisoformat(event["occurred"])
        for event in read_events(own_api, "prefect.automation.triggered", started)
        if event["resource"]["prefect.resource.name"] == automations["stale data"]
    ]
    assert aged < fired[0] < ended
    names = {event["event"] for event in read_events(own_api, "market-data.", started)}
    assert names == {"market-data.fresh", "market-data.stale"}


def fail_to_follow(own_api: Api, commands: Commands, table_name: str) -> None:
    """Run a run that is to be followed, on a server that refuses to create the next one."""

    def refuse(request: str, answer: httpx.Response) -> httpx.Response:
        return httpx.Response(500, text="planned") if request.endswith("/create_flow_run") else answer

    parameters = {"region_id": REGION_ID, "table_name": f"{table_name}-followed"}
    deployment_id = deploy(own_api, parameters, schedule())
    run_id = str(make_run(own_api, deployment_id, [TAG]).id)
    with serve_changed(own_api.url, refuse) as url:
        environ = {"PREFECT_API_URL": url, "PREFECT__FLOW_ENTRYPOINT": "flows/market_data.py:market_data"}
        commands.run("prefect.engine", run_id, **environ).check_returncode()
    assert own_api.read_state(run_id).type == "COMPLETED"


BODY: dict[str, Any] = {"subject": "{{subject}}", "body": "{{body}}"}


def test_alerts_are_sent_through_a_notification_block(own_api: Api, commands: Commands, table_name: str) -> None:
    """With --notify, automations send messages through the block, even after the stack has applied its own."""
    with receive() as messages:
        block = CustomWebhookNotificationBlock(  # type: ignore[call-arg] # the others have defaults
            name="test", url=messages.url, method="POST", json_data=BODY
        )
        with temporary_settings({PREFECT_API_URL: own_api.url}):
            block.save("test", overwrite=True)
        assert deploy_automations(commands, "custom-webhook/test").count("send-notification") == 6
        with open_client(own_api.url) as client:
            apply_automations(client, read_automations())  # as `make up` does
        assert run_command(commands, table_name, 19999999) == 1
        wait_for(lambda: bool(messages.posts), "the message")
    message = json.loads(messages.posts[0][1])
    assert message["subject"] == "market-data tells of failed runs"
    assert "A run failed or crashed." in message["body"]
    assert "19999999" in message["body"]
    assert "--notify" not in message["body"]
    assert deploy_automations(commands, None).count("updated, do-nothing") == 6


def test_automation_without_action_explains_how_to_add_one(own_api: Api, commands: Commands) -> None:
    """The description of an automation without an action says where alerts appear and how to have them sent."""
    deploy_automations(commands, None)
    ours = {automation["name"] for automation in read_automations()}
    for found in ask(own_api, "/automations/filter", {"limit": 200}):
        does_nothing = [action["type"] for action in found["actions"]] == ["do-nothing"]
        for text in ("event feed", "python -m deployments.automations --notify TYPE/NAME"):
            assert found["name"] not in ours or (text in found["description"]) == does_nothing, found["name"]


def test_unknown_block_is_refused(own_api: Api, capsys: pytest.CaptureFixture[str]) -> None:
    """A notification block that the server does not have is refused."""
    with temporary_settings({PREFECT_API_URL: own_api.url}):
        assert main(["--notify", "slack-webhook/nobody"]) == 1
    assert "no automations: 'slack-webhook/nobody' is not a block of this server" in capsys.readouterr().err


def deploy_automations(commands: Commands, notify: str | None) -> str:
    """Run the command that applies the automations; return its output."""
    done = commands.run("deployments.automations", *(["--notify", notify] if notify else []))
    done.check_returncode()
    return done.stdout


def apply(own_api: Api, wanted: list[dict[str, Any]]) -> None:
    """Apply automations as the stack does."""
    with open_client(own_api.url) as client:
        apply_automations(client, wanted)


def read_summaries(own_api: Api) -> list[str]:
    """Return the region's summary artifacts, newest first."""
    wanted = {"artifacts": {"key": {"any_": [f"summary-{REGION_ID}"]}}, "sort": "CREATED_DESC"}
    return [artifact["data"] for artifact in ask(own_api, "/artifacts/filter", wanted)]


def report(commands: Commands, table_name: str, file: Path) -> int:
    """Write a report; return the number of runs in it."""
    done = commands.run("deployments.report", "--table-name", table_name, "--file", str(file))
    done.check_returncode()
    return int(re.findall(r"(\d+) runs", done.stdout)[0])


def create_late_run(own_api: Api) -> None:
    """Create a run that no worker takes."""
    flow = ask(own_api, "/flows/", {"name": "market-data"})
    name = f"late-{uuid.uuid4()}"
    ask(own_api, "/deployments/", {"name": name, "flow_id": flow["id"]})
    own_api.create_run(f"market-data/{name}", {})


def find_triggered(own_api: Api, since: datetime) -> set[str]:
    """Return the names of the automations that were triggered."""
    triggered = read_events(own_api, "prefect.automation.triggered", since)
    return {event["resource"]["prefect.resource.name"] for event in triggered}
