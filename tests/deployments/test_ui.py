"""A run in Prefect's UI, in a real browser."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
from mypy_boto3_dynamodb import DynamoDBClient

from tests.support.api import Api
from tests.support.browser import CHROMIUM, find_run, look_at_run
from tests.support.commands import Commands
from tests.support.programs import needs
from tests.support.runs import read_events, run_command
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
