"""What is exposed, and what leaks: checked on what really runs."""

import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from botocore.awsrequest import AWSPreparedRequest

from deployments.local.environment import CHECKOUT
from deployments.local.market.market import Market
from deployments.local.processes import Child
from tests.support.api import Api
from tests.support.servers import is_in_database

SECRET = "planted-secret-77c1"
POLICY = json.loads(Path(CHECKOUT, "deployments/aws/iam-policy.json").read_text())


@pytest.mark.usefixtures("served", "store_url", "api")
def test_policy_allows_what_runs_call_and_no_more(
    market: Market, table_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The IAM policy's actions are those that runs make, and those of the table's key, for DynamoDB alone.

    Creating a table is left to its owner.
    """
    from flows.market_data import market_data  # noqa: PLC0415
    from flows.universe import universe  # noqa: PLC0415
    from tasks.table import connection as module  # noqa: PLC0415
    from tasks.table.client import Table  # noqa: PLC0415
    from tasks.table.create import create, describe  # noqa: PLC0415
    from tasks.table.requests import Keys  # noqa: PLC0415

    called: set[str] = set()
    from tasks.table.connection import connect  # noqa: PLC0415

    def note(request: AWSPreparedRequest, **_: object) -> None:
        target = request.headers["X-Amz-Target"]
        called.add((target.decode() if isinstance(target, bytes) else target).rsplit(".", 1)[1])

    def connect_and_note() -> object:
        connection = connect()
        connection.client.meta.events.register("before-send.dynamodb", note)
        return connection

    with Table(table_name, 1) as table:
        create(table)
    with Table(f"{table_name}-2", 1, Keys(10000003)) as table:
        create(table)
    monkeypatch.setattr(module, "connect", connect_and_note)
    market_data(10000003, table_name)
    market_data(10000003, table_name, price="max")
    market_data(10000003, f"{table_name}-2", key="market_type", markets=[10000003, 60003760])
    universe([10000003, 10000006], f"{table_name}-2", key="market_type", price="max")
    with Table("Missing", 1) as table:
        assert not describe(table)
    assert market.requests
    statement, key = POLICY["Statement"]
    assert {f"dynamodb:{name}" for name in called} == set(statement["Action"])
    tables = {resource.split("/")[-1] for resource in statement["Resource"]}
    assert tables == {"MarketData", "MarketData-*", "MarketHubs", "Markets-*", "StructureMarket-*", "PlayerCount"}
    assert key["Action"] == ["kms:Decrypt", "kms:DescribeKey"]
    assert key["Condition"] == {"StringLike": {"kms:ViaService": "dynamodb.*.amazonaws.com*"}}


@pytest.mark.usefixtures("served", "store_url")
def test_secret_is_nowhere(api: Api, table_name: str, tmp_path: Path) -> None:
    """Credentials are in no log, message, artifact, process list or row of Prefect's database, even of a failed run."""
    program = f"""
import os
from flows.market_data import market_data
market_data(10000003, {table_name!r})
os.environ["AWS_ENDPOINT_URL_DYNAMODB"] = "http://127.0.0.1:9"
import tasks.store_records, tasks.get_page_count
tasks.get_page_count.get_page_count.retries = 0
market_data(10000003, {table_name!r})
"""
    environ = os.environ | {
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_SESSION_TOKEN": SECRET,
        "PREFECT_LOGGING_LEVEL": "DEBUG",
    }
    child = Child("flow", [sys.executable, "-c", program], environ | {"PYTHONPATH": str(CHECKOUT)}, tmp_path / "log")
    listed = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    child.wait()
    log = (tmp_path / "log").read_text()
    assert "Could not connect to the endpoint URL" in log
    assert SECRET not in listed
    assert SECRET not in log
    assert api.is_up()
    for file in Path(os.environ["PREFECT_HOME"]).rglob("*"):
        assert not file.is_file() or SECRET.encode() not in file.read_bytes(), file
    assert is_in_database(table_name)
    assert not is_in_database(SECRET)


def test_everything_listens_on_this_machine_alone(api: Api, store_url: str, served: str) -> None:
    """Market, store and Prefect server answer on 127.0.0.1, and on no other address of this machine."""
    for url in (api.url, store_url, served):
        port = urlsplit(url).port
        assert port
        with pytest.raises(OSError, match="refused"):
            socket.create_connection(("127.0.0.2", port), timeout=1)


def test_foreign_origin_is_refused(api: Api) -> None:
    """The Prefect API lets pages of its own address ask, and no others."""
    own = api.url.removesuffix("/api")
    for origin, allowed in ((own, own), ("http://evil.example", None)):
        asked = {"Origin": origin, "Access-Control-Request-Method": "POST"}
        answer = httpx.options(f"{api.url}/flow_runs/filter", headers=asked, trust_env=False)
        assert answer.headers.get("access-control-allow-origin") == allowed
        answer = httpx.get(f"{api.url}/health", headers={"Origin": origin}, trust_env=False)
        assert answer.headers.get("access-control-allow-origin") == allowed


def test_locks_have_hashes_and_no_addresses() -> None:
    """Each package of the locks is pinned and has a hash; no index is named."""
    for name in ("requirements.lock", "requirements-run.lock", "deployments/local/store.lock"):
        lock = Path(CHECKOUT, name).read_text()
        packages = re.findall(r"^([A-Za-z0-9][^\s]*)", lock, re.MULTILINE)
        assert packages
        assert all("==" in package for package in packages)
        assert len(re.findall(r"^[A-Za-z0-9].*\\\n    --hash=sha256:", lock, re.MULTILINE)) == len(packages)
        assert "://" not in lock
