"""Every command and every program of docs/markets.md works as it stands there, and prints what it shows."""

import json
import re
import shlex
import uuid
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from mypy_boto3_dynamodb import DynamoDBClient

from deployments.local.market.book import make_orders
from deployments.local.market.market import Market
from tasks.catalogue.names import HUBS
from tasks.esi.credentials import load_credentials
from tasks.orders.records import Record
from tasks.table.client import Table
from tasks.table.create import create
from tasks.table.records import to_request
from tasks.table.requests import Keys
from tests.support.commands import Commands
from tests.support.pages import PAGES, find_blocks, find_commands, run, run_module
from tests.support.tables import STORED, scan, scan_markets

# Of the stand-in's orders: by hub its records, and Tritanium's price and volume.
HUB_RECORDS = {
    60003760: (15_778, 4.08, 26_781_502_513),
    60008494: (3, 4.87, 9_333_811_138),
    60011866: (3, 4.68, 16_112_331_446),
    60004588: (3, 4.02, 1_582_249_128),
    60005686: (3, 4.78, 11_028_360_996),
}


@pytest.mark.usefixtures("served", "store_url", "api")
def test_many_regions_example_runs(commands: Commands, dynamodb: DynamoDBClient) -> None:
    """The command for several regions fills their tables, here of smaller ones."""
    (command,) = [each for each in find_commands("docs/markets.md") if each.startswith("python -m flows.universe")]
    assert "2 regions in " in run_module(commands, command.replace("10000002 10000043", "10000003 10000006"))
    assert scan(dynamodb, "MarketData-10000003")["#snapshot"]["state"] == {"S": "complete"}


@pytest.mark.usefixtures("served", "store_url", "api")
def test_markets_example_runs(commands: Commands, dynamodb: DynamoDBClient, market: Market, table_name: str) -> None:
    """The command for several markets of a region fills one table, here of a smaller region and its first station."""
    (command,) = [each for each in find_commands("docs/markets.md") if each.startswith("python -m flows.market_data")]
    region_id = 10000003
    station = str(make_orders(market.seed, region_id, market.index).location_id.mode()[0])
    command = command.replace("10000002", str(region_id)).replace("60003760", station)
    printed = run_module(commands, re.sub(r"--table-name \S+", f"--table-name {table_name}", command))
    assert f"{table_name} has region {region_id}, station {station} of " in printed
    stored = scan_markets(dynamodb, table_name)
    assert {pk for pk, _sk in stored} == {str(region_id), station}
    assert all(stored[pk, "#snapshot"]["state"] == {"S": "complete"} for pk in (str(region_id), station))


@pytest.fixture(scope="module")
def hubs_table(store_url: str, dynamodb: DynamoDBClient) -> str:
    """Return a table as `universe/hubs` makes it of the stand-in's snapshot of 26 November 2026, 04:55 UTC."""
    assert store_url
    table_name = f"Hubs-{uuid.uuid4()}"
    stored_at = datetime(2026, 11, 26, 4, 55, tzinfo=UTC)
    for hub, (types, price, volume) in HUB_RECORDS.items():
        region_id = HUBS[hub].region_id
        snapshot = msgspec.structs.replace(STORED, market_id=hub, region_id=region_id, last_modified=stored_at)
        with Table(table_name, 8, Keys(hub)) as table:
            create(table)
            dynamodb.put_item(TableName=table_name, Item=snapshot.to_item(table.keys))
            # As many records as the page says Jita has; a few at the others, whose number it does not say.
            others = range(1_000_000, 1_000_000 + types - 1)
            requests = [to_request(Record(each, 1.0, 1), table.keys) for each in others]
            requests.append(to_request(Record(34, price, volume), table.keys))
            batches = [requests[start : start + 25] for start in range(0, len(requests), 25)]
            for future in [table.submit(table.write_batch, batch, lambda: None) for batch in batches]:
                future.result()
    return table_name


def test_readers_print_what_the_page_shows(hubs_table: str) -> None:
    """Each of the page's ways to read a market in Python prints what stands below it."""
    shown = re.findall(r"```python\n(.*?)```\n\n```text\n(.*?)```", PAGES["docs/markets.md"], re.DOTALL)
    assert ["read_records" in code or "read_prices" in code or "import boto3" in code for code, _ in shown] == [
        True
    ] * 3
    for code, output in shown:
        assert run(f"python - <<'PY'\n{code.replace('MarketHubs', hubs_table)}\nPY") == output
    alone = shown[2][0]
    assert "tasks" not in alone
    assert len([line for line in alone.splitlines() if line]) <= 20


@pytest.mark.usefixtures("store_url")
def test_page_reader_waits_for_a_run_that_writes(dynamodb: DynamoDBClient, table_name: str) -> None:
    """The page's program with boto3 alone takes no records of a market while `#snapshot` says `writing`."""
    (code,) = [each for each in find_blocks("docs/markets.md", "python") if "import boto3" in each]
    code = code.replace("MarketHubs", table_name).replace("(1, 2, 4, 8, 16)", "(0.01, 0.02)")
    with Table(table_name, 1, Keys(60003760)) as table:
        create(table)
        writing = msgspec.structs.replace(STORED, market_id=60003760, state="writing")
        dynamodb.put_item(TableName=table_name, Item=writing.to_item(table.keys))
    with pytest.raises(AssertionError, match="market 60003760 is still being written"):
        run(f"python - <<'PY'\n{code}\nPY")


def test_aws_commands_read_a_market(hubs_table: str, dynamodb: DynamoDBClient) -> None:
    """The page's two AWS CLI commands, whose options are those of DynamoDB's API, read `#snapshot` and the records."""
    where, records = [each for each in find_commands("docs/markets.md") if each.startswith("aws dynamodb")]
    found = call_aws(dynamodb, where.replace("MarketHubs", hubs_table))
    assert found["Item"]["state"] == {"S": "complete"}
    assert found["Item"]["market_id"] == {"N": "60003760"}
    items = call_aws(dynamodb, records.replace("MarketHubs", hubs_table))["Items"]
    tritanium = {"pk": {"S": "60003760"}, "sk": {"S": "34"}, "price": {"N": "4.08"}, "volume": {"N": "26781502513"}}
    assert tritanium in items
    assert found["Item"] in items


def call_aws(dynamodb: DynamoDBClient, command: str) -> Any:
    """Make the call of an `aws dynamodb` command, all pages of it, as the AWS CLI does."""
    _aws, _service, name, *words = shlex.split(command)
    options: dict[str, Any] = {}
    for word in words:
        if word.startswith("--"):
            option = "".join(part.capitalize() for part in word[2:].split("-"))
            options[option] = True
        else:
            options[option] = json.loads(word) if word.startswith("{") else word
    method = name.replace("-", "_")
    if dynamodb.can_paginate(method):
        return dynamodb.get_paginator(method).paginate(**options).build_full_result()  # type: ignore[call-overload]
    return getattr(dynamodb, method)(**options)


@pytest.mark.usefixtures("served", "store_url", "api")
def test_secret_example_stores_credentials() -> None:
    """The page's block is one that the flow for structures accepts."""
    (example,) = [each for each in find_blocks("docs/markets.md", "python") if "Secret" in each]
    name = f"eve-sso-{uuid.uuid4()}"
    run(f"python - <<'PY'\n{example.replace('eve-sso', name)}\nPY")
    assert load_credentials(name).client_id == "…"


def test_tables_of_markets_are_created_as_described(
    store_url: str, commands: Commands, dynamodb: DynamoDBClient, table_name: str
) -> None:
    """The page's commands create a table for many markets, and one for each of two."""
    assert store_url
    hubs, own = [each for each in find_commands("docs/markets.md") if each.startswith("python -m deployments.tables")]
    assert f"{table_name}: created" in run_module(commands, hubs.replace("MarketHubs", table_name))
    assert run_module(commands, own.replace("MarketData", table_name)).count(": created") == 2
    keys = [
        [part["AttributeName"] for part in dynamodb.describe_table(TableName=name)["Table"]["KeySchema"]]
        for name in (table_name, f"{table_name}-60003760", f"{table_name}-60008494")
    ]
    assert keys == [["pk", "sk"], ["pk"], ["pk"]]
