"""The flow player_count, run for real against the stand-in's `/status` and the strict store."""

import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from mypy_boto3_dynamodb import DynamoDBClient
from prefect.exceptions import ParameterTypeError

from deployments.local.market.market import Market, make_status
from flows.command import run_flow
from flows.player_count import player_count
from tests.support.tables import scan
from tests.support.worlds import Clock

pytestmark = pytest.mark.usefixtures("served", "store_url", "api")


@pytest.fixture
def clock() -> Clock:
    """Return a clock stopped at a time whose key is known."""
    return Clock(datetime(2026, 11, 25, 14, 5, 7, tzinfo=UTC).timestamp())


def test_status_becomes_one_item(dynamodb: DynamoDBClient, clock: Clock, table_name: str) -> None:
    """A run adds exactly one item, under the time of the response, to a table that it creates on this machine."""
    assert player_count(table_name) == "2026-11-25T14:05:07Z"
    status = make_status(clock.now)
    assert scan(dynamodb, table_name) == {
        "2026-11-25T14:05:07Z": {
            "pk": {"S": "2026-11-25T14:05:07Z"},
            "players": {"N": str(status["players"])},
            "server_version": {"S": status["server_version"]},
            "start_time": {"S": "2026-11-25T11:05:00Z"},
        }
    }


def test_later_runs_add_items(dynamodb: DynamoDBClient, clock: Clock, table_name: str) -> None:
    """Each response has its own item."""
    player_count(table_name)
    clock.now += 60
    player_count(table_name)
    assert list(scan(dynamodb, table_name)) == ["2026-11-25T14:05:07Z", "2026-11-25T14:06:07Z"]


def test_keep_days_lets_dynamodb_remove_it(dynamodb: DynamoDBClient, clock: Clock, table_name: str) -> None:
    """With `keep_days`, an item has the unix time at which DynamoDB's TTL may remove it."""
    pk = player_count(table_name, keep_days=30)
    item = scan(dynamodb, table_name)[pk]
    assert item["expires_at"] == {"N": str(int(clock.now + timedelta(days=30).total_seconds()))}


@pytest.mark.parametrize("given", [{"table_name": "a"}, {"keep_days": 0}, {"keep_days": "soon"}, {"table_name": "x{"}])
def test_wrong_parameter_is_refused(market: Market, given: dict[str, Any]) -> None:
    """A wrong parameter is refused before any request, with what is allowed."""
    with pytest.raises(ParameterTypeError, match="is refused: give "):
        player_count(**given)
    assert not market.requests


def test_missing_field_is_no_item(dynamodb: DynamoDBClient, monkeypatch: pytest.MonkeyPatch, table_name: str) -> None:
    """A status without a field fails the run at once; the message names the field, and nothing is stored."""
    monkeypatch.setattr("deployments.local.market.market.make_status", lambda _now: {"players": 7})
    started = time.monotonic()
    with pytest.raises(Exception, match="/status: Object missing required field `server_version`; nothing was stored"):
        player_count(table_name)
    assert time.monotonic() - started < 5
    assert table_name not in dynamodb.list_tables()["TableNames"]


def test_command_has_the_flow_s_parameters(capsys: pytest.CaptureFixture[str], table_name: str) -> None:
    """On the command line the parameters are options, and the output is the item's key."""
    assert run_flow(player_count, "player_count", ["--table-name", table_name, "--keep-days", "7"]) == 0
    assert "2026-11-25T14:05:07Z" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        run_flow(player_count, "player_count", ["--help"])
    assert "--keep-days INTEGER" in capsys.readouterr().out
