"""The command that creates tables: their settings, existing tables, and how it waits for AWS."""

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import httpx
import pytest
from mypy_boto3_dynamodb import DynamoDBClient

from deployments.local.environment import CHECKOUT
from deployments.tables import main
from flows.market_data import market_data
from tasks.catalogue.names import regions
from tests.support.deployment_files import RESOURCES
from tests.support.faults.plan import Fault, Plan
from tests.support.faults.store import ERRORS, serve_faulty_store

POLICY = json.loads(Path(CHECKOUT, "deployments/aws/iam-policy-create-tables.json").read_text())
WORKERS = json.loads(Path(CHECKOUT, "deployments/aws/iam-policy.json").read_text())
SWITCHED = "point-in-time recovery switched on; time to live switched on"


class Recorder(Plan):
    """A plan that counts the calls of each operation."""

    def __init__(self, faults: list[Fault]) -> None:
        super().__init__(faults)
        self.calls: Counter[str] = Counter()

    def next_fault(self, where: str) -> str:
        """Return the kind of fault that a call gets."""
        self.calls[where] += 1
        return super().next_fault(where)


@contextmanager
def recorded(store_url: str, monkeypatch: pytest.MonkeyPatch, *faults: Fault) -> Iterator[Counter[str]]:
    """Have the command call a store that misbehaves by plan; yield the calls of each operation."""
    plan = Recorder(list(faults))
    with serve_faulty_store(store_url, plan) as url:
        monkeypatch.setenv("AWS_ENDPOINT_URL_DYNAMODB", url)
        yield plan.calls


class SlowAws(BaseHTTPRequestHandler):
    """The store, with new tables as slow as AWS's: first missing, then CREATING, then without backups."""

    protocol_version = "HTTP/1.1"
    store_url: str
    calls: Counter[tuple[str, str]]  # by operation and table

    def do_POST(self) -> None:
        """Answer a call."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        operation, name = self.headers["X-Amz-Target"].rsplit(".", 1)[1], json.loads(body)["TableName"]
        self.calls[operation, name] += 1
        sent = {key: value for key, value in self.headers.items() if key.lower() not in {"host", "content-length"}}
        reply = httpx.post(self.store_url, content=body, headers=sent, trust_env=False)
        status, answer = reply.status_code, reply.json()
        since = self.calls[operation, name] if self.calls["CreateTable", name] else 0
        if operation == "DescribeTable" and since == 2:
            status, answer = 400, {"__type": "com.amazonaws.dynamodb.v20120810#ResourceNotFoundException"}
        elif operation == "DescribeTable" and since == 3:
            answer["Table"]["TableStatus"] = "CREATING"
        elif operation == "UpdateContinuousBackups" and since == 1:
            status, answer = 400, {"__type": "com.amazonaws.dynamodb.v20120810#ContinuousBackupsUnavailableException"}
        encoded = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/x-amz-json-1.0")
        self.send_header("Content-Length", str(len(encoded)))
        self.end_headers()
        self.wfile.write(encoded)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 (its name in the class above)
        """Log nothing."""


def check_settings(dynamodb: DynamoDBClient, name: str, like: str = "MarketTable") -> None:
    """Assert that a table has the settings of a table in the template."""
    wanted = RESOURCES[like]["Properties"]
    assert wanted.keys() == {
        "TableName",
        "AttributeDefinitions",
        "KeySchema",
        "BillingMode",
        "PointInTimeRecoverySpecification",
        "SSESpecification",
        "TimeToLiveSpecification",
    }
    table = dynamodb.describe_table(TableName=name)["Table"]
    assert table["AttributeDefinitions"] == wanted["AttributeDefinitions"]
    assert table["KeySchema"] == wanted["KeySchema"]
    assert table["BillingModeSummary"]["BillingMode"] == wanted["BillingMode"]
    assert table.get("SSEDescription", {}).get("Status", "DISABLED") == "DISABLED"
    assert not wanted["SSESpecification"]["SSEEnabled"]
    backups = dynamodb.describe_continuous_backups(TableName=name)["ContinuousBackupsDescription"]
    assert backups["PointInTimeRecoveryDescription"]["PointInTimeRecoveryStatus"] == "ENABLED"
    assert wanted["PointInTimeRecoverySpecification"] == {"PointInTimeRecoveryEnabled": True}
    ttl = dynamodb.describe_time_to_live(TableName=name)["TimeToLiveDescription"]
    assert ttl["TimeToLiveStatus"] == "ENABLED"
    assert wanted["TimeToLiveSpecification"] == {"AttributeName": ttl["AttributeName"], "Enabled": True}


def test_tables_of_all_regions(dynamodb: DynamoDBClient, table_name: str) -> None:
    """One command creates the tables of all regions with the template's settings; a second one changes nothing."""
    command = [sys.executable, "-m", "deployments.tables", table_name, table_name + "-{region_id}", "--regions", "all"]
    names = [table_name, *(f"{table_name}-{region_id}" for region_id in regions())]
    for state in ("created; " + SWITCHED, "there already"):
        done = subprocess.run(command, cwd=CHECKOUT, env=os.environ, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")
        *lines, last = done.stdout.splitlines()
        assert sorted(lines) == sorted(f"{name}: {state}" for name in names)
        assert last == f"114 asked for in us-east-1: 114 {state.split(';')[0]}"
    check_settings(dynamodb, table_name)
    check_settings(dynamodb, f"{table_name}-10000002")


def test_tables_of_some_regions(table_name: str, capsys: pytest.CaptureFixture[str], store_url: str) -> None:
    """With `--regions`, each region gets one table."""
    assert store_url
    assert main([table_name + "-{region_id}", "--regions", "10000002", "10000043", "10000002"]) == 0
    assert "2 asked for in us-east-1: 2 created" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("ab", "TABLE: 'ab' is refused: give 3 to 255 letters, digits and _ . -"),
        ("MarketData Market/Data", "TABLE: 'Market/Data' is refused: give 3 to 255 letters"),
        ("Market-{region}", "TABLE: 'Market-{region}' is refused: give 3 to 255 letters"),
        ("Market-{region_id}", "TABLE: 'Market-{region_id}' is refused: give --regions all, or regions' ids"),
        ("MarketData --regions all", "--regions: no TABLE has {region_id} to fill in"),
        ("Market-{market_id}", "TABLE: 'Market-{market_id}' is refused: give --markets and their ids, to fill in"),
        ("MarketData --markets 60003760", "--markets: no TABLE has {market_id} to fill in"),
        ("Market-{market_id} --markets Jita", "--markets: 'Jita' is refused: give ids of markets"),
        ("Market-{region_id} --regions Jita", "--regions: 'Jita' is refused: give a region's id"),
        ("Market-{region_id} --regions all 10000002", "--regions: 'all' is refused: give a region's id"),
    ],
)
def test_invalid_name_is_refused_before_any_call(
    store_url: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: str,
    message: str,
) -> None:
    """An invalid name or id ends the command with exit code 2 and one line; DynamoDB is not called."""
    with recorded(store_url, monkeypatch) as calls:
        assert main(arguments.split()) == 2
    assert not calls
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"python -m deployments.tables: {message}")


def test_table_that_lacks_settings_gets_them(
    dynamodb: DynamoDBClient, table_name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A table without the settings, as a killed command leaves it, gets them and keeps its items."""
    dynamodb.create_table(
        TableName=table_name,
        AttributeDefinitions=[{"AttributeName": "pk", "AttributeType": "S"}],
        KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}],
        BillingMode="PAY_PER_REQUEST",
    )
    dynamodb.put_item(TableName=table_name, Item={"pk": {"S": "34"}})
    assert main([table_name]) == 0
    assert f"{table_name}: there already; {SWITCHED}" in capsys.readouterr().out
    check_settings(dynamodb, table_name)
    assert dynamodb.scan(TableName=table_name)["Count"] == 1


def test_other_keys_are_reported(dynamodb: DynamoDBClient, table_name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A table with other keys is left unchanged and reported with its keys; the other tables are created."""
    dynamodb.create_table(
        TableName=table_name,
        AttributeDefinitions=[
            {"AttributeName": "id", "AttributeType": "N"},
            {"AttributeName": "at", "AttributeType": "S"},
        ],
        KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}, {"AttributeName": "at", "KeyType": "RANGE"}],
        BillingMode="PAY_PER_REQUEST",
    )
    assert main([table_name, f"{table_name}-2"]) == 1
    output = capsys.readouterr().out
    assert f"{table_name}: unfit; its keys are id (N) and at (S), expected only pk (S): give another name" in output
    assert "2 asked for in us-east-1: 1 created, 1 unfit" in output
    assert dynamodb.describe_time_to_live(TableName=table_name)["TimeToLiveDescription"] == {
        "TimeToLiveStatus": "DISABLED"
    }


@pytest.mark.usefixtures("served", "api")
def test_table_for_many_markets(dynamodb: DynamoDBClient, table_name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """With the key market_type a table has the sort key `sk`, like the template's; an existing table must have it."""
    for state in ("created; " + SWITCHED, "there already"):
        assert main([table_name, "--key", "market_type"]) == 0
        assert f"{table_name}: {state}\n" in capsys.readouterr().out
    check_settings(dynamodb, table_name, "HubsTable")
    market_data(10000003, table_name, key="market_type")
    assert main([table_name]) == 1
    assert "unfit; its keys are pk (S) and sk (S), expected only pk (S): give another name" in capsys.readouterr().out
    assert main([f"{table_name}-{{market_id}}", "--markets", "60003760", "10000002", "60003760"]) == 0
    assert "2 asked for in us-east-1: 2 created" in capsys.readouterr().out
    assert main([f"{table_name}-60003760", "--key", "market_type"]) == 1
    assert "unfit; its keys are pk (S), expected pk (S) and sk (S): give another name" in capsys.readouterr().out


def test_calls_beyond_a_limit_are_retried(
    store_url: str, monkeypatch: pytest.MonkeyPatch, dynamodb: DynamoDBClient, table_name: str
) -> None:
    """Calls that AWS refuses because of a limit are retried after a wait."""
    monkeypatch.setitem(ERRORS, "limit exceeded", (400, "LimitExceededException"))
    faults = [
        Fault("limit exceeded", where="CreateTable", times=8),
        Fault("throttled", where="UpdateContinuousBackups", times=4),
        Fault("500", where="UpdateTimeToLive", times=4),
    ]
    with recorded(store_url, monkeypatch, *faults) as calls:
        assert main([table_name]) == 0
    assert calls["CreateTable"] == 9
    check_settings(dynamodb, table_name)


def test_command_waits_for_a_new_table(
    store_url: str, monkeypatch: pytest.MonkeyPatch, dynamodb: DynamoDBClient, table_name: str
) -> None:
    """The command waits for a table that is not visible at once, then CREATING, and whose backups come later."""
    handler = type("Handler", (SlowAws,), {"store_url": store_url, "calls": Counter()})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever).start()
        monkeypatch.setenv("AWS_ENDPOINT_URL_DYNAMODB", f"http://127.0.0.1:{server.server_port}")
        assert main([table_name]) == 0
        server.shutdown()
    calls = vars(handler)["calls"]
    assert calls["DescribeTable", table_name] == 4
    assert calls["CreateTable", table_name] == 1
    assert calls["UpdateContinuousBackups", table_name] == 2
    check_settings(dynamodb, table_name)


def test_denied_access_is_reported_once(
    store_url: str, monkeypatch: pytest.MonkeyPatch, table_name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """If creating tables is denied, the command says so once, with the policy that allows it."""
    with recorded(store_url, monkeypatch, Fault("denied", where="CreateTable", times=1000)):
        assert main([table_name + "-{region_id}", "--regions", "all"]) == 1
    output = capsys.readouterr()
    (line,) = output.err.splitlines()
    assert "AccessDeniedException" in line
    assert line.endswith(
        "; deployments/aws/iam-policy-create-tables.json has what this needs: is the table among its resources?"
    )
    assert output.out == "113 asked for in us-east-1: 113 failed\n"


def test_missing_aws_region_is_reported(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Without an AWS region the command fails with one sentence."""
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    assert main(["MarketData"]) == 1
    assert (
        capsys.readouterr().err
        == "no tables: You must specify a region. (boto3 reads AWS_PROFILE, AWS_DEFAULT_REGION …)\n"
    )


def test_policy_allows_the_commands_calls(store_url: str, monkeypatch: pytest.MonkeyPatch, table_name: str) -> None:
    """The policy for creating tables allows exactly the command's calls, on the same tables as the workers'."""
    with recorded(store_url, monkeypatch) as calls:
        assert main([table_name]) == 0
    (granted,) = POLICY["Statement"]
    assert granted["Action"] == sorted(f"dynamodb:{operation}" for operation in calls)
    assert granted["Resource"] == WORKERS["Statement"][0]["Resource"]
